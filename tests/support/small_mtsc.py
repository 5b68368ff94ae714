"""Sizes of a multi-task transceiver that is built in milliseconds."""

from sclmkb.common.models.lam.codecs.film import FilmCodecSettings
from sclmkb.common.models.lam.settings import JscSettings, LanguageModelSettings, MtscModelSettings

SMALL_MTSC = MtscModelSettings(
    language_model=LanguageModelSettings(name="scratch", width=32, layers=1),
    jsc=JscSettings(num_tokens=4, num_blocks=1, num_heads=4),
    codec=FilmCodecSettings(channels=8, num_blocks=1, context=True),
    answer_uses=8,
    caption_uses=8,
    reconstruct_uses=128,
)
