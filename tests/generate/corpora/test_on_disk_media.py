"""Corpora of motion and sound, from their layouts through the artifact to decoded items; the files are made by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from PIL import Image

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import SDG_ROWS
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.audio import AudioForm
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.modalities.motion import Motion, MotionForm
from sclmkb.common.modalities.store import media_kind
from sclmkb.common.tasks.retrieval_corpus import load_retrieval_split
from sclmkb.generate.corpora.export import export
from sclmkb.generate.corpora.on_disk import plan_corpus
from sclmkb.generate.corpora.readers.bandai_motion import write_captions
from sclmkb.generate.corpora.readers.base import Reader
from sclmkb.generate.corpora.readers.layouts import LAYOUTS

DATA = Path(__file__).parents[4] / "shared" / "data"
CONTENTS, STYLES = ("walk", "run", "raise-up-left-hand", "dance"), ("active", "elderly", "proud")
NUM_JOINTS = 4


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(tmp_path / "cache"))


def make(name: str, root: Path, **settings: Any) -> Reader:
    layout = LAYOUTS[name]
    return layout(root, layout.settings_type.model_validate(settings))


def write_motion(root: Path, clips: int = 3) -> Path:
    root.mkdir()
    rows, joints = [], {}
    draw = np.random.default_rng(0)
    for content in CONTENTS:
        for style in STYLES:
            for number in range(clips):
                clip = f"{content}_{style}_{number}"
                joints[clip] = draw.normal(size=(20 + number, NUM_JOINTS, 3)).astype(np.float16)
                rows.append({"id": clip, "content": content, "style": style, "fps": 30.0, "dataset": "d"})
    (root / "meta.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    np.savez_compressed(root / "joints.npz", **joints)
    (root / "skeleton.json").write_text(json.dumps({"joints": list("abcd"), "parents": [-1, 0, 1, 1]}))
    return root


def write_sound(path: Path, hz: float = 440, seconds: float = 0.5, rate: int = 22050) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate), rate)


def write_esc10(root: Path) -> Path:
    rows = []
    titles = {"Dog bark": ["dogs.aiff", "My Dog George.wav"], "Rain": ["rain.wav", "20090101.wav"]}
    for fold in (1, 2, 3):
        for number, (label, names) in enumerate(titles.items()):
            for recording, title in enumerate(names):
                for part in "AB":
                    file = f"{number:03d}/{fold}-{100 * fold + 10 * number + recording}-{part}.ogg"
                    write_sound(root / file, hz=200 + 300 * number)
                    rows.append(
                        {"file": file, "label": label, "title": title, "author": "x", "licence": "CC0", "fold": fold}
                    )
    (root / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return root


# Bandai-Namco motion


def test_motion_is_split_by_pair_and_only_test_knows_other_wordings(tmp_path: Path) -> None:
    root = write_motion(tmp_path / "data")
    corpus = plan_corpus(make("bandai-motion", root), tmp_path / "out").run_here()
    assert corpus.counts() == {"ok": 36, "quarantined": 0}
    notes = corpus.plan.notes
    assert (notes["frames_per_second"], notes["skeleton"]["parents"]) == (30.0, [-1, 0, 1, 1])
    assert media_kind(corpus) == "motion"
    pairs = {split: set(corpus.table("items", split)["identity"].to_pylist()) for split in ("train", "val", "test")}
    assert {split: len(found) for split, found in pairs.items()} == {"train": 7, "val": 2, "test": 3}
    assert len(set.union(*pairs.values())) == 12
    for split, wordings in {"train": ["label"], "test": ["label", "sentence", "everyday"]}.items():
        captions = corpus.table("captions", split).to_pylist()
        assert [c["wording"] for c in captions] == wordings * len(pairs[split])
        assert {c["identity"] for c in captions} == pairs[split]
    test = load_retrieval_split(corpus, "test", MotionForm(num_frames=16))
    assert test.media.shape == (16, 3 * NUM_JOINTS)
    assert test.relevant(test.with_wording("same")).sum(1).tolist() == [3, 3, 3]
    other = plan_corpus(make("bandai-motion", root, seed=1), tmp_path / "other").run_here()
    assert set(other.table("items", "test")["identity"].to_pylist()) != pairs["test"]


def test_captions_stay_when_the_clip_they_were_told_with_is_quarantined(tmp_path: Path) -> None:
    root = write_motion(tmp_path / "data")
    joints = dict(np.load(root / "joints.npz"))
    del joints["walk_active_0"]
    joints["run_elderly_0"] = joints["run_elderly_0"][:, :2]
    joints["dance_proud_1"] = np.full((5, NUM_JOINTS, 3), np.inf, dtype=np.float16)
    np.savez(root / "joints.npz", **joints)
    corpus = plan_corpus(make("bandai-motion", root), tmp_path / "out").run_here()
    assert corpus.counts() == {"ok": 33, "quarantined": 3}
    reasons = {p["item"]: p["reason"] for p in corpus.table("problems").to_pylist()}
    assert reasons["walk_active_0"].endswith("not in joints.npz")
    assert reasons["run_elderly_0"].endswith("not [frames, 4, 3]")
    assert reasons["dance_proud_1"].endswith("finite numbers")
    captions = corpus.table("captions").to_pylist()
    assert len({c["identity"] for c in captions}) == 12


def test_broken_lines_and_files_of_motion_are_told(tmp_path: Path) -> None:
    root = write_motion(tmp_path / "data")
    meta = (root / "meta.jsonl").read_text().splitlines()
    meta[0], meta[1], meta[2] = meta[0][:-5], '{"id": "x"}', meta[2].replace("30.0", "60.0")
    (root / "meta.jsonl").write_text("\n".join(meta))
    corpus = plan_corpus(make("bandai-motion", root), tmp_path / "out").run_here()
    problems = corpus.table("problems").to_pylist()
    assert [p["row"] for p in problems] == [1, 2, 3]
    assert "60.0 frames a second where others have 30.0" in problems[2]["reason"]
    (root / "joints.npz").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="is no NumPy archive"):
        plan_corpus(make("bandai-motion", root), tmp_path / "other").run_here()
    (root / "joints.npz").unlink()
    with pytest.raises(UserError, match="media=none reads the captions alone"):
        plan_corpus(make("bandai-motion", root), tmp_path / "other").run_here()
    alone = plan_corpus(make("bandai-motion", root, media="none"), tmp_path / "alone").run_here()
    with pytest.raises(UserError, match="captions alone"):
        media_kind(alone)


def test_every_wording_names_content_and_style() -> None:
    assert write_captions("raise-up-left-hand", "normal")[:2] == [
        "a person raises up the left hand in a normal manner",
        "in a normal way, someone is raising up the left hand",
    ]
    assert write_captions("punch", "proud") == [
        "a person punches in a proud manner",
        "in a proud way, someone is punching",
        "somebody punches, in a proud mood",
    ]


def test_shared_captions_are_exported_for_no_single_item(tmp_path: Path) -> None:
    corpus = plan_corpus(make("bandai-motion", write_motion(tmp_path / "data")), tmp_path / "out").run_here()
    row_ids = corpus.table("captions", "train")["row_id"].to_pylist()
    shards = make_shards("train", row_ids, 100)
    run = Run.open(tmp_path / "sdg", Plan(kind="sdg", tables={"rows": SDG_ROWS}, settings={}, shards=shards, inputs={}))
    blank = {
        "state": "rejected", "num_attempts": 1, "num_samples": 1, "captions": [], "similarities": [], "error": "",
        "identity": "", "split": "train", "source_text": "",
    }  # fmt: skip
    rows = [{**blank, "row_id": row_id} for row_id in row_ids]
    run.commit_shard(shards[0], {"rows": pa.Table.from_pylist(rows, schema=SDG_ROWS)})
    run.finish("Generated", "For tests.")
    done = export(corpus.root, tmp_path / "sdg", tmp_path / "x.jsonl", "jsonl")
    assert done.items == 36
    assert {json.loads(line)["item"] for line in (tmp_path / "x.jsonl").read_text().splitlines()} == {None}


# ESC-10


@pytest.mark.parametrize("media", ["path", "embed"])
def test_sounds_are_split_by_fold_and_titles_are_other_wordings(tmp_path: Path, media: str) -> None:
    corpus = plan_corpus(make("esc10", write_esc10(tmp_path / "data"), media=media), tmp_path / "out").run_here()
    assert media_kind(corpus) == "audio"
    told = [(c["identity"], c["wording"], c["text"]) for c in corpus.table("captions").to_pylist()]
    assert told[:2] == [("train/dog bark", "label", "dog bark"), ("train/rain", "label", "rain")]
    assert [t for t in told if t[0].startswith("test/")] == [
        ("test/dog bark", "label", "dog bark"),
        ("test/dog bark", "sentence", "a dog is barking"),
        ("test/dog bark", "title", "dogs"),
        ("test/dog bark", "title", "my dog george"),
        ("test/rain", "label", "rain"),
        ("test/rain", "sentence", "rain falls steadily on the ground"),
    ]
    split = load_retrieval_split(corpus, "test", AudioForm(seconds=1))
    assert split.media.shape == (98, 64)
    assert split.relevant(torch.arange(len(split.texts))).sum(1).tolist() == [4] * 6
    assert split.media.take(torch.tensor([0])).length.tolist() == [48]
    groups = corpus.table("items", "test")["group"].to_pylist()
    assert groups == [f"freesound {n}" for n in (300, 300, 301, 301, 310, 310, 311, 311)]


def test_folds_can_be_chosen_and_broken_sounds_are_quarantined(tmp_path: Path) -> None:
    root = write_esc10(tmp_path / "data")
    (root / "000" / "2-200-A.ogg").write_bytes(b"OggS broken")
    corpus = plan_corpus(make("esc10", root, val_fold=3, test_fold=1), tmp_path / "out").run_here()
    assert corpus.counts() == {"ok": 23, "quarantined": 1}
    assert {i["media"]["path"].split("/")[1][0] for i in corpus.table("items", "test").to_pylist()} == {"1"}
    assert "train/dog bark" in corpus.table("captions", "train")["identity"].to_pylist()
    (problem,) = corpus.table("problems").to_pylist()
    assert (problem["row"], problem["split"]) == (9, "train")
    assert "no readable sound" in problem["reason"]
    # A file that breaks after the corpus was made is left out by the store.
    (root / "000" / "1-100-A.ogg").write_bytes(b"OggS broken")
    split = load_retrieval_split(corpus, "test", AudioForm(seconds=1))
    assert [item for item, _ in split.media.quarantined] == ["1-100-A"]
    assert split.relevant(torch.tensor([0])).sum() == 3


# The official layouts, through the store


def test_pedes_pictures_are_decoded(tmp_path: Path) -> None:
    entries = []
    for person, split in enumerate(("train", "val", "test")):
        for number in range(2):
            path = f"{split}/{person}-{number}.jpg"
            (tmp_path / "data" / "imgs" / split).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 40), (60 * person, 0, 0)).save(tmp_path / "data" / "imgs" / path)
            entries.append({"split": split, "captions": ["He walks.", "He runs."], "file_path": path, "id": person + 1})
    (tmp_path / "data" / "reid_raw.json").write_text(json.dumps(entries))
    corpus = plan_corpus(make("cuhk-pedes", tmp_path / "data"), tmp_path / "out").run_here()
    split = load_retrieval_split(corpus, "test", PictureForm(size=16))
    values = split.media.take(torch.tensor([0, 1])).values
    assert values.shape == (2, 3, 16, 16)
    assert values[:, 0].float().mean().item() == pytest.approx(120, abs=3)
    assert split.relevant(torch.arange(4)).all()


def test_kit_features_are_decoded_at_their_rate(tmp_path: Path) -> None:
    root, notes = tmp_path / "data", {}
    (root / "splits").mkdir(parents=True)
    (root / "new_joint_vecs").mkdir()
    for i, split in enumerate(("train", "val", "test")):
        (root / "splits" / f"{split}.txt").write_text(f"0000{i}\nM0000{i}\n")
        for item in (f"0000{i}", f"M0000{i}"):
            np.save(root / "new_joint_vecs" / f"{item}.npy", np.full((26, 251), i, dtype=np.float32))
            notes[item] = {"annotations": [{"text": "A person walks."}]}
    (root / "annotations.json").write_text(json.dumps(notes))
    corpus = plan_corpus(make("kit-ml", root), tmp_path / "out").run_here()
    split = load_retrieval_split(corpus, "test", MotionForm(num_frames=32, frames_per_second=25))
    values, length = split.media.take(torch.tensor([0, 1]))
    assert values.shape == (2, 32, 251)
    assert length.tolist() == [32, 32]  # of 51
    assert values.unique().tolist() == [2.0]


def test_clotho_sounds_are_decoded_and_missing_ones_counted(tmp_path: Path) -> None:
    header = "file_name," + ",".join(f"caption_{i}" for i in range(1, 6))
    lines = [f"{name}.wav," + ",".join(f"A {name} is heard {i} times." for i in range(5)) for name in "abc"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "clotho_captions_evaluation.csv").write_text("\n".join([header, *lines]))
    write_sound(tmp_path / "data" / "evaluation" / "a.wav", seconds=2, rate=44100)
    write_sound(tmp_path / "data" / "evaluation" / "c.wav", seconds=0.5, rate=44100)
    corpus = plan_corpus(make("clotho", tmp_path / "data", splits=["test"]), tmp_path / "out").run_here()
    assert corpus.counts() == {"ok": 2, "quarantined": 1}
    split = load_retrieval_split(corpus, "test", AudioForm(seconds=1, num_mels=32))
    assert len(split.texts) == 10
    assert split.media.take(torch.tensor([0, 1])).length.tolist() == [98, 48]
    assert split.relevant(torch.tensor([0])).tolist() == [[True, False]]


def test_a_table_of_joints_says_their_rate(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((41, 22, 3), dtype=np.float32))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"caption": "A man jumps.", "file": "a.npy", "split": "test"}))
    columns = {"media": "file", "split": "split"}
    reader = make("table", tmp_path / "rows.jsonl", columns=columns, media="path", frames_per_second=20)
    corpus = plan_corpus(reader, tmp_path / "out").run_here()
    split = load_retrieval_split(corpus, "test", MotionForm(frames_per_second=10))
    assert split.media.shape == (64, 66)
    assert split.media.take(torch.tensor([0])).length.tolist() == [21]


# Real data


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("name", "folder", "settings", "form", "items", "texts", "quarantined"),
    [
        ("bandai-motion", "bandai_motion", {}, MotionForm(frames_per_second=10), 216, 54, 0),
        ("esc10", "esc10", {}, AudioForm(), 80, 75, 0),
        ("clotho", "clotho", {"splits": ["test"]}, AudioForm(seconds=30), 7, 35, 1038),
    ],
)
def test_real_data_is_decoded(
    tmp_path: Path, name: str, folder: str, settings: Any, form: Any, items: int, texts: int, quarantined: int
) -> None:
    corpus = plan_corpus(make(name, DATA / folder, **settings), tmp_path / "out").run_here()
    assert corpus.counts()["quarantined"] == quarantined
    split = load_retrieval_split(corpus, "test", form)
    assert (len(split.media), len(split.texts), split.media.quarantined) == (items, texts, [])
    values, length = split.media.take(torch.arange(items))
    assert values.isfinite().all()
    assert int(length.min()) > 10
    used = [set(corpus.table("items", s)["group"].to_pylist()) for s in corpus.splits]
    assert sum(len(g) for g in used) == len(set.union(*used)), "no group is in two splits"


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_an_official_feature_file_is_decoded(tmp_path: Path) -> None:
    (path,) = (DATA / "humanml3d_sample" / "new_joint_vecs").glob("*.npy")
    (joints,) = (DATA / "humanml3d_sample" / "new_joints").glob("*.npy")
    features, length = Motion().decode(path.read_bytes(), MotionForm(num_frames=400), None)
    np.testing.assert_array_equal(features[:length], np.load(path))
    assert Motion().decode(joints.read_bytes(), MotionForm(), None)[0].shape == (64, 66)


def test_an_artifact_says_nothing_of_where_the_data_lie(tmp_path: Path) -> None:
    corpus = plan_corpus(make("esc10", write_esc10(tmp_path / "data")), tmp_path / "out").run_here()
    assert str(tmp_path) not in json.dumps(corpus.describe())
    assert Artifact.open(corpus.root, "corpus").plan.notes["root"] == str(tmp_path / "data")
