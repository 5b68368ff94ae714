"""Encoders of captions: a frozen sentence encoder, or one whose last layers are trained with the link.

What does not change while training is computed once and kept on disk: the embeddings of a frozen encoder, and the
hidden states below the layers that are tuned.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sclmkb.common.artifacts.files import replacing
from sclmkb.common.config import Settings, fingerprint
from sclmkb.common.errors import UserError
from sclmkb.common.models.encoders.tuning import Tune, transformer_layers, tune_layers
from sclmkb.common.models.pretrained import cache_dir, content_fingerprint, quiet_loading, resolve_encoder

Pooling = Literal["mean", "cls", "model"]
_BATCH_SIZE = 128


class TextSettings(Settings):
    """Which text encoder, and what of it is trained."""

    name: str = Field(
        default="minilm", description="text encoder: minilm (embedded), a folder or a hub name of a BERT or CLIP model"
    )
    pooling: Pooling = Field(
        default="mean",
        description="mean: over the tokens; cls: the first token; model: the model's own output for a text (BERT's "
        "pooler, CLIP's projected last token)",
    )
    tune: Tune = Field(
        default="frozen",
        description="which weights are trained: frozen (none), the last layers, or LoRA adapters in the last layers",
    )
    num_layers: PositiveInt = Field(default=2, description="number of last layers that are tuned")
    lora_rank: PositiveInt = Field(default=8, description="rank of the LoRA adapters")
    max_length: PositiveInt = Field(
        default=128, description="tokens per text, at most the model's limit; longer texts are cut"
    )


class TextBatch(NamedTuple):
    """Hidden states of B texts below the tuned layers.

    Attributes:
        values: ``[B, L, w]``, zero behind a text's end.
        length: tokens of each text ``[B]``.
    """

    values: Tensor
    length: Tensor


class SentenceEncoder(nn.Module):
    """A BERT-like sentence encoder: tokens, transformer, one vector of all tokens, unit length.

    ::

        texts ─► tokenizer ─► transformer [B, L, w] ─► mean over tokens, first token, or as the model has it ─► x / ‖x‖

    Source: Reimers and Gurevych, Sentence-BERT, 2019; the embedded weights are all-MiniLM-L6-v2, d = 384.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, max_length: int = 128, pooling: Pooling = "mean") -> None:
        super().__init__()
        self.model, self.tokenizer, self.pooling = model, tokenizer, pooling
        self.max_length = max_length

    @classmethod
    def from_pretrained(
        cls, name: str = "minilm", *, pooling: Pooling = "mean", max_length: int = 128
    ) -> "SentenceEncoder":
        """Load ``minilm``, a local folder or a hub name.

        Raises:
            UserError: if it cannot be loaded, or lacks weights that are needed.
        """
        model, tokenizer, longest = _load(name, pooling)
        return cls(model.eval(), tokenizer, min(max_length, longest), pooling)

    @property
    def width(self) -> int:
        """Width d of an embedding."""
        return _pooled_width(self.model, self.pooling)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Int[Tensor, "B L"]]:
        """Return padded token ids and attention mask, each ``[B, L]``."""
        encoded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def forward(self, input_ids: Int[Tensor, "B L"], attention_mask: Int[Tensor, "B L"]) -> Float[Tensor, "B d"]:
        """Return unit-length embeddings ``[B, d]`` of tokenised texts."""
        hidden = _backbone(self.model)(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return nn.functional.normalize(_pool(self.model, hidden, attention_mask, self.pooling), dim=-1)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch_size: int = _BATCH_SIZE) -> Float[Tensor, "B d"]:
        """Return unit-length embeddings ``[B, d]`` of texts; sorted by length inside, so that padding is little."""
        device = next(self.model.parameters()).device
        result = torch.empty(len(texts), self.width)
        for batch in _by_length([len(text) for text in texts], batch_size):
            tokens = self.tokenize([texts[i] for i in batch])
            result[batch] = self(**{name: t.to(device) for name, t in tokens.items()}).float().cpu()
        return result


def embed_texts(
    texts: Sequence[str], settings: TextSettings | str | None = None, cache: Path | None = None
) -> Float[Tensor, "B d"]:
    """Return the frozen encoder's embeddings ``[B, d]`` of texts, computed once and kept in a cache.

    The cache's key is the encoder and the list of texts; a file there that cannot be read is made again.

    Args:
        texts: what to embed.
        settings: which encoder (a name: that one with the other settings at their defaults).
        cache: folder of the cache, by default ``embeddings`` in :func:`cache_dir`.

    Raises:
        UserError: if the encoder cannot be loaded.
    """
    if not isinstance(settings, TextSettings):
        settings = TextSettings(name=settings or "minilm")
    source = content_fingerprint(resolve_encoder(settings.name))
    key = fingerprint([source, settings.pooling, settings.max_length, *texts])
    path = (cache or cache_dir() / "embeddings") / f"{key}.safetensors"
    try:
        embeddings: Tensor = load_file(path)["embeddings"]
        return embeddings
    except (OSError, SafetensorError, KeyError):
        pass
    embeddings = _load_frozen(settings).encode(texts)
    with replacing(path) as temporary:
        save_file({"embeddings": embeddings}, temporary)
    mapped: Tensor = load_file(path)["embeddings"]
    return mapped


def text_width(settings: TextSettings) -> int:
    """Return the width t of a text encoder's embeddings; reads its configuration alone.

    Raises:
        UserError: if there is no such encoder.
    """
    if (width := _plain_width(settings.name)) is not None:
        return width
    config = _config(settings.name)
    if settings.pooling == "model" and _is_clip(config):
        return int(config.projection_dim)
    return int(config.hidden_size)


def _plain_width(name: str) -> int | None:
    """Return the width that a folder's configuration spells out; spares the seconds of importing transformers."""
    path = Path(resolve_encoder(name)) / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
        clip = str(config["model_type"]).startswith("clip")
        return None if clip else int(config["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # transformers knows more, and what is wrong


def text_fingerprint(settings: TextSettings) -> str:
    """Return a hash of a text encoder's files, for the plan of a run.

    Raises:
        UserError: if there is no such encoder.
    """
    return content_fingerprint(resolve_encoder(settings.name))


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


def hidden_states(texts: Sequence[str], settings: TextSettings, cache: Path | None = None) -> TextStates:
    """Return the states of texts that enter the tuned layers, computed once and kept in a cache.

    Args:
        texts: what to embed.
        settings: which encoder, and how many of its layers are tuned.
        cache: folder of the cache, by default ``hidden`` in :func:`cache_dir`. It takes 2·w bytes a token: 30 MB for
            1,000 captions of 20 tokens and BERT's w = 768.

    Raises:
        UserError: if the encoder cannot be loaded, or has fewer layers.
    """
    source = content_fingerprint(resolve_encoder(settings.name))
    key = fingerprint([source, settings.num_layers, settings.max_length, *texts])
    path = (cache or cache_dir() / "hidden") / f"{key}.bf16"
    lengths = path.with_suffix(".npy")
    width = int(_config(settings.name).hidden_size)
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
        total = int(length.sum())
        values = np.memmap(temporary, np.int16, "w+", shape=(total, width)) if total else None
        if values is None:
            temporary.touch()
        for batch in _by_length(length.tolist(), _BATCH_SIZE):
            for row, states in zip(batch, lower([tokens[i] for i in batch]), strict=True):
                assert values is not None
                values[first[row] : first[row] + len(states)] = states.view(torch.int16).numpy()
        if values is not None:
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
        """Load the weights.

        Raises:
            UserError: if the encoder cannot be loaded, has fewer layers or another layout.
        """
        super().__init__()
        self.settings = settings
        model, self._tokenizer, _ = _load(settings.name, settings.pooling)
        backbone = _backbone(model)
        layers = transformer_layers(backbone, settings.name, settings.num_layers)
        if not isinstance(getattr(backbone, "embeddings", None), nn.Module):
            raise UserError(f"text encoder '{settings.name}' has another layout than BERT or CLIP: use tune=frozen")
        self._given = _Given()
        cast(Any, backbone).embeddings = self._given
        del layers[: len(layers) - settings.num_layers]
        if settings.pooling != "model" and hasattr(model, "pooler"):
            cast(Any, model).pooler = None
        tune_layers(model, [*layers, *_after_layers(model)], settings.tune, settings.lora_rank)
        self.model = model.eval()

    @property
    def width(self) -> int:
        """Width t of an embedding."""
        return _pooled_width(self.model, self.settings.pooling)

    def train(self, mode: bool = True) -> "TunedTextEncoder":
        """Stay in evaluation mode: no dropout."""
        return super().train(False)

    def forward(self, batch: TextBatch) -> Float[Tensor, "B t"]:
        """Return unit-length embeddings ``[B, t]`` of texts whose lower hidden states are given."""
        mask = (torch.arange(batch.values.shape[1], device=batch.length.device) < batch.length[:, None]).long()
        self._given.hidden = batch.values
        hidden = _backbone(self.model)(input_ids=torch.zeros_like(mask), attention_mask=mask).last_hidden_state
        self._given.hidden = None
        return nn.functional.normalize(_pool(self.model, hidden, mask, self.settings.pooling).float(), dim=-1)

    @torch.no_grad()
    def encode(self, states: TextStates, batch_size: int = _BATCH_SIZE) -> Float[Tensor, "N t"]:
        """Return unit-length embeddings ``[N, t]`` of all texts, on the CPU."""
        device = next(self.model.parameters()).device
        result = torch.empty(len(states), self.width)
        for batch in _by_length(states.length.tolist(), batch_size):
            values, length = states.take(torch.tensor(batch))
            result[batch] = self(TextBatch(values.to(device), length.to(device))).float().cpu()
        return result


class CaptionEncoder:
    """From words to what E_α takes, for captions that are new each time; nothing is cached.

    Args:
        settings: which text encoder.
        tuned: its tuned layers, if there are any.
    """

    def __init__(self, settings: TextSettings, tuned: TunedTextEncoder | None = None) -> None:
        self._tuned, self._lower, self._frozen = tuned, None, None
        if tuned is not None:
            self._lower = _LowerLayers(settings)
        else:
            self._frozen = _load_frozen(settings)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch_size: int = _BATCH_SIZE) -> Float[Tensor, "B t"]:
        """Return unit-length embeddings ``[B, t]`` of captions, on the CPU."""
        if self._frozen is not None:
            return self._frozen.encode(texts, batch_size)
        assert self._lower is not None
        assert self._tuned is not None
        device = next(self._tuned.parameters()).device
        tokens = [self._lower.tokenize(text) for text in texts]
        result = torch.empty(len(texts), self._tuned.width)
        for batch in _by_length([len(ids) for ids in tokens], batch_size):
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
        model, self.tokenizer, longest = _load(settings.name, settings.pooling)
        self.max_length, self._device = min(settings.max_length, longest), _device()
        self._backbone = _backbone(model).eval().to(self._device)
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


def _load_frozen(settings: TextSettings) -> SentenceEncoder:
    encoder = SentenceEncoder.from_pretrained(settings.name, pooling=settings.pooling, max_length=settings.max_length)
    return encoder.to(_device())


def _load(name: str, pooling: Pooling) -> tuple[nn.Module, Any, int]:
    """Return model, tokenizer, and the most tokens that the model takes."""
    from transformers import AutoModel, AutoTokenizer, CLIPTextModelWithProjection

    config = _config(name)
    if _is_clip(config) and pooling == "cls":
        raise UserError(f"the first token of '{name}' sees no other, as of any CLIP: use pooling=model or mean")
    resolved = resolve_encoder(name)
    loader = CLIPTextModelWithProjection if _is_clip(config) else AutoModel
    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(resolved)
            model, info = loader.from_pretrained(resolved, config=config, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise _cannot_load(name, error) from None
    heads = ("pooler.", "text_projection.") if pooling != "model" else ()
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(heads) or not heads)
    if missing:
        raise UserError(
            f"text encoder '{name}' lacks the weights '{missing[0]}' (and {len(missing) - 1} more) that"
            f" pooling={pooling} needs: name a complete model, or use pooling=mean"
        )
    tokenizer.padding_side = "right"
    positions = int(getattr(config, "max_position_embeddings", 1 << 20))
    return cast(nn.Module, model), tokenizer, min(positions, int(tokenizer.model_max_length))


def _config(name: str) -> Any:
    """Return the configuration of a text encoder; of a CLIP, that of its text half."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(resolve_encoder(name))
    except (OSError, ValueError, KeyError) as error:
        raise _cannot_load(name, error) from None
    half = getattr(config, "text_config", None)
    if half is None:
        return config
    half.projection_dim = config.projection_dim  # CLIP's two halves share it
    return half


def _cannot_load(name: str, error: Exception) -> UserError:
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return UserError(f"cannot load the text encoder '{name}': {first}")


def _is_clip(config: Any) -> bool:
    return str(config.model_type).startswith("clip")


def _backbone(model: nn.Module) -> nn.Module:
    """Return the part of a model that has embeddings and layers."""
    return cast(nn.Module, getattr(model, "text_model", model))


def _after_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield what stands between the last layer and the embedding."""
    for module in (
        getattr(_backbone(model), "final_layer_norm", None),
        getattr(model, "pooler", None),
        getattr(model, "text_projection", None),
    ):
        if module is not None:
            yield module


def _pooled_width(model: nn.Module, pooling: Pooling) -> int:
    config: Any = model.config
    return int(config.projection_dim if pooling == "model" and _is_clip(config) else config.hidden_size)


def _pool(model: Any, hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector a text ``[B, t]`` of the last hidden states ``[B, L, w]``."""
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
    if pooling == "cls":
        return hidden[:, 0]
    if _is_clip(model.config):
        last = (mask.sum(1) - 1).clamp(min=0)  # the end-of-text token
        projected: Tensor = model.text_projection(hidden[torch.arange(len(hidden), device=hidden.device), last])
        return projected
    if getattr(model, "pooler", None) is None:
        raise UserError(
            f"a text encoder of the kind {model.config.model_type} has no pooling of its own: use mean or cls"
        )
    pooled: Tensor = model.pooler(hidden)
    return pooled


def _by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield batches of places in order of length, so that padding is little."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
