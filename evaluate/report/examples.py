"""The section of the report that shows what some captions find, at every SNR that was kept."""

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.modalities.base import DRAWN_HEIGHT, MediaForm, modality_of
from sclmkb.common.modalities.store import MediaStore, media_kind
from sclmkb.evaluate.drawing.styles import label_of
from sclmkb.evaluate.search.items import Files, draw_stored, to_png

Row = Mapping[str, Any]
_SHOWN_SIDE = 104
"""Height of a drawn item [pixels]; it is shown at half of that."""
_GREY = "#bebebe"
_PNG = b"\x89PNG\r\n\x1a\n"


def examples_section(
    retrievals: Sequence[Row], corpus: Artifact, form: MediaForm, systems: Sequence[str], count: int
) -> dict[str, Any]:
    """Return what some captions find: one block per caption, with one part per SNR and one line per system.

    Args:
        retrievals: rows of ``retrievals.parquet``.
        corpus: of the items.
        form: that items were stored in, so that they need not be decoded again.
        systems: those that are shown.
        count: how many captions are shown.
    """
    first = retrievals[0]
    by_query: dict[tuple[str, str], dict[float, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for system in systems:
        for row in retrievals:
            if row["system"] == system and row["seed"] == first["seed"]:
                by_query[row["text"], row["wording"]][row["snr_db"]].append(row)
    chosen = list(by_query.items())[:count]
    snrs = sorted({snr_db for _, at in chosen for snr_db in at})
    needed = {item for _, at in chosen for rows in at.values() for row in rows for item in row["item_ids"]}
    pictures = drawn_items(corpus, "test", needed, form) if needed else {}
    return {
        "queries": [
            {
                "text": text,
                "wording": wording,
                "snrs": [
                    {"name": f"{snr_db:g} dB", "rankings": [_ranking(row, pictures) for row in rows]}
                    for snr_db, rows in sorted(at.items())
                ],
            }
            for (text, wording), at in chosen
        ],
        "several": len(snrs) > 1,
        "note": f"{first['receiver']} receiver, {_listed(snrs)} dB, seed {first['seed']}",
        "attribution": corpus.plan.notes.get("attribution", ""),
    }


def _ranking(row: Row, pictures: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    shown = [{**pictures[item], "hit": hit} for item, hit in zip(row["item_ids"], row["hits"], strict=True)]
    return {"system": label_of(row["system"]), "pictures": shown}


def _listed(values: Sequence[float]) -> str:
    names = [f"{value:g}" for value in values]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def drawn_items(
    corpus: Artifact, split: str, wanted: set[str], form: MediaForm | None = None
) -> dict[str, dict[str, str]]:
    """Draw items of a split by their ids, as data of a page; what cannot be read is a grey field.

    Args:
        corpus: of the items.
        split: its split.
        wanted: ids of the items.
        form: that items were stored in, for kinds of media that are not drawn from their files.
    """
    files = Files(corpus, split)
    modality = modality_of(media_kind(corpus))
    store = None if modality.draws_files or form is None else MediaStore.open(corpus, split, form)
    place = {item: i for i, item in enumerate(store.item_ids)} if store is not None else {}
    drawn: dict[str, dict[str, str]] = {}
    for item in wanted & set(files.identity):
        original, image = files.read(item) if store is None else None, None
        if store is not None and item in place:
            image = draw_stored(store, place[item], corpus.plan.notes)
        elif original is not None:
            image = modality.draw_file(original)
        image = image or Image.new("RGB", (DRAWN_HEIGHT, DRAWN_HEIGHT), _GREY)
        image.thumbnail((4 * _SHOWN_SIDE, _SHOWN_SIDE))
        png = to_png(image)
        if original is not None and original.startswith(_PNG) and len(original) < len(png):
            png = original  # small enough as it is
        data = base64.b64encode(png).decode()
        alt = f"{files.identity[item]}, {files.source[item]}"
        drawn[item] = {"uri": f"data:image/png;base64,{data}", "alt": alt}
    return drawn
