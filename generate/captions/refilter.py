"""``sclmkb-gen filter``: judges the attempts of an SDG run anew, without generating anything.

::

    sdg artifact ─► attempts ─► cached scores, or E_α and index again ─► rules and thresholds ─► near copies ─► rows

The result is what ``sclmkb-gen sdg`` would have written with the new settings, as far as the cached attempts go: with
weaker thresholds a row ends with an earlier round, and its later ones are left out (the source artifact keeps them);
with stronger ones rows are left without a caption that ``sdg`` would have asked for again, and they are counted.

Similarities and margins are taken from the attempts where encoder, dtype and index are those of the run; otherwise
every text is embedded again. Rules, thresholds and near copies are always decided anew. Work goes shard by shard and
in batches, so that memory does not grow with the number of shards.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, Shard
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import ROW_STATES, SDG_ATTEMPTS, SDG_ROWS
from sclmkb.common.config import Settings
from sclmkb.common.console import progress, stop_in_good_order
from sclmkb.common.errors import UserError
from sclmkb.common.executors.base import Work
from sclmkb.common.executors.runlog import RunLog
from sclmkb.generate.captions.card import finish_run
from sclmkb.generate.captions.rows import DUPLICATE, Row, failed, make_rows
from sclmkb.generate.captions.source_features import share_features
from sclmkb.generate.filter.duplicates import find_near_copies
from sclmkb.generate.filter.encoder import TextEncoder, load_text_encoder
from sclmkb.generate.filter.filter import (
    CALIBRATED,
    Candidate,
    Decision,
    EmbedSources,
    FilterSettings,
    HallucinationFilter,
)
from sclmkb.generate.prompts import load_prompt

BATCH_ROWS = 8192
_SCORED_BY = ("encoder", "encoder_dtype", "index")
_JUDGED = ["row_id", "attempt", "text", "similarity", "margin", "reason", "finish_reason"]
_FILTER_INPUTS = ("encoder", "attributes", "word_list")


class RefilterSettings(Settings):
    """Settings of ``sclmkb-gen filter``; what is not given is as in the run that is filtered."""

    filter: FilterSettings = Field(
        default=FilterSettings(),
        description="the filter; fields that are not given are those of the run that is filtered",
    )

    @classmethod
    def of_run(
        cls, sdg: Path, *, preset: str | None = None, config: Path | None = None, overrides: Sequence[str] = ()
    ) -> "RefilterSettings":
        """Build the settings: those of the run in ``sdg``, then what is given as for :meth:`Settings.resolve`.

        Raises:
            UserError: as :meth:`Settings.resolve`, or if there is no such run.
        """

        def resolve(defaults: Mapping[str, Any]) -> RefilterSettings:
            return cls.resolve(
                presets="sclmkb.generate",
                section="refilter",
                preset=preset,
                config=config,
                overrides=overrides,
                defaults=defaults,
            )

        base = dict(Artifact.open(sdg, "sdg", verify=False).plan["settings"]["filter"])
        if resolve({}).filter.calibration is not None:  # goes before what the run was set to
            base = {name: value for name, value in base.items() if name not in CALIBRATED}
        return resolve({"filter": base})


def refilter(
    settings: RefilterSettings,
    sdg: Path,
    out: Path,
    *,
    new_run: bool = False,
    load_encoder: Callable[[str, str], TextEncoder] = load_text_encoder,
) -> Artifact:
    """Write what the attempts of an SDG artifact come to under other filter settings, or go on with it.

    Args:
        settings: the filter.
        sdg: folder of the SDG artifact.
        out: folder of the artifact to write, also one of kind ``sdg``.
        new_run: set a run with other settings aside.
        load_encoder: builds E_α from name and dtype; called only if texts must be embedded.

    Returns:
        The artifact, tables ``rows`` and ``attempts``.

    Raises:
        UserError: if the artifact is missing or corrupt, its prompt changed, or ``out`` holds another run.
    """
    work = plan_refilter(settings, sdg, out, new_run=new_run, load_encoder=load_encoder)
    work.make(work.shards(None))
    return work.finish()


def plan_refilter(
    settings: RefilterSettings,
    sdg: Path,
    out: Path,
    *,
    new_run: bool = False,
    join: bool = False,
    load_encoder: Callable[[str, str], TextEncoder] = load_text_encoder,
) -> Work:
    """Freeze the plan of :func:`refilter`, which has the arguments, or go back to the one that is there.

    Args:
        settings: as above.
        sdg: as above.
        out: as above.
        new_run: as above.
        join: never start a run.
        load_encoder: as above.

    Raises:
        UserError: if the artifact is missing or corrupt, or ``out`` holds another run, or none to join.
    """
    source = Artifact.open(sdg, "sdg")
    inputs = {k: v for k, v in source.plan["inputs"].items() if k not in _FILTER_INPUTS} | settings.filter.inputs()
    plan = Plan(
        kind="sdg",
        tables={"rows": SDG_ROWS, "attempts": SDG_ATTEMPTS},
        settings={**source.plan["settings"], "filter": settings.filter.model_dump(mode="json")},
        shards=[Shard(name=s["name"], split=s["split"], row_ids=tuple(s["row_ids"])) for s in source.plan["shards"]],
        inputs={**inputs, "sdg": source.fingerprint},
        notes={**source.plan["notes"], "Filtered again from the attempts of": sdg.resolve().name},
    )
    run = Run.open(out, plan, new_run=new_run, join=join)

    kept: list[_Judge] = []  # from call to call: features take long to make

    def make(mine: Sequence[Shard]) -> None:
        pending = [shard for shard in mine if not run.is_committed(shard)]
        if not pending:
            return
        total = sum(len(shard.row_ids) for shard in mine)
        done = total - sum(len(shard.row_ids) for shard in pending)
        with (
            RunLog.open(run, mine) as log,
            progress("filter", total=total, done=done) as bar,
            stop_in_good_order() as check_stop,
        ):

            def before_part(**figures: int) -> None:
                check_stop()
                log.write("sources", **figures)

            if not kept:
                own_texts = _prompt_texts(source)
                if has_cached_scores(source, settings.filter):
                    kept.append(_CachedScores(settings.filter, own_texts))
                else:
                    embed_sources = partial(share_features, run, before_part, bar.beside)
                    kept.append(_NewScores(settings.filter, own_texts, source, load_encoder, embed_sources))
            for shard in pending:
                started = time.monotonic()
                rows, attempts = source.shard_table("rows", shard.name), source.shard_table("attempts", shard.name)
                tables = _filter_shard(rows, attempts, kept[0], settings.filter.rules.max_overlap, bar.advance)
                states = Counter(tables["rows"]["state"].to_pylist())
                counts, seconds = {state: states[state] for state in ROW_STATES}, time.monotonic() - started
                figures = _figures(tables["attempts"])
                run.commit_shard(shard, tables, counts=counts, figures=figures, seconds=seconds)
                log.write("shard", shard=shard.name, rows=counts, **figures, seconds=round(seconds, 3))
                check_stop()

    return Work(name="filter", run=run, make=make, finish=lambda: finish_run(run))


def has_cached_scores(source: Artifact, settings: FilterSettings) -> bool:
    """Return whether the scores of an artifact's attempts are those that the settings would give."""
    before = FilterSettings.model_validate(source.plan["settings"]["filter"])
    same = all(getattr(before, name) == getattr(settings, name) for name in _SCORED_BY)
    known = source.plan["inputs"].get("encoder")
    return same and known in (None, settings.inputs()["encoder"])


def count_unfinished(artifact: Artifact) -> int:
    """Return how many rows ``sdg`` would ask for again: nothing passed, and fewer rounds were run than are allowed."""
    rounds, count = artifact.plan["settings"]["max_attempts"], 0
    for shard in artifact.plan["shards"]:
        rows = artifact.shard_table("rows", shard["name"], ["row_id", "state", "num_attempts"])
        attempts = artifact.shard_table("attempts", shard["name"], ["row_id", "reason"])
        passed = attempts.filter(pc.equal(attempts["reason"], DUPLICATE))["row_id"].combine_chunks()
        early = pc.and_(pc.equal(rows["state"], "rejected"), pc.less(rows["num_attempts"], rounds))
        unpassed = pc.invert(pc.is_in(rows["row_id"], value_set=passed))
        count += pc.sum(pc.and_(early, unpassed)).as_py() or 0
    return count


class _Judge(Protocol):
    def judge(self, attempts: Sequence[Row], sources: Mapping[str, str]) -> list[tuple[float, float, str]]:
        """Return similarity, margin and reason of each attempt; ``sources`` are the source captions by row id."""
        ...


class _CachedScores:
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


class _NewScores:
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


def _filter_shard(
    rows: pa.Table,
    attempts: pa.Table,
    judge: _Judge,
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


def _figures(attempts: pa.Table) -> dict[str, Any]:
    return {
        "samples": attempts.num_rows,
        "kept": pc.sum(attempts["accepted"]).as_py() or 0,
        "failed": pc.sum(pc.equal(attempts["finish_reason"], "error")).as_py() or 0,
        "tokens": pc.sum(attempts["num_tokens"]).as_py() or 0,
    }


def _prompt_texts(source: Artifact) -> Sequence[str]:
    """Return the texts of the run's prompt, which an answer must not repeat."""
    prompt = load_prompt(source.plan["settings"]["prompt"])
    if source.plan["inputs"].get("prompt", prompt.fingerprint()) != prompt.fingerprint():
        raise UserError(f"prompt '{prompt.name}' is no longer the one that {source.root} was written with: restore it")
    return prompt.own_texts()
