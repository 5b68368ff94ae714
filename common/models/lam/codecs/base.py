"""What a joint source-channel codec of pictures is: pictures to complex uses and back, told apart by ``kind``."""

from abc import ABC, abstractmethod
from typing import Annotated, Any, cast

import torch
from jaxtyping import Complex, Float
from pydantic import BeforeValidator, Field, PositiveInt
from torch import Tensor, nn

from sclmkb.common.config import Settings
from sclmkb.common.registry import Registry

SCALES = 4
"""Height and width of a picture over those of what is sent."""
SNR_SCALE_DB = 10.0
"""What SNRs are divided by before a layer takes them."""


class CodecSettings(Settings):
    """Settings that codecs of all kinds have."""

    kind: str = Field(description="the codec")
    num_groups: PositiveInt = Field(
        default=8, description="groups of channels that a variable rate sends or leaves out"
    )

    @property
    def takes_context(self) -> bool:
        """Whether it reads what the fusion center gives."""
        return False


class PictureCodec(nn.Module, ABC):
    """Pictures of ``size`` pixels a side in a fixed number of complex uses.

    Args:
        size: S, a multiple of 4.
        num_uses: u; twice as many real numbers are spread over (S / 4)² places.

    Attributes:
        side: S / 4.
        depth: real numbers per place.
        context_width: of what the fusion center gives to :meth:`encode`; 0: nothing is taken.
        learning_rate: peak rate of AdamW that was best of several on validation pictures.

    Raises:
        ValueError: if the uses do not fill the places evenly, or ``size`` is no multiple of 4.
    """

    context_width = 0
    learning_rate: float

    def __init__(self, size: int, num_uses: int) -> None:
        super().__init__()
        places = (size // SCALES) ** 2
        if size % SCALES or 2 * num_uses % places:
            raise ValueError(
                f"pictures of {size} pixels take multiples of {max(places // 2, 1)} complex uses, not {num_uses}"
            )
        self.side, self.depth = size // SCALES, 2 * num_uses // places

    @abstractmethod
    def encode(
        self, pictures: Float[Tensor, "B 3 S S"], snr_db: Float[Tensor, " B"], context: Float[Tensor, "B w"] | None
    ) -> Complex[Tensor, "B u"]:
        """Return the complex numbers of pictures in 0 to 1, power not yet normalised."""

    @abstractmethod
    def decode(self, arrived: Complex[Tensor, "B u"], snr_db: Float[Tensor, " B"]) -> Float[Tensor, "B 3 S S"]:
        """Return pictures, not yet limited to 0 to 1."""

    def to_uses(self, planes: Float[Tensor, "B depth *places"]) -> Complex[Tensor, "B u"]:
        """Return the real numbers of all places as complex uses, two in each, channel by channel."""
        return torch.view_as_complex(planes.float().reshape(len(planes), -1, 2))

    def to_planes(self, arrived: Complex[Tensor, "B u"]) -> Float[Tensor, "B depth s s"]:
        """Return what :meth:`to_uses` was given, of s × s places."""
        return torch.view_as_real(arrived).reshape(-1, self.depth, self.side, self.side)


CODECS: Registry[PictureCodec] = Registry("sclmkb.common.models.lam.codecs")
"""The class of each kind; see :func:`build_picture_codec`."""


def _default_kind(value: Any) -> Any:
    return {"kind": "film", **value} if isinstance(value, dict) else value


AnyCodecSettings = Annotated[CodecSettings, CODECS, BeforeValidator(_default_kind)]
"""Settings of any codec; their ``kind`` is ``film`` where nothing is said."""


def build_picture_codec(settings: CodecSettings, size: int, num_uses: int, context_width: int) -> PictureCodec:
    """Return the codec of pictures that settings name; errors as :class:`PictureCodec`.

    Args:
        settings: of its kind.
        size: S.
        num_uses: u.
        context_width: of what the fusion center gives; a codec may leave it.
    """
    build: Any = CODECS[settings.kind]
    return cast(PictureCodec, build(settings, size, num_uses, context_width))
