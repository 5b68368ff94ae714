"""Draws the items of a corpus: pictures as they are, motion as strips of stick figures, sound as spectrograms."""

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

Edges = Sequence[tuple[int, int]]
"""Pairs of joints that a bone joins."""

SIDE = 160
"""Height of a drawn item, and most of its width where it is a picture [pixels]."""
NUM_FIGURES = 5
_FIGURE_WIDTH = 72
_SPECTROGRAM_WIDTH = 260
_SCALE = 3  # lines are drawn so many times larger, then brought to size: Pillow does not smooth them itself

_PAPER, _INK, _FAINT, _JOINT = "#ffffff", "#1c2024", "#9aa3ad", "#0072b2"

# Chains of joints of the official feature layouts (HumanML3D: 22 joints, KIT-ML: 21).
_CHAINS = {
    22: ((0, 2, 5, 8, 11), (0, 1, 4, 7, 10), (0, 3, 6, 9, 12, 15), (9, 14, 17, 19, 21), (9, 13, 16, 18, 20)),
    21: ((0, 11, 12, 13, 14, 15), (0, 16, 17, 18, 19, 20), (0, 1, 2, 3, 4), (3, 5, 6, 7), (3, 8, 9, 10)),
}
_OFFICIAL = {263: 22, 251: 21}


def skeleton_edges(notes: Mapping[str, Any], width: int) -> Edges:
    """Return the bones of motion features, empty where nobody says them.

    A root with a single child is a mark on the ground and no part of the body: its bone is left out.

    Args:
        notes: a corpus's notes; ``skeleton`` holds ``parents``, the parent of each joint, -1 for the root.
        width: D, numbers a frame; the official features (263, 251) have a skeleton of their own.
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

    Of joints the first is where the root has moved to, which is left out here. Of official features number 3 is the
    root's height, and the J - 1 triples that follow are the other joints, seen from the root and turned with the body
    (Guo et al., Generating Diverse and Natural 3D Human Motions from Text, 2022).
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


def draw_motion(features: Float[np.ndarray, "F D"], edges: Edges = ()) -> Image.Image:
    """Draw frames of a motion, spread evenly from the first to the last, side by side; joints alone without edges."""
    frames = np.linspace(0, len(features) - 1, NUM_FIGURES).round().astype(int)
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
    scale = _SCALE * min((SIDE - 14) / max(tall, 1e-6), (_FIGURE_WIDTH - 8) / max(wide, 1e-6))
    strip = Image.new("RGB", (_SCALE * NUM_FIGURES * _FIGURE_WIDTH, _SCALE * SIDE), _PAPER)
    pen = ImageDraw.Draw(strip)
    ground = _SCALE * (SIDE - 6)
    pen.line([(0, ground), (strip.width, ground)], fill=_FAINT, width=_SCALE)
    for figure in range(NUM_FIGURES):
        across = _SCALE * _FIGURE_WIDTH * (figure + 0.5) + x[figure] * scale
        down = ground - (y[figure] - y.min()) * scale
        points = list(zip(across.tolist(), down.tolist(), strict=True))
        for one, other in edges:
            pen.line([points[one], points[other]], fill=_INK, width=2 * _SCALE)
        radius = _SCALE * 2.0
        for a, b in points:
            pen.ellipse([a - radius, b - radius, a + radius, b + radius], fill=_JOINT)
    return strip.resize((NUM_FIGURES * _FIGURE_WIDTH, SIDE), Image.Resampling.LANCZOS)


def draw_spectrogram(log_mel: Float[np.ndarray, "F M"], seconds: float) -> Image.Image:
    """Draw a log-mel spectrogram, time to the right, pitch upwards, with both named.

    Args:
        log_mel: real frames alone, no padding.
        seconds: how long they last.
    """
    from matplotlib import colormaps

    values = np.asarray(log_mel, np.float32).T[::-1]
    low, high = np.percentile(values, (2, 99.5))
    scaled = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)
    colours = (colormaps["magma"](scaled)[..., :3] * 255).astype(np.uint8)
    sheet = Image.new("RGB", (_SPECTROGRAM_WIDTH, SIDE), _PAPER)
    left, bottom = 16, 18
    size = (_SPECTROGRAM_WIDTH - left, SIDE - bottom)
    sheet.paste(Image.fromarray(colours).resize(size, Image.Resampling.BILINEAR), (left, 0))
    font, pen = ImageFont.load_default(12), ImageDraw.Draw(sheet)
    pen.text((left, SIDE), "0 s", fill=_INK, font=font, anchor="ld")
    pen.text((_SPECTROGRAM_WIDTH - 2, SIDE), f"{seconds:.1f} s", fill=_INK, font=font, anchor="rd")
    named = Image.new("RGB", (size[1], left), _PAPER)
    ImageDraw.Draw(named).text(
        (size[1] / 2, left / 2), f"{values.shape[0]} mel bands", fill=_INK, font=font, anchor="mm"
    )
    sheet.paste(named.rotate(90, expand=True), (0, 0))
    return sheet


def draw_picture(pixels: npt.NDArray[np.uint8], original: bytes | None = None) -> Image.Image:
    """Draw a picture as it was taken where its file can be read, otherwise as the encoder sees it.

    Args:
        pixels: ``[3, S, S]``, what the encoder sees.
        original: the picture's file.
    """
    picture = _open(original) or Image.fromarray(np.moveaxis(pixels, 0, -1))
    scale = min(SIDE / picture.height, SIDE / picture.width)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def to_png(image: Image.Image) -> bytes:
    """Return an image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=False, compress_level=3)
    return file.getvalue()


def _open(original: bytes | None) -> Image.Image | None:
    if original is None:
        return None
    try:
        with Image.open(io.BytesIO(original)) as picture:
            rgba = picture.convert("RGBA")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return Image.alpha_composite(Image.new("RGBA", rgba.size, _PAPER), rgba).convert("RGB")
