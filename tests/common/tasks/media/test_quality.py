import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from sclmkb.common.tasks.media.quality import ms_ssim, psnr_db


def pictures(num: int, size: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    rough = torch.rand(num, 3, size // 4, size // 4, generator=draw)
    smooth = torch.nn.functional.interpolate(rough, size=(size, size), mode="bilinear")
    return (smooth * 255).to(torch.uint8)


def noisy(of: torch.Tensor, deviation: float) -> torch.Tensor:
    noise = torch.randn(of.shape, generator=torch.Generator().manual_seed(1)) * deviation
    return (of + noise).round().clamp(0, 255).to(torch.uint8)


def test_psnr_is_that_of_the_mean_squared_error() -> None:
    true = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    out = true.clone()
    out[1] += 5
    assert psnr_db(out, true).tolist() == pytest.approx([100, 10 * np.log10(255**2 / 25)])


def ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean similarity of two pictures of one colour, as the paper of 2004 writes it."""
    weight = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weight /= weight.sum()

    def local(values: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(values, weight, 0), weight, 1)[5:-5, 5:-5]

    mx, my = local(x), local(y)
    vx, vy, cov = local(x * x) - mx**2, local(y * y) - my**2, local(x * y) - mx * my
    c1, c2 = 2.55**2, 7.65**2
    return float(((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def test_one_scale_is_ssim() -> None:
    true = pictures(2, 16)
    out = noisy(true, 20)
    pairs = [list(zip(a.double().numpy(), b.double().numpy(), strict=True)) for a, b in zip(out, true, strict=True)]
    expected = [np.mean([ssim(x, y) for x, y in colours]) for colours in pairs]
    assert ms_ssim(out, true).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [11, 32, 64])
def test_equal_pictures_have_one_and_noise_takes_it_away(size: int) -> None:
    true = pictures(3, size - size % 4 if size > 11 else 12)[..., :size, :size]
    found = torch.stack([ms_ssim(noisy(true, deviation), true) for deviation in (0, 5, 20, 60)])
    torch.testing.assert_close(found[0], torch.ones(3))
    assert (found.diff(dim=0) < 0).all()
    assert (ms_ssim(255 - true, true) >= 0).all()


def test_a_picture_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 11 pixels, these have 8"):
        ms_ssim(pictures(1, 8), pictures(1, 8))
