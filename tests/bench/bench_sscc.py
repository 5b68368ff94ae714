"""What the Monte-Carlo of separate source and channel coding is held to: 16×16 antennas, 4 streams, 16 uses a caption.

Captions go through Huffman, Reed-Solomon and QAM, the link, detection, and all the way back, at several SNRs: all at
once as ``sclmkb-eval sscc`` does it, and one after the other in a loop in Python with NumPy and ``reedsolo``. Channels
are decomposed before, for both. Turns in alternation; the loop is timed on a part of the captions. What arrives must be
alike: the shares of captions that were decoded are printed, and differ by the noise alone.

Captions are words drawn at random, channels Rayleigh. Run it on a quiet machine.
"""

import argparse
import statistics
import sys
import time

import numpy as np
import reedsolo
import torch
from verdict import verdict

from sclmkb.common.channel.coding import Scheme, SeparateCoder, modulate, unbiased
from sclmkb.common.channel.fading import FadingSettings, draw_channels
from sclmkb.common.channel.huffman import END, HuffmanCode
from sclmkb.common.channel.link import LinkCsi
from sclmkb.common.cli import limit_threads
from sclmkb.common.models.sweep import QueryLink
from sclmkb.common.models.transceiver import TransceiverSettings
from sclmkb.common.seeds import make_generator

BOUND = 50.0
SNRS_DB = (-10.0, -5.0, 0.0, 5.0, 10.0, 20.0)
STREAMS, USES, ANTENNAS = 4, 16, 16
SCHEMES = [(4, 0.5), (16, 0.5), (64, 0.75)]
WORDS = ["man", "woman", "red", "tall", "old", "hat", "a", "in", "runs", "with", "coat", "hair"]


def batch(coder: SeparateCoder, texts: list[str], queries: QueryLink) -> float:
    """Return the share of captions that were decoded, all at once."""
    sent, shares = coder.encode(texts), []
    for snr_db in SNRS_DB:
        for _, detected in queries.convey(sent.symbols, queries.at(snr_db), ("literal",)):
            shares.append(coder.decode(unbiased(detected)).decoded.mean())
    return float(np.mean(shares))


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
        for snr_db in SNRS_DB:
            for i, text in enumerate(texts):
                decoded += self.send(text, i % len(self.h), 10 ** (-snr_db / 10)) is not None
        return decoded / len(texts) / len(SNRS_DB)

    def send(self, text: str, drop: int, power: float) -> str | None:
        """Return what arrives of a caption, or None."""
        bits = "".join(self.words[ord(c)] for c in text) + self.words[END]
        bits = (bits if len(bits) <= self.capacity else self.words[END]).ljust(self.capacity, "0")
        message = bytes(int(bits[i : i + 8], 2) for i in range(0, self.capacity, 8))
        coded = "".join(f"{byte:08b}" for byte in self.codec.encode(message)).ljust(self.size, "0")
        width = 2 * self.half
        f = np.array([self.points[coded[i : i + width]] for i in range(0, self.size, width)]).reshape(STREAMS, USES)
        u, s, v = (x[drop] for x in self.beams)
        noise = self.draw.standard_normal((2, ANTENNAS, USES)) * (power / 2) ** 0.5
        y = self.h[drop] @ (v @ f) + noise[0] + 1j * noise[1]
        estimate = ((u.conj().T @ y) / s[:, None]).ravel()
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
    parser.add_argument("--captions", type=int, default=2000)
    parser.add_argument("--part", type=int, default=60, help="captions of the loop")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each measurement")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    args = parser.parse_args()
    limit_threads(args.threads)
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, 4)) for _ in range(args.captions)]
    sizes = FadingSettings(num_drops=500, num_rx=ANTENNAS, num_tx=ANTENNAS)
    h = draw_channels("rayleigh", sizes, STREAMS, 1, make_generator(0, "bench"))
    csi = LinkCsi.build("perfect", STREAMS, h, h)
    shape = TransceiverSettings(num_streams=STREAMS, num_uses=USES)
    queries = QueryLink.draw(csi, shape, len(texts), steps=[0], seed=0)
    huffman = HuffmanCode.fit(texts)
    chains = [SeparateCoder(huffman, Scheme(qam=qam, rate=rate), STREAMS, USES) for qam, rate in SCHEMES]
    seconds: dict[str, list[float]] = {"batch": [], "loop": []}
    for turn in range(args.rounds + 1):  # the first one warms up
        spent = {"batch": 0.0, "loop": 0.0}
        for coder in chains:
            loop = Loop(coder, csi)
            started = time.perf_counter()
            together = batch(coder, texts, queries)
            middle = time.perf_counter()
            alone = loop.run(texts[: args.part])
            spent["batch"] += (middle - started) / len(texts)
            spent["loop"] += (time.perf_counter() - middle) / args.part
            if not turn:
                print(f"{coder.scheme.name}, {coder.describe()}: decoded {together:.3f}, in the loop {alone:.3f}")
        if turn:
            for name, value in spent.items():
                seconds[name].append(value)
    each = {name: statistics.median(values) / len(chains) / len(SNRS_DB) for name, values in seconds.items()}
    print(f"a caption at one SNR: batch {1e6 * each['batch']:.1f} µs, loop {1e6 * each['loop']:.1f} µs")
    ratio = each["loop"] / each["batch"]
    return verdict([("Monte-Carlo of SSCC, loop in Python / batch", ratio, BOUND, ratio >= BOUND)])


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main())
