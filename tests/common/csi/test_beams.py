"""Beams that part Doppler frequencies."""

import itertools
import math

import pytest
import torch

from sclmkb.common.csi.beams import MOST, array_beams, doppler_beams, jointly_diagonalise
from sclmkb.common.csi.tensors import EigenBeams


def unitary(size: int, seed: int, batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(batch, size, size, dtype=torch.complex64, generator=generator)).Q


def off_diagonal(matrices: torch.Tensor) -> torch.Tensor:
    total = matrices.abs().square().sum((-1, -2))
    return (total - matrices.diagonal(dim1=-2, dim2=-1).abs().square().sum(-1)).sum(1) / total.sum(1)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_matrices_of_common_eigenvectors_become_diagonal(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 6, size, dtype=torch.complex64, generator=generator)
    q = unitary(size, 1)
    matrices = torch.einsum("bir,bkr,bjr->bkij", q, values, q.conj())
    v = jointly_diagonalise(matrices, num_sweeps=6)
    assert torch.allclose(v.mH @ v, torch.eye(size, dtype=v.dtype).expand_as(v), atol=1e-5)
    assert (off_diagonal(v.mH[:, None] @ matrices @ v[:, None]) < 1e-6).all()


def test_a_sweep_never_makes_it_worse() -> None:
    generator = torch.Generator().manual_seed(2)
    matrices = torch.randn(4, 5, 6, 6, dtype=torch.complex64, generator=generator)
    offs = [off_diagonal(matrices)]
    for sweeps in (1, 2, 4):
        v = jointly_diagonalise(matrices, sweeps)
        offs.append(off_diagonal(v.mH[:, None] @ matrices @ v[:, None]))
    assert all((later <= earlier + 1e-6).all() for earlier, later in itertools.pairwise(offs))
    assert (offs[-1] < offs[0]).all()


def two_paths(num_samples: int = 16) -> torch.Tensor:
    """Two paths of equal power, whose eigen-beams may be any mixture; [1, T, 4, 4]."""
    receive, transmit = unitary(4, 3, 1)[0], unitary(4, 4, 1)[0]
    t = torch.arange(num_samples)
    h = torch.zeros(num_samples, 4, 4, dtype=torch.complex64)
    for path, frequency in enumerate((0.0625, -0.1875)):
        turn = torch.polar(torch.ones(num_samples), 2 * math.pi * frequency * t)
        h += turn[:, None, None] * torch.outer(receive[:, path], transmit[:, path].conj())
    return h[None]


def test_beams_hold_one_doppler_frequency_each() -> None:
    h = two_paths()
    beams = doppler_beams(h).to_beams(h)[0]
    spectra = torch.fft.fft(beams, dim=0).abs().square()  # the frequencies are whole bins: 1 and 13
    for i in range(2):
        own = spectra[:, i, i]
        assert own.max() / own.sum() > 0.999
    assert spectra[:, 0, 0].argmax() != spectra[:, 1, 1].argmax()


@pytest.mark.parametrize(("num_rx", "num_tx"), [(1, 4), (3, 2), (MOST + 5, 6)])
def test_nothing_is_lost_and_antennas_may_be_many_or_few(num_rx: int, num_tx: int) -> None:
    h = torch.randn(2, 12, num_rx, num_tx, dtype=torch.complex64, generator=torch.Generator().manual_seed(5))
    for beams in (doppler_beams(h), doppler_beams(h, array_beams(h))):
        assert torch.allclose(beams.from_beams(beams.to_beams(h)), h, atol=1e-4)
        strongest = beams.to_beams(h)[:, :, :MOST].abs().square().mean((1, 3))
        assert (strongest.diff(dim=-1) <= 1e-4).all(), "strongest first"


def test_what_lies_beyond_the_strongest_stays_an_eigen_beam() -> None:
    h = torch.randn(1, 12, MOST + 3, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(6))
    assert torch.equal(doppler_beams(h).u[..., MOST:], EigenBeams.of(h).u[..., MOST:])


def dft(size: int) -> torch.Tensor:
    return torch.fft.fft(torch.eye(size, dtype=torch.complex64), norm="ortho")


def drops(num_drops: int, num_rx: int = 8, seed: int = 7) -> torch.Tensor:
    """Many paths from all sides of a uniform linear array half a wavelength apart, each with the Doppler frequency of
    its direction."""
    generator = torch.Generator().manual_seed(seed)
    cosine = 2 * torch.rand(num_drops, 60, generator=generator) - 1
    gain = torch.randn(num_drops, 60, 4, dtype=torch.complex64, generator=generator)
    steering = torch.polar(torch.ones(1), math.pi * cosine[..., None] * torch.arange(num_rx))
    turn = torch.polar(torch.ones(1), 2 * math.pi * 0.2 * cosine[..., None] * torch.arange(12))
    h: torch.Tensor = torch.einsum("bpt,bpr,bps->btrs", turn, steering, gain)
    return h


def test_the_beams_of_a_uniform_array_look_to_one_direction_each() -> None:
    h = drops(400)
    found = array_beams(h)
    assert torch.allclose(found.mH @ found, torch.eye(8, dtype=found.dtype), atol=1e-4)
    directions = torch.fft.fft(torch.eye(8, 128, dtype=torch.complex64)).mH / 8**0.5  # finer than eight beams
    likeness = (directions @ found).abs().amax(0)
    assert (likeness > 0.95).all()
    start = (directions @ torch.eye(8, dtype=torch.complex64)).abs().amax(0)
    assert (start < 0.5).all()


def test_what_a_history_leaves_open_the_array_decides() -> None:
    h, array = drops(20, seed=8), dft(8)
    free, drawn, fixed = doppler_beams(h), doppler_beams(h, array, 1.0), doppler_beams(h, array, 1e4)
    likeness = [(array.mH @ beams.u).abs().amax(1).mean() for beams in (free, drawn, fixed)]
    assert likeness[0] < likeness[1] < likeness[2]
    assert likeness[2] > 0.999
    clear = two_paths()
    beams = doppler_beams(clear, dft(4), 0.1).to_beams(clear)[0]
    spectra = torch.fft.fft(beams, dim=0).abs().square()
    assert all(spectra[:, i, i].max() / spectra[:, i, i].sum() > 0.99 for i in range(2)), "what it says stays"
