"""Augmentation of media: what leaves a picture, motion or sound what it is.

Every change follows from a few uniform numbers a sample, so that a process can augment its share of a batch alone.
"""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sclmkb.common.modalities.store import MediaBatch, MediaKind

NUM_CHANCES = 5
"""Uniform numbers a sample."""


def augment(kind: MediaKind, media: MediaBatch, chance: Float[Tensor, "B 5"]) -> MediaBatch:
    """Return a changed copy of a batch.

    Args:
        kind: what it holds.
        media: the batch.
        chance: uniform numbers from 0 to below 1 that the changes follow from.
    """
    if kind == "pictures":
        return media._replace(values=augment_pictures(media.values, chance))
    if kind == "motion":
        return augment_motion(media, chance)
    return media._replace(values=augment_sounds(media, chance))


def augment_pictures(pictures: UInt8[Tensor, "B 3 S S"], chance: Float[Tensor, "B 5"]) -> UInt8[Tensor, "B 3 S S"]:
    """Shift, zoom by up to 15 % and mirror every picture, with its border repeated; no colour changes."""
    size = pictures.shape[-1]
    most = max(size // 16, 1)
    shift = _integers(chance[:, 0:2], 2 * most + 1) - most
    zoom = 0.85 + 0.3 * chance[:, 2:3]
    mirror = chance[:, 3:4] < 0.5
    center = (size - 1) / 2
    places = ((torch.arange(size) - center) * zoom + center).round().long()
    rows = (places + shift[:, 0:1]).clamp(0, size - 1)
    columns = (torch.where(mirror, places.flip(1), places) + shift[:, 1:2]).clamp(0, size - 1)
    flat = (rows[:, :, None] * size + columns[:, None, :]).flatten(1)
    return pictures.flatten(2).gather(2, flat[:, None, :].expand(-1, 3, -1)).reshape(pictures.shape)


def augment_motion(media: MediaBatch, chance: Float[Tensor, "B 5"]) -> MediaBatch:
    """Play every motion up to 15 % slower or faster; turn joints about the vertical axis (y) by any angle.

    Official features, whose width is no multiple of 3, describe a motion as seen by who moves, and are not turned.
    """
    values, length = media
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


def augment_sounds(media: MediaBatch, chance: Float[Tensor, "B 5"]) -> Float[Tensor, "B F M"]:
    """Begin a sound at any of its frames, and set up to an eighth of the frames and of the mel bands to its mean.

    What stood before the new beginning comes behind the end.

    Source: Park et al., SpecAugment, 2019.
    """
    values, length = media
    frames, mels = values.shape[1:]
    place = torch.arange(frames)
    real = place < length[:, None]
    turned = (place + (length * chance[:, 4]).long()[:, None]) % length[:, None]
    values = values.gather(1, turned.where(real, place)[:, :, None].expand(-1, -1, mels))
    mean = (values * real[:, :, None]).sum((1, 2)) / (length * mels)
    in_time = _span(frames, length, chance[:, 0], chance[:, 1])
    in_frequency = _span(mels, torch.full_like(length, mels), chance[:, 2], chance[:, 3])
    hidden = (in_time[:, :, None] | in_frequency[:, None, :]) & real[:, :, None]
    return torch.where(hidden, mean[:, None, None], values)


def _span(size: int, length: Tensor, how_long: Tensor, where: Tensor) -> Tensor:
    """Return a mask ``[B, size]`` of up to an eighth of ``length`` places in a row."""
    count = (how_long * (length // 8 + 1)).long()
    first = (where * (length - count + 1)).long()
    place = torch.arange(size)
    return (place >= first[:, None]) & (place < (first + count)[:, None])


def _integers(chance: Tensor, count: int) -> Tensor:
    return (chance * count).long()
