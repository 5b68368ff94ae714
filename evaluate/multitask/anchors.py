"""Published figures of pictures over AWGN: the band in which a sound measurement of CIFAR-10 lies.

No system here was measured by this project. The SNR is per complex channel use, and the rate the uses over the 3,072
values of a picture: 512 uses are 1/6, 256 are 1/12.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Anchor(NamedTuple):
    """A published curve.

    Attributes:
        label: of the curve.
        uses: complex uses of a picture.
        psnr_db: PSNR by the SNR per complex use, both in dB.
        source: where it is from, and under what conditions.
    """

    label: str
    uses: int
    psnr_db: dict[float, float]
    source: str


_DEEPJSCC = "DeepJSCC in public code, one model for each SNR, more than 1,000 epochs; SNRs corrected to complex uses"
_BPG = "BPG with 5G LDPC codes: 1,000 pictures in one file, headers left out"

CIFAR10_AWGN: Sequence[Anchor] = (
    Anchor(
        "DeepJSCC, published",
        512,
        {4: 26.10, 7: 28.09, 10: 29.73, 13: 31.10, 16: 32.45, 22: 34.23},
        _DEEPJSCC,
    ),
    Anchor(
        "DeepJSCC, published",
        256,
        {4: 23.82, 7: 25.37, 10: 26.84, 13: 27.88, 16: 28.77, 22: 29.72},
        _DEEPJSCC,
    ),
    Anchor("BPG + LDPC, published", 512, {0: 22.3, 2: 24.1, 5: 25.4, 7: 27.9, 10: 29.7, 12: 30.5, 15: 32.8}, _BPG),
)
"""CIFAR-10 over AWGN."""
