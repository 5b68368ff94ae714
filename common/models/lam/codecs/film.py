"""A convolutional codec for pictures, modulated by SNR and by what the fusion center knows of the picture.

::

    picture [B, 3, S, S] ─► two scales of residual blocks ─► u complex uses ─► power 1 per use
    arrived [B, u]       ─► the same backwards            ─► picture

SNR and context scale and shift every channel (FiLM). As DeepJSCC (Bourtsoulatze et al., 2019) it is trained on the
squared error through the channel; one model serves all SNRs, as in ADJSCC (Xu et al., 2022).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Complex, Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sclmkb.common.models.lam.codecs.base import CODECS, SNR_SCALE_DB, CodecSettings, PictureCodec


class FilmCodecSettings(CodecSettings):
    """Residual convolutions that SNR and context modulate."""

    kind: Literal["film"] = Field(default="film", description="the codec: film")
    channels: PositiveInt = Field(default=64, description="channels of its hidden layers")
    num_blocks: PositiveInt = Field(default=2, description="residual blocks on each side of each scale")
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

    def __init__(self, settings: FilmCodecSettings, size: int, num_uses: int, context_width: int) -> None:
        super().__init__(size, num_uses)
        self.context_width = context_width if settings.context else 0
        c = settings.channels
        self.to_symbols = nn.Sequential(
            nn.Conv2d(3, c, 5, stride=2, padding=2), *_blocks(settings),
            nn.Conv2d(c, c, 5, stride=2, padding=2), *_blocks(settings),
        )  # fmt: skip
        self.symbols = nn.Conv2d(c, self.depth, 3, padding=1)
        self.sender_film = _Film(1 + self.context_width, c, 2 * settings.num_blocks)
        self.from_symbols = nn.Sequential(
            nn.Conv2d(self.depth, c, 3, padding=1), *_blocks(settings),
            _Grow(c), *_blocks(settings),
        )  # fmt: skip
        self.receiver_film = _Film(1, c, 2 * settings.num_blocks)
        self.picture = nn.Sequential(_Grow(c), nn.PReLU(c), nn.Conv2d(c, 3, 3, padding=1))

    def encode(
        self, pictures: Float[Tensor, "B 3 S S"], snr_db: Float[Tensor, " B"], context: Float[Tensor, "B w"] | None
    ) -> Complex[Tensor, "B u"]:
        """See :meth:`PictureCodec.encode`."""
        known = snr_db[:, None] / SNR_SCALE_DB
        if context is not None:
            known = torch.cat([known, context], dim=1)
        x = _through(self.to_symbols, 2 * pictures - 1, self.sender_film(known))
        planes = self.symbols(x).float().flatten(1).unflatten(1, (-1, 2))
        return torch.view_as_complex(planes.contiguous())

    def decode(self, arrived: Complex[Tensor, "B u"], snr_db: Float[Tensor, " B"]) -> Float[Tensor, "B 3 S S"]:
        """See :meth:`PictureCodec.decode`."""
        planes = torch.view_as_real(arrived).reshape(-1, self.depth, self.side, self.side)
        x = _through(self.from_symbols, planes, self.receiver_film(snr_db[:, None] / SNR_SCALE_DB))
        picture: Tensor = self.picture(x)
        return 0.5 + 0.5 * picture


class _Block(nn.Module):
    """A residual block whose middle is scaled and shifted."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.PReLU(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        inner = self.act(self.first(x)) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        y: Tensor = x + self.second(inner)
        return y


class _Grow(nn.Module):
    """Twice the height and width, by moving channels into places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.conv(x), 2)


class _Film(nn.Module):
    """Scales and shifts of all blocks, from what is known."""

    def __init__(self, known: int, channels: int, num_blocks: int) -> None:
        super().__init__()
        self.num_blocks = num_blocks
        self.net = nn.Sequential(nn.Linear(known, channels), nn.GELU(), nn.Linear(channels, 2 * channels * num_blocks))

    def forward(self, known: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        parts = self.net(known).chunk(2 * self.num_blocks, dim=1)
        return list(zip(parts[::2], parts[1::2], strict=True))


def _blocks(settings: FilmCodecSettings) -> list[nn.Module]:
    return [_Block(settings.channels) for _ in range(settings.num_blocks)]


def _through(layers: nn.Sequential, x: Tensor, films: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    left = iter(films)
    for layer in layers:
        x = layer(x, *next(left)) if isinstance(layer, _Block) else layer(x)
    return x
