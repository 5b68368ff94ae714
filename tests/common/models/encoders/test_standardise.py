import numpy as np
import torch
from media_encoders import MOTION, batch_for, encoder_for, store_of
from torch import Tensor

from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.modalities.motion import MotionForm
from sclmkb.common.modalities.store import MediaStore
from sclmkb.common.models.encoders.base import Standardise
from sclmkb.train.engine.checkpoint import trained_tensors


def test_values_are_standardised_over_the_frames_that_are_real() -> None:
    form = MotionForm(num_frames=12)
    length = torch.tensor([12, 4, 7])
    values = 5 + 3 * torch.randn(3, 12, 2) * torch.tensor([1.0, 100.0])
    real = torch.arange(12) < length[:, None]
    values[~real] = 1e6
    values[:, :, 1] = torch.where(real, 7.0, 1e6)  # a value that never changes
    scale = Standardise(2)
    scale.fit(store_of(form, values, length))
    scaled = scale(MediaBatch(values, length))
    assert scaled[~real].abs().max() == 0
    torch.testing.assert_close(scaled[real][:, 0].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled[real][:, 0].std(correction=0), torch.tensor(1.0))
    assert scaled[real][:, 1].abs().max() < 1e-5
    one = Standardise(1)
    one.fit(store_of(form, values, length))
    everything = one(MediaBatch(values, length))[real]
    torch.testing.assert_close(everything.std(correction=0), torch.tensor(1.0))


def test_standardising_takes_units_out() -> None:
    batch = batch_for(MOTION)
    form = MOTION.form()
    plain, scaled = encoder_for(MOTION), encoder_for(MOTION)
    plain.standardise(store_of(form, batch.values, batch.length))
    scaled.standardise(store_of(form, 100 * batch.values + 3, batch.length))
    moved = batch._replace(values=100 * batch.values + 3)
    torch.testing.assert_close(scaled(moved), plain(batch), atol=1e-3, rtol=0)
    assert {"scale.mean", "scale.deviation"} <= set(trained_tensors(scaled))


def test_statistics_of_a_large_store_come_from_some_of_its_items() -> None:
    taken: list[int] = []

    class Counting(MediaStore):
        def take(self, index: Tensor) -> MediaBatch:
            taken.extend(index.tolist())
            return super().take(index)

    values = np.random.default_rng(0).normal(size=(300, 4, 2)).astype(np.float32)
    Standardise(2).fit(Counting(MotionForm(num_frames=4), [str(i) for i in range(300)], values, [4] * 300), most=100)
    assert len(taken) == len(set(taken)) == 100
    assert {0, 299} <= set(taken)
