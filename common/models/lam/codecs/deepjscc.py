"""DeepJSCC: five convolutions at each end, trained through the channel, with no knowledge of the SNR.

::

    picture [B, 3, S, S] ─► 5 convolutions 5 × 5, two of stride 2, PReLU between ─► u complex uses ─► power 1 per use
    arrived [B, u]       ─► 5 transposed convolutions, PReLU, the last one's sigmoid ─► picture

Source: Bourtsoulatze, Burth Kurka and Gündüz, "Deep Joint Source-Channel Coding for Wireless Image Transmission", IEEE
Transactions on Cognitive Communications and Networking, 2019, Fig. 2: 16, 32, 32 and 32 channels. It is meant to be
trained at the SNR, or the range of SNRs, at which it is used.
"""

from typing import Literal

from jaxtyping import Complex, Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sclmkb.common.models.lam.codecs.base import CODECS, CodecSettings, PictureCodec


class PlainCodecSettings(CodecSettings):
    """A convolutional autoencoder."""

    channels: PositiveInt = Field(default=32, description="channels of the hidden layers; the outermost have half")


class DeepJsccSettings(PlainCodecSettings):
    """DeepJSCC: a plain convolutional autoencoder over the channel."""

    kind: Literal["deepjscc"] = Field(default="deepjscc", description="the codec: deepjscc")


@CODECS.register(DeepJsccSettings)
class DeepJscc(PictureCodec):
    """See the module.

    Args:
        settings: sizes.
        size: S.
        num_uses: u.
        context_width: of what the fusion center gives, which is left.
    """

    learning_rate = 4e-3

    def __init__(self, settings: PlainCodecSettings, size: int, num_uses: int, context_width: int) -> None:
        super().__init__(size, num_uses)
        c, thin = settings.channels, max(settings.channels // 2, 1)
        widths, strides = [3, thin, c, c, c, self.depth], [2, 2, 1, 1, 1]
        ends = list(zip(widths, widths[1:], strides, strict=False))
        self.to_symbols = nn.ModuleList(nn.Conv2d(a, b, 5, stride, 2) for a, b, stride in ends)
        self.from_symbols = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 5, stride, 2, output_padding=stride - 1) for a, b, stride in reversed(ends)
        )
        self.sender_between = nn.ModuleList(self.between(width) for width in widths[1:-1])
        self.receiver_between = nn.ModuleList(self.between(width) for width in reversed(widths[1:-1]))

    def between(self, channels: int) -> nn.Module:
        """Return what stands between two convolutions; it takes maps ``[B, channels, ., .]`` and SNRs ``[B]``."""
        return _Plain(channels)

    def encode(
        self, pictures: Float[Tensor, "B 3 S S"], snr_db: Float[Tensor, " B"], context: Float[Tensor, "B w"] | None
    ) -> Complex[Tensor, "B u"]:
        """See :meth:`PictureCodec.encode`."""
        planes = _through(self.to_symbols, self.sender_between, pictures, snr_db)
        return self.to_uses(planes)

    def decode(self, arrived: Complex[Tensor, "B u"], snr_db: Float[Tensor, " B"]) -> Float[Tensor, "B 3 S S"]:
        """See :meth:`PictureCodec.decode`."""
        planes = self.to_planes(arrived)
        return _through(self.from_symbols, self.receiver_between, planes, snr_db).sigmoid()


class _Plain(nn.Module):
    """PReLU, whatever the SNR."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor, snr_db: Tensor) -> Tensor:
        y: Tensor = self.act(x)
        return y


def _through(layers: nn.ModuleList, between: nn.ModuleList, x: Tensor, snr_db: Tensor) -> Tensor:
    for layer, act in zip(layers, between, strict=False):
        x = act(layer(x), snr_db)
    last: Tensor = layers[-1](x)
    return last
