"""What the Monte-Carlo of separate source and channel coding is held to: 16×16 antennas, 4 streams, 16 uses a caption.

Captions go through Huffman, Reed-Solomon and QAM, the link, both receivers, and all the way back, with the schemes and
at the SNRs that are the defaults: all at once as ``sclmkb-eval sscc`` does it, and one after the other in a loop in
Python with NumPy and ``reedsolo``. Channels are decomposed before, for both. Turns in alternation; the loop is timed on
a part of the captions. What arrives must be alike: the shares of captions that were decoded are printed, and differ by
the noise and that part alone.

Captions are words drawn at random, channels Rayleigh. Run it on a quiet machine.
"""

import argparse
import statistics
import sys
import time
from itertools import product

import numpy as np
import reedsolo
import torch
from verdict import sized, verdict

from sclmkb.common.console import limit_threads
from sclmkb.common.link.fading import FadingSettings, draw_channels
from sclmkb.common.link.link import RECEIVERS, QueryLink
from sclmkb.common.link.sources import LinkCsi
from sclmkb.common.models.transceiver import TransceiverSettings
from sclmkb.common.seeds import make_generator
from sclmkb.evaluate.separate.classical import SeparateCoder, modulate, unbiased
from sclmkb.evaluate.separate.huffman import END, HuffmanCode
from sclmkb.evaluate.separate.sscc import SsccSettings

BOUND = 50.0
STREAMS, USES, ANTENNAS = 4, 16, 16
DEFAULTS = SsccSettings()
CONDITIONS = len(DEFAULTS.snrs_db) * len(RECEIVERS)
WORDS = ["man", "woman", "red", "tall", "old", "hat", "a", "in", "runs", "with", "coat", "hair"]


def batch(coders: list[SeparateCoder], texts: list[str], queries: QueryLink) -> list[float]:
    """Return the share of captions that were decoded with each scheme, all at once."""
    f = torch.cat([coder.encode(texts).symbols for coder in coders], dim=2)
    shares = []
    for snr_db in DEFAULTS.snrs_db:
        for _, detected in queries.convey(f, queries.at(snr_db), RECEIVERS):
            parts = unbiased(detected).split(USES, 2)
            shares.append([coder.decode(x).decoded.mean() for coder, x in zip(coders, parts, strict=True)])
    return np.mean(shares, axis=0).tolist()


class Loop:
    """The same for one caption at a time."""

    def __init__(self, coder: SeparateCoder, csi: LinkCsi) -> None:
        self.n, self.k, self.capacity = coder.code.num_bytes, coder.code.num_message, coder.capacity
        self.words = {symbol: f"{word:0{length}b}" for symbol, (word, length) in coder.huffman.words.items()}
        self.symbols = {word: symbol for symbol, word in self.words.items()}
        self.codec = reedsolo.RSCodec(self.n - self.k, nsize=self.n)
        self.half, order = coder.scheme.bits_per_symbol // 2, coder.scheme.qam
        labels = [f"{i:0{2 * self.half}b}" for i in range(order)]
        bits = np.array([[int(bit) for bit in label] for label in labels], np.uint8)
        points = modulate(bits, order)[:, 0] / STREAMS**0.5
        self.points, self.labels = dict(zip(labels, points.tolist(), strict=True)), labels
        self.table, self.size = points, coder.num_bits
        self.h, self.beams = csi.h[:, 0].numpy(), [x[:, 0].numpy() for x in csi.beams]
        self.draw = np.random.default_rng(0)

    def run(self, texts: list[str]) -> float:
        """Return the share of captions that were decoded."""
        decoded = 0
        for snr_db, receiver in product(DEFAULTS.snrs_db, RECEIVERS):
            for i, text in enumerate(texts):
                decoded += self.send(text, i % len(self.h), 10 ** (-snr_db / 10), receiver) is not None
        return decoded / len(texts) / CONDITIONS

    def noise(self, power: float, *size: int) -> np.ndarray:
        """Return noise of a power."""
        parts = self.draw.standard_normal((2, *size)) * (power / 2) ** 0.5
        return parts[0] + 1j * parts[1]

    def send(self, text: str, drop: int, power: float, receiver: str) -> str | None:
        """Return what arrives of a caption, or None."""
        bits = "".join(self.words[ord(c)] for c in text) + self.words[END]
        bits = (bits if len(bits) <= self.capacity else self.words[END]).ljust(self.capacity, "0")
        message = bytes(int(bits[i : i + 8], 2) for i in range(0, self.capacity, 8))
        coded = "".join(f"{byte:08b}" for byte in self.codec.encode(message)).ljust(self.size, "0")
        width = 2 * self.half
        f = np.array([self.points[coded[i : i + width]] for i in range(0, self.size, width)]).reshape(STREAMS, USES)
        u, s, v = (x[drop] for x in self.beams)
        y = self.h[drop] @ (v @ f) + self.noise(power, ANTENNAS, USES)
        if receiver == "literal":
            estimate = ((u.conj().T @ y) / s[:, None]).ravel()
        else:
            effective = self.h[drop] @ v + self.noise(power, ANTENNAS, STREAMS)
            gram = effective.conj().T @ effective + 2 * STREAMS * power * np.eye(STREAMS)
            weights = np.linalg.solve(gram, effective.conj().T)
            estimate = (weights @ y / (weights @ effective).diagonal()[:, None]).ravel()
        nearest = np.abs(estimate[:, None] - self.table).argmin(1)
        found = "".join(self.labels[i] for i in nearest)
        received = bytes(int(found[i : i + 8], 2) for i in range(0, 8 * self.n, 8))
        try:
            corrected = self.codec.decode(received)[0]
        except reedsolo.ReedSolomonError:
            return None
        characters, word = [], ""
        for bit in "".join(f"{byte:08b}" for byte in corrected):
            word += bit
            if (symbol := self.symbols.get(word)) is not None:
                if symbol == END:
                    return "".join(characters)
                characters.append(chr(symbol))
                word = ""
        return None


def main() -> int:
    """Measure, print a line a bound, and return 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=sized(2000, 8))
    parser.add_argument("--part", type=int, default=sized(60, 1), help="captions of the loop")
    parser.add_argument("--rounds", type=int, default=sized(3, 1), help="turns of each measurement")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    args = parser.parse_args()
    limit_threads(args.threads)
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, 4)) for _ in range(args.captions)]
    sizes = FadingSettings(num_drops=500, num_rx=ANTENNAS, num_tx=ANTENNAS)
    h = draw_channels("rayleigh", sizes, STREAMS, 1, make_generator(0, "bench"))
    csi = LinkCsi.build("perfect", STREAMS, h, h)
    shape = TransceiverSettings(num_streams=STREAMS, num_uses=USES)
    queries = QueryLink.draw(csi, len(texts), shape.num_uses, steps=[0], seed=0)
    huffman = HuffmanCode.fit(texts)
    chains = [SeparateCoder(huffman, scheme, STREAMS, USES) for scheme in DEFAULTS.schemes]
    seconds: dict[str, list[float]] = {"batch": [], "loop": []}
    for turn in range(args.rounds + 1):  # the first one warms up
        loops = [Loop(coder, csi) for coder in chains]
        started = time.perf_counter()
        together = batch(chains, texts, queries)
        middle = time.perf_counter()
        alone = [loop.run(texts[: args.part]) for loop in loops]
        if turn:
            seconds["batch"].append((middle - started) / len(texts))
            seconds["loop"].append((time.perf_counter() - middle) / args.part)
            continue
        for coder, one, other in zip(chains, together, alone, strict=True):
            print(f"{coder.scheme.name}, {coder.describe()}: decoded {one:.3f}, in the loop {other:.3f}")
    each = {name: statistics.median(values) / len(chains) / CONDITIONS for name, values in seconds.items()}
    print(f"a caption at one SNR and receiver: batch {1e6 * each['batch']:.1f} µs, loop {1e6 * each['loop']:.1f} µs")
    ratio = each["loop"] / each["batch"]
    return verdict([("Monte-Carlo of SSCC, loop in Python / batch", ratio, BOUND, ratio >= BOUND)])


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main())
