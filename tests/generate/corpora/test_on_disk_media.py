"""Corpora with labels instead of captions, motion and sound, up to decoded items."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layout_files import DATA, made, real_data, write
from media_files import sound, tone

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.audio import AudioForm
from sclmkb.common.modalities.motion import Motion, MotionForm, motion_problem
from sclmkb.common.modalities.store import media_kind
from sclmkb.common.tasks.retrieval_corpus import load_retrieval_split
from sclmkb.generate.corpora.readers.bandai_motion import write_captions

CONTENTS, STYLES = ("walk", "run", "raise-up-left-hand", "dance"), ("active", "elderly", "proud")
NUM_JOINTS = 4


@pytest.fixture
def motion(tmp_path: Path) -> Path:
    """Write twelve pairs of content and style, three clips each, as Bandai-Namco motion."""
    draw = np.random.default_rng(0)
    rows = [
        {"id": f"{content}_{style}_{number}", "content": content, "style": style, "fps": 30.0, "dataset": "d"}
        for content in CONTENTS
        for style in STYLES
        for number in range(3)
    ]
    write(tmp_path / "data" / "skeleton.json", {"joints": list("abcd"), "parents": [-1, 0, 1, 1]})
    joints = {row["id"]: draw.normal(size=(20, NUM_JOINTS, 3)).astype(np.float16) for row in rows}
    np.savez_compressed(tmp_path / "data" / "joints.npz", **joints)  # type: ignore[arg-type]
    return write(tmp_path / "data" / "meta.jsonl", rows)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Write two classes in three folds, two recordings each in two parts, as ESC-10."""
    rows = []
    titles = {"Dog bark": ["dogs.aiff", "My Dog George.wav"], "Rain": ["rain.wav", "20090101.wav"]}
    for fold in (1, 2, 3):
        for number, (label, names) in enumerate(titles.items()):
            for recording, title in enumerate(names):
                for part in "AB":
                    file = f"{number:03d}/{fold}-{100 * fold + 10 * number + recording}-{part}.ogg"
                    write(tmp_path / "data" / file, sound(tone(200 + 300 * number, 0.5, 22050), 22050, "OGG"))
                    rows.append({"file": file, "label": label, "title": title, "author": "x", "fold": fold})
    return write(tmp_path / "data" / "captions.jsonl", rows)


def test_motion_is_split_by_pair_and_only_test_knows_other_wordings(motion: Path, tmp_path: Path) -> None:
    corpus = made("bandai-motion", motion, tmp_path / "out")
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
    assert (test.caption_identity[test.with_wording("same"), None] == test.media_identity).sum(1).tolist() == [3, 3, 3]
    other = made("bandai-motion", motion, tmp_path / "other", seed=1)
    assert set(other.table("items", "test")["identity"].to_pylist()) != pairs["test"]


def test_captions_stay_when_the_clip_they_were_told_with_is_quarantined(motion: Path, tmp_path: Path) -> None:
    joints = dict(np.load(motion / "joints.npz"))
    del joints["walk_active_0"]
    joints["run_elderly_0"] = joints["run_elderly_0"][:, :2]
    joints["dance_proud_1"] = np.full((5, NUM_JOINTS, 3), np.inf, dtype=np.float16)
    np.savez(motion / "joints.npz", **joints)
    corpus = made("bandai-motion", motion, tmp_path / "out")
    assert corpus.counts() == {"ok": 33, "quarantined": 3}
    reasons = {p["item"]: p["reason"] for p in corpus.table("problems").to_pylist()}
    assert reasons["walk_active_0"].endswith("not in joints.npz")
    assert reasons["run_elderly_0"].endswith("not [frames, 4, 3]")
    assert reasons["dance_proud_1"].endswith("finite numbers")
    assert len(set(corpus.table("captions")["identity"].to_pylist())) == 12


def test_broken_lines_and_files_of_motion_are_told(motion: Path, tmp_path: Path) -> None:
    meta = (motion / "meta.jsonl").read_text().splitlines()
    meta[0], meta[1], meta[2] = meta[0][:-5], '{"id": "x"}', meta[2].replace("30.0", "60.0")
    write(motion / "meta.jsonl", "\n".join(meta))
    problems = made("bandai-motion", motion, tmp_path / "out").table("problems").to_pylist()
    assert [p["row"] for p in problems] == [1, 2, 3]
    assert "60.0 frames a second where others have 30.0" in problems[2]["reason"]
    write(motion / "joints.npz", b"PK nothing")
    with pytest.raises(UserError, match="is no NumPy archive"):
        made("bandai-motion", motion, tmp_path / "other")
    (motion / "joints.npz").unlink()
    with pytest.raises(UserError, match="media=none reads the captions alone"):
        made("bandai-motion", motion, tmp_path / "other")
    with pytest.raises(UserError, match="captions alone"):
        media_kind(made("bandai-motion", motion, tmp_path / "alone", media="none"))


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


@pytest.mark.parametrize("media", ["path", "embed"])
def test_sounds_are_split_by_fold_and_titles_are_other_wordings(sounds: Path, tmp_path: Path, media: str) -> None:
    corpus = made("esc10", sounds, tmp_path / "out", media=media)
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
    assert (split.caption_identity[:, None] == split.media_identity).sum(1).tolist() == [4] * 6
    assert split.media.take(torch.tensor([0])).length.tolist() == [48]
    groups = corpus.table("items", "test")["group"].to_pylist()
    assert groups == [f"freesound {n}" for n in (300, 300, 301, 301, 310, 310, 311, 311)]


def test_folds_can_be_chosen_and_broken_sounds_are_quarantined(sounds: Path, tmp_path: Path) -> None:
    write(sounds / "000" / "2-200-A.ogg", b"OggS broken")
    corpus = made("esc10", sounds, tmp_path / "out", val_fold=3, test_fold=1)
    assert corpus.counts() == {"ok": 23, "quarantined": 1}
    assert {i["media"]["path"].split("/")[1][0] for i in corpus.table("items", "test").to_pylist()} == {"1"}
    assert "train/dog bark" in corpus.table("captions", "train")["identity"].to_pylist()
    (problem,) = corpus.table("problems").to_pylist()
    assert (problem["row"], problem["split"]) == (9, "train")
    assert "no readable sound" in problem["reason"]
    # A file that breaks after the corpus was made is left out by the store.
    write(sounds / "000" / "1-100-A.ogg", b"OggS broken")
    split = load_retrieval_split(corpus, "test", AudioForm(seconds=1))
    assert [item for item, _ in split.media.quarantined] == ["1-100-A"]
    assert (split.media_identity == split.caption_identity[0]).sum() == 3
    assert str(tmp_path) not in json.dumps(corpus.describe()), "an artifact says nothing of where the data lie"
    assert Artifact.open(corpus.root, "corpus").plan.notes["root"] == str(sounds)
    with pytest.raises(ValueError, match="must differ"):
        made("esc10", sounds, tmp_path / "same", val_fold=3)


@real_data
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
    corpus = made(name, DATA / folder, tmp_path / "out", **settings)
    assert corpus.counts()["quarantined"] == quarantined
    split = load_retrieval_split(corpus, "test", form)
    assert (len(split.media), len(split.texts), split.media.quarantined) == (items, texts, [])
    values, length = split.media.take(torch.arange(items))
    assert values.isfinite().all()
    assert int(length.min()) > 10
    used = [set(corpus.table("items", s)["group"].to_pylist()) for s in corpus.splits]
    assert sum(len(g) for g in used) == len(set.union(*used)), "no group is in two splits"


@real_data
def test_an_official_feature_file_is_decoded() -> None:
    (path,) = (DATA / "humanml3d_sample" / "new_joint_vecs").glob("*.npy")
    (joints,) = (DATA / "humanml3d_sample" / "new_joints").glob("*.npy")
    features, length = Motion().decode(path.read_bytes(), MotionForm(num_frames=400), None)
    np.testing.assert_array_equal(features[:length], np.load(path))
    assert motion_problem(path.read_bytes(), 263) == ""
    assert "not [frames, 251]" in motion_problem(path.read_bytes(), 251)
    assert Motion().decode(joints.read_bytes(), MotionForm(), None)[0].shape == (64, 66)
