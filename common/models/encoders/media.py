"""Encoders of media: pictures, motion and sound, each to unit-length embeddings in the space of the captions.

Small ones are trained from scratch; CLIP's vision transformer and the audio spectrogram transformer come from a folder
or the hub. None has dropout, so that a resumed training is the same; what varies is the training data (augmentation).
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
from jaxtyping import Bool, Float
from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator
from safetensors import SafetensorError
from torch import Tensor, nn

from sclmkb.common.artifacts.files import read_json
from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.store import AudioForm, MediaBatch, MediaStore, MotionForm, PictureForm
from sclmkb.common.models.encoders.tuning import Tune, transformer_layers, tune_layers
from sclmkb.common.models.pretrained import content_fingerprint, quiet_loading, resolve_media_model


class CnnSettings(Settings):
    """A small residual CNN for pictures, from scratch."""

    kind: Literal["cnn"] = Field(default="cnn", description="the encoder: cnn")
    size: PositiveInt = Field(default=64, description="height and width that pictures are scaled to, in pixels")
    widths: tuple[PositiveInt, ...] = Field(default=(32, 64, 128), min_length=1, description="channels of each stage")

    def form(self) -> PictureForm:
        """Return what pictures must look like."""
        return PictureForm(size=self.size)


class ClipVisionSettings(Settings):
    """CLIP's vision transformer, pre-trained."""

    kind: Literal["clip-vision"] = Field(default="clip-vision", description="the encoder: clip-vision")
    model: str = Field(description="a folder or a hub name, e.g. openai/clip-vit-base-patch32")
    size: PositiveInt = Field(
        default=224,
        description="height and width at which pictures are stored, in pixels; the model scales them to its own size",
    )
    tune: Tune = Field(
        default="frozen",
        description="which weights are trained: frozen (none), the last layers, or LoRA adapters in the last layers",
    )
    num_layers: PositiveInt = Field(default=2, description="number of last layers that are tuned")
    lora_rank: PositiveInt = Field(default=8, description="rank of the LoRA adapters")

    def form(self) -> PictureForm:
        """Return what pictures must look like."""
        return PictureForm(size=self.size)


class MotionTransformerSettings(Settings):
    """A small transformer for motion, from scratch."""

    kind: Literal["motion-transformer"] = Field(
        default="motion-transformer", description="the encoder: motion-transformer"
    )
    num_frames: PositiveInt = Field(default=80, description="frames; longer motions are cut to their middle")
    frames_per_second: PositiveFloat | None = Field(
        default=10.0, description="rate that motions are resampled to; null: as recorded"
    )
    width: PositiveInt = Field(default=128, description="width of a token")
    num_layers: PositiveInt = Field(default=3, description="layers")
    num_heads: PositiveInt = Field(default=4, description="heads of each attention")

    @model_validator(mode="after")
    def _check(self) -> "MotionTransformerSettings":
        _check_heads(self.width, self.num_heads)
        return self

    def form(self) -> MotionForm:
        """Return what motions must look like."""
        return MotionForm(num_frames=self.num_frames, frames_per_second=self.frames_per_second)


class AudioCnnSettings(Settings):
    """A small residual CNN for spectrograms, from scratch."""

    kind: Literal["audio-cnn"] = Field(default="audio-cnn", description="the encoder: audio-cnn")
    sample_rate: PositiveInt = Field(default=16000, description="sample rate [Hz]")
    seconds: PositiveFloat = Field(default=5.0, description="length [s]; longer sounds are cut to their middle")
    num_mels: PositiveInt = Field(default=64, description="mel bands")
    widths: tuple[PositiveInt, ...] = Field(
        default=(16, 32, 64, 128), min_length=1, description="channels of each stage"
    )

    def form(self) -> AudioForm:
        """Return what sounds must look like."""
        return AudioForm(sample_rate=self.sample_rate, seconds=self.seconds, num_mels=self.num_mels)


class SpectrogramTransformerSettings(Settings):
    """The audio spectrogram transformer, pre-trained, or from scratch in the shape given here."""

    kind: Literal["spectrogram-transformer"] = Field(
        default="spectrogram-transformer", description="the encoder: spectrogram-transformer"
    )
    model: str | None = Field(
        default=None,
        description="a folder or a hub name, e.g. MIT/ast-finetuned-audioset-10-10-0.4593; null: from scratch",
    )
    sample_rate: PositiveInt = Field(default=16000, description="sample rate [Hz]")
    seconds: PositiveFloat = Field(
        default=10.255, description="length [s]; longer sounds are cut to their middle; 10.255 s are 1,024 frames"
    )
    num_mels: PositiveInt = Field(default=128, description="mel bands")
    tune: Tune = Field(
        default="frozen",
        description="which weights are trained: frozen (none), the last layers, or LoRA adapters in the last layers; "
        "only for a pre-trained model",
    )
    num_layers: PositiveInt = Field(
        default=2, description="number of last layers that are tuned; from scratch: number of layers"
    )
    lora_rank: PositiveInt = Field(default=8, description="rank of the LoRA adapters")
    width: PositiveInt = Field(default=128, description="from scratch: width of a token")
    num_heads: PositiveInt = Field(default=4, description="from scratch: heads of each attention")
    patch_size: PositiveInt = Field(
        default=16, description="from scratch: side of a patch and distance between two patches"
    )

    @model_validator(mode="after")
    def _check(self) -> "SpectrogramTransformerSettings":
        if self.model is None and min(self.num_mels, self.form().num_frames) < self.patch_size:
            raise ValueError(f"patch_size = {self.patch_size} is more than there are mel bands or frames")
        _check_heads(self.width, self.num_heads)
        return self

    def form(self) -> AudioForm:
        """Return what sounds must look like."""
        return AudioForm(sample_rate=self.sample_rate, seconds=self.seconds, num_mels=self.num_mels)


def _check_heads(width: int, num_heads: int) -> None:
    if width % num_heads:
        raise ValueError(f"num_heads = {num_heads} does not divide width = {width}")


def _default_kind(value: Any) -> Any:
    return {"kind": "cnn", **value} if isinstance(value, dict) else value


MediaEncoderSettings = Annotated[
    CnnSettings | ClipVisionSettings | MotionTransformerSettings | AudioCnnSettings | SpectrogramTransformerSettings,
    Field(discriminator="kind"),
    BeforeValidator(_default_kind),
]
"""Which media encoder; its ``kind`` is ``cnn`` where nothing is said."""


def build_media_encoder(
    settings: MediaEncoderSettings, store_shape: Sequence[int], embedding_width: int
) -> "MediaEncoder":
    """Return the encoder of media of a shape, ``MediaStore.shape``, to embeddings of width d.

    Raises:
        UserError: if a pre-trained model cannot be loaded or does not fit the media.
    """
    if isinstance(settings, CnnSettings):
        return PictureEncoder(settings.widths, embedding_width)
    if isinstance(settings, ClipVisionSettings):
        return ClipVisionEncoder(settings, embedding_width)
    if len(store_shape) != 2:
        raise ValueError(f"the shape of one item is needed, [frames, values], not {list(store_shape)}")
    if isinstance(settings, MotionTransformerSettings):
        return MotionTransformer(settings, store_shape[1], embedding_width)
    if isinstance(settings, AudioCnnSettings):
        return AudioCnn(settings.widths, store_shape[1], embedding_width)
    return SpectrogramTransformer(settings, store_shape[0], embedding_width)


def media_fingerprint(settings: MediaEncoderSettings) -> str:
    """Return a hash of a pre-trained encoder's files, for the plan of a run; empty where there is none.

    Raises:
        UserError: if it is not there.
    """
    model = getattr(settings, "model", None)
    return content_fingerprint(resolve_media_model(model)) if model is not None else ""


class MediaEncoder(nn.Module):
    """Base of the encoders: features of its own kind, a linear map to d values, unit length."""

    def __init__(self, feature_width: int, embedding_width: int) -> None:
        super().__init__()
        self.head = nn.Linear(feature_width, embedding_width)

    def features(self, batch: MediaBatch) -> Tensor:
        """Return what the linear map takes ``[B, w]``."""
        raise NotImplementedError

    def forward(self, batch: MediaBatch) -> Float[Tensor, "B d"]:
        """Return unit-length embeddings ``[B, d]``."""
        return nn.functional.normalize(self.head(self.features(batch)).float(), dim=-1)

    def standardise(self, store: MediaStore) -> None:
        """Set what values are standardised with to what the training media have; nothing where there is no need."""

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return the trained parameters that come from a pre-trained model; they want a lower learning rate."""
        return []


class PictureEncoder(MediaEncoder):
    """A small residual CNN, trained from scratch.

    ::

        uint8 [B, 3, S, S] ─► scale ─► conv 3×3 / 2 ─► { conv 3×3 / 2 ─► residual block } ...
            ─► mean and maximum over places ─► linear [B, d] ─► x / ‖x‖

    Args:
        widths: channels of each stage; each stage has half the side of the one before, the first S / 4.
        embedding_width: d.
    """

    def __init__(self, widths: Sequence[int], embedding_width: int) -> None:
        body = _stages(3, widths)
        super().__init__(2 * widths[-1], embedding_width)
        self.body = body

    def features(self, batch: MediaBatch) -> Tensor:
        """Return mean and maximum of the last channels ``[B, 2w]``."""
        x = (batch.values.to(torch.float32) / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        x = self.body(x).float()
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)


class AudioCnn(MediaEncoder):
    """The same CNN on spectrograms.

    ::

        log-mel [B, F, M] ─► standardise ─► conv 3×3 / 2 ─► { conv 3×3 / 2 ─► residual block } ... [B, w, F', M']
            ─► mean over M' ─► mean and maximum over the frames that are real ─► linear [B, d] ─► x / ‖x‖
    """

    def __init__(self, widths: Sequence[int], num_mels: int, embedding_width: int) -> None:
        super().__init__(2 * widths[-1], embedding_width)
        self.scale = Standardise(num_mels)
        self.body = _stages(1, widths)
        self.stride = 2 ** (1 + len(widths))

    def features(self, batch: MediaBatch) -> Tensor:
        """Return mean and maximum of the last channels over time ``[B, 2w]``."""
        x = self.scale(batch)[:, None].contiguous(memory_format=torch.channels_last)
        x = self.body(x).float().mean(3).transpose(1, 2)
        return _pool_frames(x, _real(batch.length.div(self.stride, rounding_mode="floor").clamp(min=1), x.shape[1]))

    def standardise(self, store: MediaStore) -> None:
        """Set mean and deviation of each mel band."""
        self.scale.fit(store)


class MotionTransformer(MediaEncoder):
    """A small transformer, trained from scratch.

    ::

        joints or features [B, F, D] ─► standardise ─► conv 5 / 2 ─► GELU ─► conv 3 / 2 ─► [B, F/4, w]
            ─► + learned positions ─► transformer layers, padding masked ─► norm
            ─► mean and maximum over the frames that are real ─► linear [B, d] ─► x / ‖x‖
    """

    def __init__(self, settings: MotionTransformerSettings, num_values: int, embedding_width: int) -> None:
        super().__init__(2 * settings.width, embedding_width)
        width = settings.width
        self.scale = Standardise(num_values)
        self.first = nn.Conv1d(num_values, width, 5, 2, 2)
        self.second = nn.Conv1d(width, width, 3, 2, 1)
        self.positions = nn.Parameter(0.02 * torch.randn(-(-settings.num_frames // 4), width))
        layer = nn.TransformerEncoderLayer(
            width, settings.num_heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, settings.num_layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def features(self, batch: MediaBatch) -> Tensor:
        """Return mean and maximum of the last states ``[B, 2w]``."""
        x = nn.functional.gelu(self.first(self.scale(batch).transpose(1, 2)))
        length = batch.length.add(1).div(2, rounding_mode="floor")
        x = self.second(x * _real(length, x.shape[2])[:, None]).transpose(1, 2)
        real = _real(length.add(1).div(2, rounding_mode="floor"), x.shape[1])
        x = self.layers(x + self.positions[: x.shape[1]], src_key_padding_mask=~real)
        return _pool_frames(x.float(), real)

    def standardise(self, store: MediaStore) -> None:
        """Set mean and deviation of each value."""
        self.scale.fit(store)


class ClipVisionEncoder(MediaEncoder):
    """CLIP's vision transformer: its projected class token, then a linear map of our own.

    ::

        uint8 [B, 3, S, S] ─► scale to the model's side ─► its mean and deviation ─► ViT ─► its projection
            ─► linear [B, d] ─► x / ‖x‖

    Source: Radford et al., Learning transferable visual models from natural language supervision, 2021.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, settings: ClipVisionSettings, embedding_width: int) -> None:
        from transformers import CLIPVisionModelWithProjection

        resolved, config = _media_config(settings.model, "clip")
        if (half := getattr(config, "vision_config", None)) is not None:
            half.projection_dim = config.projection_dim  # CLIP's two halves share it
            config = half
        super().__init__(int(config.projection_dim), embedding_width)
        self.side = int(config.image_size)
        notes = _preprocessor(settings.model, resolved)
        for name, key, default in (
            ("mean", "image_mean", (0.48145466, 0.4578275, 0.40821073)),
            ("deviation", "image_std", (0.26862954, 0.26130258, 0.27577711)),
        ):
            self.register_buffer(name, torch.tensor(notes.get(key, default))[:, None, None], persistent=False)
        self.model = _load_media_model(CLIPVisionModelWithProjection, settings.model, resolved, config)
        layers = transformer_layers(self.model, settings.model, settings.num_layers if settings.tune != "frozen" else 0)
        inner = cast(Any, self.model)
        after = [getattr(inner, "vision_model", inner).post_layernorm, inner.visual_projection]
        tune_layers(self.model, [*layers[-settings.num_layers :], *after], settings.tune, settings.lora_rank)

    def features(self, batch: MediaBatch) -> Tensor:
        """Return CLIP's picture embeddings ``[B, w]``."""
        x = batch.values.to(torch.float32) / 255
        if x.shape[-1] != self.side:
            x = nn.functional.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
        features: Tensor = self.model(pixel_values=(x - self.mean) / self.deviation).image_embeds
        return features

    def train(self, mode: bool = True) -> "ClipVisionEncoder":
        """Leave the pre-trained part in evaluation mode: no dropout."""
        super().train(mode)
        self.model.eval()
        return self

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return what is tuned of CLIP."""
        return [p for p in self.model.parameters() if p.requires_grad]


class SpectrogramTransformer(MediaEncoder):
    """The audio spectrogram transformer (AST).

    ::

        log-mel [B, F, M] ─► one mean to 0, one deviation to 1/2 ─► patches ─► transformer ─► its two class tokens' mean
            ─► linear [B, d] ─► x / ‖x‖

    As its authors do for every new data set, mean and deviation are those of the training sounds.

    Source: Gong et al., AST: Audio spectrogram transformer, 2021.
    """

    def __init__(self, settings: SpectrogramTransformerSettings, num_frames: int, embedding_width: int) -> None:
        from transformers import ASTConfig, ASTModel

        if settings.model is None:
            resolved = None
            config = ASTConfig(
                hidden_size=settings.width,
                num_hidden_layers=settings.num_layers,
                num_attention_heads=settings.num_heads,
                intermediate_size=4 * settings.width,
                patch_size=settings.patch_size,
                frequency_stride=settings.patch_size,
                time_stride=settings.patch_size,
                max_length=num_frames,
                num_mel_bins=settings.num_mels,
            )
        else:
            resolved, config = _media_config(settings.model, "audio-spectrogram-transformer")
        if config.num_mel_bins != settings.num_mels:
            raise UserError(
                f"'{settings.model}' takes {config.num_mel_bins} mel bands, not {settings.num_mels}: set num_mels"
            )
        super().__init__(int(config.hidden_size), embedding_width)
        self.num_frames = int(config.max_length)
        self.scale = Standardise(1)
        self.pretrained = resolved is not None
        if resolved is None or settings.model is None:
            self.model: nn.Module = ASTModel(config)
        else:
            self.model = _load_media_model(ASTModel, settings.model, resolved, config)
            tuned = settings.num_layers if settings.tune != "frozen" else 0
            layers = transformer_layers(self.model, settings.model, tuned)
            after = [cast(Any, self.model).layernorm]
            tune_layers(self.model, [*layers[-settings.num_layers :], *after], settings.tune, settings.lora_rank)

    def features(self, batch: MediaBatch) -> Tensor:
        """Return AST's embeddings ``[B, w]``; what is shorter than it takes is padded with the mean."""
        x = self.scale(batch) / 2
        x = nn.functional.pad(x, (0, 0, 0, max(self.num_frames - x.shape[1], 0)))[:, : self.num_frames]
        features: Tensor = self.model(input_values=x).pooler_output
        return features

    def standardise(self, store: MediaStore) -> None:
        """Set one mean and one deviation for all bands."""
        self.scale.fit(store)

    def train(self, mode: bool = True) -> "SpectrogramTransformer":
        """Leave a pre-trained part in evaluation mode: no dropout."""
        super().train(mode)
        if self.pretrained:
            self.model.eval()
        return self

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return what is tuned of a pre-trained AST."""
        return [p for p in self.model.parameters() if p.requires_grad] if self.pretrained else []


class Standardise(nn.Module):
    """Takes the mean off values, divides by their deviation, and sets what is behind an item's end to zero.

    Args:
        num_values: D for a mean and deviation of each of the last axis' values, 1 for one of all.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, num_values: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_values))
        self.register_buffer("deviation", torch.ones(num_values))

    def fit(self, store: MediaStore, most: int = 4096) -> None:
        """Take mean and deviation of the real frames of a store's items, of ``most`` evenly chosen ones at the most."""
        chosen = torch.linspace(0, len(store) - 1, min(len(store), most)).round().long()
        count, total, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for index in torch.split(chosen, 64):
            values, length = store.take(index)
            frames = values[_real(length, values.shape[1])].double()
            frames = frames if len(self.mean) > 1 else frames.reshape(-1, 1)
            count, total, squares = count + len(frames), total + frames.sum(0), squares + frames.square().sum(0)
        mean = total / max(count, 1)
        deviation = (squares / max(count, 1) - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation < 1e-6, 1.0, deviation))  # what never changes stays as it is

    def forward(self, batch: MediaBatch) -> Float[Tensor, "B F D"]:
        """Return standardised values, zero behind an item's end."""
        values = (batch.values.float() - self.mean) / self.deviation
        return values * _real(batch.length, values.shape[1])[:, :, None]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = _conv(width, width, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.inner(x))


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _stages(channels: int, widths: Sequence[int]) -> nn.Sequential:
    stem = max(widths[0] // 2, 1)
    layers: list[nn.Module] = [_conv(channels, stem, stride=2)]
    for before, width in pairwise((stem, *widths)):
        layers += [_conv(before, width, stride=2), _Residual(width)]
    return nn.Sequential(*layers)


def _real(length: Tensor, num_frames: int) -> Bool[Tensor, "B F"]:
    """Return which frames are real."""
    return torch.arange(num_frames, device=length.device) < length[:, None]


def _pool_frames(x: Tensor, real: Tensor) -> Tensor:
    """Return mean and maximum over the real frames ``[B, 2w]`` of states ``[B, F, w]``."""
    kept = real[:, :, None]
    mean = (x * kept).sum(1) / kept.sum(1).clamp(min=1)
    return torch.cat([mean, x.masked_fill(~kept, -torch.inf).amax(1)], dim=1)


def _media_config(name: str, family: str) -> tuple[str, Any]:
    """Return where a model is and its configuration; it must be of a family."""
    from transformers import AutoConfig

    resolved = resolve_media_model(name)
    try:
        config = AutoConfig.from_pretrained(resolved)
    except (OSError, ValueError, KeyError) as error:
        raise _cannot_load(name, error) from None
    if not str(config.model_type).startswith(family):
        raise UserError(f"the media encoder '{name}' is of the kind {config.model_type}, not {family}")
    return resolved, config


def _load_media_model(loader: Any, name: str, resolved: str, config: Any) -> nn.Module:
    try:
        with quiet_loading():
            model, info = loader.from_pretrained(resolved, config=config, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise _cannot_load(name, error) from None
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"the media encoder '{name}' lacks the weights '{missing[0]}' (and {len(missing) - 1} more): name a"
            " complete model"
        )
    return cast(nn.Module, model.eval())


def _preprocessor(name: str, resolved: str) -> dict[str, Any]:
    """Return the model's ``preprocessor_config.json``; empty where it has none."""
    from transformers.utils import cached_file

    try:
        path = cached_file(resolved, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise _cannot_load(name, error) from None
    return dict(read_json(Path(path))) if path else {}


def _cannot_load(name: str, error: Exception) -> UserError:
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return UserError(f"cannot load the media encoder '{name}': {first}")
