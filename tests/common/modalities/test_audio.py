import numpy as np
import pytest
import torch
from media_files import sound, tone

from sclmkb.common.modalities.audio import Audio, AudioForm, log_mel
from sclmkb.common.modalities.base import MediaBatch, UnreadableError


def test_spectrograms_are_those_of_the_audio_spectrogram_transformer() -> None:
    from transformers import ASTFeatureExtractor

    samples = np.random.default_rng(0).normal(size=16000).astype(np.float32) / 10
    theirs = ASTFeatureExtractor(max_length=98, do_normalize=False)(samples, sampling_rate=16000)["input_values"][0]
    ours = log_mel(samples, AudioForm(num_mels=128, seconds=1))
    assert ours.shape == (98, 128)
    np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-4)


@pytest.mark.parametrize("kind", ["WAV", "OGG", "FLAC"])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_tone_is_found_in_its_band_whatever_the_file(kind: str, rate: int) -> None:
    form = AudioForm(seconds=1)
    stereo = np.stack([tone(1000, 0.6, rate)] * 2, axis=1)
    values, length = Audio().decode(sound(stereo, rate, kind), form)
    assert values.shape == (form.num_frames, 64) == (98, 64)
    assert length == 1 + (9600 - 400) // 160
    assert not values[length:].any()
    reference = log_mel(tone(1000, 0.6, 16000).astype(np.float32), form)
    assert values[5:50].mean(0).argmax() == reference.mean(0).argmax()


def test_of_a_long_sound_the_middle_is_taken_and_a_short_one_has_one_frame() -> None:
    rate = 16000
    quiet, loud = np.zeros(2 * rate), tone(500, 1, rate)
    values, length = Audio().decode(sound(np.concatenate([quiet, loud, quiet])), AudioForm(seconds=1))
    assert length == 98
    assert values.max(1).min() > 0
    assert Audio().decode(sound(tone(500, 0.001, rate)), AudioForm(seconds=1))[1] == 1
    with pytest.raises(UnreadableError, match="empty"):
        Audio().decode(sound(np.zeros(0)), AudioForm())


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
