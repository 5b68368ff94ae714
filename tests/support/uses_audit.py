"""An audit of the conventions of :mod:`sclmkb.common.link.uses`, for any codec that sends complex uses."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sclmkb.common.link.uses import UsesChannelSettings, draw_gains, sample_draws
from sclmkb.common.seeds import make_generator

Codec = Callable[[Tensor, Tensor, Tensor, Tensor, Sequence[torch.Generator]], Tensor]
"""From (symbols, sent, gains, snr_db, draws) to received symbols: normalisation, channel and equalisation."""

TOLERANCE_DB = 0.05
NUM, USES, SMALL = 1024, 256, 64


def true_snr(received: Tensor, negated: Tensor, sent: Tensor) -> Tensor:
    """Return the SNR per complex use of each sample, without bias.

    Half the difference of what is received of symbols and of their negatives, under the same noise, is the signal;
    half the sum is the noise.
    """
    signal, noise = ((part.abs().double() * sent).square().sum(1) for part in (received - negated, received + negated))
    uses = sent.sum(1)
    return signal / noise * (uses - 1) / uses


def audit(codec: Codec, settings: UsesChannelSettings, snr_db: float, seed: int = 0) -> list[str]:
    """Return what is wrong with a codec, in words; nothing if it keeps the conventions.

    Samples differ in loudness by 40 dB, in the uses that they send, and in their gains.
    """
    draw = make_generator(seed, "audit")
    loudness = 10 ** (2 * torch.rand(NUM, generator=draw) - 1)
    symbols = torch.randn(NUM, USES, dtype=torch.complex64, generator=draw) * loudness[:, None]
    share = 0.5 + 0.5 * torch.rand(NUM, generator=draw)
    sent = torch.rand(NUM, USES, generator=draw) < share[:, None]
    gains = draw_gains(settings, NUM, draw)
    snrs_db = torch.full((NUM,), float(snr_db))

    def run(samples: slice, of: Tensor = symbols) -> Tensor:
        draws = sample_draws(seed, range(NUM)[samples])
        return codec(of[samples], sent[samples], gains[samples], snrs_db[samples], draws)

    received = run(slice(None))
    power = gains.abs().square().double()
    groups = {
        "all": torch.ones(NUM, dtype=torch.bool),
        "loud": loudness > 1,
        "quiet": loudness < 1,
        "strong": power >= power.median(),
        "faded": power < power.mean(),
        "sparse": share < 0.75,
    }
    problems = []
    measured = true_snr(received, run(slice(None), -symbols), sent)
    for name, members in groups.items():
        if members.any():
            found_db = float(10 * torch.log10(measured[members].sum() / power[members].sum()))
            if not abs(found_db - snr_db) <= TOLERANCE_DB:
                problems.append(f"SNR of {name} samples: {found_db:.2f} dB, stated {snr_db:g} dB")
    alone = torch.cat([run(slice(i, i + 1)) for i in range(SMALL)])
    together = run(slice(0, SMALL))
    if not torch.equal(alone, together):
        problems.append("batch 1 is not batch 64")
    if not torch.equal(together, run(slice(0, SMALL), torch.where(sent, symbols, 1e6 - 1e6j))):
        problems.append("what is not sent has influence")
    if (together[~sent[:SMALL]] != 0).any():
        problems.append("what is not sent arrives")
    return problems
