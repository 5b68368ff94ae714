"""Small files of every kind of media."""

import io

import numpy as np
import soundfile
from PIL import Image


def png(color: tuple[int, ...], size: int = 8, mode: str = "RGB") -> bytes:
    return as_png(Image.new(mode, (size, size), color))


def as_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def animation(frames: np.ndarray, kind: str = "PNG") -> bytes:
    """Return frames ``[F, H, W, 3]`` as a moving picture: PNG, WEBP or GIF."""
    file = io.BytesIO()
    first, *others = (Image.fromarray(frame) for frame in frames)
    more = {"lossless": True} if kind == "WEBP" else {}
    first.save(file, kind, save_all=True, append_images=others, duration=50, **more)
    return file.getvalue()


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def sound(samples: np.ndarray, rate: int = 16000, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue()


def tone(hz: float, seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def smooth_pictures(num: int, size: tuple[int, int] = (32, 32), seed: int = 0) -> np.ndarray:
    """Return 8-bit pictures ``[num, *size, 3]`` with a slope, an edge and a little noise."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] / np.reshape(size, (2, 1, 1))
    found = np.zeros((num, *size, 3))
    for one in found:
        slope, edge = draw.normal(0, 80, (2, 3)), draw.normal(0, 60, 3)
        one[:] = 128 + slope[0] * (x - 0.5)[..., None] + slope[1] * (y - 0.5)[..., None]
        one[:] += edge * (x + y > draw.uniform(0.5, 1.5))[..., None] + draw.normal(0, 6, one.shape)
    return found.clip(0, 255).astype(np.uint8)
