"""``sclmkb-gen corpus NAME --root FOLDER``: writes a corpus that a user has on disk as an artifact.

::

    annotation files ─► entries, problems ─► plan ─► shard by shard: media checked, embedded or by path
                                                      └─► tables items, captions, problems

One item is held at a time, and one shard when media are embedded.
"""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, Shard, make_row_id, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import CAPTIONS, ITEMS, PROBLEMS, ROLE
from sclmkb.common.executors.stage import Made, Session, Work
from sclmkb.common.modalities.base import recognise
from sclmkb.generate.corpora.reader import Entry, Problem, Reader
from sclmkb.generate.corpora.vetting import read_entries

Row = dict[str, Any]


def plan_corpus(reader: Reader, out: Path, *, new_run: bool = False, join: bool = False) -> Work:
    """Freeze the plan of a corpus with the tables ``items``, ``captions`` and ``problems``; see :meth:`Run.open`.

    Raises:
        UserError: if a file is missing, nothing can be read, or ``out`` holds another run, or none to join.
    """
    inputs = reader.inputs()
    found, problems = read_entries(reader)
    by_split = {
        split: [e for e in found if e.split == split][: reader.settings.max_items] for split in reader.settings.splits
    }
    entries = [entry for chosen in by_split.values() for entry in chosen]
    shards = [
        shard
        for split, chosen in by_split.items()
        if chosen
        for shard in make_shards(split, [e.item_id for e in chosen], reader.settings.items_per_shard)
    ]
    plan = Plan(
        kind="corpus",
        tables={"items": ITEMS, "captions": CAPTIONS, "problems": PROBLEMS},
        settings={"dataset": reader.dataset, **reader.settings.fingerprint_fields()},
        shards=shards,
        inputs=inputs,
        notes={
            "source": reader.address,
            "licence": reader.licence,
            **({"shared_captions": True} if reader.shares_captions else {}),
            **reader.notes(),
            # Where the paths start; nobody else needs to know.
            **({"root": str(reader.data_folder.resolve())} if reader.settings.media == "path" else {}),
        },
    )
    by_id = {entry.item_id: entry for entry in entries}
    left_out = _problems_by_shard(problems, shards)
    run = Run.open(out, plan, new_run=new_run, join=join)

    def produce(pending: Sequence[Shard], session: Session) -> Generator[Made, None, None]:
        for shard in pending:
            chosen = [by_id[item_id] for item_id in shard.row_ids]
            yield _make_shard(shard, reader, chosen, left_out.get(shard.name, []), session.advance)

    return Work(
        name="corpus",
        run=run,
        produce=produce,
        finish=lambda: run.finish(reader.title, _card(reader)),
        unit="items",
    )


def _make_shard(
    shard: Shard,
    reader: Reader,
    entries: Sequence[Entry],
    problems: Sequence[Problem],
    advance: Callable[[int], None],
) -> Made:
    items, captions, found = [], [], list(problems)
    for entry in entries:
        item, reason = _read_item(reader, entry)
        if not reason or reader.shares_captions:
            captions += caption_rows(reader.dataset, entry)
        if reason:
            found.append(entry.problem(reason))
        else:
            items.append(item)
        advance(1)
    tables = {
        "items": pa.Table.from_pylist(items, schema=ITEMS),
        "captions": pa.Table.from_pylist(captions, schema=CAPTIONS),
        "problems": pa.Table.from_pylist([asdict(problem) for problem in found], schema=PROBLEMS),
    }
    counts = {"ok": len(items), "quarantined": len(entries) - len(items)}
    return Made(shard=shard, tables=tables, counts=counts)


def _read_item(reader: Reader, entry: Entry) -> tuple[Row, str]:
    """Return the row of an item, and why it cannot be used, empty if it can."""
    data, media = b"", Row(bytes=None, path=None)
    if reader.settings.media != "none":
        try:
            data = reader.read_media(entry)
        except OSError as error:
            return {}, f"{entry.media or 'the media'}: {error.strerror or error}"
        if reason := reader.media_problem(entry, data):
            return {}, f"{entry.media}: {reason}"
        media = {"bytes": data if reader.settings.media == "embed" else None, "path": entry.media}
    recognised = None if reader.modality else recognise(entry.media, data)
    item = {name: getattr(entry, name) for name in ("item_id", "identity", "group", "split", "source")}
    return {**item, "modality": recognised.name if recognised else reader.modality, "media": media}, ""


def caption_rows(dataset: str, entry: Entry) -> list[Row]:
    """Return the rows of an entry's captions."""
    return [
        {
            "row_id": make_row_id(dataset, entry.split, entry.item_id, index),
            "identity": entry.identity,
            "group": entry.group,
            "split": entry.split,
            "caption_index": index,
            "wording": entry.wording_of(index),
            "role": entry.role_of(index),
            "text": text,
        }
        for index, text in entry.captions
    ]


def _problems_by_shard(problems: Sequence[Problem], shards: Sequence[Shard]) -> dict[str, list[Problem]]:
    """Give each problem to the first shard of its split, or to the first of all."""
    first = {shard.split: shard.name for shard in reversed(shards)}
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        found.setdefault(first.get(problem.split, shards[0].name), []).append(problem)
    return found


def _card(reader: Reader) -> str:
    return (
        f"Texts of {reader.title} and the items that they belong to. One row of `items` is a picture, a motion, a sound"
        " or a video, one row of `captions` a text. A text and an item of the same `identity` match. The column `role`"
        " says whether a text is a caption, a question or an answer; the answers of a question follow it. One row of"
        " `problems` is an entry, or one text of it, that was left out, with file, row and reason. The data stay under"
        " the terms of their authors."
    )


def corpus_lines(artifact: Artifact) -> list[str]:
    """Return a few lines on what was written and what was left out."""
    lines = []
    for split in artifact.splits:
        items = artifact.table("items", split, ["identity"])
        texts = artifact.table("captions", split, ["identity", "role"])
        identities = len(set(texts["identity"].to_pylist()) | set(items["identity"].to_pylist()))
        counts = Counter({ROLE: 0} if not len(texts) else texts["role"].to_pylist())
        told = ", ".join(f"{count} {role}s" for role, count in counts.items())
        lines.append(f"{split} holds {identities} identities, {len(items)} items, {told}")
    if "problems" in artifact.plan.tables and (problems := artifact.table("problems").to_pylist()):
        lines.append(f"{len(problems)} problems, left out of the corpus; the first: {Problem(**problems[0]).text}")
        lines.append(f"all of them, by file and row, are in {artifact.root / 'problems'}")
    licences = artifact.plan.notes.get("licence") or "see ATTRIBUTION.md"
    return [*lines, f"written to {artifact.root}; licence: {licences}"]
