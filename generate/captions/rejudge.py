"""The attempts of a shard judged anew: scores from the attempts or made again, rules, thresholds, near copies, rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.schemas import SDG_ATTEMPTS, SDG_ROWS
from sclmkb.generate.captions.rows import DUPLICATE, Row, failed, make_rows
from sclmkb.generate.filter.duplicates import find_near_copies
from sclmkb.generate.filter.encoder import TextEncoder
from sclmkb.generate.filter.filter import Candidate, Decision, EmbedSources, FilterSettings, HallucinationFilter

BATCH_ROWS = 8192
_JUDGED = ["row_id", "attempt", "text", "similarity", "margin", "reason", "finish_reason"]


class Judge(Protocol):
    """Judges attempts."""

    def judge(self, attempts: Sequence[Row], sources: Mapping[str, str]) -> list[tuple[float, float, str]]:
        """Return similarity, margin and reason of each attempt; ``sources`` are the source captions by row id."""
        ...


class CachedScores:
    """Takes similarity and margin from the attempts."""

    def __init__(self, settings: FilterSettings, own_texts: Sequence[str]) -> None:
        self._decision = Decision(settings, own_texts)

    def judge(self, attempts: Sequence[Row], sources: Mapping[str, str]) -> list[tuple[float, float, str]]:
        """Return similarity, margin and reason of each attempt."""
        return [
            (
                a["similarity"],
                a["margin"],
                self._decision.reason(
                    a["text"], sources[a["row_id"]], a["finish_reason"], a["similarity"], a["margin"]
                ),
            )
            for a in attempts
        ]


class NewScores:
    """Embeds sources and attempts again."""

    def __init__(
        self,
        settings: FilterSettings,
        own_texts: Sequence[str],
        source: Artifact,
        load_encoder: Callable[[str, str], TextEncoder],
        embed_sources: EmbedSources,
    ) -> None:
        rows = source.table("rows", columns=["row_id", "source_text", "identity"])
        self._position = {row_id: i for i, row_id in enumerate(rows["row_id"].to_pylist())}
        encoder = load_encoder(settings.encoder, settings.encoder_dtype)
        texts, identities = rows["source_text"].to_pylist(), rows["identity"].to_pylist()
        self._filter = HallucinationFilter(settings, encoder, texts, identities, own_texts, embed_sources)

    def judge(self, attempts: Sequence[Row], sources: Mapping[str, str]) -> list[tuple[float, float, str]]:
        """Return similarity, margin and reason of each attempt."""
        candidates = [
            Candidate(source=self._position[a["row_id"]], text=a["text"], finish_reason=a["finish_reason"])
            for a in attempts
        ]
        return [(v.similarity, v.margin, v.reason) for v in self._filter.judge(candidates)]


def judge_shard(
    rows: pa.Table,
    attempts: pa.Table,
    judge: Judge,
    max_overlap: float,
    advance: Callable[[int, str], None],
) -> dict[str, pa.Table]:
    """Return the tables of a shard, judged anew."""
    parts, identities, texts = [], [], []
    for batch_rows, batch in _batches(rows, attempts):
        sources = dict(zip(batch_rows["row_id"].to_pylist(), batch_rows["source_text"].to_pylist(), strict=True))
        identity_of = dict(zip(batch_rows["row_id"].to_pylist(), batch_rows["identity"].to_pylist(), strict=True))
        listed = batch.select(_JUDGED).to_pylist()
        verdicts = [
            (s, m, a["reason"] if failed(a) else reason)
            for a, (s, m, reason) in zip(listed, judge.judge(listed, sources), strict=True)
        ]
        reached = _reached(listed, [not reason for _, _, reason in verdicts])
        for attempt, (_, _, reason), counts in zip(listed, verdicts, reached, strict=True):
            if counts and not reason:
                identities.append(identity_of[attempt["row_id"]])
                texts.append(attempt["text"])
        similarity, margin, reasons = zip(*verdicts, strict=True) if verdicts else ((), (), ())
        parts.append(
            _with_columns(batch, similarity=similarity, margin=margin, reason=reasons).filter(
                pa.array(reached, pa.bool_())
            )
        )
        advance(len(batch_rows), "")
    judged = pa.concat_tables(parts) if parts else SDG_ATTEMPTS.empty_table()
    reasons_now = np.array(judged["reason"].to_pylist(), dtype=object)
    accepted = np.flatnonzero(reasons_now == "")
    reasons_now[accepted[find_near_copies(identities, texts, max_overlap)]] = DUPLICATE
    judged = _with_columns(judged, reason=reasons_now.tolist(), accepted=(reasons_now == "").tolist())
    made = [
        pa.Table.from_pylist(
            make_rows(
                batch_rows.select(["row_id", "identity", "split"])
                .append_column("text", batch_rows["source_text"])
                .to_pylist(),
                batch.to_pylist(),
            ),
            schema=SDG_ROWS,
        )
        for batch_rows, batch in _batches(rows, judged)
    ]
    return {"rows": pa.concat_tables(made) if made else SDG_ROWS.empty_table(), "attempts": judged}


def _batches(rows: pa.Table, attempts: pa.Table) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield some rows and all their attempts, in order."""
    owners = pc.index_in(attempts["row_id"], value_set=rows["row_id"].combine_chunks()).to_numpy()
    if (np.diff(owners) < 0).any():
        order = np.argsort(owners, kind="stable")
        attempts, owners = attempts.take(order), owners[order]
    for start in range(0, rows.num_rows, BATCH_ROWS):
        first, last = np.searchsorted(owners, [start, start + BATCH_ROWS])
        yield rows.slice(start, BATCH_ROWS), attempts.slice(first, last - first)


def _reached(attempts: Sequence[Row], accepted: Sequence[bool]) -> list[bool]:
    """Return which attempts ``sdg`` would have made: none in a round after one with a keeper."""
    last_round: dict[str, int] = {}
    for attempt, keeps in zip(attempts, accepted, strict=True):
        if keeps:
            row_id = attempt["row_id"]
            last_round[row_id] = min(attempt["attempt"], last_round.get(row_id, attempt["attempt"]))
    return [a["attempt"] <= last_round.get(a["row_id"], a["attempt"]) for a in attempts]


def _with_columns(table: pa.Table, **columns: Sequence[Any]) -> pa.Table:
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    return table
