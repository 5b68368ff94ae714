"""``sclmkb-gen sdg``: source data generation, Algorithm 1, with every attempt kept.

::

    source captions ─► prompt ─► engine ─► samples ─► filter ─► kept? ──yes─► row is done: ok
                          ▲                                        │no
                          └───── up to max_attempts rounds ────────┴───────► source alone: rejected

Work goes in waves (:mod:`sclmkb.generate.captions.waves`), each committed whole: a run that was killed repeats at most
one wave and ends with the same bytes. The table ``rows`` is computed from the attempts alone
(:mod:`sclmkb.generate.captions.rows`).
"""

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, Shard, make_shards, plan_differences
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import SDG_ATTEMPTS, SDG_ROWS
from sclmkb.common.artifacts.texts import no_texts, of_role, texts_of
from sclmkb.common.config import Settings, speed_only
from sclmkb.common.errors import UserError
from sclmkb.common.executors.stage import Made, Session, Work
from sclmkb.common.models.pretrained import EMBEDDED_LM
from sclmkb.generate.captions.card import finish_run
from sclmkb.generate.captions.rows import Row
from sclmkb.generate.captions.waves import Worker
from sclmkb.generate.engines.base import Engine, SamplingSettings
from sclmkb.generate.engines.endpoint import EndpointSettings
from sclmkb.generate.engines.transformers_settings import TransformersSettings
from sclmkb.generate.engines.vllm import VllmSettings
from sclmkb.generate.engines.watched import WatchSettings
from sclmkb.generate.filter.filter import EmbedSources, FilterSettings, HallucinationFilter
from sclmkb.generate.prompts import Prompt


class SdgSettings(Settings):
    """Settings of ``sclmkb-gen sdg``."""

    seed: int = Field(
        default=0,
        description="seed of the run; the seed of a sample follows from it, the row, the attempt and the number of "
        "the sample",
    )
    splits: tuple[str, ...] = Field(default=("train",), min_length=1, description="splits whose captions are rewritten")
    engine: Literal["vllm", "endpoint", "transformers", "template"] = Field(
        default="vllm",
        description="vllm; endpoint: an OpenAI-compatible server; transformers: without vLLM; template: fixed "
        "templates without a language model (a control)",
    )
    model: str = Field(
        default=EMBEDDED_LM, description="language model: the embedded model's name, a folder or a hub name"
    )
    chat_template: str | None = Field(
        default=None, description="for a model without a chat template: vicuna-v1.1, llama-2, llama-3, or a Jinja file"
    )
    prompt: str = Field(default="rewrite-1", description="name of a prompt of the program, or a YAML file")
    sampling: SamplingSettings = Field(default=SamplingSettings(), description="how tokens are drawn")
    num_samples: int = Field(default=2, ge=1, description="samples per row and round")
    max_attempts: int = Field(
        default=5, ge=1, description="most rounds (Algorithm 1); a row ends with the first round that keeps a caption"
    )
    filter: FilterSettings = Field(default=FilterSettings(), description="which captions are kept")
    vllm: VllmSettings = Field(default=VllmSettings(), description="the engine vllm")
    endpoint: EndpointSettings = Field(default=EndpointSettings(), description="the engine endpoint")
    transformers: TransformersSettings = Field(default=TransformersSettings(), description="the engine transformers")
    watch: WatchSettings = Field(default=WatchSettings(), description="when an engine process is given up")
    wave_size: int = Field(
        default=2048,
        ge=1,
        description="samples per engine call: the most that a crash loses. Small waves leave the engine idle more "
        "often. In bfloat16 a text may depend on its wave, so this is part of the fingerprint",
    )
    shard_size: int = Field(default=8192, ge=1, description="rows per shard")
    max_error_rate: float = speed_only(
        0.1,
        ge=0,
        le=1,
        description="share of a process's finished rows that may end in an error; above it the run stops",
    )
    min_rows_for_error_rate: int = speed_only(
        100, ge=1, description="rows that must be finished before `max_error_rate` is checked"
    )


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What does the work; built only when there is work to do.

    Attributes:
        prompt: the prompt.
        engine: builds the engine.
        filter: builds the filter from source captions, their identities, and what has their features.
        inputs: fingerprints of model, chat template and prompt, for the plan.
        versions: packages whose version counts.
    """

    prompt: Prompt
    engine: Callable[[], Engine]
    filter: Callable[[Sequence[str], Sequence[str], EmbedSources], HallucinationFilter]
    inputs: Mapping[str, str]
    versions: tuple[str, ...] = ()


def plan_captions(
    settings: SdgSettings,
    corpus: Path,
    out: Path,
    backend: Backend,
    *,
    new_run: bool = False,
    join: bool = False,
    retry: Path | None = None,
) -> Work:
    """Freeze the plan of generated captions for the captions of a corpus, or go back to the one that is there.

    Several processes may work on the run, each on its own shards or all on the same.

    Args:
        settings: how to write and filter.
        corpus: folder of the corpus artifact.
        out: folder of the artifact to write.
        backend: engine, filter and prompt.
        new_run: set a run with other settings aside.
        join: never start a run.
        retry: folder of an artifact that was written with these settings. Its attempts are taken over. Every sample
            that the engine failed to write is asked for once more, with the same seed.

    Returns:
        The work; its artifact has the tables ``rows`` and ``attempts``.

    Raises:
        UserError: if the corpus is unreadable or empty, or ``out`` holds another run, or none to join; if ``retry`` is
            unreadable, or was written with other settings. The work raises it if the model cannot be loaded, or too
            many rows fail.
    """
    source = open_corpus(corpus, settings.splits)
    inputs = {"corpus": source.fingerprint, **backend.inputs}
    notes: dict[str, Any] = {"source": source.describe()}
    before = None if retry is None else _open_before(retry, settings, inputs)
    if before is not None:
        inputs["retry"] = before.fingerprint
        notes["What failed was asked for once more; the other attempts are those of"] = before.root.resolve().name
    plan = Plan(
        kind="sdg",
        tables={"rows": SDG_ROWS, "attempts": SDG_ATTEMPTS},
        settings=settings.fingerprint_fields(),
        shards=_plan_shards(source, settings),
        inputs=inputs,
        versions=backend.versions,
        notes=notes,
    )
    run = Run.open(out, plan, new_run=new_run, join=join)
    kept: list[Worker] = []  # from call to call: engine and filter take long to start

    def produce(pending: Sequence[Shard], session: Session) -> Generator[Made, None, None]:
        try:
            for shard in pending:
                if before is not None and not before.manifest(shard.name)["figures"].get("failed"):
                    yield _take_over(before, shard)
                    continue
                if not kept:
                    kept.append(Worker(settings, run, read_captions(source, settings.splits), backend, session))
                kept[0].session = session
                if made := kept[0].make_shard(shard, before):
                    yield made
        except BaseException:
            for begun in kept:
                begun.give_up()
            raise

    return Work(name="sdg", run=run, produce=produce, finish=lambda: finish_run(run), unit="captions")


def _open_before(retry: Path, settings: SdgSettings, inputs: Mapping[str, str]) -> Artifact:
    """Return the artifact whose failed samples are asked for once more.

    Raises:
        UserError: if it was written with other settings, of another corpus, or by another model.
    """
    before = Artifact.open(retry, "sdg")
    saved = before.plan
    there = SdgSettings.model_validate(saved.settings).fingerprint_fields()
    known = {name: value for name, value in saved.inputs.items() if name in inputs}  # more of them in a filtered run
    groups = {"settings": there, "inputs": known}, {"settings": settings.fingerprint_fields(), "inputs": inputs}
    if differences := plan_differences(*({**group, "versions": {}} for group in groups)):
        raise UserError(
            f"{retry} was written with other settings ({'; '.join(differences)}): use the same to ask again for what"
            " failed there"
        )
    return before


def _take_over(before: Artifact, shard: Shard) -> Made:
    """Return a shard as it is: nothing failed in it."""
    manifest = before.manifest(shard.name)
    return Made(
        shard=shard,
        tables={name: before.shard_table(name, shard.name) for name in ("rows", "attempts")},
        counts=manifest["counts"],
        figures=manifest["figures"],
        seconds=manifest["seconds"],
    )


def _plan_shards(source: Artifact, settings: SdgSettings) -> list[Shard]:
    """Return the shards of a run; of the corpus only ids are read, part by part: it may have millions of captions."""
    shards = []
    for split in settings.splits:
        row_ids: list[str] = []
        runs = [np.zeros(0, np.int64)]
        last, count = None, 0
        for part in source.plan.shards:
            if part.split == split:
                table = of_role(source.shard_table("captions", part.name, ["row_id", "identity", "role"]), "caption")
                row_ids += table.column("row_id").to_pylist()
                identities = [last, *table.column("identity").to_pylist()]
                runs.append(count + np.cumsum([a != b for a, b in pairwise(identities)], dtype=np.int64))
                last, count = identities[-1], runs[-1][-1] if len(runs[-1]) else count
        # Near copies of an identity are looked for within a shard.
        shards += make_shards(split, row_ids, settings.shard_size, groups=np.concatenate(runs))
    if (twice := _find_repeated(shards)) is not None:
        raise UserError(f"{source.root} has two captions with the row id {twice}: make the corpus again")
    if not any(shard.row_ids for shard in shards):
        raise no_texts(source, settings.splits)
    return shards


def _find_repeated(shards: Sequence[Shard]) -> str | None:
    """Return an id that is there twice, or nothing; a set of ten million ids would take most of a gigabyte."""
    hashes = np.fromiter((hash(row_id) for shard in shards for row_id in shard.row_ids), np.int64)
    hashes.sort()
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not suspects:
        return None
    counts = Counter(row_id for shard in shards for row_id in shard.row_ids if hash(row_id) in suspects)
    return next((row_id for row_id, count in counts.items() if count > 1), None)


def open_corpus(corpus: Path, splits: Sequence[str]) -> Artifact:
    """Open a corpus that has captions in all of these splits.

    Raises:
        UserError: if it is unreadable, or has none in one of them.
    """
    source = Artifact.open(corpus, "corpus")
    if missing := [split for split in splits if split not in source.splits]:
        raise UserError(
            f"{corpus} has no captions in split '{missing[0]}': it has {', '.join(source.splits) or 'none'}"
        )
    return source


def read_captions(source: Artifact, splits: Sequence[str]) -> dict[str, Row]:
    """Return the captions of some splits by row id; bytes that are no UTF-8 stay in them as surrogates.

    Raises:
        UserError: if there are none.
    """
    captions = {}
    for split in splits:
        table = texts_of(source, split)
        texts = [t.decode("utf-8", "surrogateescape") for t in table.column("text").cast(pa.binary()).to_pylist()]
        for row, text in zip(table.drop_columns(["text"]).to_pylist(), texts, strict=True):
            captions[row["row_id"]] = {**row, "text": text}
    if not captions:
        raise no_texts(source, splits)
    return captions
