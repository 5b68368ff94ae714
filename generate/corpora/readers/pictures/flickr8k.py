"""Flickr8k: photos with five captions each, one JSON line per photo.

::

    ROOT/captions.jsonl     {"image", "captions": [five], "split"}
    ROOT/images/NAME.jpg    as the field image says

The identity is the photo.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sclmkb.generate.corpora.readers.base import Entry, Problem, Reader
from sclmkb.generate.corpora.readers.entries import Broken, json_lines, read_text

CAPTIONS = "captions.jsonl"


class Flickr8k(Reader):
    """Flickr8k as JSON lines."""

    name = "flickr8k"
    title = "Flickr8k"
    address = "https://github.com/jbrownlee/Datasets/releases/tag/Flickr8k"
    licence = "research use (Hodosh, Young and Hockenmaier 2013); photos: those of their Flickr authors"
    modality = "pictures"

    def annotation_files(self) -> Sequence[Path]:
        """Return the captions."""
        return [self.require(self.root / CAPTIONS)]

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the photos."""
        for row, value in json_lines(read_text(self.root / CAPTIONS, self.settings.encoding)):
            if isinstance(value, Broken):
                yield Problem(file=CAPTIONS, row=row, reason=value.reason)
            elif not isinstance(value, dict) or not isinstance(value.get("captions"), list) or not value.get("image"):
                yield Problem(file=CAPTIONS, row=row, reason="has no 'image' and no list 'captions'")
            else:
                image = str(value["image"])
                yield Entry(
                    file=CAPTIONS,
                    row=row,
                    split=str(value.get("split")),
                    item_id=image,
                    identity=image,
                    group=image,
                    captions=tuple(enumerate(value["captions"])),
                    media=image,
                )
