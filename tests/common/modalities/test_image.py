import io

import numpy as np
import torch
from media_files import png
from PIL import Image

from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.modalities.image import PictureForm, Pictures


def augmented_pictures(pictures: torch.Tensor) -> torch.Tensor:
    batch = MediaBatch(pictures, torch.ones(len(pictures), dtype=torch.long))
    return Pictures().augment(batch, torch.rand(len(pictures), 5)).values


def test_transparency_shows_white_and_pictures_get_the_size_asked_for() -> None:
    form = PictureForm(size=8)
    files = [
        png((10, 20, 30)),
        png((10, 20, 30, 0), mode="RGBA"),
        png((10, 20, 30, 255), size=32, mode="RGBA"),
    ]
    pictures = np.stack([Pictures().decode(data, form)[0] for data in files])
    assert pictures.shape == (3, 3, 8, 8)
    assert pictures[:, :, 3, 3].tolist() == [[10, 20, 30], [255, 255, 255], [10, 20, 30]]


def test_pictures_are_only_moved_and_mirrored() -> None:
    pictures = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8)
    moved = augmented_pictures(pictures)
    for before, after in zip(pictures, moved, strict=True):
        colors = {tuple(c) for c in before.flatten(1).T.tolist()}
        assert {tuple(c) for c in after.flatten(1).T.tolist()} <= colors
    constant = torch.full((2, 3, 16, 16), 7, dtype=torch.uint8)
    assert torch.equal(augmented_pictures(constant), constant)


def test_a_picture_is_drawn_as_it_was_taken_or_else_as_the_encoder_sees_it() -> None:
    assert Pictures().draw_file(b"no picture") is None
    seen = Pictures().draw(np.full((3, 8, 8), 7, np.uint8), 1, PictureForm(size=8), {})
    assert set(np.unique(np.asarray(seen))) == {7}
    file = io.BytesIO()
    Image.new("RGBA", (30, 60), (0, 0, 0, 0)).save(file, "PNG")
    taken = Pictures().draw_file(file.getvalue())
    assert taken is not None
    assert taken.size == (80, 160)  # on white
    assert set(np.unique(np.asarray(taken))) == {255}
