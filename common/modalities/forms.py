"""What items look like once decoded: pictures, motion or sound, each in one form for a whole corpus."""

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from sclmkb.common.config import Settings

MediaKind = Literal["pictures", "motion", "audio"]
"""What the items of a corpus are; all of one corpus are of one kind."""


class PictureForm(Settings):
    """Pictures: RGB on white, 8 bits, ``[3, S, S]``."""

    kind: Literal["pictures"] = Field(default="pictures", description="the modality: pictures")
    size: PositiveInt = Field(
        default=64, description="height and width S in pixels; pictures of another size are scaled"
    )

    @property
    def dtype(self) -> str:
        """How a value is stored."""
        return "uint8"


class MotionForm(Settings):
    """Motion: frames of joints or of the official features, ``[F, D]``.

    Joints ``[frames, J, 3]`` become D = 3 J values: where the root has moved to since the first frame, then every other
    joint relative to the root. Features ``[frames, D]``, D = 263 or 251, stay as they are. The unit stays that of the
    file.
    """

    kind: Literal["motion"] = Field(default="motion", description="the modality: motion")
    num_frames: PositiveInt = Field(
        default=64, description="frames F; longer motions are cut to their middle, shorter ones are padded"
    )
    frames_per_second: PositiveFloat | None = Field(
        default=None, description="rate that motions are resampled to by linear interpolation; null: as recorded"
    )

    @property
    def dtype(self) -> str:
        """How a value is stored."""
        return "float32"


class AudioForm(Settings):
    """Sound: log-mel spectrogram ``[F, M]``, as the audio spectrogram transformer has it, without its scaling.

    All channels are averaged. Frames overlap and are only taken where they fit whole, so that 5 s give 498 frames.
    """

    kind: Literal["audio"] = Field(default="audio", description="the modality: audio")
    sample_rate: PositiveInt = Field(
        default=16000, description="sample rate [Hz]; sounds of another rate are resampled"
    )
    seconds: PositiveFloat = Field(
        default=5.0, description="length [s]; longer sounds are cut to their middle, shorter ones are padded"
    )
    num_mels: PositiveInt = Field(default=64, description="mel bands M")
    window_ms: PositiveFloat = Field(default=25.0, description="length of a frame [ms]")
    hop_ms: PositiveFloat = Field(default=10.0, description="time between the starts of two frames [ms]")

    @model_validator(mode="after")
    def _holds_a_frame(self) -> "AudioForm":
        if self.window < 2 or self.hop < 1:
            raise ValueError("window_ms and hop_ms must be at least a sample or two")
        if self.num_samples < self.window:
            raise ValueError("seconds must hold at least one window")
        return self

    @property
    def num_samples(self) -> int:
        """Samples of the longest sound."""
        return round(self.seconds * self.sample_rate)

    @property
    def window(self) -> int:
        """Samples of a frame."""
        return round(self.window_ms * self.sample_rate / 1000)

    @property
    def hop(self) -> int:
        """Samples from frame to frame."""
        return round(self.hop_ms * self.sample_rate / 1000)

    @property
    def num_frames(self) -> int:
        """Frames F of the longest sound."""
        return 1 + (self.num_samples - self.window) // self.hop

    @property
    def dtype(self) -> str:
        """How a value is stored."""
        return "float32"


MediaForm = Annotated[PictureForm | MotionForm | AudioForm, Field(discriminator="kind")]
"""The form that an encoder asks for."""


class MediaBatch(NamedTuple):
    """B items.

    Attributes:
        values: ``[B, 3, S, S]`` 8 bits, ``[B, F, D]`` or ``[B, F, M]``; zeros where an item is shorter than F.
        length: frames that are real ``[B]``; 1 for pictures.
    """

    values: Tensor
    length: Tensor

    def to(self, device: torch.device) -> "MediaBatch":
        """Return the batch on a device."""
        return MediaBatch(self.values.to(device), self.length.to(device))
