"""Motion of bodies: joints ``[frames, J, 3]`` or the official features ``[frames, D]`` of HumanML3D and KIT-ML."""

import io
import math
import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from sclmkb.common.modalities.base import (
    DRAWN_HEIGHT,
    FAINT,
    INK,
    MODALITIES,
    PAPER,
    MediaBatch,
    MediaForm,
    Modality,
    UnreadableError,
    pad_frames,
)

Edges = Sequence[tuple[int, int]]
"""Pairs of joints that a bone joins."""

_NUM_FIGURES = 5
_FIGURE_WIDTH = 72
_SCALE = 3  # lines are drawn this many times larger, then reduced: Pillow does not smooth them itself
_JOINT = "#0072b2"

# Chains of joints of the official feature layouts (HumanML3D: 22 joints, KIT-ML: 21).
_CHAINS = {
    22: ((0, 2, 5, 8, 11), (0, 1, 4, 7, 10), (0, 3, 6, 9, 12, 15), (9, 14, 17, 19, 21), (9, 13, 16, 18, 20)),
    21: ((0, 11, 12, 13, 14, 15), (0, 16, 17, 18, 19, 20), (0, 1, 2, 3, 4), (3, 5, 6, 7), (3, 8, 9, 10)),
}
_OFFICIAL = {263: 22, 251: 21}
_ONE_AT_A_TIME = threading.Lock()


class MotionForm(MediaForm):
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
    def shape(self) -> tuple[int | None, ...]:
        """Frames and values per frame, which the corpus decides."""
        return (self.num_frames, None)


@MODALITIES.register(MotionForm)
class Motion(Modality[MotionForm]):
    """Motion in ``.npy`` files."""

    form = MotionForm
    suffixes = (".npy",)
    encoder = "motion-transformer"
    figure_width = 3.4

    def recognises(self, data: bytes) -> bool:
        """Return whether a file begins as a NumPy array."""
        return data.startswith(b"\x93NUMPY")

    def problem(self, data: bytes, suffix: str) -> str:
        """Return why a file holds no finite motion."""
        return motion_problem(data)

    def context(self, form: MotionForm, notes: Mapping[str, Any]) -> float | None:
        """Return the rate of the recording [frames/s]; needed only where the form asks for one."""
        rate: float | None = notes.get("frames_per_second")
        if form.frames_per_second is not None and rate is None:
            raise UnreadableError(
                "does not say its frames per second: make it again with --set frames_per_second=..., or let the encoder"
                " take the frames as they are (frames_per_second: null)"
            )
        return rate

    def decode(self, data: bytes, form: MotionForm, context: Any = None) -> tuple[NDArray[np.float32], int]:
        """Return a motion ``[F, D]`` and how many frames are real; the first joint is the root."""
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
            shape = list(frames.shape)
            raise UnreadableError(f"has shape {shape}, neither joints [frames, J, 3] nor features [frames, D]")
        if form.frames_per_second is not None and context is not None:
            frames = _at_rate(frames, context, form.frames_per_second)
        start = max(len(frames) - form.num_frames, 0) // 2
        frames = frames[start : start + form.num_frames]
        return pad_frames(frames, form.num_frames), len(frames)

    def augment(self, batch: MediaBatch, chance: Float[Tensor, "B 5"]) -> MediaBatch:
        """Play every motion up to 15 % slower or faster; turn joints about the vertical axis (y) by any angle.

        Official features, whose width is no multiple of 3, describe a motion as seen by who moves, and are not turned.
        """
        values, length = batch
        num, frames, width = values.shape
        speed = 0.85 + 0.3 * chance[:, 0]
        longer = (length / speed).round().long().clamp(1, frames)
        place = (torch.arange(frames) * speed[:, None]).round().long().minimum(length[:, None] - 1)
        moved = values.gather(1, place[:, :, None].expand(-1, -1, width))
        if width % 3 == 0:
            angle = 2 * math.pi * chance[:, 1]
            cos, sin = angle.cos(), angle.sin()
            zero, one = torch.zeros(num), torch.ones(num)
            turn = torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], dim=1).view(num, 1, 3, 3)
            moved = (moved.view(num, frames, -1, 3) @ turn).reshape(values.shape)
        real = torch.arange(frames) < longer[:, None]
        return MediaBatch(moved * real[:, :, None], longer)

    def draw(self, values: NDArray[Any], length: int, form: MotionForm, notes: Mapping[str, Any]) -> Image.Image:
        """Draw frames of a motion as a strip, spread evenly from the first to the last; joints alone without bones."""
        return _draw_strip(values[:length], skeleton_edges(notes, values.shape[1]))


def read_motion(data: bytes, width: int | None = None) -> np.ndarray[Any, Any]:
    """Return the motion features ``[frames, width]`` in the bytes of a ``.npy`` file.

    One thread at a time: the header is parsed by ``ast``, which in Python 3.11 fails now and then in several threads
    (SystemError: AST constructor recursion depth mismatch, python/cpython#106905).

    Raises:
        ValueError: if it holds no such features; the message says why.
    """
    try:
        with _ONE_AT_A_TIME:
            features: np.ndarray[Any, Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError):
        raise ValueError("no NumPy array") from None
    if features.ndim < 2 or not len(features) or (width is not None and features.shape[1:] != (width,)):
        raise ValueError(f"features have shape {list(features.shape)}, not [frames, {width or 'width'}]")
    if not np.issubdtype(features.dtype, np.number) or not np.isfinite(features).all():
        raise ValueError("features are not all finite numbers")
    return features


def motion_problem(data: bytes, width: int | None = None) -> str:
    """Return what is wrong with a ``.npy`` file of motion features ``[frames, width]``, empty if nothing is."""
    try:
        read_motion(data, width)
    except ValueError as error:
        return str(error)
    return ""


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


def skeleton_edges(notes: Mapping[str, Any], width: int) -> Edges:
    """Return the bones of motion features, empty if they are unknown.

    A root with a single child is a mark on the ground and no part of the body. Its bone is left out.

    Args:
        notes: a corpus's notes; ``skeleton`` holds ``parents``, the parent of each joint, -1 for the root.
        width: D, numbers per frame; the official features (263, 251) have a skeleton of their own.
    """
    if width in _OFFICIAL:
        return [pair for chain in _CHAINS[_OFFICIAL[width]] for pair in pairwise(chain)]
    parents = dict(notes.get("skeleton") or {}).get("parents", ())
    if 3 * len(parents) != width:
        return ()
    edges = [(int(parent), joint) for joint, parent in enumerate(parents) if 0 <= int(parent) < len(parents)]
    roots = {joint for joint, parent in enumerate(parents) if int(parent) < 0}
    marks = {root for root in roots if sum(parent == root for parent, _ in edges) == 1}
    return [edge for edge in edges if edge[0] not in marks]


def joints_of(features: Float[np.ndarray, "F D"]) -> Float[np.ndarray, "F J 3"]:
    """Return where the joints are relative to the root, second axis up, from D = 3·J joints or official features.

    Of joints the first is where the root has moved to, which is left out here. In official features, number 3 is the
    root's height. The J - 1 triples that follow are the other joints, seen from the root and turned with the body (Guo
    et al., Generating Diverse and Natural 3D Human Motions from Text, 2022).
    """
    num_frames, width = features.shape
    if width not in _OFFICIAL:
        joints = np.array(features[:, : width // 3 * 3]).reshape(num_frames, -1, 3)
        joints[:, 0] = 0
        return joints
    num_joints = _OFFICIAL[width]
    joints = np.zeros((num_frames, num_joints, 3), features.dtype)
    joints[:, 0, 1] = features[:, 3]
    joints[:, 1:] = features[:, 4 : 4 + 3 * (num_joints - 1)].reshape(num_frames, num_joints - 1, 3)
    return joints


def _draw_strip(features: Float[np.ndarray, "F D"], edges: Edges) -> Image.Image:
    frames = np.linspace(0, len(features) - 1, _NUM_FIGURES).round().astype(int)
    joints = joints_of(np.asarray(features, np.float32))[frames]
    if edges:  # joints without a bone are left out
        drawn = sorted({joint for edge in edges for joint in edge})
        edges = [(drawn.index(one), drawn.index(other)) for one, other in edges]
        joints = joints[:, drawn]
    # Seen from 30 degrees beside the z axis, so that a step forward shows.
    turn = np.deg2rad(30)
    x, y = joints[..., 0] * np.cos(turn) + joints[..., 2] * np.sin(turn), joints[..., 1]
    x = x - (x.max(1, keepdims=True) + x.min(1, keepdims=True)) / 2
    tall, wide = np.ptp(y), 2 * np.abs(x).max()
    scale = _SCALE * min((DRAWN_HEIGHT - 14) / max(tall, 1e-6), (_FIGURE_WIDTH - 8) / max(wide, 1e-6))
    strip = Image.new("RGB", (_SCALE * _NUM_FIGURES * _FIGURE_WIDTH, _SCALE * DRAWN_HEIGHT), PAPER)
    pen = ImageDraw.Draw(strip)
    ground = _SCALE * (DRAWN_HEIGHT - 6)
    pen.line([(0, ground), (strip.width, ground)], fill=FAINT, width=_SCALE)
    for figure in range(_NUM_FIGURES):
        across = _SCALE * _FIGURE_WIDTH * (figure + 0.5) + x[figure] * scale
        down = ground - (y[figure] - y.min()) * scale
        points = list(zip(across.tolist(), down.tolist(), strict=True))
        for one, other in edges:
            pen.line([points[one], points[other]], fill=INK, width=2 * _SCALE)
        radius = _SCALE * 2.0
        for a, b in points:
            pen.ellipse([a - radius, b - radius, a + radius, b + radius], fill=_JOINT)
    return strip.resize((_NUM_FIGURES * _FIGURE_WIDTH, DRAWN_HEIGHT), Image.Resampling.LANCZOS)
