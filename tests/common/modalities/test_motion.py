import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import npy

from sclmkb.common.modalities.base import MediaBatch, UnreadableError
from sclmkb.common.modalities.motion import Motion, MotionForm, joints_of, skeleton_edges


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 20), st.integers(0, 100))
def test_joints_are_seen_from_the_root_and_nothing_is_lost(frames: int, joints: int, kept: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(frames, joints, 3)).astype(np.float32)
    values, length = Motion().decode(npy(x), MotionForm(num_frames=kept), None)
    assert values.shape == (kept, 3 * joints)
    assert length == min(frames, kept)
    assert not values[length:].any()
    start = max(frames - kept, 0) // 2
    found = values[:length].reshape(length, joints, 3)
    root = found[:, :1] + x[:1, :1]
    expected = x[start : start + length]
    np.testing.assert_allclose(root[:, 0], expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(found[:, 1:] + root, expected[:, 1:], atol=1e-5)


@given(st.sampled_from([5.0, 10.0, 12.5, 30.0, 60.0]), st.integers(2, 90))
@settings(max_examples=40, deadline=None)
def test_another_frame_rate_keeps_a_steady_movement(rate: float, frames: int) -> None:
    seconds = np.arange(frames, dtype=np.float32)[:, None] / 30
    values, length = Motion().decode(npy(seconds), MotionForm(num_frames=200, frames_per_second=rate), 30.0)
    assert length == int((frames - 1) / 30 * rate + 1e-6) + 1
    np.testing.assert_allclose(values[:length, 0], np.arange(length) / rate, atol=1e-5)


@pytest.mark.parametrize("width", [251, 263])
def test_official_features_stay_as_they_are(width: int) -> None:
    x = np.random.default_rng(0).normal(size=(10, width)).astype(np.float32)
    values, length = Motion().decode(npy(x), MotionForm(num_frames=16), None)
    assert length == 10
    np.testing.assert_array_equal(values[:10], x)
    with pytest.raises(UnreadableError, match="neither joints"):
        Motion().decode(npy(np.zeros((4, 5, 2))), MotionForm(), None)


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


def test_bones_follow_the_skeleton() -> None:
    assert skeleton_edges({}, 12) == ()
    assert skeleton_edges({"skeleton": {"parents": [-1, 0, 0, 1]}}, 15) == ()  # of another number of joints
    assert list(skeleton_edges({"skeleton": {"parents": [-1, 0, 0, 1]}}, 12)) == [(0, 1), (0, 2), (1, 3)]
    assert list(skeleton_edges({"skeleton": {"parents": [-1, 0, 1, 1]}}, 12)) == [(1, 2), (1, 3)]  # 0: a mark
    for width, joints in ((263, 22), (251, 21)):
        edges = skeleton_edges({}, width)
        assert len(edges) == joints - 1  # a tree
        assert {joint for edge in edges for joint in edge} == set(range(joints))


def test_official_features_hold_the_joints() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(3, 263)).astype(np.float32)
    joints = joints_of(features)
    assert joints.shape == (3, 22, 3)
    assert np.array_equal(joints[:, 0], np.stack([np.zeros(3), features[:, 3], np.zeros(3)], 1).astype(np.float32))
    assert np.array_equal(joints[:, 1:].reshape(3, -1), features[:, 4:67])
    flat = draw.normal(size=(3, 12)).astype(np.float32)
    before = flat.copy()
    assert np.array_equal(joints_of(flat)[:, 1:].reshape(3, -1), flat[:, 3:])
    assert not joints_of(flat)[:, 0].any()  # where the root has moved to
    assert np.array_equal(flat, before)


def test_a_still_motion_is_drawn_with_and_without_bones() -> None:
    still, bones = np.zeros((1, 12), np.float32), {"skeleton": {"parents": [-1, 0, 0, 1]}}
    plain, jointed = (Motion().draw(still, 1, MotionForm(), notes) for notes in ({}, bones))
    assert plain.size == jointed.size
