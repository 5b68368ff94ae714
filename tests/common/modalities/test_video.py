import numpy as np
import pytest
import torch
from media_files import animation, png

from sclmkb.common.modalities.base import DRAWN_HEIGHT, MediaBatch, UnreadableError, recognise
from sclmkb.common.modalities.image import Pictures
from sclmkb.common.modalities.video import Video, VideoForm

SHADES = np.arange(0, 250, 25, dtype=np.uint8)
FRAMES = np.broadcast_to(SHADES[:, None, None, None], (10, 16, 16, 3))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_frames_are_spread_from_the_first_to_the_last(kind: str) -> None:
    values, length = Video().decode(animation(FRAMES, kind), VideoForm(num_frames=4, size=8))
    assert (values.shape, values.dtype, length) == ((4, 8, 8, 3), np.uint8, 4)
    assert values[:, 0, 0, 0].tolist() == SHADES[[0, 3, 6, 9]].tolist()


def test_a_shorter_clip_is_padded_and_a_picture_has_one_frame() -> None:
    values, length = Video().decode(animation(FRAMES[4:6]), VideoForm(num_frames=4, size=16))
    assert length == 2
    assert values[:, 0, 0, 0].tolist() == [100, 125, 0, 0]
    assert Video().decode(png((9, 9, 9)), VideoForm(num_frames=4, size=8))[1] == 1


def test_what_is_transparent_is_white() -> None:
    values, _ = Video().decode(png((0, 0, 0, 0), mode="RGBA"), VideoForm(num_frames=1, size=8))
    assert values.min() == 255


def test_a_film_is_read_by_opencv(tmp_path) -> None:
    cv2 = pytest.importorskip("cv2")
    film = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (16, 16))
    for frame in FRAMES:
        film.write(np.ascontiguousarray(frame))
    film.release()
    data = (tmp_path / "a.mp4").read_bytes()
    assert type(recognise("", data)) is Video
    values, length = Video().decode(data, VideoForm(num_frames=4, size=16))
    assert length == 4
    assert np.abs(values[:, 8, 8, 0].astype(int) - SHADES[[0, 3, 6, 9]]).max() < 12
    assert Video().problem(data, ".mp4") == ""
    with pytest.raises(UnreadableError, match="no readable video"):
        Video().decode(data[: len(data) // 3], VideoForm())


def test_a_broken_clip_is_unreadable() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    for kind in ("PNG", "WEBP", "GIF"):
        data = animation(noise, kind)
        assert "no readable picture" in Video().problem(data[: len(data) * 2 // 3], "")
        assert Video().problem(data, "") == ""


def test_what_moves_is_no_picture_unless_its_name_says_so() -> None:
    for kind in ("PNG", "WEBP"):
        assert type(recognise("", animation(FRAMES, kind))) is Video
        assert type(recognise("", animation(FRAMES[:1], kind))) is Pictures
    assert type(recognise("a.webp", animation(FRAMES, "WEBP"))) is Pictures


def test_all_frames_of_a_clip_are_moved_alike() -> None:
    still = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 1, 16, 16, 3), dtype=np.uint8))
    batch = MediaBatch(still.expand(3, 4, 16, 16, 3).clone(), torch.tensor([4, 4, 2]))
    moved = Video().augment(batch, torch.rand(3, 5, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(moved.values[:, 0], moved.values[:, 3])
    assert not torch.equal(moved.values[0], moved.values[1])
    assert torch.equal(moved.length, batch.length)


def test_a_clip_is_drawn_as_a_strip_of_its_real_frames() -> None:
    values, length = Video().decode(animation(FRAMES[:3]), VideoForm(num_frames=8, size=16))
    strip = Video().draw(values, length, VideoForm(), {})
    assert strip.size == (3 * DRAWN_HEIGHT, DRAWN_HEIGHT)
    assert [strip.getpixel((DRAWN_HEIGHT * n + 80, 80))[0] for n in range(3)] == [0, 25, 50]
    drawn = Video().draw_file(animation(FRAMES))
    assert drawn is not None
    assert drawn.size == (5 * DRAWN_HEIGHT, DRAWN_HEIGHT)
    assert Video().draw_file(b"text") is None
