"""Measures a trained transceiver over SNR, on the test split alone.

Every system meets the same channel drops, noise and queries; only the CSI that its transmitter has is its own.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from jaxtyping import Bool, Int
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.checkpoints import Checkpoint
from sclmkb.common.config import Settings, speed_only
from sclmkb.common.errors import UserError
from sclmkb.common.link.sources import LinkCsi, LinkSettings
from sclmkb.common.metrics import precision_of_ranks, ranks_in_gallery, retrieval_of_ranks
from sclmkb.common.models.encoders.text import TextSettings
from sclmkb.common.models.transceiver import (
    RECEIVERS,
    Receiver,
    Transceiver,
    embed_captions,
    embed_gallery,
    load_transceiver,
)
from sclmkb.common.seeds import make_generator
from sclmkb.common.tasks.over_link import sweep_queries
from sclmkb.common.tasks.retrieval_corpus import SAME_WORDING, RetrievalSplit
from sclmkb.evaluate.measure.systems import Loader

RESULTS = pa.schema(
    [
        ("system", pa.string()),
        ("csi_source", pa.string()),
        ("sdg", pa.bool_()),
        ("fusion", pa.string()),
        ("receiver", pa.string()),
        ("seed", pa.int64()),
        ("snr_db", pa.float64()),
        ("wording", pa.string()),  # "same" as in training, "changed": all others together, or one of the others
        ("queries", pa.int64()),
        ("map", pa.float64()),
        ("rank1", pa.float64()),
        ("rank5", pa.float64()),
        ("rank10", pa.float64()),
    ]
)

SYMBOL_MSE = pa.schema(
    [
        ("system", pa.string()),
        ("csi_source", pa.string()),
        ("receiver", pa.string()),
        ("seed", pa.int64()),
        ("snr_db", pa.float64()),
        ("symbol_mse", pa.float64()),  # mean over queries of ‖F - F^‖² / ‖F‖², linear
        ("spectral_efficiency", pa.float64()),  # bit per channel use, mean over queries' drops
    ]
)

QUERIES = pa.schema(
    [
        ("system", pa.string()),
        ("seed", pa.int64()),
        ("receiver", pa.string()),
        ("snr_db", pa.float64()),
        ("row_id", pa.string()),  # of the caption
        ("identity", pa.int64()),  # number within the test split
        ("wording", pa.string()),
        ("ap", pa.float64()),  # average precision
        ("rank", pa.int64()),  # of the best relevant item, from 1
    ]
)

RETRIEVALS = pa.schema(
    [
        ("query", pa.int64()),
        ("text", pa.string()),
        ("wording", pa.string()),
        ("system", pa.string()),
        ("seed", pa.int64()),
        ("receiver", pa.string()),
        ("snr_db", pa.float64()),
        ("item_ids", pa.list_(pa.string())),  # best first
        ("hits", pa.list_(pa.bool_())),
    ]
)

TABLES = {"results": RESULTS, "symbol_mse": SYMBOL_MSE, "queries": QUERIES, "retrievals": RETRIEVALS}

MEASURES = ("results", "symbol_mse", "queries")
"""The tables of a column: of one SNR and receiver."""

SHOWN = "shown"
"""Begin of the names of the parts with the table ``retrievals``, each of one SNR, whatever the columns are."""


class SweepSettings(Settings):
    """What decides which channels, noise and receivers the queries meet: equal ones are needed for a comparison."""

    snrs_db: tuple[float, ...] = Field(
        default=tuple(range(-15, 30, 5)), min_length=1, description="SNRs to measure at [dB]"
    )
    receivers: tuple[Receiver, ...] = Field(
        default=RECEIVERS, min_length=1, description="receivers to measure with: literal, dmrs"
    )
    steps: tuple[NonNegativeInt, ...] | None = Field(
        default=None, description="future steps, counted from 0, that queries take in turn; default: all"
    )
    seed: int = Field(default=0, description="seed of drops, noise and shown captions")
    seeds: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="training seeds whose checkpoints are measured; default: all"
    )

    def steps_of(self, link: LinkCsi) -> list[int]:
        """Return the future steps of a link that queries take in turn.

        Raises:
            UserError: if the link lacks one.
        """
        if link.bypass:
            return [0]
        steps = list(self.steps if self.steps is not None else range(link.num_steps))
        if max(steps) >= link.num_steps:
            raise UserError(f"setting 'steps' = {steps}: the CSI has steps 0 to {link.num_steps - 1}")
        return steps


class RunSettings(SweepSettings):
    """Settings of ``sclmkb-eval run``."""

    link: LinkSettings | None = Field(
        default=None,
        description="channel, power and feedback to measure on; default: those of each checkpoint's training",
    )
    num_shown: PositiveInt = Field(default=8, description="captions whose retrievals are kept")
    num_ranked: PositiveInt = Field(default=5, description="retrieved media per caption that are kept")
    shown_snrs_db: tuple[float, ...] = Field(
        default=(-10.0, 0.0, 15.0), min_length=1, description="SNRs of the kept retrievals [dB]; may be one number"
    )
    shown_receiver: Receiver = Field(default="literal", description="receiver of the kept retrievals")
    table_snr_db: float = speed_only(
        15.0, description="SNR of the printed tables [dB]; the nearest measured one is taken"
    )
    threads: int | None = speed_only(None, description="CPU threads; default: all cores")

    @field_validator("shown_snrs_db", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, int | float) else value


@dataclass(frozen=True, kw_only=True)
class RunInputs:
    """Where what is measured, and what it is measured on, lie."""

    checkpoints: Path
    corpus: Path
    csi: Path | None = None
    predicted: Path | None = None

    @classmethod
    def below(
        cls, folder: Path, *, checkpoints: Path | None, corpus: Path | None, csi: Path | None, predicted: Path | None
    ) -> "RunInputs":
        """Return what is named, and for the rest the places in a preset's folder."""
        return cls(
            checkpoints=checkpoints or folder / "jscc",
            corpus=corpus or folder / "corpus",
            csi=csi or folder / "csi",
            predicted=predicted or folder / "predicted",
        )


@dataclass
class Bench:
    """The test split and channels that every checkpoint is measured on."""

    settings: RunSettings
    inputs: RunInputs
    corpus: Artifact
    _texts: dict[TextSettings, Tensor] = field(default_factory=dict)

    @cached_property
    def loader(self) -> Loader:
        """What reads corpus and CSI, once for all checkpoints."""
        return Loader(self.corpus, self.inputs.csi, self.inputs.predicted, link_settings=self.settings.link)

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """What a checkpoint's measurement consists of, each measured alone: the name of a part, and its tables."""
        columns = product(self.settings.snrs_db, self.settings.receivers)
        parts: dict[str, tuple[str, ...]] = {column_name(receiver, snr_db): MEASURES for snr_db, receiver in columns}
        return parts | {column_name(SHOWN, snr_db): ("retrievals",) for snr_db in self.settings.shown_snrs_db}

    def measure(
        self, checkpoint: Checkpoint, wanted: Collection[str], tick: Callable[[], None]
    ) -> Iterator[tuple[str, dict[str, pa.Table]]]:
        """Yield some of the :attr:`parts` of one checkpoint. A part is the same whatever else is measured with it.

        Args:
            checkpoint: is loaded, and its gallery embedded, once for all parts.
            wanted: names of the parts.
            tick: called for each part.

        Raises:
            UserError: if the checkpoint does not fit its settings or the inputs.
        """
        trained = checkpoint.settings
        model, text_settings = load_transceiver(checkpoint)
        split, link = self.loader.split(model), self.loader.link(checkpoint, model)
        text = self._text(model, text_settings, split)
        gallery = embed_gallery(model, split.media)
        steps = self.settings.steps_of(link)
        base = {"system": trained["system"], "seed": trained["seed"]}
        for receivers, snrs_db in self._missing(wanted).items():
            results = sweep_queries(
                model, text, link, snrs_db=snrs_db, receivers=receivers, steps=steps, seed=self.settings.seed
            )
            for sent in results:
                ranks, present = ranks_in_gallery(
                    sent.embeddings, gallery, split.caption_identity, split.media_identity
                )
                at = {**base, "receiver": sent.receiver, "snr_db": sent.snr_db}
                common = {
                    **at,
                    "csi_source": trained["csi_source"],
                    "sdg": trained["with_sdg"],
                    "fusion": trained["fusion"] if trained["with_sdg"] else "none",
                }
                error = {
                    **at,
                    "csi_source": trained["csi_source"],
                    "symbol_mse": float(sent.symbol_mse.double().mean()),
                    "spectral_efficiency": link.spectral_efficiency(steps, sent.snr_db),
                }
                yield (
                    column_name(sent.receiver, sent.snr_db),
                    {
                        "results": pa.Table.from_pylist(result_rows(common, split, ranks, present), schema=RESULTS),
                        "symbol_mse": pa.Table.from_pylist([error], schema=SYMBOL_MSE),
                        "queries": query_table(at, split, ranks, present),
                    },
                )
                tick()
        snrs_db = [snr_db for snr_db in self.settings.shown_snrs_db if column_name(SHOWN, snr_db) in wanted]
        for snr_db, shown in self._shown(model, split, text, link, gallery, base, snrs_db) if snrs_db else ():
            yield column_name(SHOWN, snr_db), {"retrievals": pa.Table.from_pylist(shown, schema=RETRIEVALS)}
            tick()

    def _missing(self, wanted: Collection[str]) -> dict[tuple[Receiver, ...], list[float]]:
        """Return the SNRs at which the same receivers are wanted; what receivers have in common is done once."""
        found: dict[tuple[Receiver, ...], list[float]] = {}
        for snr_db in self.settings.snrs_db:
            if receivers := tuple(r for r in self.settings.receivers if column_name(r, snr_db) in wanted):
                found.setdefault(receivers, []).append(snr_db)
        return found

    def _shown(
        self,
        model: Transceiver,
        split: RetrievalSplit,
        text: Tensor,
        link: LinkCsi,
        gallery: Tensor,
        base: dict[str, Any],
        snrs_db: Sequence[float],
    ) -> Iterator[tuple[float, list[dict[str, Any]]]]:
        """Yield each SNR with what some captions of each wording find there."""
        settings = self.settings
        chosen = _choose_shown(split, settings.num_shown, settings.seed)
        results = sweep_queries(
            model,
            text,
            link,
            snrs_db=snrs_db,
            receivers=(settings.shown_receiver,),
            steps=settings.steps_of(link),
            seed=settings.seed,
        )
        for sent in results:
            rows = []
            for query in chosen:
                best = (gallery @ sent.embeddings[query]).topk(min(settings.num_ranked, len(gallery))).indices
                rows.append(
                    {
                        **base,
                        "query": query,
                        "text": split.texts[query],
                        "wording": split.wordings[query],
                        "receiver": sent.receiver,
                        "snr_db": sent.snr_db,
                        "item_ids": [split.item_ids[i] for i in best.tolist()],
                        "hits": (split.media_identity[best] == split.caption_identity[query]).tolist(),
                    }
                )
            yield sent.snr_db, rows

    def _text(self, model: Transceiver, settings: TextSettings, split: RetrievalSplit) -> Tensor:
        """Return what the model's E_α takes of the captions; of a frozen encoder that is the same for every model."""
        if settings not in self._texts or settings.tune != "frozen":
            self._texts[settings] = embed_captions(model, split.texts, settings)
        return self._texts[settings]


def column_name(receiver: str, snr_db: float) -> str:
    """Return the name of the part of a measurement at one SNR with one receiver, or of what is shown there."""
    return f"{receiver}{snr_db + 0.0:+}dB"


def result_rows(
    of: dict[str, Any], split: RetrievalSplit, ranks: Int[Tensor, "Q R"], present: Bool[Tensor, "Q R"]
) -> list[dict[str, Any]]:
    """Return a row of the table ``results`` for each wording, from what :func:`ranks_in_gallery` returned.

    Args:
        of: columns that say what was measured.
        split: queries and gallery.
        ranks: of relevant items.
        present: which entries are real.
    """
    rows = []
    for wording, chosen in queries_of(split).items():
        found = retrieval_of_ranks(ranks[chosen], present[chosen])
        measures = {"map": found.mean_ap, "rank1": found.rank1, "rank5": found.rank5, "rank10": found.rank10}
        rows.append({**of, "wording": wording, "queries": len(chosen), **measures})
    return rows


def query_table(
    at: dict[str, Any], split: RetrievalSplit, ranks: Int[Tensor, "Q R"], present: Bool[Tensor, "Q R"]
) -> pa.Table:
    """Return the table ``queries`` of what :func:`ranks_in_gallery` returned; ``at`` says what was measured."""
    columns = {name: pa.repeat(value, len(ranks)) for name, value in at.items()} | {
        "row_id": split.row_ids,
        "identity": split.caption_identity.numpy(),
        "wording": split.wordings,
        "ap": precision_of_ranks(ranks, present).double().numpy(),
        "rank": ranks[:, 0].long().numpy(),
    }
    return pa.table([columns[field.name] for field in QUERIES], schema=QUERIES)


def queries_of(split: RetrievalSplit) -> dict[str, Int[Tensor, " Q"]]:
    """Return which captions have each wording; ``same`` and ``changed`` first."""
    others = sorted(set(split.wordings) - {SAME_WORDING})
    names = ["same", "changed", *others] if others else ["same"]
    chosen = {name: split.with_wording(name) for name in names}
    return {name: captions for name, captions in chosen.items() if len(captions)}


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
