"""Sound, as log-mel spectrograms."""

import io
import math
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from sclmkb.common.errors import first_line
from sclmkb.common.modalities.base import (
    DRAWN_HEIGHT,
    INK,
    MODALITIES,
    PAPER,
    MediaBatch,
    MediaForm,
    Modality,
    UnreadableError,
    pad_frames,
)

_PREEMPHASIS = 0.97
_LOWEST_HZ = 20.0
_FLOOR = 1.192092955078125e-07  # float32's epsilon, as in Kaldi
_SPECTROGRAM_WIDTH = 260


class AudioForm(MediaForm):
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
    def shape(self) -> tuple[int | None, ...]:
        """Frames and mel bands."""
        return (self.num_frames, self.num_mels)

    def spectrogram(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the log-mel spectrogram ``[frames, M]`` of at least a window of samples; the frames are real ones."""
        return log_mel(samples, self)


class WhisperForm(AudioForm):
    """Sound as Whisper hears it: 80 mel bands, 100 frames per second, scaled to the loudest of the whole sound."""

    num_mels: PositiveInt = Field(default=80, description="mel bands M")
    scaling: Literal["whisper"] = Field(default="whisper", description="how the bands are scaled")

    @property
    def num_frames(self) -> int:
        """Frames F of the longest sound."""
        return self.num_samples // self.hop

    def spectrogram(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the spectrogram of samples, silence behind their end.

        Source: Radford et al., Whisper, 2022; by transformers.
        """
        from transformers import WhisperFeatureExtractor

        extract = WhisperFeatureExtractor(
            feature_size=self.num_mels,
            sampling_rate=self.sample_rate,
            hop_length=self.hop,
            n_fft=self.window,
            chunk_length=math.ceil(self.seconds),
        )
        padded = np.pad(samples, (0, max(self.num_samples - len(samples), 0)))[: self.num_samples]
        found = extract(padded, sampling_rate=self.sample_rate, padding=False, return_tensors="np")
        spectrogram: NDArray[np.float32] = found["input_features"][0].T[: self.num_frames]
        return spectrogram


@MODALITIES.register(AudioForm)
class Audio(Modality[AudioForm]):
    """Sound in the formats that libsndfile reads."""

    form = AudioForm
    suffixes = (".wav", ".ogg", ".oga", ".opus", ".flac", ".mp3", ".aif", ".aiff")
    encoder = "audio-cnn"
    figure_width = 2.6
    sound_types: ClassVar[Mapping[bytes, str]] = {
        b"RIFF": "audio/wav",
        b"OggS": "audio/ogg",
        b"fLaC": "audio/flac",
        b"ID3": "audio/mpeg",
        b"\xff\xfb": "audio/mpeg",
    }

    def recognises(self, data: bytes) -> bool:
        """Return whether a file begins as a sound."""
        return data.startswith((b"OggS", b"fLaC", b"RF64", b"ID3", b"FORM")) or _is_wave(data)

    def problem(self, data: bytes, suffix: str) -> str:
        """Return why a sound cannot be opened; of a wave file, whether it is as long as its header says."""
        if suffix == ".wav" or _is_wave(data):
            return _wave_problem(data)
        import soundfile

        try:
            with soundfile.SoundFile(io.BytesIO(data)) as file:
                return "" if file.frames else "the sound is empty"
        except (soundfile.SoundFileError, OSError) as error:
            return f"no readable sound ({first_line(error)})"

    def decode(self, data: bytes, form: AudioForm, context: Any = None) -> tuple[NDArray[np.float32], int]:
        """Return the log-mel spectrogram ``[F, M]`` of a sound, padded with zeros, and how many frames are real.

        The mean is taken off each frame. Frames are pre-emphasised and weighted with a Hann window. The mel bands are
        Kaldi's, from 20 Hz to half the sample rate. With 16 kHz and 128 bands that is what the audio spectrogram
        transformer was trained on, before its scaling.
        """
        if data.startswith(b"RIFF") and (problem := _wave_problem(data)):
            raise UnreadableError(problem)
        samples = _samples(data, form)
        if len(samples) < form.window:
            samples = np.pad(samples, (0, form.window - len(samples)))
        spectrogram = form.spectrogram(samples)
        return pad_frames(spectrogram, form.num_frames), len(spectrogram)

    def augment(self, batch: MediaBatch, chance: Float[Tensor, "B 5"]) -> MediaBatch:
        """Begin a sound at any of its frames; set up to an eighth of the frames and of the mel bands to its mean.

        What stood before the new beginning comes behind the end.

        Source: Park et al., SpecAugment, 2019.
        """
        values, length = batch
        frames, mels = values.shape[1:]
        place = torch.arange(frames)
        real = place < length[:, None]
        turned = (place + (length * chance[:, 4]).long()[:, None]) % length[:, None]
        values = values.gather(1, turned.where(real, place)[:, :, None].expand(-1, -1, mels))
        mean = (values * real[:, :, None]).sum((1, 2)) / (length * mels)
        in_time = _span(frames, length, chance[:, 0], chance[:, 1])
        in_frequency = _span(mels, torch.full_like(length, mels), chance[:, 2], chance[:, 3])
        hidden = (in_time[:, :, None] | in_frequency[:, None, :]) & real[:, :, None]
        return batch._replace(values=torch.where(hidden, mean[:, None, None], values))

    def draw(self, values: NDArray[Any], length: int, form: AudioForm, notes: Mapping[str, Any]) -> Image.Image:
        """Draw a log-mel spectrogram, time to the right, pitch upwards, with both named."""
        return _draw_spectrogram(values[:length], length * form.hop_ms / 1000)


def _is_wave(data: bytes) -> bool:
    return data.startswith(b"RIFF") and data[8:12] == b"WAVE"


def _wave_problem(data: bytes) -> str:
    """Return whether a wave file is as long as its header says, which decoders do not mind."""
    if data[:4] not in (b"RIFF", b"RF64") or data[8:12] != b"WAVE":
        return "no wave file"
    stated = int.from_bytes(data[4:8], "little") + 8
    if data[:4] == b"RIFF" and stated > len(data) + 1:
        return f"the wave file breaks off: {len(data)} of {stated} bytes"
    return ""


def log_mel(samples: NDArray[np.float32], form: AudioForm) -> NDArray[np.float32]:
    """Return the log-mel spectrogram ``[frames, M]`` of samples at the form's rate, at least a window of them."""
    window, filters = _analysis(form)
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), form.window)[:: form.hop]
    frames = frames - frames.mean(1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    spectrum = np.fft.rfft((frames - _PREEMPHASIS * before) * window, n=_fft_length(form))
    mel = (spectrum.real**2 + spectrum.imag**2) @ filters
    logarithm: NDArray[np.float32] = np.log(np.maximum(mel, _FLOOR)).astype(np.float32)
    return logarithm


def _samples(data: bytes, form: AudioForm) -> NDArray[np.float32]:
    """Return the middle of a sound, of one channel and at the form's rate; only that part is decoded."""
    import soundfile
    from scipy.signal import resample_poly

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, total = file.samplerate, file.frames
            wanted = math.ceil(form.seconds * rate)
            if total > wanted:
                file.seek((total - wanted) // 2)
            read = file.read(wanted, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise UnreadableError(f"no readable sound ({first_line(error)})") from None
    samples: NDArray[np.float32] = read.mean(1)
    if not len(samples):
        raise UnreadableError("the sound is empty")
    if not np.isfinite(samples).all():
        raise UnreadableError("the sound has samples that are no finite numbers")
    if rate != form.sample_rate:
        common = math.gcd(rate, form.sample_rate)
        samples = resample_poly(samples, form.sample_rate // common, rate // common).astype(np.float32)
    return samples[: form.num_samples]


@lru_cache(maxsize=4)
def _analysis(form: AudioForm) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the window and the mel filters ``[bins, M]``."""
    from transformers.audio_utils import mel_filter_bank

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the lowest of 128 bands is empty, as in Kaldi
        filters = mel_filter_bank(
            num_frequency_bins=_fft_length(form) // 2 + 1,
            num_mel_filters=form.num_mels,
            min_frequency=_LOWEST_HZ,
            max_frequency=form.sample_rate // 2,
            sampling_rate=form.sample_rate,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
    return np.hanning(form.window).astype(np.float64), np.asarray(filters, dtype=np.float64)


def _fft_length(form: AudioForm) -> int:
    return 1 << (form.window - 1).bit_length()


def _span(size: int, length: Tensor, how_long: Tensor, where: Tensor) -> Tensor:
    """Return a mask ``[B, size]`` of up to an eighth of ``length`` places in a row."""
    count = (how_long * (length // 8 + 1)).long()
    first = (where * (length - count + 1)).long()
    place = torch.arange(size)
    return (place >= first[:, None]) & (place < (first + count)[:, None])


def _draw_spectrogram(log_mels: Float[np.ndarray, "F M"], seconds: float) -> Image.Image:
    from matplotlib import colormaps

    values = np.asarray(log_mels, np.float32).T[::-1]
    low, high = np.percentile(values, (2, 99.5))
    scaled = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)
    colours = (colormaps["magma"](scaled)[..., :3] * 255).astype(np.uint8)
    sheet = Image.new("RGB", (_SPECTROGRAM_WIDTH, DRAWN_HEIGHT), PAPER)
    left, bottom = 16, 18
    size = (_SPECTROGRAM_WIDTH - left, DRAWN_HEIGHT - bottom)
    sheet.paste(Image.fromarray(colours).resize(size, Image.Resampling.BILINEAR), (left, 0))
    font, pen = ImageFont.load_default(12), ImageDraw.Draw(sheet)
    pen.text((left, DRAWN_HEIGHT), "0 s", fill=INK, font=font, anchor="ld")
    pen.text((_SPECTROGRAM_WIDTH - 2, DRAWN_HEIGHT), f"{seconds:.1f} s", fill=INK, font=font, anchor="rd")
    named = Image.new("RGB", (size[1], left), PAPER)
    ImageDraw.Draw(named).text(
        (size[1] / 2, left / 2), f"{values.shape[0]} mel bands", fill=INK, font=font, anchor="mm"
    )
    sheet.paste(named.rotate(90, expand=True), (0, 0))
    return sheet
