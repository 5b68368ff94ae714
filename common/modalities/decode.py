"""Decodes the bytes of an item into the form that an encoder asks for; what cannot be read says why."""

import io
import math
import warnings
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sclmkb.common.modalities.forms import AudioForm, MotionForm, PictureForm
from sclmkb.common.modalities.suffixes import read_motion, wave_problem

_PREEMPHASIS = 0.97
_LOWEST_HZ = 20.0
_FLOOR = 1.192092955078125e-07  # float32's epsilon, as in Kaldi


class UnreadableError(ValueError):
    """The bytes are no such item; the message says why."""


def decode_picture(data: bytes, form: PictureForm) -> NDArray[np.uint8]:
    """Return a picture ``[3, S, S]``, RGB on white.

    Raises:
        UnreadableError: if it cannot be read.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            rgb = _on_white(picture)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableError(f"no readable picture ({_first_line(error)})") from None
    if rgb.size != (form.size, form.size):
        rgb = rgb.resize((form.size, form.size), Image.Resampling.BILINEAR)
    return np.asarray(rgb, dtype=np.uint8).transpose(2, 0, 1)


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture.copy()
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def decode_motion(data: bytes, form: MotionForm, frames_per_second: float | None) -> tuple[NDArray[np.float32], int]:
    """Return a motion ``[F, D]``, padded with zeros, and how many frames are real.

    Args:
        data: a ``.npy`` file: joints ``[frames, J, 3]``, the first one the root, or features ``[frames, D]``.
        form: what it shall look like.
        frames_per_second: rate of the recording; needed only where the form asks for one.

    Raises:
        UnreadableError: if it cannot be read.
    """
    try:
        frames = read_motion(data).astype(np.float32)
    except ValueError as error:
        raise UnreadableError(str(error)) from None
    if frames.ndim == 3 and frames.shape[2] == 3:
        moved = frames[:, 0] - frames[0, 0]
        frames = frames - frames[:, :1]
        frames[:, 0] = moved
        frames = frames.reshape(len(frames), -1)
    if frames.ndim != 2:
        raise UnreadableError(f"has shape {list(frames.shape)}, neither joints [frames, J, 3] nor features [frames, D]")
    if form.frames_per_second is not None and frames_per_second is not None:
        frames = _at_rate(frames, frames_per_second, form.frames_per_second)
    frames = _middle(frames, form.num_frames)
    return _padded(frames, form.num_frames), len(frames)


def _at_rate(frames: NDArray[np.float32], rate: float, wanted: float) -> NDArray[np.float32]:
    """Interpolate linearly between frames; the first one stays."""
    last = len(frames) - 1
    count = math.floor(last / rate * wanted + 1e-6) + 1
    places = np.minimum(np.arange(count) * (rate / wanted), last)
    before = places.astype(np.int64)
    share = (places - before).astype(np.float32)[:, None]
    after = np.minimum(before + 1, last)
    moved: NDArray[np.float32] = frames[before] * (1 - share) + frames[after] * share
    return moved


def decode_audio(data: bytes, form: AudioForm) -> tuple[NDArray[np.float32], int]:
    """Return the log-mel spectrogram ``[F, M]`` of a sound, padded with zeros, and how many frames are real.

    Frames are freed of their mean, pre-emphasised and weighted with a Hann window; the mel bands are Kaldi's, from
    20 Hz to half the sample rate. With 16 kHz and 128 bands that is what the audio spectrogram transformer was trained
    on, before its scaling.

    Raises:
        UnreadableError: if it cannot be read.
    """
    if data.startswith(b"RIFF") and (problem := wave_problem(data)):
        raise UnreadableError(problem)
    samples = _samples(data, form)
    if len(samples) < form.window:
        samples = np.pad(samples, (0, form.window - len(samples)))
    spectrogram = log_mel(samples, form)
    return _padded(spectrogram, form.num_frames), len(spectrogram)


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
        raise UnreadableError(f"no readable sound ({_first_line(error)})") from None
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


def _middle(frames: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    start = max(len(frames) - count, 0) // 2
    return frames[start : start + count]


def _padded(frames: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    return np.pad(frames, ((0, count - len(frames)), (0, 0)))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
