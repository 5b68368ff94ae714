"""``sclmkb-gen export``: captions and their generated ones in the formats of other trainers.

::

    corpus: items, captions ─┐
                             ├─► by item, in corpus order ─► JSON lines, or the annotation file of a PEDES set
    sdg: rows in state ok ───┘

Only training captions get generated ones beside them: validation and test stay as they are.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import replacing
from sclmkb.common.artifacts.plan import make_row_id
from sclmkb.common.artifacts.texts import texts_of
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.image import Pictures
from sclmkb.generate.corpora.layouts import LAYOUTS
from sclmkb.generate.corpora.readers.pedes import IMAGES, Pedes

PEDES_FORMATS: dict[str, type[Pedes]] = {name: layout for name, layout in LAYOUTS.items() if issubclass(layout, Pedes)}
FORMATS = ("jsonl", *PEDES_FORMATS)


def file_name(form: str) -> str:
    """Return the official name of a format's file."""
    return PEDES_FORMATS[form].annotations if form in PEDES_FORMATS else "captions.jsonl"


@dataclass(kw_only=True)
class _Text:
    """A source caption and the generated ones, best first."""

    row_id: str
    identity: str
    split: str
    wording: str
    text: str
    generated: list[tuple[str, float]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written: the file, how much is in it, and whether persons got new numbers."""

    path: Path
    items: int
    captions: int
    generated: int
    renumbered: bool = False


def export(corpus: Path, sdg: Path, out: Path, form: str, *, images: bool = False) -> Exported:
    """Write a corpus and the accepted captions that were generated from it to one file.

    In the PEDES formats, ``images`` also writes pictures that the corpus embeds to ``imgs/`` beside the file.

    Raises:
        UserError: if an artifact is unreadable, the two do not belong together, or the items are no pictures.
    """
    if form not in FORMATS:
        raise UserError(f"unknown format '{form}': choose one of {', '.join(FORMATS)}")
    source, generated = Artifact.open(corpus, "corpus"), Artifact.open(sdg, "sdg")
    texts = _texts(source, generated)
    if form == "jsonl":
        return _write_jsonl(source, texts, out)
    return _write_pedes(source, texts, out, PEDES_FORMATS[form], images=images)


def _texts(source: Artifact, generated: Artifact) -> dict[str, _Text]:
    """Return every source caption by row id, training ones with their generated captions."""
    texts = {}
    for split in source.splits:
        for row in texts_of(source, split).to_pylist():
            fields = {name: row[name] for name in ("row_id", "identity", "split", "wording", "text")}
            texts[row["row_id"]] = _Text(**fields)
    joined = 0
    for shard in generated.plan.shards:
        for row in generated.shard_table("rows", shard.name).to_pylist():
            text = texts.get(row["row_id"])
            joined += text is not None
            if text is not None and text.split == "train" and row["state"] == "ok":
                text.generated = list(zip(row["captions"], row["similarities"], strict=True))
    if not joined:
        raise UserError(f"no row id of {generated.root} is in {source.root}: the captions were made for another corpus")
    return texts


def _items(source: Artifact, texts: dict[str, _Text]) -> Iterator[tuple[dict[str, Any], list[_Text]]]:
    """Go through the items, shard by shard, each with its captions.

    A caption belongs to an item if its row id says so, as in corpora read from files. Other captions go to all items
    of their identity: those of no item (people emoji: a text describes every drawing), and those told for all.
    """
    own: dict[str, list[_Text]] = {}
    if not source.plan.notes.get("shared_captions"):
        dataset = source.plan.settings.get("dataset", "")
        most = 1 + max(source.table("captions", columns=["caption_index"])["caption_index"].to_pylist(), default=0)
        for row in source.table("items", columns=["item_id", "split"]).to_pylist():
            ids = (make_row_id(dataset, row["split"], row["item_id"], index) for index in range(most))
            own[row["item_id"]] = [texts[row_id] for row_id in ids if row_id in texts]
    owned = {text.row_id for mine in own.values() for text in mine}
    shared: dict[str, list[_Text]] = {}
    for row_id, text in texts.items():
        if row_id not in owned:
            shared.setdefault(text.identity, []).append(text)
    for shard in source.plan.shards:
        for item in source.shard_table("items", shard.name).to_pylist():
            yield item, own.get(item["item_id"], []) + shared.get(item["identity"], [])


def _write_jsonl(source: Artifact, texts: dict[str, _Text], out: Path) -> Exported:
    """Write one line per caption, a generated one after its source; ``item`` is null where it describes several."""
    num_items = num_generated = 0
    owners: dict[str, tuple[str, str | None] | None] = {}
    for item, mine in _items(source, texts):
        num_items += 1
        for text in mine:
            several = text.row_id in owners
            owners[text.row_id] = None if several else (item["item_id"], item["media"]["path"])
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        for text in texts.values():
            item_id, media = owners.get(text.row_id) or (None, None)
            common = {"row_id": text.row_id, "split": text.split, "identity": text.identity, "item": item_id}
            for caption, similarity in ((text.text, None), *text.generated):
                origin = {"generated": similarity is not None, "similarity": similarity, "wording": text.wording}
                line = {**common, "media": media, "caption": caption, **origin}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            num_generated += len(text.generated)
    return Exported(path=out, items=num_items, captions=len(texts), generated=num_generated)


def _write_pedes(
    source: Artifact, texts: dict[str, _Text], out: Path, layout: type[Pedes], *, images: bool
) -> Exported:
    number, renumbered = _person_numbers(source, layout)
    entries: list[dict[str, Any]] = []
    num_captions = num_generated = 0
    for item, mine in _items(source, texts):
        path = _picture_path(source, item)
        made = [caption for text in mine for caption, _ in text.generated]
        captions = [*(text.text for text in mine), *made]
        entry: dict[str, Any] = {"split": item["split"], "captions": captions, layout.path_key: path}
        if layout.path_key == "file_path":  # the layouts with this key hold tokens too
            entry["processed_tokens"] = [re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text.lower()) for text in captions]
        entries.append({**entry, "id": number(item)})
        if images:
            _write_picture(out.parent / IMAGES / path, item)
        num_captions, num_generated = num_captions + len(mine), num_generated + len(made)
    with replacing(out) as temporary:
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
        temporary.write_text(f"[\n{lines}\n]\n", "utf-8")
    return Exported(path=out, items=len(entries), captions=num_captions, generated=num_generated, renumbered=renumbered)


def _person_numbers(source: Artifact, layout: type[Pedes]) -> tuple[Callable[[dict[str, Any]], int], bool]:
    """Return what numbers a person, and whether the numbers are new.

    The numbers of the corpus are kept if those of training are whole: trainers in the manner of IRRA require them to
    count from the layout's first number without a gap.
    """
    rows = source.table("items", columns=["identity", "split"]).to_pylist()
    people = dict.fromkeys((row["split"], row["identity"]) for row in rows)
    stated = {person: person[1].rpartition("-")[2] for person in people}
    training = sorted(int(n) for (split, _), n in stated.items() if split == "train" and n.isdecimal())
    whole = training == list(range(layout.first_id, layout.first_id + len(training)))
    if whole and source.plan.settings.get("dataset") == layout.name:
        return lambda item: int(stated[item["split"], item["identity"]]), False
    ordered = sorted(people, key=lambda person: person[0] != "train")
    new = {person: layout.first_id + i for i, person in enumerate(ordered)}
    return lambda item: new[item["split"], item["identity"]], True


def _picture_path(source: Artifact, item: dict[str, Any]) -> str:
    path = str(item["media"]["path"] or item["item_id"]).removeprefix(f"{IMAGES}/")
    if not path.lower().endswith(Pictures.suffixes):
        raise UserError(f"item '{item['item_id']}' of {source.root} is no picture: use --format jsonl")
    return path


def _write_picture(path: Path, item: dict[str, Any]) -> None:
    data = item["media"]["bytes"]
    if data is None:
        raise UserError("--images needs a corpus with embedded pictures: make it with --set media=embed")
    if not path.exists() or path.read_bytes() != data:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
