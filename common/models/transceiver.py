"""The whole link: captions over a MIMO channel to retrieval embeddings, and pictures to the same space."""

from typing import Literal

import torch
from jaxtyping import Complex, Float, UInt8
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sclmkb.common.channel.link import LinkState
from sclmkb.common.channel.mimo import (
    Detected,
    detect_dmrs,
    detect_literal,
    estimate_effective_channel,
    noise_power,
    precode,
    transmit,
)
from sclmkb.common.config import Settings
from sclmkb.common.models.encoders import PictureEncoder
from sclmkb.common.models.jscc import JsccDecoder, JsccEncoder

Receiver = Literal["literal", "dmrs"]
RECEIVERS: tuple[Receiver, ...] = ("literal", "dmrs")


class TransceiverSettings(Settings):
    """Shape of a :class:`Transceiver`."""

    num_streams: PositiveInt = Field(default=4, description="k, spatial streams")
    num_uses: PositiveInt = Field(default=16, description="m, channel uses a caption")
    text_width: PositiveInt = 384
    hidden_width: PositiveInt = 256
    embedding_width: PositiveInt = 128
    picture_size: PositiveInt = 64
    picture_widths: tuple[PositiveInt, ...] = (32, 64, 128)
    dmrs_pilot_boost_db: float = Field(default=0.0, description="pilot SNR of receiver dmrs = SNR + this")


class Transceiver(nn.Module):
    """Semantic transceiver of SC-LMKB, equations (1) to (6).

    ::

        caption embedding [B, t] ─► E_α ─► F [B, k, m] ─► V_k F ─► Y = H X + N ─► receiver ─► F^ ─► D_β ─► [B, d]
                                     ▲                     ▲                        ▲
                            SNR, Σ_k │          V_k of the │        U_k, Σ_k of the same CSI (literal), or
                                     └─ transmitter's CSI ─┘        H V_k from pilots (dmrs)
        picture [B, 3, S, S] ─► CNN ─► [B, d]

    The frozen sentence encoder stands before it, so that captions are embedded once.
    """

    def __init__(self, settings: TransceiverSettings) -> None:
        super().__init__()
        self.settings = settings
        shape = {
            "hidden_width": settings.hidden_width,
            "num_streams": settings.num_streams,
            "num_uses": settings.num_uses,
        }
        self.encoder = JsccEncoder(text_width=settings.text_width, **shape)
        self.decoder = JsccDecoder(embedding_width=settings.embedding_width, **shape)
        self.pictures = PictureEncoder(settings.picture_widths, settings.embedding_width)

    def encode(self, text: Float[Tensor, "B t"], link: LinkState) -> Complex[Tensor, "B k m"]:
        """Return F = E_α(s), (1), of unit power per channel use."""
        stream_power = link.beams.s.square() / (self.settings.num_streams * noise_power(link.snr_db)[:, None])
        stream_snr_db = 10 * torch.log10(stream_power.clamp(min=1e-5, max=1e8))
        f: Tensor = self.encoder(text, link.snr_db, stream_snr_db)
        return f

    def convey(
        self,
        f: Complex[Tensor, "B k m"],
        link: LinkState,
        receiver: Receiver,
        generator: torch.Generator | None = None,
    ) -> Detected:
        """Return what the receiver makes of F after precoding and channel, (3) to (5)."""
        y = transmit(link.h, precode(link.beams, f), link.snr_db, generator)
        if receiver == "literal":
            return detect_literal(y, link.beams, link.snr_db)
        pilot_snr_db = link.snr_db + self.settings.dmrs_pilot_boost_db
        effective = estimate_effective_channel(link.h, link.beams, pilot_snr_db, generator)
        return detect_dmrs(y, effective, link.snr_db, pilot_snr_db)

    def decode(self, detected: Detected, link: LinkState) -> Float[Tensor, "B d"]:
        """Return the retrieval embedding t^ = D_β(F~), (6), of unit length."""
        t: Tensor = self.decoder(detected, link.snr_db)
        return t

    def forward(
        self,
        text: Float[Tensor, "B t"],
        link: LinkState,
        receiver: Receiver = "literal",
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B d"]:
        """Return retrieval embeddings ``[B, d]`` of transmitted captions."""
        return self.decode(self.convey(self.encode(text, link), link, receiver, generator), link)

    def embed_pictures(self, pictures: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B d"]:
        """Return unit-length embeddings ``[B, d]`` of pictures."""
        v: Tensor = self.pictures(pictures)
        return v
