"""Measures separate source and channel coding (SSCC), the classical baseline: text over the link, then retrieval.

::

    caption ─► Huffman, Reed-Solomon, QAM ─► F [k, m] ─► V_k F ─► H, noise ─► detection ─► hard decisions ─┐
                                                   the link of sclmkb-eval run: drops, noise, receivers │
    gallery ◄─ retrieval model, trained without a link ◄─ text encoder ◄─ text ◄─ correction, Huffman ◄─┘

A caption has the k·m symbols of the checkpoint that retrieves, and their power. A caption that does not fit is not
sent, and retrieves with an empty text. A caption that cannot be corrected retrieves with what was received of it, or
with an empty text as well. Both are counted.

Modern schemes, beyond the paper, go the same way with a model of text, LDPC codes and soft decisions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.texts import no_texts, texts_of
from sclmkb.common.config import speed_only
from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.link.link import QueryLink, Receiver
from sclmkb.common.link.mimo import Detected, symbol_mse
from sclmkb.common.link.sources import CsiSource, LinkCsi, LinkSettings
from sclmkb.common.models.encoders.text import TextSettings
from sclmkb.common.models.encoders.tuned_text import CaptionEncoder
from sclmkb.common.models.transceiver import Transceiver, embed_captions
from sclmkb.common.tasks.base import Scores
from sclmkb.common.tasks.retrieval import RETRIEVAL
from sclmkb.common.tasks.retrieval_corpus import RetrievalSplit
from sclmkb.common.tasks.trained import TrainedSystem
from sclmkb.evaluate.measure.schemas import as_table, query_rows, result_rows, tables_of
from sclmkb.evaluate.measure.settings import RunInputs, SweepSettings
from sclmkb.evaluate.measure.systems import Loader
from sclmkb.evaluate.separate.classical import ORDERS, Scheme, SeparateCoder
from sclmkb.evaluate.separate.huffman import HuffmanCode
from sclmkb.evaluate.separate.modern import ModernCoder, ModernScheme
from sclmkb.evaluate.separate.text_model import TextModel

BEST = "sscc-best"
"""Name of the envelope: at each SNR and receiver the scheme that is best on the validation split."""

MODERN_BEST = "sscc-modern-best"
"""Name of the modern schemes' own envelope."""

_SCHEMAS = tables_of(RETRIEVAL)
TABLES = {
    "results": pa.schema(
        [
            *_SCHEMAS["results"],
            ("scheme", pa.string()),  # of an envelope, which was chosen
            ("overflow", pa.float64()),  # share of queries that do not fit into their symbols
            ("decoding_failures", pa.float64()),  # share of queries that fit, and that the receiver could not decode
            ("delivered", pa.float64()),  # share of queries whose text arrived as it is
        ]
    ),
    "symbol_mse": _SCHEMAS["symbol_mse"],
    "queries": _SCHEMAS["queries"],
}


class SsccSettings(SweepSettings):
    """Settings of ``sclmkb-eval sscc``."""

    schemes: tuple[Scheme, ...] = Field(
        default=tuple(Scheme(qam=qam, rate=rate) for qam, rate in product(ORDERS, (0.5, 0.75))),
        min_length=1,
        description="pairs of QAM order and rate of the Reed-Solomon code",
    )
    modern_schemes: tuple[ModernScheme, ...] = Field(
        default=(), description="pairs of QAM order and rate of the LDPC code, with the model of text; need Sionna"
    )
    csi_source: CsiSource = Field(default="feedback", description="CSI at the transmitter")
    link: LinkSettings = Field(default=LinkSettings(), description="channel, power and feedback")
    keep_damaged: bool = Field(
        default=True,
        description="whether a caption that cannot be corrected retrieves with its damaged text; false: with an "
        "empty text, which is faster. Modern schemes always take an empty text",
    )
    threads: int | None = speed_only(None, description="CPU threads; default: all cores")


class Arrival(NamedTuple):
    """What arrived of all queries with one scheme, at one SNR and receiver."""

    scheme: Scheme
    receiver: Receiver
    snr_db: float
    texts: list[str]
    fits: np.ndarray
    decoded: np.ndarray
    symbol_mse: float


@dataclass
class SsccBench:
    """Corpus and channels that every scheme is measured on.

    What arrives does not depend on the weights that retrieve, and is computed once for all of their seeds.
    """

    settings: SsccSettings
    inputs: RunInputs
    corpus: Artifact
    num_streams: int
    num_uses: int
    _loaders: dict[str, Loader] = field(default_factory=dict)
    _arrived: dict[str, list[Arrival]] = field(default_factory=dict)
    _texts: dict[TextSettings, "_Texts"] = field(default_factory=dict)

    @cached_property
    def coders(self) -> list[SeparateCoder | ModernCoder]:
        """A coder for each scheme that fits into k·m symbols; its source code is that of the training captions.

        Raises:
            UserError: if there are no training captions, or no classical scheme fits.
        """
        if "train" not in self.corpus.splits:
            raise UserError(f"the corpus at {self.corpus.root} has no split 'train' for the Huffman table")
        captions = texts_of(self.corpus, "train", ["text"]).column("text").to_pylist()
        if not captions:
            raise no_texts(self.corpus, ["train"])
        huffman, size = HuffmanCode.fit(captions), (self.num_streams, self.num_uses)
        makers: list[tuple[Scheme, Callable[[], SeparateCoder | ModernCoder]]] = [
            (scheme, partial(SeparateCoder, huffman, scheme, *size, self.settings.keep_damaged))
            for scheme in self.settings.schemes
        ]
        if self.settings.modern_schemes:
            model = TextModel.fit(captions)
            makers += [(scheme, partial(ModernCoder, model, scheme, *size)) for scheme in self.settings.modern_schemes]
        found: dict[tuple[int, str], SeparateCoder | ModernCoder] = {}
        problems = []
        for scheme, make in makers:
            try:
                coder = make()
            except UserError as error:
                problems.append(str(error))
                continue
            same = found.setdefault((scheme.qam, coder.describe()), coder)
            if same is not coder:
                problems.append(f"{scheme.name} is the same code as {same.scheme.name}")
        if all(isinstance(coder, ModernCoder) for coder in found.values()):
            raise UserError(problems[0])
        for problem in problems:
            say(f"eval: left out: {problem}")
        return list(found.values())

    @property
    def num_ticks(self) -> int:
        """How often :meth:`measure` reports progress."""
        return 2 * len(self.coders) * len(self.settings.snrs_db) * len(self.settings.receivers)

    def measure(self, trained: TrainedSystem, tick: Callable[[], None]) -> dict[str, pa.Table]:
        """Return every table, with a checkpoint for the retrieval.

        Schemes are chosen on the validation split, or on that of training where the corpus has no other.

        Raises:
            UserError: if the checkpoint does not fit the inputs.
        """
        of, model = trained.settings, trained.model()
        texts = self._embeddings(model, of.text)
        choice = "val" if "val" in self.corpus.splits else "train"
        best: dict[tuple[str, Receiver, float], tuple[float, Scheme]] = {}
        for arrival, scores, _ in self._score(choice, model, texts):
            found = RETRIEVAL.summarise(scores)[RETRIEVAL.main]
            place = (_envelope(arrival.scheme), arrival.receiver, arrival.snr_db)
            if place not in best or found > best[place][0]:
                best[place] = (found, arrival.scheme)
            tick()
        link = self._link("test")
        steps = self.settings.steps_of(link)
        kept: dict[str, list[Any]] = {"results": [], "symbol_mse": [], "queries": []}
        for arrival, scores, split in self._score("test", model, texts):
            envelope = _envelope(arrival.scheme)
            own = arrival.scheme == best[envelope, arrival.receiver, arrival.snr_db][1]
            for system in (arrival.scheme.name, envelope)[: 1 + own]:
                at = {
                    "system": system,
                    "seed": of.seed,
                    "receiver": arrival.receiver,
                    "snr_db": arrival.snr_db,
                    "csi_source": self.settings.csi_source,
                    "sdg": of.with_sdg,
                    "fusion": of.used_fusion,
                    "scheme": arrival.scheme.name,
                }
                error = {
                    "symbol_mse": arrival.symbol_mse,
                    "spectral_efficiency": link.spectral_efficiency(steps, arrival.snr_db),
                }
                kept["results"] += result_rows(at, split, scores, RETRIEVAL, _shares(arrival, split))
                kept["symbol_mse"].append({**at, **error})
                kept["queries"].append(as_table(query_rows(at, split, scores), TABLES["queries"]))
            tick()
        tables = {name: pa.Table.from_pylist(kept[name], schema=TABLES[name]) for name in ("results", "symbol_mse")}
        return tables | {"queries": pa.concat_tables(kept["queries"])}

    def _score(
        self, split_name: str, model: Transceiver, texts: "_Texts"
    ) -> Iterator[tuple[Arrival, Scores, RetrievalSplit]]:
        """Yield what arrived, and how well it retrieves."""
        split = self._loader(split_name).split(model)
        target = RETRIEVAL.target(model, split)
        texts.know(split.texts)
        without = LinkCsi.without_link(self.num_streams)
        first = torch.zeros(len(split.texts), dtype=torch.long)
        link = without.state(first, first, torch.full((len(first),), torch.inf))
        for arrival in self._arrivals(split, model):
            with torch.no_grad():
                embeddings = model(texts.embed(arrival.texts), link)
            yield arrival, RETRIEVAL.score(embeddings, target), split

    def _arrivals(self, split: RetrievalSplit, model: Transceiver) -> Iterator[Arrival]:
        """Yield what arrives with every scheme, at every SNR and receiver; computed once per split."""
        if split.split in self._arrived:
            yield from self._arrived[split.split]
            return
        kept, settings, link = [], self.settings, self._link(split.split)
        steps = settings.steps_of(link)
        boost = model.settings.dmrs_pilot_boost_db
        queries = QueryLink.draw(
            link, len(split.texts), self.num_uses, steps=steps, seed=settings.seed, pilot_boost_db=boost
        )
        sent = [coder.encode(split.texts) for coder in self.coders]
        f = torch.cat([each.symbols for each in sent], dim=2)
        for snr_db in settings.snrs_db:
            for receiver, detected in queries.convey(f, queries.at(snr_db), settings.receivers):
                parts = torch.split(detected.symbols, self.num_uses, 2)
                for coder, own, estimate in zip(self.coders, sent, parts, strict=True):
                    received = coder.receive(Detected(estimate, detected.stream_snr_db))
                    error = float(symbol_mse(own.symbols, estimate).double().mean())
                    texts = [text if fits else "" for text, fits in zip(received.texts, own.fits, strict=True)]
                    kept.append(Arrival(coder.scheme, receiver, snr_db, texts, own.fits, received.decoded, error))
                    yield kept[-1]
        self._arrived[split.split] = kept

    def _loader(self, split_name: str) -> Loader:
        if split_name not in self._loaders:
            self._loaders[split_name] = Loader(self.corpus, self.inputs.csi, self.inputs.predicted, split_name)
        return self._loaders[split_name]

    def _link(self, split_name: str) -> LinkCsi:
        return self._loader(split_name).channels(self.settings.csi_source, self.num_streams, self.settings.link)

    def _embeddings(self, model: Transceiver, settings: TextSettings) -> "_Texts":
        """Return the embeddings of texts; of a frozen encoder they are the same for every model."""
        if settings not in self._texts or settings.tune != "frozen":
            self._texts[settings] = _Texts(model, settings)
        return self._texts[settings]


def _envelope(scheme: Scheme) -> str:
    """Return the name of the envelope that a scheme may be chosen for."""
    return MODERN_BEST if isinstance(scheme, ModernScheme) else BEST


class _Texts:
    """Embeddings of texts by the encoder of a model, each computed once."""

    def __init__(self, model: Transceiver, settings: TextSettings) -> None:
        self._model, self._settings = model, settings
        self._row: dict[str, int] = {}
        self._table = torch.zeros(0, model.settings.text_width)
        self._encoder: CaptionEncoder | None = None

    def know(self, captions: Sequence[str]) -> None:
        """Embed the captions of a split as ``sclmkb-eval run`` does, whose cache may have them."""
        if any(text not in self._row for text in captions):
            self._add(captions, embed_captions(self._model, captions, self._settings))

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "B t"]:
        """Return the embeddings of texts."""
        if new := [text for text in dict.fromkeys(texts) if text not in self._row]:
            self._encoder = self._encoder or CaptionEncoder(self._settings, self._model.text)
            self._add(new, self._encoder.encode(new))
        return self._table[[self._row[text] for text in texts]]

    def _add(self, texts: Sequence[str], embeddings: Tensor) -> None:
        self._row |= {text: len(self._table) + i for i, text in enumerate(texts)}
        self._table = torch.cat([self._table, embeddings])


def _shares(arrival: Arrival, split: RetrievalSplit) -> Scores:
    """Return which captions were lost, and which arrived."""
    exact = np.array([got == sent for got, sent in zip(arrival.texts, split.texts, strict=True)])
    return {
        "overflow": ~arrival.fits,
        "decoding_failures": arrival.fits & ~arrival.decoded,
        "delivered": arrival.fits & exact,
    }
