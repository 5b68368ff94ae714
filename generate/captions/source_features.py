"""The features of the source captions, made once between all processes of a run.

The filter compares with every caption of the corpus, so every process needs the features of all of them, and embedding
takes long. Each part is embedded by itself, in the same way in every process, and all take the first result. So scores
do not depend on how a run was shared out.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.console import Ticker
from sclmkb.generate.captions.shared_arrays import share_arrays

if TYPE_CHECKING:
    from sclmkb.generate.filter.index import Embed, Floats


def share_features(
    run: Run,
    before: Callable[[int, int], None],
    beside: Callable[[str, int], Ticker],
    embed: "Embed",
    texts: Sequence[str],
) -> "Sequence[Floats]":
    """Return the features of the source captions in parts for the index, and make the missing ones.

    Args:
        run: the run, whose plan names corpus and encoder.
        before: told the number of each part before it is made here, and of how many; raises if that shall not be.
        beside: begins to show how far that is, if there are many captions.
        embed: gives features ``[B, d]`` of unit length.
        texts: the source captions, in the order of all processes.

    Raises:
        UserError: if a store goes on failing.
    """
    from sclmkb.generate.filter.index import PART, as_floats  # loads PyTorch, which a finished run need not

    starts = range(0, len(texts), PART)
    sizes = [len(texts[start : start + PART]) for start in starts]
    ticker = beside("source captions", len(texts)) if len(sizes) > 1 else None

    def make(index: int) -> "Floats":
        before(index, len(sizes))
        return as_floats(embed(texts[starts[index] : starts[index] + PART]))

    return share_arrays(run, "sources", sizes, make, ticker.advance if ticker else lambda size: None)
