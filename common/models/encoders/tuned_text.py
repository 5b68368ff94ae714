"""Text encoders whose last layers are trained with the link; hidden states below these are kept on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sclmkb.common.artifacts.files import cache_dir, replacing
from sclmkb.common.config import fingerprint
from sclmkb.common.errors import UserError
from sclmkb.common.models.encoders.sentence import load_frozen
from sclmkb.common.models.encoders.text import (
    TextBatch,
    TextSettings,
    after_layers,
    backbone_of,
    batches_by_length,
    load_text_model,
    pool,
    pooled_width,
    read_text_config,
    text_fingerprint,
)
from sclmkb.common.models.encoders.tuning import transformer_layers, tune_layers
from sclmkb.common.precision import best_device


class TextStates:
    """Hidden states of texts below the tuned layers, on disk in bfloat16; a batch of them is read at a time.

    Attributes:
        length: tokens of each text ``[N]``.
    """

    def __init__(self, path: Path, length: Int[Tensor, " N"], width: int) -> None:
        """Use :func:`hidden_states`."""
        self.length = length
        self._first = length.cumsum(0) - length
        total = int(length.sum())
        self._values = np.memmap(path, np.int16, "r", shape=(total, width)) if total else np.empty((0, width), np.int16)

    def __len__(self) -> int:
        return len(self.length)

    def take(self, index: Int[Tensor, " B"]) -> TextBatch:
        """Return the states of some texts, padded to the longest of these, in float32."""
        length = self.length[index]
        batch = torch.zeros(len(index), int(length.max()) if len(index) else 0, self._values.shape[1])
        for row, (first, count) in enumerate(zip(self._first[index].tolist(), length.tolist(), strict=True)):
            batch[row, :count] = torch.from_numpy(np.array(self._values[first : first + count])).view(torch.bfloat16)
        return TextBatch(batch, length)


def hidden_states(texts: Sequence[str], settings: TextSettings) -> TextStates:
    """Return the states of texts that enter the tuned layers, computed once and kept in :func:`cache_dir`.

    They take 2·w bytes per token: 30 MB for 1,000 captions of 20 tokens and BERT's w = 768.

    Raises:
        UserError: if the encoder cannot be loaded, or has fewer layers.
    """
    key = fingerprint([text_fingerprint(settings), settings.num_layers, settings.max_length, *texts])
    path = cache_dir() / "hidden" / f"{key}.bf16"
    lengths = path.with_suffix(".npy")
    width = int(read_text_config(settings.name).hidden_size)
    try:
        length = torch.from_numpy(np.load(lengths))
        if path.stat().st_size == int(length.sum()) * width * 2:
            return TextStates(path, length, width)
    except (OSError, ValueError, EOFError):
        pass
    lower = _LowerLayers(settings)
    tokens = [lower.tokenize(text) for text in texts]
    length = torch.tensor([len(ids) for ids in tokens], dtype=torch.long)
    first = (length.cumsum(0) - length).tolist()
    with replacing(path) as temporary:
        temporary.touch()
        if total := int(length.sum()):
            values = np.memmap(temporary, np.int16, "r+", shape=(total, width))
            for batch in batches_by_length(length.tolist()):
                for row, states in zip(batch, lower([tokens[i] for i in batch]), strict=True):
                    values[first[row] : first[row] + len(states)] = states.view(torch.int16).numpy()
            values.flush()
            del values
    with replacing(lengths) as temporary, temporary.open("wb") as file:
        np.save(file, length.numpy())
    return TextStates(path, length, width)


class TunedTextEncoder(nn.Module):
    """The last layers of a text encoder, trained; what is below them is frozen and computed once.

    ::

        texts ─► tokenizer ─► layers 1 … n - num_layers ─► [B, L, w] on disk   (hidden_states, frozen)
                 ─► the last num_layers layers, trained whole or by LoRA ─► pooling ─► x / ‖x‖ [B, t]

    There is no dropout, so that a resumed training is the same. Only what is trained goes into checkpoints.
    """

    def __init__(self, settings: TextSettings) -> None:
        """Load the weights; a UserError says if there are none, fewer layers or another layout."""
        super().__init__()
        self.settings = settings
        model, self._tokenizer, _ = load_text_model(settings.name, settings.pooling)
        backbone = backbone_of(model)
        layers = transformer_layers(backbone, settings.name, settings.num_layers)
        if not isinstance(getattr(backbone, "embeddings", None), nn.Module):
            raise UserError(f"text encoder '{settings.name}' has another layout than BERT or CLIP: use tune=frozen")
        self._given = _Given()
        cast(Any, backbone).embeddings = self._given
        del layers[: len(layers) - settings.num_layers]
        if settings.pooling != "model" and hasattr(model, "pooler"):
            cast(Any, model).pooler = None
        tune_layers(model, [*layers, *after_layers(model)], settings.tune, settings.lora_rank)
        self.model = model.eval()

    @property
    def width(self) -> int:
        """Width t of an embedding."""
        return pooled_width(self.model.config, self.settings.pooling)

    def train(self, mode: bool = True) -> "TunedTextEncoder":
        """Stay in evaluation mode: no dropout."""
        return super().train(False)

    def forward(self, batch: TextBatch) -> Float[Tensor, "B t"]:
        """Return unit-length embeddings ``[B, t]`` of texts whose lower hidden states are given."""
        mask = (torch.arange(batch.values.shape[1], device=batch.length.device) < batch.length[:, None]).long()
        self._given.hidden = batch.values
        hidden = backbone_of(self.model)(input_ids=torch.zeros_like(mask), attention_mask=mask).last_hidden_state
        self._given.hidden = None
        return nn.functional.normalize(pool(self.model, hidden, mask, self.settings.pooling).float(), dim=-1)

    @torch.no_grad()
    def encode(self, states: TextStates) -> Float[Tensor, "N t"]:
        """Return unit-length embeddings ``[N, t]`` of all texts, on the CPU."""
        device = next(self.model.parameters()).device
        result = torch.empty(len(states), self.width)
        for batch in batches_by_length(states.length.tolist()):
            values, length = states.take(torch.tensor(batch))
            result[batch] = self(TextBatch(values.to(device), length.to(device))).float().cpu()
        return result


class CaptionEncoder:
    """From words to what E_α takes, for captions that are new each time; nothing is cached."""

    def __init__(self, settings: TextSettings, tuned: TunedTextEncoder | None = None) -> None:
        self._tuned = tuned
        self._lower = _LowerLayers(settings) if tuned is not None else None
        self._frozen = load_frozen(settings) if tuned is None else None

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Float[Tensor, "B t"]:
        """Return unit-length embeddings ``[B, t]`` of captions, on the CPU."""
        if self._frozen is not None:
            return self._frozen.encode(texts)
        assert self._lower is not None
        assert self._tuned is not None
        device = next(self._tuned.parameters()).device
        tokens = [self._lower.tokenize(text) for text in texts]
        result = torch.empty(len(texts), self._tuned.width)
        for batch in batches_by_length([len(ids) for ids in tokens]):
            states = self._lower([tokens[i] for i in batch])
            length = torch.tensor([len(state) for state in states], device=device)
            values = nn.utils.rnn.pad_sequence(states, batch_first=True).float().to(device)
            result[batch] = self._tuned(TextBatch(values, length)).float().cpu()
        return result


class _Given(nn.Module):
    """Stands where embeddings and lower layers were and returns what they gave."""

    hidden: Tensor | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        assert self.hidden is not None
        return self.hidden


class _LowerLayers:
    """The frozen part of a text encoder: from token ids to what enters the tuned layers."""

    def __init__(self, settings: TextSettings) -> None:
        model, self.tokenizer, longest = load_text_model(settings.name, settings.pooling)
        self.max_length, self._device = min(settings.max_length, longest), best_device()
        self._backbone = backbone_of(model).eval().to(self._device)
        layers = transformer_layers(self._backbone, settings.name, settings.num_layers)
        split = len(layers) - settings.num_layers
        del layers[split + 1 :]
        self._entering: Tensor | None = None
        layers[split].register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._entering = args[0] if args else kwargs["hidden_states"]

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        return list(self.tokenizer(text, truncation=True, max_length=self.max_length)["input_ids"])

    @torch.no_grad()
    def __call__(self, tokens: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the states ``[L, w]`` of each text, in bfloat16 on the CPU."""
        padded = self.tokenizer.pad({"input_ids": [list(ids) for ids in tokens]}, return_tensors="pt")
        inputs = {name: padded[name].to(self._device) for name in ("input_ids", "attention_mask")}
        self._backbone(**inputs)
        assert self._entering is not None
        states = self._entering.to(torch.bfloat16).cpu()
        return [row[: len(ids)].contiguous() for row, ids in zip(states, tokens, strict=True)]
