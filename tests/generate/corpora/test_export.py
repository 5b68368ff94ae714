"""Corpora with their generated captions, in the formats of other trainers."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from commands import must_run
from layout_files import made, write, write_pedes

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, make_row_id, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import SDG_ROWS
from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.export import export
from sclmkb.generate.corpora.layouts import LAYOUTS


def write_sdg(corpus: Artifact, root: Path) -> Path:
    """Write an artifact of generated captions: every third row of every split rejected, the others with two."""
    captions = {split: corpus.table("captions", split).to_pylist() for split in corpus.splits}
    shards = [s for split, own in captions.items() for s in make_shards(split, [c["row_id"] for c in own], 10**6)]
    run = Run.open(root, Plan(kind="sdg", tables={"rows": SDG_ROWS}, settings={}, shards=shards, inputs={}))
    for shard in shards:
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
            for i, c in enumerate(captions[shard.split])
        ]
        run.commit_shard(shard, {"rows": pa.Table.from_pylist(rows, schema=SDG_ROWS)})
    run.finish("Generated", "For tests.")
    return root


@pytest.mark.parametrize("name", ["cuhk-pedes", "icfg-pedes", "rstpreid"])
def test_exported_annotations_are_read_again(tmp_path: Path, name: str) -> None:
    root = write_pedes(tmp_path / "data", name)
    before = made(name, root, tmp_path / "before")
    found: Any = LAYOUTS[name]
    sdg, target = write_sdg(before, tmp_path / "sdg"), tmp_path / "new" / found.annotations
    done = must_run(f"sclmkb-gen export --sdg {sdg} --corpus {before.root} --format {name} --out {target}")
    assert "12 items, 24 captions and 22 generated ones" in done.err
    assert "new numbers" not in done.err
    official, written = (json.loads(path.read_text()) for path in (root / found.annotations, target))
    for old, new in zip(official, written, strict=True):
        assert {key: new[key] for key in old if key != "captions"} == {k: v for k, v in old.items() if k != "captions"}
        assert new["captions"][:2] == old["captions"]
        assert all(text.startswith(("Rewritten: ", "Again: ")) for text in new["captions"][2:])
        assert old["split"] == "train" or new["captions"] == old["captions"]
        assert len(new.get("processed_tokens", new["captions"])) == len(new["captions"])
    # Ours reads it as well, beside the same pictures, and finds the same items and sources.
    (tmp_path / "new" / "imgs").symlink_to(root / "imgs")
    after = made(name, tmp_path / "new", tmp_path / "after")
    assert after.table("items").equals(before.table("items"))
    sources = before.table("captions").to_pylist()
    again = {row["row_id"]: row for row in after.table("captions").to_pylist()}
    assert all(again[row["row_id"]] == row for row in sources)
    assert len(again) == len(sources) + 22


def test_persons_get_numbers_without_gaps_when_one_is_missing(tmp_path: Path) -> None:
    root = write_pedes(tmp_path / "data")
    for number in (0, 1):
        (root / "imgs" / "train" / f"p1-{number}.png").unlink()
    sdg = write_sdg(made("cuhk-pedes", root, tmp_path / "before"), tmp_path / "sdg")
    assert export(tmp_path / "before", sdg, tmp_path / "a.json", "cuhk-pedes").renumbered
    people = json.loads((tmp_path / "a.json").read_text())
    assert sorted({e["id"] for e in people if e["split"] == "train"}) == [1, 2, 3]
    assert len({e["id"] for e in people}) == 5
    # Another layout counts from its own first number.
    export(tmp_path / "before", sdg, tmp_path / "b.json", "rstpreid")
    assert min(e["id"] for e in json.loads((tmp_path / "b.json").read_text())) == 0


def test_exported_lines_are_read_again(tmp_path: Path) -> None:
    before = made("cuhk-pedes", write_pedes(tmp_path / "data"), tmp_path / "before")
    done = export(before.root, write_sdg(before, tmp_path / "sdg"), tmp_path / "all.jsonl", "jsonl")
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert sum(line["generated"] for line in lines) == done.generated == 22
    assert all(line["split"] == "train" for line in lines if line["generated"])
    assert all((line["similarity"] is None) != line["generated"] for line in lines)
    columns = {"item": "item", "identity": "identity", "split": "split", "media": "media"}
    after = made("table", tmp_path / "all.jsonl", tmp_path / "after", columns=columns, dataset="again")
    row = after.table("captions").to_pylist()[0]
    assert row["row_id"] == make_row_id("again", "train", "train/p0-0.png", 0)
    assert after.table("problems").num_rows == 0
    found = {(r["identity"], r["text"]) for r in after.table("captions").to_pylist()}
    assert found == {(line["identity"], line["caption"]) for line in lines}
    assert after.table("items")["item_id"].equals(before.table("items")["item_id"])


def test_texts_that_describe_several_pictures_go_to_all_of_them(tmp_path: Path, tiny_artifacts: Any) -> None:
    corpus = Artifact.open(tiny_artifacts.corpus, "corpus")
    done = export(corpus.root, write_sdg(corpus, tmp_path / "sdg"), tmp_path / "e.json", "cuhk-pedes", images=True)
    entries = json.loads((tmp_path / "e.json").read_text())
    items = corpus.table("items").to_pylist()
    assert done.items == len(entries) == len(items)
    texts = {c["identity"]: c["text"] for c in corpus.table("captions", "train").to_pylist()}
    for item, entry in zip(items, entries, strict=True):
        assert (tmp_path / "imgs" / entry["file_path"]).read_bytes() == item["media"]["bytes"]
        assert item["split"] != "train" or texts[item["identity"]] in entry["captions"]
    assert sorted({e["id"] for e in entries if e["split"] == "train"}) == list(range(1, len(texts) + 1))


def test_captions_of_a_class_are_exported_for_no_single_item(tmp_path: Path) -> None:
    rows = [{"file": f"{fold}-{fold}{i}-A.ogg", "label": "Rain", "fold": fold} for fold in (1, 2, 3) for i in range(2)]
    corpus = made("esc10", write(tmp_path / "data" / "captions.jsonl", rows), tmp_path / "out", media="none")
    done = export(corpus.root, write_sdg(corpus, tmp_path / "sdg"), tmp_path / "x.jsonl", "jsonl")
    assert done.items == 6
    assert {json.loads(line)["item"] for line in (tmp_path / "x.jsonl").read_text().splitlines()} == {None}


def test_export_refuses_what_cannot_work(tmp_path: Path) -> None:
    corpus = made("cuhk-pedes", write_pedes(tmp_path / "data"), tmp_path / "corpus")
    sdg, target = write_sdg(corpus, tmp_path / "sdg"), tmp_path / "x"
    other = made("table", write(tmp_path / "other" / "a.jsonl", [{"caption": "A boat."}]), tmp_path / "table")
    with pytest.raises(UserError, match="--images needs a corpus with embedded pictures"):
        export(corpus.root, sdg, target, "cuhk-pedes", images=True)
    with pytest.raises(UserError, match="made for another corpus"):
        export(other.root, sdg, target, "jsonl")
    with pytest.raises(UserError, match=r"is no picture: use --format jsonl"):
        export(other.root, write_sdg(other, tmp_path / "sdg2"), target, "icfg-pedes")
    assert not target.exists()
