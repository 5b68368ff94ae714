"""The audio spectrogram transformer (AST), pre-trained or from scratch."""

from collections.abc import Sequence
from typing import Any, Literal, cast

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from sclmkb.common.errors import UserError
from sclmkb.common.modalities.audio import AudioForm
from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.models.encoders.base import (
    ENCODERS,
    MediaEncoder,
    MediaEncoderSettings,
    Standardise,
    check_heads,
    load_media_model,
    read_media_config,
)
from sclmkb.common.models.encoders.tuning import Tune, transformer_layers, tune_layers


class SpectrogramTransformerSettings(MediaEncoderSettings):
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
        check_heads(self.width, self.num_heads)
        return self

    def form(self) -> AudioForm:
        """Return what sounds must look like."""
        return AudioForm(sample_rate=self.sample_rate, seconds=self.seconds, num_mels=self.num_mels)


@ENCODERS.register(SpectrogramTransformerSettings)
class SpectrogramTransformer(MediaEncoder):
    """The audio spectrogram transformer (AST).

    ::

        log-mel [B, F, M] ─► one mean to 0, one deviation to 1/2 ─► patches ─► transformer ─► its two class tokens' mean
            ─► linear [B, d] ─► x / ‖x‖

    As its authors do for every new data set, mean and deviation are those of the training sounds.

    Source: Gong et al., AST: Audio spectrogram transformer, 2021.
    """

    def __init__(self, settings: SpectrogramTransformerSettings, shape: Sequence[int], embedding_width: int) -> None:
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
                max_length=shape[0],
                num_mel_bins=settings.num_mels,
            )
        else:
            resolved, config = read_media_config(settings.model, "audio-spectrogram-transformer")
        if config.num_mel_bins != settings.num_mels:
            raise UserError(
                f"'{settings.model}' takes {config.num_mel_bins} mel bands, not {settings.num_mels}: set num_mels"
            )
        super().__init__(int(config.hidden_size), embedding_width)
        self.num_frames = int(config.max_length)
        self.scale = Standardise(1)
        self.is_pretrained = resolved is not None
        if resolved is None or settings.model is None:
            self.model: nn.Module = ASTModel(config)
        else:
            self.model = load_media_model(ASTModel, settings.model, resolved, config)
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
