"""Captioning: what a picture, sound or video shows shall be written at the receiver."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sclmkb.common.errors import UserError
from sclmkb.common.tasks.media.base import ItemScores, TextTask, plain

_Texts = dict[int, list[str]]


class Caption(TextTask):
    """CIDEr (Vedantam et al., 2015) and BLEU-4 (Papineni et al., 2002) of every caption, by pycocoevalcap.

    Words are weighted by how rare they are in the references of the samples that are scored together.
    """

    name = "caption"
    role = "caption"
    prompt = "describe it"
    measures: ClassVar[Mapping[str, str]] = {"cider": "CIDEr", "bleu4": "BLEU-4"}

    def score(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> ItemScores:
        """Return CIDEr, 10 at most, and BLEU-4 of every caption.

        Raises:
            UserError: if pycocoevalcap is not installed.
        """
        values = cider(outputs, references)
        from pycocoevalcap.bleu.bleu import Bleu

        given, wanted = _plain(outputs, references)
        bleu = Bleu(4).compute_score(wanted, given, verbose=0)[1][3]
        return {"cider": values, "bleu4": np.asarray(bleu, dtype=np.float64)}


class CaptionSound(Caption):
    """The same of sounds."""

    name = "caption_sound"
    modality = "audio"


class CaptionVideo(Caption):
    """The same of clips."""

    name = "caption_video"
    modality = "video"


def cider(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Return CIDEr of every text against its references; errors as :meth:`Caption.score`."""
    try:
        from pycocoevalcap.cider.cider import Cider
    except ModuleNotFoundError:
        raise UserError("task caption is scored by pycocoevalcap: pip install 'sclmkb[mtsc]'") from None
    given, wanted = _plain(outputs, references)
    return np.asarray(Cider().compute_score(wanted, given)[1], dtype=np.float64)


def _plain(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[_Texts, _Texts]:
    """Return both as pycocoevalcap takes them."""
    given = {i: [plain(text)] for i, text in enumerate(outputs)}
    return given, {i: [plain(text) for text in texts] for i, texts in enumerate(references)}
