"""Measures a trained transceiver over SNR, on the test split alone.

Every system meets the same channel drops, noise and queries; only the CSI that its transmitter has is its own.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import product
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.link.link import Receiver
from sclmkb.common.models.encoders.text import TextSettings
from sclmkb.common.models.transceiver import Transceiver, embed_captions
from sclmkb.common.seeds import make_generator
from sclmkb.common.tasks.base import Task
from sclmkb.common.tasks.over_link import sweep_queries
from sclmkb.common.tasks.retrieval import RETRIEVAL
from sclmkb.common.tasks.retrieval_corpus import SAME_WORDING, RetrievalSplit
from sclmkb.common.tasks.trained import TrainedSystem
from sclmkb.evaluate.measure.schemas import Rows, as_tables, query_rows, result_rows
from sclmkb.evaluate.measure.settings import RunInputs, RunSettings
from sclmkb.evaluate.measure.systems import Loader

OF_A_COLUMN = ("results", "symbol_mse", "queries")
"""The tables of a column: of one SNR and receiver."""

SHOWN = "shown"
"""Begin of the names of the parts with the table ``retrievals``, each of one SNR, whatever the columns are."""


@dataclass
class Bench:
    """The test split and channels that every checkpoint is measured on, all trained for one task."""

    settings: RunSettings
    inputs: RunInputs
    corpus: Artifact
    task: Task = RETRIEVAL
    _texts: dict[TextSettings, Tensor] = field(default_factory=dict)

    @cached_property
    def loader(self) -> Loader:
        """What reads corpus and CSI, once for all checkpoints."""
        given = self.inputs
        return Loader(self.corpus, given.csi, given.predicted, link_settings=self.settings.link, task=self.task)

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """What a checkpoint's measurement consists of, each measured alone: the name of a part, and its tables."""
        columns = product(self.settings.snrs_db, self.settings.receivers)
        parts: dict[str, tuple[str, ...]] = {column_name(receiver, snr_db): OF_A_COLUMN for snr_db, receiver in columns}
        if self.task.example_columns:
            parts |= {column_name(SHOWN, snr_db): ("retrievals",) for snr_db in self.settings.shown_snrs_db}
        return parts

    def measure(
        self, trained: TrainedSystem, wanted: Collection[str], tick: Callable[[], None]
    ) -> Iterator[tuple[str, dict[str, pa.Table]]]:
        """Yield some of the :attr:`parts` of one checkpoint, and call ``tick`` for each.

        The checkpoint is loaded, and its gallery embedded, once for all parts. A part is the same whatever else is
        measured with it.

        Raises:
            UserError: if the checkpoint does not fit its settings or the inputs.
        """
        of, model, settings = trained.settings, trained.model(), self.settings
        split, link = self.loader.split(model), self.loader.link(trained)
        target, steps = self.task.target(model, split), settings.steps_of(link)
        send = partial(sweep_queries, model, self._text(model, of.text, split), link, steps=steps, seed=settings.seed)
        own = {"system": of.system, "seed": of.seed, "csi_source": of.csi_source}
        own |= {"sdg": of.with_sdg, "fusion": of.used_fusion}
        for receivers, snrs_db in self._missing(wanted).items():
            for sent in send(snrs_db=snrs_db, receivers=receivers):
                scores = self.task.score(sent.embeddings, target)
                at = {**own, "receiver": sent.receiver, "snr_db": sent.snr_db}
                error = {
                    "symbol_mse": float(sent.symbol_mse.double().mean()),
                    "spectral_efficiency": link.spectral_efficiency(steps, sent.snr_db),
                }
                tables: dict[str, Rows] = {
                    "results": result_rows(at, split, scores, self.task),
                    "symbol_mse": [{**at, **error}],
                    "queries": query_rows(at, split, scores),
                }
                yield column_name(sent.receiver, sent.snr_db), as_tables(tables, self.task)
                tick()
        shown_at = [snr_db for snr_db in settings.shown_snrs_db if column_name(SHOWN, snr_db) in wanted]
        chosen = _choose_shown(split, settings.num_shown, settings.seed)
        for sent in send(snrs_db=shown_at, receivers=(settings.shown_receiver,)) if shown_at else ():
            at = {**own, "receiver": sent.receiver, "snr_db": sent.snr_db}
            shown = [{**at, **self._example(split, target, query, sent.embeddings[query])} for query in chosen]
            yield column_name(SHOWN, sent.snr_db), as_tables({"retrievals": shown}, self.task)
            tick()

    def _example(self, split: RetrievalSplit, target: Any, query: int, output: Tensor) -> dict[str, Any]:
        """Return what is shown of a caption."""
        caption = {"query": query, "text": split.texts[query], "wording": split.wordings[query]}
        return {**caption, **self.task.example(split, target, query, output, self.settings.num_ranked)}

    def _missing(self, wanted: Collection[str]) -> dict[tuple[Receiver, ...], list[float]]:
        """Return the SNRs at which the same receivers are wanted; what receivers have in common is done once."""
        found: dict[tuple[Receiver, ...], list[float]] = {}
        for snr_db in self.settings.snrs_db:
            if receivers := tuple(r for r in self.settings.receivers if column_name(r, snr_db) in wanted):
                found.setdefault(receivers, []).append(snr_db)
        return found

    def _text(self, model: Transceiver, settings: TextSettings, split: RetrievalSplit) -> Tensor:
        """Return what the model's E_α takes of the captions; of a frozen encoder that is the same for every model."""
        if settings not in self._texts or settings.tune != "frozen":
            self._texts[settings] = embed_captions(model, split.texts, settings)
        return self._texts[settings]


def column_name(receiver: str, snr_db: float) -> str:
    """Return the name of the part of a measurement at one SNR with one receiver, or of what is shown there."""
    return f"{receiver}{snr_db + 0.0:+}dB"


def _choose_shown(split: RetrievalSplit, count: int, seed: int) -> list[int]:
    """Choose captions to show, the wordings in turn, each of another identity while there are enough."""
    wordings = sorted(set(split.wordings), key=lambda w: (w != SAME_WORDING, w))
    order = torch.randperm(len(split.texts), generator=make_generator(seed, "shown")).tolist()
    chosen: list[int] = []
    for position in range(min(count, len(order))):
        wanted = wordings[position % len(wordings)]
        shown = {int(split.caption_identity[i]) for i in chosen}
        left = [i for i in order if i not in chosen]
        fresh = [i for i in left if int(split.caption_identity[i]) not in shown] or left
        chosen.append(next((i for i in fresh if split.wordings[i] == wanted), fresh[0]))
    return chosen
