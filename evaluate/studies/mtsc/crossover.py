"""The SNR at which one system catches up with another, with an interval."""

from typing import NamedTuple

import numpy as np

from sclmkb.evaluate.intervals import Array
from sclmkb.evaluate.studies.mtsc.results import TaskResults


class Crossover(NamedTuple):
    """Where a difference falls to 0.

    Attributes:
        snr_db: where; -inf: below the lowest SNR, inf: nowhere.
        low: end of the 95 % interval; -inf and inf as above.
        high: the other end.
        lowest: SNR that was measured [dB].
        highest: SNR that was measured [dB].
    """

    snr_db: float
    low: float
    high: float
    lowest: float
    highest: float

    def text(self) -> str:
        """Return it for a table.

        Example:
            >>> Crossover(3.2, 2.0, np.inf, -12, 18).text(), Crossover(np.inf, np.inf, np.inf, -12, 18).text()
            ('3.2 dB (2.0 dB to above 18 dB)', 'above 18 dB')
        """
        low, middle, high = (self._word(value) for value in (self.low, self.snr_db, self.high))
        return middle if low == high == middle else f"{middle} ({low} to {high})"

    def _word(self, snr_db: float) -> str:
        if np.isinf(snr_db):
            return f"above {self.highest:g} dB" if snr_db > 0 else f"below {self.lowest:g} dB"
        return f"{snr_db:.1f} dB"


def crossover(of: TaskResults, system: str, reference: str) -> Crossover:
    """Return the lowest SNR from which the reference is level with the system, or better.

    The interval is that of the bootstrap over media; seeds are averaged.
    """
    differences = np.array([at.resampled_difference(system, reference) for at in of.at.values()])
    mean = np.array([[at.difference(system, reference).mean] for at in of.at.values()])
    low, high = np.quantile(_falls(differences, of.snrs_db), [0.025, 0.975], method="nearest")
    found = _falls(mean, of.snrs_db)[0]
    return Crossover(float(found), float(low), float(high), of.snrs_db[0], of.snrs_db[-1])


def _falls(differences: Array, snrs_db: tuple[float, ...]) -> Array:
    """Return where each column of differences ``[S, R]`` first falls to 0, between SNRs by straight lines."""
    found = np.full(differences.shape[1], np.inf)
    for i in reversed(range(1, len(snrs_db))):
        before, after = differences[i - 1], differences[i]
        falls = (before > 0) & (after <= 0)
        share = before / np.where(falls, before - after, 1)
        found = np.where(falls, snrs_db[i - 1] + share * (snrs_db[i] - snrs_db[i - 1]), found)
    return np.where(differences[0] <= 0, -np.inf, found)
