"""Flickr8k: photos with five captions each, one JSON line per photo.

::

    ROOT/captions.jsonl     {"image", "captions": [five], "split"}
    ROOT/images/NAME.jpg    as the field image says

The identity is the photo.
"""

from typing import Any

from sclmkb.generate.corpora.reader import Entry, Problem
from sclmkb.generate.corpora.records import Place, RecordReader


class Flickr8k(RecordReader):
    """Flickr8k as JSON lines."""

    name = "flickr8k"
    title = "Flickr8k"
    table = "captions.jsonl"
    address = "https://github.com/jbrownlee/Datasets/releases/tag/Flickr8k"
    licence = "research use (Hodosh, Young and Hockenmaier 2013); photos: those of their Flickr authors"
    modality = "pictures"

    def entry(self, record: dict[str, Any], place: Place) -> Entry | Problem:
        """Return a photo."""
        if not isinstance(record.get("captions"), list) or not record.get("image"):
            return Problem(reason="has no 'image' and no list 'captions'")
        image = str(record["image"])
        return Entry(
            item_id=image,
            identity=image,
            group=image,
            split=str(record.get("split")),
            captions=tuple(enumerate(record["captions"])),
            media=image,
        )
