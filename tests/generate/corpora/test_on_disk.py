"""Corpora read from files, through the artifact and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run_command
from layout_files import layout, made, note, write, write_clotho, write_kit, write_pedes
from media_files import npy, png, sound, tone

from sclmkb.common.artifacts.plan import make_row_id
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.audio import AudioForm
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.modalities.motion import MotionForm
from sclmkb.common.tasks.retrieval_corpus import load_retrieval_split
from sclmkb.generate.corpora.on_disk import plan_corpus
from sclmkb.generate.corpora.reader import Entry, Reader


@pytest.mark.parametrize("name", ["cuhk-pedes", "icfg-pedes", "rstpreid"])
def test_pictures_by_path_embedded_and_not_at_all(tmp_path: Path, name: str) -> None:
    root = write_pedes(tmp_path / "data", name)
    artifacts = {media: made(name, root, tmp_path / media, media=media) for media in ("path", "embed", "none")}
    captions = artifacts["path"].table("captions")
    assert all(artifact.table("captions").equals(captions) for artifact in artifacts.values())
    assert set(captions["wording"].to_pylist()) == {"caption"}
    assert captions["row_id"][0].as_py() == make_row_id(name, "train", "train/p0-0.png", 0)
    for media, artifact in artifacts.items():
        items = artifact.table("items").to_pylist()
        assert len(items) == 12
        files = [root / item["media"]["path"] for item in items] if media != "none" else []
        assert [item["media"]["bytes"] for item in items] == (
            [file.read_bytes() for file in files] if media == "embed" else [None] * 12
        )
        assert not artifact.table("problems").num_rows
        assert artifact.counts() == {"ok": 12, "quarantined": 0}
    splits = [load_retrieval_split(artifacts[media], "test", PictureForm(size=8)) for media in ("path", "embed")]
    everything = torch.arange(len(splits[0].media))
    assert splits[0].media.take(everything).values.equal(splits[1].media.take(everything).values)
    assert len(splits[0].with_wording("same")) == 8


def test_missing_and_broken_pictures_are_quarantined_by_row(tmp_path: Path) -> None:
    root = write_pedes(tmp_path / "data")
    (root / "imgs" / "train" / "p0-1.png").unlink()
    write(root / "imgs" / "test" / "p5-0.png", png((1, 1, 1))[:-30])
    artifact = made("cuhk-pedes", root, tmp_path / "out")
    problems = artifact.table("problems").to_pylist()
    assert [(p["split"], p["file"], p["row"], p["item"]) for p in problems] == [
        ("train", "reid_raw.json", 2, "train/p0-1.png"),
        ("test", "reid_raw.json", 11, "test/p5-0.png"),
    ]
    assert "No such file" in problems[0]["reason"]
    assert "no readable picture" in problems[1]["reason"]
    assert artifact.counts() == {"ok": 10, "quarantined": 2}
    identities = artifact.table("captions", "train")["identity"].to_pylist()
    assert identities.count("1") == 2  # the captions of the other picture


def test_motion_is_decoded_at_its_rate_and_that_of_another_width_is_quarantined(tmp_path: Path) -> None:
    items = {"train": "00001", "val": "00002", "test": "00003"}
    root = write_kit(tmp_path / "kit", items, dict.fromkeys(items.values(), note("A person walks.")))
    for split, item in items.items():
        write(root / "new_joint_vecs" / f"{item}.npy", npy(np.full((26, 263 if split == "val" else 251), 2.0)))
    artifact = made("kit-ml", root, tmp_path / "out")
    paths = [item["media"]["path"] for item in artifact.table("items").to_pylist()]
    assert paths == ["new_joint_vecs/00001.npy", "new_joint_vecs/00003.npy"]
    (problem,) = artifact.table("problems").to_pylist()
    assert (problem["item"], problem["split"]) == ("00002", "val")
    assert "[26, 263], not [frames, 251]" in problem["reason"]
    split = load_retrieval_split(artifact, "test", MotionForm(num_frames=64, frames_per_second=25))
    values, length = split.media.take(torch.tensor([0]))
    assert (values.shape, length.tolist()) == ((1, 64, 251), [51])
    assert values[:, :51].unique().tolist() == [2.0]


@pytest.mark.parametrize("folder", ["", "audio", "clotho_audio_files"])
def test_sounds_are_found_below_the_usual_folders_and_missing_ones_counted(tmp_path: Path, folder: str) -> None:
    root = write_clotho(tmp_path / "data", "evaluation", ["a.wav", "b.wav", "c.wav"])
    for name, seconds in {"a": 2, "c": 0.5}.items():
        write(root / folder / "evaluation" / f"{name}.wav", sound(tone(440, seconds, 44100), 44100))
    artifact = made("clotho", root, tmp_path / "out", splits=["test"])
    assert artifact.counts() == {"ok": 2, "quarantined": 1}
    path = artifact.table("items")["media"][0].as_py()["path"]
    assert path == f"{folder}/evaluation/a.wav".removeprefix("/")
    split = load_retrieval_split(artifact, "test", AudioForm(seconds=1, num_mels=32))
    assert len(split.texts) == 10
    assert split.media.take(torch.tensor([0, 1])).length.tolist() == [98, 48]
    assert (split.caption_identity[:1, None] == split.media_identity).tolist() == [[True, False]]


def test_a_table_of_joints_says_their_rate(tmp_path: Path) -> None:
    write(tmp_path / "a.npy", npy(np.zeros((41, 22, 3), dtype=np.float32)))
    write(tmp_path / "rows.jsonl", [{"caption": "A man jumps.", "file": "a.npy", "split": "test"}])
    settings = {"columns": {"media": "file", "split": "split"}, "media": "path", "frames_per_second": 20}
    corpus = made("table", tmp_path / "rows.jsonl", tmp_path / "out", **settings)
    split = load_retrieval_split(corpus, "test", MotionForm(frames_per_second=10))
    assert split.media.shape == (64, 66)
    assert split.media.take(torch.tensor([0])).length.tolist() == [21]


def test_every_problem_of_the_annotations_is_in_the_table(tmp_path: Path) -> None:
    root = write_pedes(tmp_path / "data", "rstpreid")
    entries = json.loads((root / "data_captions.json").read_text())
    entries[3]["captions"][0] = " "
    entries[4]["split"] = "dev"
    write(root / "data_captions.json", json.dumps(entries)[:-30])
    artifact = made("rstpreid", root, tmp_path / "out", shard_size=3)
    problems = artifact.table("problems").to_pylist()
    assert sorted((p["row"], p["split"]) for p in problems) == [(4, "train"), (5, ""), (12, "")]
    assert artifact.table("items").num_rows == 10


def test_one_shard_is_held_at_a_time_and_an_interrupted_corpus_goes_on(tmp_path: Path) -> None:
    root = write_pedes(tmp_path / "data")
    (root / "imgs" / "train" / "p3-1.png").unlink()
    settings = {"media": "embed", "shard_size": 2}
    whole = made("cuhk-pedes", root, tmp_path / "whole", **settings)
    reader, out = layout("cuhk-pedes", root, **settings), tmp_path / "cut"
    calls: list[Entry] = []

    def stop(entry: Entry) -> bytes:
        calls.append(entry)
        committed = len(list((out / "manifests").glob("*.json")))
        assert len(calls) <= 2 * (committed + 1), "no picture of the next shard is read before this one is written"
        if len(calls) == 6:
            raise KeyboardInterrupt
        return Reader.read_media(reader, entry)

    reader.read_media = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        plan_corpus(reader, out).run_here()
    calls.clear()
    reader.read_media = lambda entry: calls.append(entry) or Reader.read_media(reader, entry)  # type: ignore
    again = plan_corpus(reader, out).run_here()
    assert len(calls) == 8, "the two committed shards are not read again"
    assert again.fingerprint == whole.fingerprint


def test_the_first_items_of_each_split_are_enough_to_try_things_out(tmp_path: Path) -> None:
    root = write_pedes(tmp_path / "data")
    whole, few = made("cuhk-pedes", root, tmp_path / "whole"), made("cuhk-pedes", root, tmp_path / "few", max_items=3)
    for split in ("train", "test"):
        for table in ("items", "captions"):
            taken = few.table(table, split).to_pylist()
            assert taken == whole.table(table, split).to_pylist()[: len(taken)]
        assert len(few.table("items", split)) == 3
    assert few.counts() == {"ok": 6, "quarantined": 0}


def test_changed_annotations_are_another_run(tmp_path: Path) -> None:
    root = write_pedes(tmp_path / "data")
    made("cuhk-pedes", root, tmp_path / "out", media="none")
    write(root / "reid_raw.json", (root / "reid_raw.json").read_text() + "\n")
    with pytest.raises(UserError, match=r"reid_raw\.json"):
        made("cuhk-pedes", root, tmp_path / "out", media="none")


def test_the_command_says_what_it_wrote_and_left_out(tmp_path: Path) -> None:
    root = write_pedes(tmp_path / "data", "icfg-pedes")
    (root / "imgs" / "train" / "p0-0.png").unlink()
    done = run_command(f"sclmkb-gen corpus icfg-pedes --root {root} --out {tmp_path / 'c'}")
    assert done.code == 0
    assert "train holds 4 identities, 7 items, 14 captions" in done.err
    assert "1 problems, left out of the corpus; the first: ICFG-PEDES.json row 1: imgs/train/p0-0.png: No" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("corpus cuhk-pedes", "needs --root"),
        ("corpus cuhk-pedes --root {tmp} --max-groups 3", "takes no --max-groups"),
        ("corpus people-emoji --root {tmp}", "takes no --root"),
        ("corpus coco --root {tmp}", "rstpreid, kit-ml, bandai-motion, clotho, esc10, "),
        ("corpus cuhk-pedes --root {tmp}", "reid_raw.json is missing"),
        ("corpus kit-ml --root {tmp} --set media=all", "setting 'kit-ml.media' = 'all'"),
        ("export --sdg {tmp}/none --corpus {tmp}/none", "no corpus artifact"),
        ("export --sdg {tmp} --corpus {tmp} --format coco", "unknown format 'coco': choose one of jsonl, cuhk-pedes"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_command(f"sclmkb-gen {arguments.replace('{tmp}', str(tmp_path))}")
    assert (done.code, done.err.count("error:")) == (2, 1)
    assert message in done.err
    assert "Traceback" not in done.err
