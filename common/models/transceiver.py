"""The whole link: captions over a MIMO channel to retrieval embeddings, and pictures to the same space."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Complex, Float, UInt8
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sclmkb.common.channel.link import LinkCsi, LinkState
from sclmkb.common.channel.mimo import (
    Detected,
    detect_dmrs,
    detect_literal,
    estimate_effective_channel,
    normalise_power,
    normalise_streams,
    precode,
    symbol_mse,
    transmit,
)
from sclmkb.common.config import Settings
from sclmkb.common.corpora.media_store import MediaStore
from sclmkb.common.models.encoders import PictureEncoder
from sclmkb.common.models.jscc import JsccDecoder, JsccEncoder
from sclmkb.common.seeds import make_generator

Receiver = Literal["literal", "dmrs"]
RECEIVERS: tuple[Receiver, ...] = ("literal", "dmrs")


class TransceiverSettings(Settings):
    """Shape of a :class:`Transceiver`."""

    num_streams: PositiveInt = Field(default=4, description="k, spatial streams")
    num_uses: PositiveInt = Field(default=16, description="m, channel uses a caption")
    text_width: PositiveInt = 384
    hidden_width: PositiveInt = 256
    embedding_width: PositiveInt = 128
    picture_size: PositiveInt = Field(default=64, description="pictures are brought to this side in pixels")
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
        shape: dict[str, Any] = {
            "hidden_width": settings.hidden_width,
            "num_streams": settings.num_streams,
            "num_uses": settings.num_uses,
        }
        self.encoder = JsccEncoder(text_width=settings.text_width, **shape)
        self.decoder = JsccDecoder(embedding_width=settings.embedding_width, **shape)
        self.pictures = PictureEncoder(settings.picture_widths, settings.embedding_width)

    def encode(self, text: Float[Tensor, "nB t"], link: LinkState) -> Complex[Tensor, "nB k m"]:
        """Return F = E_α(s), (1), of unit power per channel use; ``text`` may be several batches for one link."""
        times = len(text) // len(link.snr_db)
        f: Tensor = self.encoder(text, link.snr_db.repeat(times), link.stream_snr_db.repeat(times, 1))
        return f if link.power == "equal" else self.limit_power(f, link)

    def limit_power(self, f: Complex[Tensor, "nB k m"], link: LinkState) -> Complex[Tensor, "nB k m"]:
        """Scale features to what the link takes: a power of 1 in all with equal power, of 1/k a stream otherwise."""
        return normalise_power(f) if link.power == "equal" else normalise_streams(f)

    def convey(
        self,
        f: Complex[Tensor, "B k m"],
        link: LinkState,
        receiver: Receiver,
        generator: torch.Generator | None = None,
    ) -> Detected:
        """Return what the receiver makes of F after precoding and channel, (3) to (5); without a link F itself."""
        if link.bypass:
            return Detected(f, link.stream_snr_db)
        y = transmit(link.h, precode(link.beams, f), link.snr_db, generator)
        if receiver == "literal":
            return detect_literal(y, link.beams, link.snr_db)
        pilot_snr_db = link.snr_db + self.settings.dmrs_pilot_boost_db
        effective = estimate_effective_channel(link.h, link.beams, pilot_snr_db, generator)
        return detect_dmrs(y, effective, link.snr_db, pilot_snr_db)

    def decode(self, detected: Detected, link: LinkState) -> Float[Tensor, "nB d"]:
        """Return retrieval embeddings t^ = D_β(F~), (6), of unit length.

        What was detected may be several batches side by side, ``[B, k, n·m]``, sent over the link one after the
        other; their embeddings then come one batch after the other, ``[n·B, d]``.
        """
        times = detected.symbols.shape[2] // self.settings.num_uses
        symbols = torch.cat(detected.symbols.chunk(times, dim=2))
        t: Tensor = self.decoder(Detected(symbols, detected.stream_snr_db.repeat(times, 1)), link.snr_db.repeat(times))
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


@torch.no_grad()
def transmit_queries(
    model: Transceiver,
    text: Float[Tensor, "Q t"],
    csi: LinkCsi,
    *,
    snr_db: float,
    receiver: Receiver,
    steps: Sequence[int],
    seed: int,
) -> tuple[Float[Tensor, "Q d"], Float[Tensor, "Q"]]:
    """Send captions over channels, and noise, that depend on the seed alone: the same for every system and SNR.

    Args:
        model: in evaluation mode.
        text: caption embeddings.
        csi: of the system that is measured; every CSI source has the same true channels.
        snr_db: of all queries.
        receiver: which one.
        steps: future steps, from 0, that the queries take in turn.
        seed: what drops and noise follow from.

    Returns:
        Retrieval embeddings, and the symbol MSE of each query (linear).
    """
    num = len(text)
    draw = make_generator(seed, "queries")
    drop = torch.randint(csi.num_drops, (num,), generator=draw)
    step = torch.tensor(list(steps))[torch.arange(num) % len(steps)]
    link = csi.state(drop, step, torch.full((num,), snr_db))
    f = model.encode(text, link)
    detected = model.convey(f, link, receiver, draw)
    return model.decode(detected, link), symbol_mse(f, detected.symbols)


@torch.no_grad()
def embed_gallery(model: Transceiver, store: MediaStore, batch_size: int = 256) -> Float[Tensor, "N d"]:
    """Return the embeddings of all items of a gallery; the model must be in evaluation mode."""
    batches = torch.split(torch.arange(len(store)), batch_size)
    return torch.cat([model.embed_pictures(store.take(index).values) for index in batches])
