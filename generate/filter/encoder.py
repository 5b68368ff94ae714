"""The encoder E_α of the hallucination filter, equations (22) and (23).

::

    F_s = E_α(s)      (22)
    F_g = E_α(s_g)    (23)

s is a source caption and s_g a generated one.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sclmkb.common.artifacts.checkpoints import Checkpoint
from sclmkb.common.models.encoders.sentence import SentenceEncoder
from sclmkb.common.models.encoders.text import TextSettings, text_width
from sclmkb.common.models.encoders.tuned_text import CaptionEncoder, TunedTextEncoder
from sclmkb.common.models.jscc import JsccEncoder
from sclmkb.common.precision import best_device, fast_cpu_dtype
from sclmkb.common.tasks.trained import TrainedSystem
from sclmkb.generate.filter.filter import JSCC_PREFIX

Part = TypeVar("Part", bound=nn.Module)

_JSCC_SNR_DB = 10.0
_JSCC_CHANNEL_GAIN = 256.0
_BATCH_SIZE = 32  # small batches stay in the cache of a core


class TextEncoder(Protocol):
    """Turns texts into unit-length features."""

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "B d"]:
        """Return features ``[B, d]`` of unit length, on the CPU."""
        ...


class FilterEncoder:
    """A sentence encoder set up for short captions; satisfies :class:`TextEncoder`."""

    def __init__(self, encoder: SentenceEncoder, dtype: str) -> None:
        """Wrap an encoder; ``dtype`` is that of its matrix products, ``float32``, ``bfloat16`` or ``auto``."""
        self._device = best_device()
        chosen = fast_cpu_dtype() if dtype == "auto" else dtype
        self._encoder, self._reduced = encoder.to(self._device), chosen == "bfloat16"
        if self._reduced:  # what autocast would do at every call, for the same features
            for module in self._encoder.modules():
                if isinstance(module, nn.Linear):
                    module.to(torch.bfloat16)

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "B d"]:
        """Return features ``[B, d]`` of unit length, on the CPU."""
        batch_size = _BATCH_SIZE if self._device == "cpu" else 16 * _BATCH_SIZE
        with torch.autocast(self._device, torch.bfloat16, enabled=self._reduced):
            features = self._encoder.encode(texts, batch_size=batch_size)
        return nn.functional.normalize(features, dim=-1)


class JsccTextEncoder:
    """The trained E_α of a transceiver, as the paper has it; satisfies :class:`TextEncoder`.

    ::

        texts ─► sentence encoder ─► E_α at a fixed channel ─► F [B, k, m] ─► real and imaginary parts ─► x / ‖x‖

    F depends on the channel as well. Here the channel always has an SNR of 10 dB, with the mean power of 16×16
    antennas spread evenly over the k streams.
    """

    def __init__(self, sentences: TextEncoder, encoder: JsccEncoder) -> None:
        """Put a JSCC encoder behind the sentence encoder that it was trained with."""
        self._sentences, self._encoder = sentences, encoder.eval()

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Float[Tensor, "B d"]:
        """Return features ``[B, 2·k·m]`` of unit length: their inner product is that of the transmitted symbols."""
        embedded = self._sentences.encode(texts)
        streams = self._encoder.num_streams
        snr_db = torch.full((len(texts),), _JSCC_SNR_DB)
        stream_gain_db = 10 * torch.log10(torch.tensor(_JSCC_CHANNEL_GAIN / streams**2))
        f = self._encoder(embedded, snr_db, (snr_db + stream_gain_db)[:, None].expand(-1, streams))
        return nn.functional.normalize(torch.view_as_real(f).flatten(1), dim=-1)


def load_text_encoder(name: str, dtype: str = "float32") -> TextEncoder:
    """Load an encoder.

    Args:
        name: ``minilm`` (embedded), a folder or a hub name of a sentence encoder, or ``jscc:FOLDER`` for a checkpoint
            of ``sclmkb-train jscc``. An untrained E_α would give a meaningless cosine.
        dtype: of the sentence encoder's matrix products, ``float32``, ``bfloat16``, or ``auto``: the processor's.

    Raises:
        UserError: if it cannot be loaded.
    """
    if not name.startswith(JSCC_PREFIX):
        return FilterEncoder(SentenceEncoder(TextSettings(name=name)), dtype)
    trained = TrainedSystem.load(Path(name.removeprefix(JSCC_PREFIX)))
    checkpoint, model, text = trained.checkpoint, trained.settings.model, trained.settings.text
    shape = {key: getattr(model, key) for key in ("hidden_width", "num_streams", "num_uses")}
    encoder = _part(checkpoint, "encoder.", JsccEncoder(text_width=text_width(text), **shape))
    if text.tune != "frozen":
        return JsccTextEncoder(CaptionEncoder(text, _part(checkpoint, "text.", TunedTextEncoder(text))), encoder)
    return JsccTextEncoder(FilterEncoder(SentenceEncoder(text), dtype), encoder)


def _part(checkpoint: Checkpoint, prefix: str, module: Part) -> Part:
    """Fill a part of the transceiver with what a checkpoint has of it."""
    own = {name.removeprefix(prefix): tensor for name, tensor in checkpoint.part(prefix).items()}
    replace(checkpoint, tensors=own).load_into(module)
    return module
