"""Settings of the reader of tables: which column holds what, and how rows get their split."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from sclmkb.common.artifacts.schemas import Split
from sclmkb.common.config import Settings
from sclmkb.generate.corpora.reader import ReaderSettings

SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train", "training": "train", "development": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip


class Columns(Settings):
    """Which column holds what."""

    caption: str | tuple[str, ...] = Field(
        default="caption", description="a text, a list of texts, or several columns with one text each"
    )
    item: str | None = Field(
        default=None,
        description="unique name of the picture, motion or sound; rows of one item are joined; default: each row is "
        "an item",
    )
    identity: str | None = Field(
        default=None, description="what a caption and an item must share to match; default: the item"
    )
    group: str | None = Field(default=None, description="what must stay in one split; default: the identity")
    split: str | None = Field(default=None, description="name of the split")
    media: str | None = Field(
        default=None, description="a path relative to the data's folder, bytes, or a Hugging Face picture or sound"
    )
    source: str | None = Field(default=None, description="where the item comes from")
    wording: str | None = Field(default=None, description="style of the caption's wording")

    @property
    def captions(self) -> tuple[str, ...]:
        """The columns of captions."""
        return (self.caption,) if isinstance(self.caption, str) else self.caption

    def named(self) -> list[str]:
        """Return every mapped column but that of the media."""
        rest = (self.item, self.identity, self.group, self.split, self.source, self.wording)
        return [*self.captions, *(name for name in rest if name is not None)]


class TableSettings(ReaderSettings):
    """Settings of the reader of tables."""

    media: Literal["path", "embed", "none"] = Field(
        default="none",
        description="as for each reader; needs `columns.media`. Media that a table embeds can only be embedded again",
    )
    dataset: str = Field(
        default="table",
        min_length=1,
        description="name of the corpus; all row ids follow from it, so give different tables different names",
    )
    columns: Columns = Field(default=Columns(), description="which column holds what")
    split_names: Mapping[Annotated[str, BeforeValidator(str)], Split] = Field(
        default={}, description="meaning of unusual split names, e.g. `{fold1: test}`"
    )
    frames_per_second: PositiveFloat | None = Field(
        default=None, description="rate of motions, for encoders that take another rate"
    )
    config: str | None = Field(default=None, description="configuration of a dataset on the hub")
    seed: int = Field(default=0, description="seed of the split by hash")
    val_share: float = Field(
        default=0.1, ge=0, lt=1, description="share of the groups for validation, where no split is given"
    )
    test_share: float = Field(
        default=0.1, ge=0, lt=1, description="share of the groups for test, where no split is given"
    )

    @model_validator(mode="after")
    def _media_column(self) -> "TableSettings":
        if self.media != "none" and self.columns.media is None:
            raise ValueError(f"media={self.media} needs the column that holds them: set columns.media")
        return self
