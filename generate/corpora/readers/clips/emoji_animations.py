"""Animated emoji: Microsoft's Fluent emoji as animated WebP, with the texts of emojibase, both from npm.

::

    ROOT/assets/HEXCODE.webp    the npm package @lobehub/fluent-emoji-anim-1, fetched if no ROOT is named

The identity is the emoji. Splits are by the emoji without its skin tone, which is the ``group``, as with people emoji;
so are the texts, the label alone in training. Files of the package that do not move are no part of the corpus.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from sclmkb.common.artifacts.files import cache_dir
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.image import is_animated
from sclmkb.generate.corpora.embedded import TEXTS
from sclmkb.generate.corpora.npm import NpmPackage, fetch_package
from sclmkb.generate.corpora.people_emoji import WORDINGS, Identity, captions, read_labels, split_groups
from sclmkb.generate.corpora.reader import Entry, Problem, Reader, ReaderSettings

PACKAGE = NpmPackage(
    name="@lobehub/fluent-emoji-anim-1",
    version="1.0.0",
    integrity="sha512-/4m31vAuZEQ4aUJ5pxcOU5PVkuJya55GRxUZL7+zgLlxZXpzzE8jPqpDyhZICE3n47nS/Y9M5/vLdizi8201QA==",
)
_HEADER = 32  # bytes that say whether a file moves


class EmojiAnimationSettings(ReaderSettings):
    """Settings of the reader of animated emoji."""

    media: Literal["path", "embed", "none"] = Field(
        default="embed",
        description="embed: animations as bytes in the artifact; path: by their path relative to the data's folder; "
        "none: texts alone",
    )
    seed: int = Field(default=0, description="seed of the split")
    val_share: float = Field(default=0.10, gt=0, lt=1, description="share of the emoji for validation")
    test_share: float = Field(default=0.19, gt=0, lt=1, description="share of the emoji for test")

    @model_validator(mode="after")
    def _some_training(self) -> "EmojiAnimationSettings":
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share + test_share must leave something for training")
        return self


class EmojiAnimations(Reader):
    """Animated Fluent emoji."""

    name = "emoji-animations"
    title = "Fluent emoji, animated"
    address = f"the npm package {PACKAGE.name}"
    licence = "MIT, Microsoft (animations, by LobeHub) and Miles Johnson (texts, emojibase)"
    modality = "video"
    settings_type = EmojiAnimationSettings
    settings: EmojiAnimationSettings

    @classmethod
    def find_root(cls) -> Path:
        """Return the folder of the npm package, fetched at the first time."""
        return fetch_package(PACKAGE, cache_dir() / "npm")

    def annotation_files(self) -> Sequence[Path]:
        """Return the file of the labels."""
        self.require(self.root / "assets")
        return [self._texts / "en" / "data.json"]

    def inputs(self) -> dict[str, str]:
        """Return the pinned package of the texts, and the names of the animations."""
        self.annotation_files()
        return {TEXTS.name: f"{TEXTS.version} {TEXTS.integrity}", "animations": " ".join(p.stem for p in self._moving)}

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the animations."""
        labels = {_key(hexcode): item for hexcode, item in read_labels(self._texts).items()}
        found = {path: labels[_key(path.stem)] for path in self._moving if _key(path.stem) in labels}
        splits = split_groups(
            list(found.values()),
            seed=self.settings.seed,
            val_share=self.settings.val_share,
            test_share=self.settings.test_share,
        )
        split_of = {item.identity: split for split, items in splits.items() for item in items}
        for row, path in enumerate(self._moving, start=1):
            file = self.relative(path)
            if path in found:
                yield _entry(found[path], split_of[found[path].identity], file, row)
            else:
                yield Problem(file=file, row=row, item=path.stem, reason="emojibase has no label of it")

    @cached_property
    def _texts(self) -> Path:
        return fetch_package(TEXTS, cache_dir() / "npm")

    @cached_property
    def _moving(self) -> list[Path]:
        """The animations, by name."""
        files = sorted((self.root / "assets").glob("*.webp"))
        found = [path for path in files if is_animated(_start_of(path))]
        if not found:
            raise UserError(f"{self.root / 'assets'} holds no animated WebP: get {self.title} from {self.address}")
        return found


def _entry(item: Identity, split: str, file: str, row: int) -> Entry:
    texts = captions(item)
    wordings = WORDINGS[:1] if split == "train" else WORDINGS
    return Entry(
        item_id=item.identity,
        identity=item.identity,
        group=item.group,
        split=split,
        captions=tuple((index, texts[wording]) for index, wording in enumerate(wordings) if wording in texts),
        wording=dict(enumerate(wordings)),
        media=file,
        file=file,
        row=row,
    )


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER)


def _key(hexcode: str) -> str:
    """Return a hexcode without the marks of variants, which the sets write differently."""
    return hexcode.lower().replace("_", "-").replace("-fe0f", "")
