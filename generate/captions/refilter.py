"""``sclmkb-gen filter``: judges the attempts of an SDG run anew, without generating anything.

::

    sdg artifact ─► attempts ─► cached scores, or E_α and index again ─► rules and thresholds ─► near copies ─► rows

The result is what ``sclmkb-gen sdg`` would have written with the new settings, as far as the cached attempts go. With
weaker thresholds a row ends with an earlier round. Its later ones are left out; the source artifact keeps them. With
stronger thresholds some rows are left without a caption. ``sdg`` would have asked again for these; here they are
counted.

Similarities and margins are taken from the attempts where encoder, dtype and index are those of the run; otherwise
every text is embedded again. Rules, thresholds and near copies are always decided anew. Work goes shard by shard, so
that memory does not grow with their number.
"""

from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, Shard
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import SDG_ATTEMPTS, SDG_ROWS
from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.executors.stage import Made, Session, Work
from sclmkb.generate.captions.card import finish_run
from sclmkb.generate.captions.rejudge import Judge, cached_scores, new_scores, rejudge
from sclmkb.generate.captions.rows import DUPLICATE, settle
from sclmkb.generate.captions.source_features import share_features
from sclmkb.generate.filter.encoder import TextEncoder, load_text_encoder
from sclmkb.generate.filter.filter import CALIBRATED, FilterSettings
from sclmkb.generate.prompts import load_prompt

_SCORED_BY = ("encoder", "encoder_dtype", "index")
_FILTER_INPUTS = ("encoder", "attributes", "word_list")


class RefilterSettings(Settings):
    """Settings of ``sclmkb-gen filter``; what is not given is as in the run that is filtered."""

    filter: FilterSettings = Field(
        default=FilterSettings(),
        description="the filter; fields that are not given are those of the run that is filtered",
    )

    @classmethod
    def of_run(cls, sdg: Path, **layers: Any) -> Self:
        """Build the settings: those of the run in ``sdg``, then the layers of :meth:`Settings.resolve`.

        Raises:
            UserError: as :meth:`Settings.resolve`, or if there is no such run.
        """
        resolve = partial(cls.resolve, presets="sclmkb.generate", section="refilter", **layers)
        base = dict(Artifact.open(sdg, "sdg", verify=False).plan.settings["filter"])
        if resolve().filter.calibration is not None:  # goes before what the run was set to
            base = {name: value for name, value in base.items() if name not in CALIBRATED}
        return resolve(defaults={"filter": base})


def plan_refilter(
    settings: RefilterSettings,
    sdg: Path,
    out: Path,
    *,
    new_run: bool = False,
    join: bool = False,
    load_encoder: Callable[[str, str], TextEncoder] = load_text_encoder,
) -> Work:
    """Freeze the plan of what the attempts of an SDG artifact come to, or go back to the one that is there.

    Args:
        settings: the filter.
        sdg: folder of the SDG artifact.
        out: folder of the artifact to write, also one of kind ``sdg``.
        new_run: set a run with other settings aside.
        join: never start a run.
        load_encoder: builds E_α from name and dtype; called only if texts must be embedded.

    Returns:
        The work; its artifact has the tables ``rows`` and ``attempts``.

    Raises:
        UserError: if the artifact is missing or corrupt, or ``out`` holds another run, or none to join. The work raises
            it if the prompt changed.
    """
    source = Artifact.open(sdg, "sdg")
    inputs = {k: v for k, v in source.plan.inputs.items() if k not in _FILTER_INPUTS} | settings.filter.inputs()
    plan = Plan(
        kind="sdg",
        tables={"rows": SDG_ROWS, "attempts": SDG_ATTEMPTS},
        settings={**source.plan.settings, "filter": settings.filter.model_dump(mode="json")},
        shards=source.plan.shards,
        inputs={**inputs, "sdg": source.fingerprint},
        notes={**source.plan.notes, "Filtered again from the attempts of": sdg.resolve().name},
    )
    run = Run.open(out, plan, new_run=new_run, join=join)

    kept: list[Judge] = []  # from call to call: features take long to make

    def produce(pending: Sequence[Shard], session: Session) -> Generator[Made, None, None]:
        def before_part(part: int, of: int) -> None:
            session.check_stop()
            session.log.write("sources", part=part, of=of)

        if not kept:
            own_texts = _prompt_texts(source)
            if has_cached_scores(source, settings.filter):
                kept.append(cached_scores(settings.filter, own_texts))
            else:
                embed_sources = partial(share_features, run, before_part, session.beside)
                kept.append(new_scores(settings.filter, own_texts, source, load_encoder, embed_sources))
        for shard in pending:
            rows, attempts = (source.shard_table(name, shard.name).to_pylist() for name in ("rows", "attempts"))
            captions = [{**row, "text": row["source_text"]} for row in rows]
            judged = rejudge(rows, attempts, kept[0])
            yield settle(shard, captions, judged, settings.filter.rules.max_overlap)

    return Work(name="filter", run=run, produce=produce, finish=lambda: finish_run(run), unit="captions")


def has_cached_scores(source: Artifact, settings: FilterSettings) -> bool:
    """Return whether the scores of an artifact's attempts are those that the settings would give."""
    before = FilterSettings.model_validate(source.plan.settings["filter"])
    same = all(getattr(before, name) == getattr(settings, name) for name in _SCORED_BY)
    known = source.plan.inputs.get("encoder")
    return same and known in (None, settings.inputs()["encoder"])


def count_unfinished(artifact: Artifact) -> int:
    """Return how many rows ``sdg`` would ask for again: nothing passed, and fewer rounds were run than are allowed."""
    rounds, count = artifact.plan.settings["max_attempts"], 0
    for shard in artifact.plan.shards:
        rows = artifact.shard_table("rows", shard.name, ["row_id", "state", "num_attempts"]).to_pylist()
        attempts = artifact.shard_table("attempts", shard.name, ["row_id", "reason"]).to_pylist()
        passed = {attempt["row_id"] for attempt in attempts if attempt["reason"] == DUPLICATE}
        rejected = [row for row in rows if row["state"] == "rejected" and row["row_id"] not in passed]
        count += sum(row["num_attempts"] < rounds for row in rejected)
    return count


def _prompt_texts(source: Artifact) -> Sequence[str]:
    """Return the texts of the run's prompt, which an answer must not repeat."""
    prompt = load_prompt(source.plan.settings["prompt"])
    if source.plan.inputs.get("prompt", prompt.fingerprint()) != prompt.fingerprint():
        raise UserError(f"prompt '{prompt.name}' is no longer the one that {source.root} was written with: restore it")
    return prompt.own_texts()
