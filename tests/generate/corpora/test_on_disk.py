"""Corpora read from files, through the artifact and the commands; the pictures are made by hand."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, make_row_id, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import SDG_ROWS
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.tasks.retrieval_corpus import load_retrieval_split
from sclmkb.generate import cli
from sclmkb.generate.corpora.export import FORMATS, export
from sclmkb.generate.corpora.on_disk import corpus_lines, plan_corpus
from sclmkb.generate.corpora.readers.base import Entry, Reader
from sclmkb.generate.corpora.readers.layouts import LAYOUTS

DATA = Path(__file__).parents[4] / "shared" / "data"
PEDES = {"cuhk-pedes": "file_path", "icfg-pedes": "file_path", "rstpreid": "img_path"}


def make(name: str, root: Path, **settings: Any) -> Reader:
    layout = LAYOUTS[name]
    return layout(root, layout.settings_type.model_validate(settings))


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (16, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_pedes(root: Path, name: str, num_people: int = 6, pictures: int = 2) -> Path:
    """Write a person set in its official layout: two thirds of the people in training, two pictures each."""
    layout = LAYOUTS[name]
    first, entries = layout.first_id, []  # type: ignore[attr-defined]
    for person in range(num_people):
        split = "train" if person < 2 * num_people // 3 else "test"
        for number in range(pictures):
            path = f"{split}/p{person}-{number}.png"
            captions = [f"Person {person} walks by, seen by camera {number}.", f"Somebody called {person}."]
            entries.append({"split": split, "captions": captions, PEDES[name]: path, "id": first + person})
            (root / "imgs" / split).mkdir(parents=True, exist_ok=True)
            (root / "imgs" / path).write_bytes(picture(len(entries)))
    (root / layout.annotations).write_text(json.dumps(entries))  # type: ignore[attr-defined]
    return root


def write_sdg(corpus: Artifact, root: Path) -> Path:
    """Write an artifact of generated captions: every third row of every split rejected, the others with two."""
    captions = corpus.table("captions").to_pylist()
    shards = [
        shard
        for split in corpus.splits
        for shard in make_shards(split, [c["row_id"] for c in captions if c["split"] == split], 10**6)
    ]
    run = Run.open(root, Plan(kind="sdg", tables={"rows": SDG_ROWS}, settings={}, shards=shards, inputs={}))
    for shard in shards:
        own = [c for c in captions if c["split"] == shard.split]
        rows = [
            {
                "row_id": c["row_id"],
                "identity": c["identity"],
                "split": c["split"],
                "source_text": c["text"],
                "state": "rejected" if i % 3 == 2 else "ok",
                "num_attempts": 1,
                "num_samples": 2,
                "captions": [] if i % 3 == 2 else [f"Rewritten: {c['text']}", f"Again: {c['text']}"],
                "similarities": [] if i % 3 == 2 else [0.9, 0.8],
                "error": "",
            }
            for i, c in enumerate(own)
        ]
        run.commit_shard(shard, {"rows": pa.Table.from_pylist(rows, schema=SDG_ROWS)})
    run.finish("Generated", "For tests.")
    return root


def command(arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["sclmkb-gen", *arguments.split()])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("name", PEDES)
def test_pictures_by_path_embedded_and_not_at_all(tmp_path: Path, name: str) -> None:
    root = write_pedes(tmp_path / "data", name)
    made = {
        media: plan_corpus(make(name, root, media=media), tmp_path / media).run_here()
        for media in ("path", "embed", "none")
    }
    captions = made["path"].table("captions")
    assert all(artifact.table("captions").equals(captions) for artifact in made.values())
    assert set(captions["wording"].to_pylist()) == {"caption"}
    rows = captions.to_pylist()
    assert rows[0]["row_id"] == make_row_id(name, "train", "train/p0-0.png", 0)
    for media, artifact in made.items():
        items = artifact.table("items").to_pylist()
        assert len(items) == 12
        files = [root / item["media"]["path"] for item in items] if media != "none" else []
        assert [item["media"]["bytes"] for item in items] == (
            [file.read_bytes() for file in files] if media == "embed" else [None] * 12
        )
        assert not artifact.table("problems").num_rows
        assert artifact.counts() == {"ok": 12, "quarantined": 0}
    splits = [load_retrieval_split(made[media], "test", PictureForm(size=8)) for media in ("path", "embed")]
    everything = torch.arange(len(splits[0].media))
    assert splits[0].media.take(everything).values.equal(splits[1].media.take(everything).values)
    assert len(splits[0].with_wording("same")) == 8


def test_missing_and_broken_pictures_are_quarantined_by_row(tmp_path: Path) -> None:
    root = write_pedes(tmp_path / "data", "cuhk-pedes")
    (root / "imgs" / "train" / "p0-1.png").unlink()
    (root / "imgs" / "test" / "p5-0.png").write_bytes(picture(1)[:-100])
    artifact = plan_corpus(make("cuhk-pedes", root), tmp_path / "out").run_here()
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
    said = " ".join(corpus_lines(artifact))
    assert "2 problems" in said
    assert "reid_raw.json row 2" in said


def test_motion_of_another_width_is_quarantined(tmp_path: Path) -> None:
    root = tmp_path / "kit"
    for split, item in {"train": "00001", "val": "00002", "test": "00003"}.items():
        (root / "splits").mkdir(parents=True, exist_ok=True)
        (root / "splits" / f"{split}.txt").write_text(item)
        (root / "new_joint_vecs").mkdir(exist_ok=True)
        np.save(root / "new_joint_vecs" / f"{item}.npy", np.zeros((5, 263 if split == "val" else 251), np.float32))
    notes = {f"0000{i}": {"annotations": [{"text": "A person walks."}]} for i in (1, 2, 3)}
    (root / "annotations.json").write_text(json.dumps(notes))
    artifact = plan_corpus(make("kit-ml", root), tmp_path / "out").run_here()
    assert [i["media"]["path"] for i in artifact.table("items").to_pylist()] == [
        "new_joint_vecs/00001.npy",
        "new_joint_vecs/00003.npy",
    ]
    (problem,) = artifact.table("problems").to_pylist()
    assert (problem["item"], problem["split"]) == ("00002", "val")
    assert "[5, 263], not [frames, 251]" in problem["reason"]


def test_sounds_are_found_below_any_of_the_usual_folders(tmp_path: Path) -> None:
    header = "file_name," + ",".join(f"caption_{i}" for i in range(1, 6))
    line = "a.wav," + ",".join(f"A dog barks {i} times." for i in range(1, 6))
    sound = b"RIFF" + (4).to_bytes(4, "little") + b"WAVE"
    for folder in ("", "audio", "clotho_audio_files"):
        root = tmp_path / f"clotho-{folder}"
        (root / folder / "evaluation").mkdir(parents=True)
        (root / folder / "evaluation" / "a.wav").write_bytes(sound)
        (root / "clotho_captions_evaluation.csv").write_text(f"{header}\n{line}\n")
        artifact = plan_corpus(
            make("clotho", root, splits=["test"], media="embed"), tmp_path / f"out-{folder}"
        ).run_here()
        (item,) = artifact.table("items").to_pylist()
        assert item["media"] == {"bytes": sound, "path": f"{folder}/evaluation/a.wav".removeprefix("/")}


def test_every_problem_of_the_annotations_is_in_the_table(tmp_path: Path) -> None:
    root = write_pedes(tmp_path / "data", "rstpreid")
    entries = json.loads((root / "data_captions.json").read_text())
    entries[3]["captions"][0] = " "
    entries[4]["split"] = "dev"
    text = json.dumps(entries)
    (root / "data_captions.json").write_text(text[: len(text) - 30])
    artifact = plan_corpus(make("rstpreid", root, shard_size=3), tmp_path / "out").run_here()
    problems = artifact.table("problems").to_pylist()
    assert sorted((p["row"], p["split"]) for p in problems) == [(4, "train"), (5, ""), (12, "")]
    assert artifact.table("items").num_rows == 10


def test_interrupted_corpus_goes_on_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_pedes(tmp_path / "data", "cuhk-pedes")
    (root / "imgs" / "train" / "p3-1.png").unlink()
    whole = plan_corpus(make("cuhk-pedes", root, media="embed", shard_size=2), tmp_path / "whole").run_here()
    read = Reader.read_media
    calls: list[Entry] = []

    def stop(reader: Reader, entry: Entry) -> bytes:
        calls.append(entry)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return read(reader, entry)

    monkeypatch.setattr(Reader, "read_media", stop)
    with pytest.raises(KeyboardInterrupt):
        plan_corpus(make("cuhk-pedes", root, media="embed", shard_size=2), tmp_path / "cut").run_here()
    again = plan_corpus(make("cuhk-pedes", root, media="embed", shard_size=2), tmp_path / "cut").run_here()
    assert len(calls) == 6 + 8  # the two committed shards are not read again
    assert again.fingerprint == whole.fingerprint


def test_the_first_items_of_each_split_are_enough_to_try_things_out(tmp_path: Path) -> None:
    root = write_pedes(tmp_path / "data", "cuhk-pedes")
    whole = plan_corpus(make("cuhk-pedes", root), tmp_path / "whole").run_here()
    few = plan_corpus(make("cuhk-pedes", root, max_items=3), tmp_path / "few").run_here()
    for split in ("train", "test"):
        for table in ("items", "captions"):
            taken = few.table(table, split).to_pylist()
            assert taken == whole.table(table, split).to_pylist()[: len(taken)]
        assert len(few.table("items", split)) == 3
    assert few.counts() == {"ok": 6, "quarantined": 0}


def test_changed_annotations_are_another_run(tmp_path: Path) -> None:
    root = write_pedes(tmp_path / "data", "cuhk-pedes")
    plan_corpus(make("cuhk-pedes", root, media="none"), tmp_path / "out").run_here()
    (root / "reid_raw.json").write_text((root / "reid_raw.json").read_text() + "\n")
    with pytest.raises(UserError, match=r"reid_raw\.json"):
        plan_corpus(make("cuhk-pedes", root, media="none"), tmp_path / "out").run_here()


def test_no_more_than_a_shard_of_pictures_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_pedes(tmp_path / "data", "cuhk-pedes", num_people=9)
    largest = 0
    read = Reader.read_media
    held: list[bytes] = []

    def count(reader: Reader, entry: Entry) -> bytes:
        nonlocal largest
        held.append(read(reader, entry))
        largest = max(largest, len(held))
        return held[-1]

    commit = Run.commit_shard

    def release(self: Run, *args: Any, **kwargs: Any) -> None:
        commit(self, *args, **kwargs)
        held.clear()

    monkeypatch.setattr(Reader, "read_media", count)
    monkeypatch.setattr(Run, "commit_shard", release)
    plan_corpus(make("cuhk-pedes", root, media="embed", shard_size=4), tmp_path / "out").run_here()
    assert largest == 4


# Export


@pytest.mark.parametrize("name", PEDES)
def test_exported_annotations_are_read_again(tmp_path: Path, name: str) -> None:
    root = write_pedes(tmp_path / "data", name)
    before = plan_corpus(make(name, root), tmp_path / "before").run_here()
    annotations = LAYOUTS[name].annotations  # type: ignore[attr-defined]
    done = export(tmp_path / "before", write_sdg(before, tmp_path / "sdg"), tmp_path / "new" / annotations, name)
    assert (done.items, done.captions, done.generated, done.renumbered) == (12, 24, 22, False)
    official, written = (json.loads((f / annotations).read_text()) for f in (root, tmp_path / "new"))
    for old, new in zip(official, written, strict=True):
        assert {key: new[key] for key in old if key != "captions"} == {k: v for k, v in old.items() if k != "captions"}
        assert new["captions"][:2] == old["captions"]
        assert all(text.startswith(("Rewritten: ", "Again: ")) for text in new["captions"][2:])
        assert old["split"] == "train" or new["captions"] == old["captions"]
        assert len(new.get("processed_tokens", new["captions"])) == len(new["captions"])
    # Ours reads it as well, beside the same pictures, and finds the same items and sources.
    (tmp_path / "new" / "imgs").symlink_to(root / "imgs")
    after = plan_corpus(make(name, tmp_path / "new"), tmp_path / "after").run_here()
    assert after.table("items").equals(before.table("items"))
    sources = before.table("captions").to_pylist()
    again = {row["row_id"]: row for row in after.table("captions").to_pylist()}
    assert all(again[row["row_id"]] == row for row in sources)
    assert len(again) == len(sources) + done.generated


def test_persons_get_numbers_without_gaps_when_one_is_missing(tmp_path: Path) -> None:
    root = write_pedes(tmp_path / "data", "cuhk-pedes")
    for number in (0, 1):
        (root / "imgs" / "train" / f"p1-{number}.png").unlink()
    before = plan_corpus(make("cuhk-pedes", root), tmp_path / "before").run_here()
    sdg = write_sdg(before, tmp_path / "sdg")
    assert export(tmp_path / "before", sdg, tmp_path / "a.json", "cuhk-pedes").renumbered
    people = json.loads((tmp_path / "a.json").read_text())
    assert sorted({e["id"] for e in people if e["split"] == "train"}) == [1, 2, 3]
    assert len({e["id"] for e in people}) == 5
    # Another layout counts from its own first number.
    export(tmp_path / "before", sdg, tmp_path / "b.json", "rstpreid")
    assert min(e["id"] for e in json.loads((tmp_path / "b.json").read_text())) == 0


def test_exported_lines_are_read_again(tmp_path: Path) -> None:
    root = write_pedes(tmp_path / "data", "cuhk-pedes")
    before = plan_corpus(make("cuhk-pedes", root), tmp_path / "before").run_here()
    done = export(tmp_path / "before", write_sdg(before, tmp_path / "sdg"), tmp_path / "all.jsonl", "jsonl")
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert sum(line["generated"] for line in lines) == done.generated == 22
    assert all(line["split"] == "train" for line in lines if line["generated"])
    assert all((line["similarity"] is None) != line["generated"] for line in lines)
    columns = {"item": "item", "identity": "identity", "split": "split", "media": "media"}
    lines_again = make("table", tmp_path / "all.jsonl", columns=columns, dataset="again")
    after = plan_corpus(lines_again, tmp_path / "after").run_here()
    row = after.table("captions").to_pylist()[0]
    assert row["row_id"] == make_row_id("again", "train", "train/p0-0.png", 0)
    assert after.table("problems").num_rows == 0
    found = {(r["identity"], r["text"]) for r in after.table("captions").to_pylist()}
    assert found == {(line["identity"], line["caption"]) for line in lines}
    assert [i["item_id"] for i in after.table("items").to_pylist()] == [
        i["item_id"] for i in before.table("items").to_pylist()
    ]


def test_texts_that_describe_several_pictures_go_to_all_of_them(tmp_path: Path, tiny_artifacts: Any) -> None:
    corpus = Artifact.open(tiny_artifacts.corpus, "corpus")
    done = export(
        tiny_artifacts.corpus, write_sdg(corpus, tmp_path / "sdg"), tmp_path / "e.json", "cuhk-pedes", images=True
    )
    entries = json.loads((tmp_path / "e.json").read_text())
    items = corpus.table("items").to_pylist()
    assert done.items == len(entries) == len(items)
    texts = {c["identity"]: c["text"] for c in corpus.table("captions", "train").to_pylist()}
    for item, entry in zip(items, entries, strict=True):
        assert (tmp_path / "imgs" / entry["file_path"]).read_bytes() == item["media"]["bytes"]
        assert item["split"] != "train" or texts[item["identity"]] in entry["captions"]
    assert sorted({e["id"] for e in entries if e["split"] == "train"}) == list(range(1, len(texts) + 1))


def test_export_refuses_what_cannot_work(tmp_path: Path) -> None:
    root = write_pedes(tmp_path / "data", "cuhk-pedes")
    corpus = plan_corpus(make("cuhk-pedes", root), tmp_path / "corpus").run_here()
    sdg = write_sdg(corpus, tmp_path / "sdg")
    with pytest.raises(UserError, match=f"choose one of {', '.join(FORMATS)}"):
        export(tmp_path / "corpus", sdg, tmp_path / "x", "coco")
    with pytest.raises(UserError, match="--images needs a corpus with embedded pictures"):
        export(tmp_path / "corpus", sdg, tmp_path / "x", "cuhk-pedes", images=True)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"caption": "A boat."}) + "\n")
    other = plan_corpus(make("table", tmp_path / "rows.jsonl"), tmp_path / "other").run_here()
    with pytest.raises(UserError, match="made for another corpus"):
        export(tmp_path / "other", sdg, tmp_path / "x", "jsonl")
    with pytest.raises(UserError, match=r"is no picture: use --format jsonl"):
        export(tmp_path / "other", write_sdg(other, tmp_path / "sdg2"), tmp_path / "x", "icfg-pedes")
    assert not (tmp_path / "x").exists()


# Commands


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_pedes(tmp_path / "data", "icfg-pedes")
    (root / "imgs" / "train" / "p0-0.png").unlink()
    code, said = command(f"corpus icfg-pedes --root {root} --out {tmp_path / 'c'}", monkeypatch, capsys)
    assert code == 0
    assert "train holds 4 identities, 7 items, 14 captions" in said
    assert "1 problems" in said
    sdg = write_sdg(Artifact.open(tmp_path / "c", "corpus"), tmp_path / "s")
    arguments = f"export --sdg {sdg} --corpus {tmp_path / 'c'} --format icfg-pedes --out {tmp_path / 'e.json'}"
    code, said = command(arguments, monkeypatch, capsys)
    assert (code, "11 items, 22 captions and" in said) == (0, True), said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("corpus cuhk-pedes", "needs --root"),
        ("corpus cuhk-pedes --root {tmp} --max-groups 3", "takes no --max-groups"),
        ("corpus people-emoji --root {tmp}", "takes no --root"),
        ("corpus coco --root {tmp}", "rstpreid, kit-ml, bandai-motion, clotho, esc10, "),
        ("corpus cuhk-pedes --root {tmp}", "reid_raw.json is missing"),
        ("corpus kit-ml --root {tmp} --set media=all", "setting 'kit-ml.media' = 'all'"),
        ("corpus table --root {tmp}/none.csv", "no such file or folder"),
        ("export --sdg {tmp}/none --corpus {tmp}/none", "no corpus artifact"),
        ("export --sdg {tmp} --corpus {tmp} --format coco", "unknown format 'coco'"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = command(arguments.replace("{tmp}", str(tmp_path)), monkeypatch, capsys)
    assert (code, said.count("error:")) == (2, 1)
    assert message in said
    assert "Traceback" not in said


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_real_corpora_become_artifacts(tmp_path: Path) -> None:
    kit = plan_corpus(make("kit-ml", DATA / "kit_ml", media="none"), tmp_path / "kit").run_here()
    assert kit.counts() == {"ok": 5766, "quarantined": 0}
    assert [kit.table("captions", s).num_rows for s in ("train", "val", "test")] == [9980, 626, 1558]
    sounds = make("clotho", DATA / "clotho", splits=["test"], media="path")
    clotho = plan_corpus(sounds, tmp_path / "clotho").run_here()
    assert clotho.counts() == {"ok": 7, "quarantined": 1038}
    assert clotho.table("problems").num_rows == 1038
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(kit.root), "captions", split="test", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 1558
