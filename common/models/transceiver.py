"""The whole link: captions over a MIMO channel to retrieval embeddings, and media to the same space."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Complex, Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sclmkb.common.artifacts.checkpoints import Checkpoint
from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.link.link import Receiver, convey
from sclmkb.common.link.mimo import Detected, normalise_streams, normalise_symbols
from sclmkb.common.link.sources import LinkState
from sclmkb.common.modalities.store import MediaStore
from sclmkb.common.models.encoders.base import AnyMediaEncoderSettings, build_media_encoder
from sclmkb.common.models.encoders.image_cnn import CnnSettings
from sclmkb.common.models.encoders.sentence import embed_texts
from sclmkb.common.models.encoders.text import TextSettings, text_width
from sclmkb.common.models.encoders.tuned_text import TunedTextEncoder, hidden_states
from sclmkb.common.models.jscc import JsccDecoder, JsccEncoder

GALLERY_BATCH = 256
"""Items of a gallery that are embedded at a time."""


class TransceiverSettings(Settings):
    """Shape of a :class:`Transceiver`."""

    num_streams: PositiveInt = Field(default=4, description="spatial streams k")
    num_uses: PositiveInt = Field(default=16, description="channel uses m per caption")
    text_width: PositiveInt = Field(
        default=384, description="width of a caption embedding; follows from the text encoder"
    )
    hidden_width: PositiveInt = Field(default=256, description="width of the hidden layers of JSCC encoder and decoder")
    embedding_width: PositiveInt = Field(
        default=128, description="width of the shared space in which captions and media are compared"
    )
    media: AnyMediaEncoderSettings = Field(
        default=CnnSettings(), description="the media encoder (`kind`) and its own settings"
    )
    dmrs_pilot_boost_db: float = Field(
        default=0.0, description="SNR of the pilots of receiver dmrs minus the SNR of the link [dB]"
    )


class Transceiver(nn.Module):
    """Semantic transceiver of SC-LMKB, equations (1) to (6).

    ::

        caption embedding [B, t] ─► E_α ─► F [B, k, m] ─► V_k F ─► Y = H X + N ─► receiver ─► F^ ─► D_β ─► [B, d]
                                     ▲                     ▲                        ▲
                            SNR, Σ_k │          V_k of the │        U_k, Σ_k of the same CSI (literal), or
                                     └─ transmitter's CSI ─┘        H V_k from pilots (dmrs)
        picture [B, 3, S, S], motion [B, F, D] or sound [B, F, M] ─► media encoder ─► [B, d]

    The power of the streams is on the beams, V_k and Σ_k: all the same, or water-filling with the transmitter's CSI.
    The stream SNRs that E_α and D_β are told follow from it. With channel ``none``, F^ is F.

    A frozen sentence encoder stands before it, so that captions are embedded once. A tuned encoder is part of it.

    ``media_shape`` is that of one item, ``MediaStore.shape``; it is needed where the corpus decides a part (motion).
    """

    def __init__(
        self,
        settings: TransceiverSettings,
        text: TunedTextEncoder | None = None,
        media_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.text = settings, text
        self.media_shape = settings.media.form().complete(media_shape)
        shape: dict[str, Any] = {
            "hidden_width": settings.hidden_width,
            "num_streams": settings.num_streams,
            "num_uses": settings.num_uses,
        }
        self.encoder = JsccEncoder(text_width=settings.text_width, **shape)
        self.decoder = JsccDecoder(embedding_width=settings.embedding_width, **shape)
        self.media = build_media_encoder(settings.media, self.media_shape, settings.embedding_width)

    def encode(self, text: Float[Tensor, "nB t"], link: LinkState) -> Complex[Tensor, "nB k m"]:
        """Return F = E_α(s), (1), of unit power per channel use; ``text`` may be several batches for one link."""
        times = len(text) // len(link.snr_db)
        f: Tensor = self.encoder(text, link.snr_db.repeat(times), link.stream_snr_db.repeat(times, 1))
        return f if link.power == "equal" else self.limit_power(f, link)

    def limit_power(self, f: Complex[Tensor, "nB k m"], link: LinkState) -> Complex[Tensor, "nB k m"]:
        """Scale features to what the link takes: a power of 1 in all with equal power, of 1/k per stream otherwise."""
        return normalise_symbols(f) if link.power == "equal" else normalise_streams(f)

    def convey(
        self,
        f: Complex[Tensor, "B k m"],
        link: LinkState,
        receiver: Receiver,
        generator: torch.Generator | None = None,
    ) -> Detected:
        """Return what the receiver makes of F after precoding and channel, (3) to (5); without a link F itself."""
        return convey(link, f, receiver, generator, self.settings.dmrs_pilot_boost_db)

    def decode(self, detected: Detected, link: LinkState) -> Float[Tensor, "nB d"]:
        """Return retrieval embeddings t^ = D_β(F~), (6), of unit length.

        What was detected may be several batches side by side, ``[B, k, n·m]``, sent over the link one after the other.
        Their embeddings then come in the same order, ``[n·B, d]``.
        """
        times = detected.symbols.shape[2] // self.settings.num_uses
        symbols = torch.cat(detected.symbols.chunk(times, dim=2))
        detected = Detected(symbols, detected.stream_snr_db.repeat(times, 1))
        return cast(Tensor, self.decoder(detected, link.snr_db.repeat(times)))

    def forward(
        self,
        text: Float[Tensor, "B t"],
        link: LinkState,
        receiver: Receiver = "literal",
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B d"]:
        """Return retrieval embeddings ``[B, d]`` of transmitted captions."""
        return self.decode(self.convey(self.encode(text, link), link, receiver, generator), link)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return the trained parameters that come from pre-trained models; they want a lower learning rate."""
        text = [p for p in self.text.parameters() if p.requires_grad] if self.text is not None else []
        return [*text, *self.media.pretrained_parameters()]


@torch.no_grad()
def embed_gallery(model: Transceiver, store: MediaStore) -> Float[Tensor, "N d"]:
    """Return the embeddings of all items of a gallery, on the CPU; the model must be in evaluation mode.

    Raises:
        UserError: if the items have another shape than those that the model was trained on.
    """
    if store.shape != model.media_shape:
        raise UserError(
            f"the model takes {store.form.kind} of shape {list(model.media_shape)}, the corpus has"
            f" {list(store.shape)}: use the corpus it was trained on"
        )
    device = next(model.parameters()).device
    parts = torch.split(torch.arange(len(store)), GALLERY_BATCH)
    return torch.cat([model.media(store.take(index).to(device)).float().cpu() for index in parts])


def embed_captions(model: Transceiver, texts: Sequence[str], settings: TextSettings) -> Float[Tensor, "Q t"]:
    """Return what E_α takes of captions, on the CPU; what does not depend on the model's weights is cached.

    Raises:
        UserError: if the text encoder cannot be loaded.
    """
    return embed_texts(texts, settings) if model.text is None else model.text.encode(hidden_states(texts, settings))


def build_transceiver(
    settings: TransceiverSettings, text: TextSettings, media_shape: Sequence[int] | None = None
) -> Transceiver:
    """Return a new transceiver behind a text encoder, whose width it takes.

    Raises:
        UserError: if a pre-trained encoder cannot be loaded or does not fit.
    """
    shape = settings.model_copy(update={"text_width": text_width(text)})
    return Transceiver(shape, TunedTextEncoder(text) if text.tune != "frozen" else None, media_shape)


def load_transceiver(checkpoint: Checkpoint, settings: TransceiverSettings, text: TextSettings) -> Transceiver:
    """Return the model of a checkpoint of ``sclmkb-train jscc`` in evaluation mode.

    Raises:
        UserError: if the weights do not fit, or need encoders that are not there or are others.
    """
    form, scale = settings.media.form(), checkpoint.tensors.get("media.scale.mean")
    if None in form.shape and scale is None:
        raise UserError(f"checkpoint {checkpoint.root} holds no encoder of {form.kind}: train it again")
    shape = None if scale is None else [len(scale)] * len(form.shape)  # where the corpus decided
    model = build_transceiver(settings, text, shape)
    checkpoint.load_into(model)
    return model.eval()
