"""Samples of a text task: each has a name of its own, also where several media show one identity."""

from collections.abc import Sequence

import pyarrow as pa

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.tasks.caption import Caption
from sclmkb.common.tasks.media.samples import load_text_samples


class Corpus(Artifact):
    """Two pictures of a cat, one of which cannot be read, two of a dog, and one of a hat."""

    def __init__(self) -> None:
        """Hold no files."""

    def table(self, name: str, split: str, columns: Sequence[str] | None = None) -> pa.Table:
        shown = {"cat-1": "cat", "cat-2": "cat", "dog-1": "dog", "dog-2": "dog", "hat-1": "hat"}
        items = [{"item_id": item, "identity": of, "group": of} for item, of in shown.items()]
        texts = [
            {"row_id": f"t-{of}", "identity": of, "role": "caption", "text": f"a {of}"} for of in ("cat", "dog", "hat")
        ]
        return pa.Table.from_pylist(items if name == "items" else texts).select(list(columns or ()))


def test_samples_of_one_identity_have_names_of_their_own() -> None:
    readable = ["cat-1", "dog-1", "dog-2", "hat-1"]
    samples = load_text_samples(Corpus(), "test", Caption(), readable)
    assert samples.row_ids == ["t-cat/cat-1", "t-dog/dog-1", "t-dog/dog-2", "t-hat"]
    assert samples.item.tolist() == [0, 1, 2, 3]
    assert samples.groups == ["cat", "dog", "dog", "hat"], "they are drawn together"
