"""The multi-task transceiver that settings name: our system, or the baseline without a language model."""

from collections.abc import Mapping

from sclmkb.common.models.lam.language_model import load_language_model
from sclmkb.common.models.lam.settings import MtscModelSettings
from sclmkb.common.models.lam.system import MtscModel
from sclmkb.common.models.lam.texts import Vocabulary
from sclmkb.common.models.lam.udeepsc import UDeepSc

_ARCHITECTURES: Mapping[str, type[MtscModel]] = {"mtsc": MtscModel, "u-deepsc": UDeepSc}


def build_mtsc(
    settings: MtscModelSettings,
    vocabulary: Vocabulary,
    features: Mapping[str, tuple[int, int]],
    picture_size: int | None,
) -> MtscModel:
    """Build the transceiver with fresh weights around the language model.

    Args:
        settings: sizes.
        vocabulary: what it writes.
        features: of each kind of media, tokens per medium and their width.
        picture_size: of the pictures that are reconstructed.

    Raises:
        UserError: if the language model is not there or of another kind.
    """
    language_model = load_language_model(settings.language_model, vocabulary)
    return _ARCHITECTURES[settings.architecture](settings, language_model, features, picture_size)
