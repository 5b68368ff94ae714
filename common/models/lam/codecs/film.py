"""A convolutional codec for pictures, modulated by SNR and by what the fusion center knows of the picture.

::

    picture [B, 3, S, S] ─┬► squares of 4 × 4 pixels ─► blocks ─► symbols ─┬► u complex uses ─► power 1 per use
                          └► linear: overlapping squares of 8 × 8 ─────────┘
    arrived [B, u]       ─┬► blocks ─► squares of 4 × 4 pixels ─┬► picture
                          └► linear: squares of 8 × 8 ──────────┘

All work is done at a quarter of the height and width, where it is cheap. A block is a depthwise convolution over 5 × 5
places and a two-layer network at each place, as in ConvNeXt (Liu et al., 2022). SNR and context scale and shift every
channel (FiLM). The linear way is a lapped transform, good from the first steps on. As DeepJSCC (Bourtsoulatze et al.,
2019) it is trained through the channel; one model serves all SNRs, as in ADJSCC (Xu et al., 2022).
"""

from typing import Any, Literal

import torch
from jaxtyping import Complex, Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from sclmkb.common.models.lam.codecs.base import CODECS, SCALES, SNR_SCALE_DB, CodecSettings, PictureCodec

_PIXELS = 3 * SCALES**2
"""Values of a square."""


class FilmCodecSettings(CodecSettings):
    """Blocks that SNR and context modulate, beside a linear transform."""

    kind: Literal["film"] = Field(default="film", description="the codec: film")
    channels: PositiveInt = Field(default=64, description="channels of its hidden layers")
    num_blocks: PositiveInt = Field(default=2, description="blocks at each end")
    context: bool = Field(
        default=False,
        description="whether the encoder is modulated by the mean output of the fusion center; each picture then "
        "passes the frozen encoder of pictures and the language model too",
    )

    @property
    def takes_context(self) -> bool:
        """Whether it reads what the fusion center gives."""
        return self.context


@CODECS.register(FilmCodecSettings)
class FilmCodec(PictureCodec):
    """See the module.

    Args:
        settings: channels and blocks.
        size: S.
        num_uses: u.
        context_width: of what the fusion center gives.
    """

    learning_rate = 4e-3

    def __init__(self, settings: FilmCodecSettings, size: int, num_uses: int, context_width: int) -> None:
        super().__init__(size, num_uses)
        self.context_width = context_width if settings.context else 0
        window: dict[str, Any] = {"kernel_size": 2 * SCALES, "stride": SCALES, "padding": SCALES // 2, "bias": False}
        self.linear_symbols = nn.Conv2d(3, self.depth, **window)
        self.symbols = _Blocks(_PIXELS, self.depth, 1 + self.context_width, settings)
        self.linear_picture = nn.ConvTranspose2d(self.depth, 3, **window)
        self.picture = _Blocks(self.depth, _PIXELS, 1, settings)

    def encode(
        self, pictures: Float[Tensor, "B 3 S S"], snr_db: Float[Tensor, " B"], context: Float[Tensor, "B w"] | None
    ) -> Complex[Tensor, "B u"]:
        """See :meth:`PictureCodec.encode`."""
        known = snr_db[:, None] / SNR_SCALE_DB
        if context is not None:
            known = torch.cat([known, context], dim=1)
        x = (2 * pictures - 1).contiguous(memory_format=torch.channels_last)
        planes = self.linear_symbols(x) + self.symbols(F.pixel_unshuffle(x, SCALES), known)
        return self.to_uses(planes)

    def decode(self, arrived: Complex[Tensor, "B u"], snr_db: Float[Tensor, " B"]) -> Float[Tensor, "B 3 S S"]:
        """See :meth:`PictureCodec.decode`."""
        planes = self.to_planes(arrived)
        planes = planes.contiguous(memory_format=torch.channels_last)
        squares = self.picture(planes, snr_db[:, None] / SNR_SCALE_DB)
        picture: Tensor = self.linear_picture(planes) + F.pixel_shuffle(squares, SCALES)
        return 0.5 + 0.5 * picture


class _Blocks(nn.Module):
    """From ``[B, i, s, s]`` to ``[B, o, s, s]`` by blocks that are modulated by what is known ``[B, k]``."""

    def __init__(self, inputs: int, outputs: int, known: int, settings: FilmCodecSettings) -> None:
        super().__init__()
        c = settings.channels
        self.first = nn.Conv2d(inputs, c, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(c) for _ in range(settings.num_blocks))
        self.film = nn.Sequential(nn.Linear(known, c), nn.GELU(), nn.Linear(c, 2 * c * settings.num_blocks))
        self.last = nn.Conv2d(c, outputs, 3, padding=1)
        with torch.no_grad():  # the linear way begins, what is not linear is learned on top of it
            self.last.weight.mul_(0.1)
            self.last.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        x = self.first(x)
        modulation = self.film(known)[:, :, None, None].chunk(2 * len(self.blocks), dim=1)
        for block, scale, shift in zip(self.blocks, modulation[::2], modulation[1::2], strict=True):
            x = block(x, scale, shift)
        y: Tensor = self.last(x)
        return y


class _Block(nn.Module):
    """A residual block: over places, then over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.over_places = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm = nn.GroupNorm(1, channels)
        self.wide = nn.Conv2d(channels, 2 * channels, 1)
        self.act = nn.PReLU(2 * channels)
        self.narrow = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        inner = self.norm(self.over_places(x)) * (1 + scale) + shift
        y: Tensor = x + self.narrow(self.act(self.wide(inner)))
        return y
