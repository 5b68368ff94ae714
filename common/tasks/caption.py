"""Captioning: what a picture, sound or video shows shall be written at the receiver."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from sclmkb.common.errors import UserError
from sclmkb.common.tasks.media.base import ItemScores, TextTask, plain


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
        try:
            from pycocoevalcap.bleu.bleu import Bleu
            from pycocoevalcap.cider.cider import Cider
        except ModuleNotFoundError:
            raise UserError("task caption is scored by pycocoevalcap: pip install 'sclmkb[mtsc]'") from None
        given = {i: [plain(text)] for i, text in enumerate(outputs)}
        wanted = {i: [plain(text) for text in texts] for i, texts in enumerate(references)}
        cider = Cider().compute_score(wanted, given)[1]
        bleu = Bleu(4).compute_score(wanted, given, verbose=0)[1][3]
        return {"cider": np.asarray(cider, dtype=np.float64), "bleu4": np.asarray(bleu, dtype=np.float64)}


class CaptionSound(Caption):
    """The same of sounds."""

    name = "caption_sound"
    modality = "audio"


class CaptionVideo(Caption):
    """The same of clips."""

    name = "caption_video"
    modality = "video"
