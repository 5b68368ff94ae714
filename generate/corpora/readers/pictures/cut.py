"""A validation split for layouts that have none: some of the training pictures, by a hash of what belongs together."""

import hashlib

from pydantic import Field

from sclmkb.generate.corpora.reader import ReaderSettings


class CutSettings(ReaderSettings):
    """Settings of a reader that cuts the validation split out of the official training split."""

    seed: int = Field(default=0, description="seed of the cut")
    val_share: float = Field(
        default=0.1, gt=0, lt=1, description="share of the official training pictures for validation"
    )

    def train_or_val(self, group: str) -> str:
        """Return the split of an official training picture; all of one group get the same."""
        digest = hashlib.sha256(f"{self.seed}\x1f{group}".encode("utf-8", "surrogateescape")).digest()
        return "val" if int.from_bytes(digest[:8], "big") < self.val_share * 2**64 else "train"
