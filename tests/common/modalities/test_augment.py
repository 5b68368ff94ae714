import torch

from sclmkb.common.modalities.audio import Audio
from sclmkb.common.modalities.base import MediaBatch, modality_of
from sclmkb.common.modalities.image import Pictures
from sclmkb.common.modalities.motion import Motion


def augmented_pictures(pictures: torch.Tensor) -> torch.Tensor:
    batch = MediaBatch(pictures, torch.ones(len(pictures), dtype=torch.long))
    return Pictures().augment(batch, torch.rand(len(pictures), 5)).values


def test_a_sample_depends_on_its_own_chance_alone() -> None:
    length = torch.tensor([16, 9, 4, 1])
    batches = {
        "pictures": torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8),
        "motion": torch.randn(4, 16, 6),
        "audio": torch.randn(4, 16, 8),
    }
    for kind, values in batches.items():
        chance = torch.rand(4, 5)
        whole = modality_of(kind).augment(MediaBatch(values, length), chance)
        part = modality_of(kind).augment(MediaBatch(values[2:], length[2:]), chance[2:])
        assert torch.equal(whole.values[2:], part.values)
        assert torch.equal(whole.length[2:], part.length)
        assert whole.values.shape == values.shape
        assert whole.values.dtype == values.dtype
        assert not torch.equal(whole.values, values)


def test_pictures_are_only_moved_and_mirrored() -> None:
    pictures = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8)
    moved = augmented_pictures(pictures)
    for before, after in zip(pictures, moved, strict=True):
        colors = {tuple(c) for c in before.flatten(1).T.tolist()}
        assert {tuple(c) for c in after.flatten(1).T.tolist()} <= colors
    constant = torch.full((2, 3, 16, 16), 7, dtype=torch.uint8)
    assert torch.equal(augmented_pictures(constant), constant)


def test_turned_joints_keep_height_and_distances_and_padding_stays_zero() -> None:
    joints = torch.randn(20, 32, 4, 3)
    length = torch.randint(1, 33, (20,))
    joints *= (torch.arange(32) < length[:, None])[:, :, None, None]
    turned, longer = Motion().augment(MediaBatch(joints.flatten(2), length), torch.rand(20, 5))
    moved = turned.view(20, 32, 4, 3)
    for i in range(20):
        assert (moved[i, longer[i] :] == 0).all()
        assert 0.8 * length[i] - 1 <= longer[i] <= min(1.2 * length[i] + 1, 32)
        frames = joints[i, : length[i]]
        for frame in moved[i, : longer[i]]:
            at = (frames[:, :, 1] - frame[:, 1]).abs().sum(1).argmin()  # heights tell the frame
            torch.testing.assert_close(frames[at, :, 1], frame[:, 1])
            distances = [torch.cdist(x, x) for x in (frames[at], frame)]
            torch.testing.assert_close(*distances, rtol=0, atol=1e-4)


def test_official_features_are_not_turned() -> None:
    features = torch.randn(4, 16, 263)
    moved, _ = Motion().augment(MediaBatch(features, torch.full((4,), 16)), torch.rand(4, 5))
    for before, after in zip(features, moved, strict=True):
        rows = {tuple(row) for row in before.tolist()}
        assert all(tuple(row) in rows for row in after.tolist() if any(row))


def test_hidden_parts_of_sounds_are_their_mean() -> None:
    values, length = torch.randn(50, 32, 16), torch.randint(8, 33, (50,))
    values *= (torch.arange(32) < length[:, None])[:, :, None]
    chance = torch.rand(50, 5)
    chance[:, 4] = 0  # not shifted
    changed = Audio().augment(MediaBatch(values, length), chance).values
    for before, after, count in zip(values, changed, length.tolist(), strict=True):
        different = before != after
        assert torch.allclose(after[different], before[:count].mean(), atol=1e-5)
        assert different.any(1).sum() <= count
        assert different.all(1)[:count].sum() <= count // 8
        assert different[:count].all(0).sum() <= 2
    assert (changed != values).any()


def test_a_shifted_sound_goes_on_with_its_beginning() -> None:
    values, length = torch.randn(30, 32, 16), torch.randint(4, 33, (30,))
    values *= (torch.arange(32) < length[:, None])[:, :, None]
    chance = torch.rand(30, 5)
    chance[:, [0, 2]] = 0  # nothing hidden
    shifted = Audio().augment(MediaBatch(values, length), chance).values
    for before, after, count, share in zip(values, shifted, length.tolist(), chance[:, 4].tolist(), strict=True):
        assert torch.equal(after[:count], before[:count].roll(-int(share * count), 0))
        assert (after[count:] == 0).all()
