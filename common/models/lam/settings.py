"""Settings of the multi-task transceiver: language model, JSC codecs, and the channel uses of each task."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from sclmkb.common.config import Settings
from sclmkb.common.models.lam.codecs.base import AnyCodecSettings
from sclmkb.common.models.lam.codecs.film import FilmCodecSettings

SCRATCH = "scratch"
"""Name of the language model without pre-trained weights."""
Tune = Literal["all", "lora", "frozen"]
RateTraining = Literal["fixed", "nested", "random"]


class LanguageModelSettings(Settings):
    """The encoder-decoder language model: its encoder is the fusion center, its decoder serves all text tasks."""

    name: str = Field(
        default="flan-t5-small",
        description="flan-t5-small, a folder of any encoder-decoder model in transformers' layout, or scratch: a small "
        "T5 with random weights and a vocabulary of whole words (the control without a pre-trained model)",
    )
    layers: PositiveInt | None = Field(
        default=None, description="first layers of encoder and of decoder to keep; null: all"
    )
    tune: Tune = Field(default="all", description="what is trained of it: all, lora (adapters alone) or frozen")
    lora_rank: PositiveInt = Field(default=8, description="rank of the adapters, for tune lora")
    random_weights: bool = Field(
        default=False, description="whether the weights are drawn anew: the control of the same shape"
    )
    width: PositiveInt = Field(default=256, description="width of scratch")

    @property
    def is_drawn(self) -> bool:
        """Whether its weights are drawn, not pre-trained."""
        return self.random_weights or self.name == SCRATCH


class JscSettings(Settings):
    """JSC encoder and decoder of text tasks: how many tokens cross the channel, and in how many complex uses."""

    num_tokens: PositiveInt = Field(default=8, description="learned queries that read what the fusion center gives")
    num_blocks: PositiveInt = Field(default=2, description="transformer blocks of the JSC decoder")
    num_heads: PositiveInt = Field(default=8, description="attention heads of both; they divide the width")


class MtscModelSettings(Settings):
    """Sizes of the multi-task transceiver."""

    architecture: Literal["mtsc", "u-deepsc"] = Field(
        default="mtsc",
        description="mtsc: a language model fuses medium and question; u-deepsc: the baseline without one, each "
        "modality sent apart; language_model.name is then scratch",
    )
    language_model: LanguageModelSettings = Field(
        default=LanguageModelSettings(), description="the language model in the middle"
    )
    picture_encoder: str = Field(
        default="efficientnet-lite0",
        description="frozen encoder of pictures: efficientnet-lite0, a folder (CLIP, ViT), or patches (pixels; the "
        "control without one)",
    )
    sees_media: bool = Field(
        default=True, description="whether media are looked at; false: the control that reads the question alone"
    )
    picture_size: PositiveInt = Field(default=128, description="height and width that the encoder sees [pixels]")
    picture_grid: PositiveInt = Field(default=2, description="tokens per side of a picture")
    sound_encoder: str = Field(
        default="whisper-base",
        description="frozen encoder of sounds: whisper-base, a folder (AST), or spectrogram (log-mel; the control "
        "without one)",
    )
    sound_seconds: PositiveFloat = Field(
        default=5.0, description="length that the encoder hears [s]; longer sounds are cut to their middle"
    )
    sound_tokens: PositiveInt = Field(default=5, description="tokens of a sound, equal parts of it")
    video_frames: PositiveInt = Field(
        default=4, description="frames of a clip, a token each, by the encoder of pictures"
    )
    jsc: JscSettings = Field(default=JscSettings(), description="JSC encoder and decoder of text tasks")
    codec: AnyCodecSettings = Field(
        default=FilmCodecSettings(), description="the codec of pictures (`kind`) and its own settings"
    )
    answer_uses: PositiveInt = Field(default=8, description="complex channel uses per answer")
    caption_uses: PositiveInt = Field(default=16, description="complex channel uses per caption")
    reconstruct_uses: PositiveInt = Field(
        default=512, description="complex channel uses per picture; 512 of 3,072 is 1/6"
    )
    rate: RateTraining = Field(
        default="fixed",
        description="fixed: every use is sent; nested: training sends a random number of the first tokens, or groups "
        "of channels, and learns what each number loses; random: it sends random ones (the control)",
    )
    max_prompt_tokens: PositiveInt = Field(
        default=48, description="tokens of a question that are read; the rest is cut"
    )
    max_text_tokens: PositiveInt = Field(default=24, description="most tokens of an answer or a caption")
    embedding_scale: PositiveFloat | None = Field(
        default=None, description="deviation of what enters the language model; null: that of its embeddings"
    )

    @model_validator(mode="after")
    def _u_deepsc_has_no_language_model(self) -> "MtscModelSettings":
        if self.architecture == "u-deepsc" and self.language_model.name != SCRATCH:
            raise ValueError("u-deepsc has no language model: set model.language_model.name = scratch")
        return self
