import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from commands import must_run
from sdg_fakes import NOUNS, FakeEncoder, FlakyEngine, Job, write_corpus

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.common.executors.local import Local
from sclmkb.common.executors.stage import Work
from sclmkb.generate.captions.refilter import RefilterSettings, count_unfinished, plan_refilter
from sclmkb.generate.filter.encoder import TextEncoder
from sclmkb.generate.runs.verify import find_problems

STRICT = {"min_similarity": 0.76, "min_margin": -0.1}
WEAK = {"min_similarity": -1.0, "min_margin": -2.0, "rules": {"max_new_words": 9}}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Return what runs SDG over captions of which some are nearly alike."""
    texts = [f"{NOUNS[i % 10]} beside {NOUNS[i // 10 % 10]} with mark{i // 4}" for i in range(100)]
    return Job(tmp_path, write_corpus(tmp_path / "corpus", 100, texts))


def no_encoder(name: str, dtype: str) -> TextEncoder:
    raise AssertionError("nothing must be embedded")


def plan_again(
    sdg: Path, name: str, load_encoder: Callable[[str, str], TextEncoder] = no_encoder, **chosen: Any
) -> Work:
    overrides = [f"filter.{key}={json.dumps(value)}" for key, value in chosen.items()]
    settings = RefilterSettings.of_run(sdg, overrides=overrides)
    return plan_refilter(settings, sdg, sdg.parent / name, load_encoder=load_encoder)


def again(*arguments: Any, **chosen: Any) -> Artifact:
    return plan_again(*arguments, **chosen).run_here()


def tables(artifact: Artifact) -> dict[str, pa.Table]:
    return {name: artifact.table(name) for name in ("rows", "attempts")}


def test_shards_judged_apart_are_those_judged_at_once(job: Job) -> None:
    made = job(filter=WEAK).root
    whole = again(made, "whole", **STRICT)
    assert Local("1").execute(plan_again(made, "parts", **STRICT)) is None
    last = Local("0,2").execute(plan_again(made, "parts", **STRICT))
    assert last is not None
    assert last.fingerprint == whole.fingerprint
    assert (last.root / "README.md").read_bytes() == (whole.root / "README.md").read_bytes()


def test_the_same_settings_give_the_same_tables(job: Job) -> None:
    made = job(writer=FlakyEngine(), filter=STRICT)
    assert {"ok", "rejected", "error"} == set(made.table("rows")["state"].to_pylist())
    filtered = again(made.root, "again")
    assert tables(filtered) == tables(made)
    assert filtered.counts() == made.counts()


def test_weaker_filter_keeps_what_sdg_would_have_kept(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from sclmkb.generate.captions import sdg

    read = sdg.read_captions

    def paired(*arguments: Any) -> dict[str, dict[str, Any]]:
        """Put the captions, two by two, into one identity."""
        found = read(*arguments)
        return {key: {**row, "identity": f"pair-{i // 2}"} for i, (key, row) in enumerate(found.items())}

    monkeypatch.setattr(sdg, "read_captions", paired)
    strict, weak = job("strict", filter=STRICT), job("weak", filter=WEAK)
    assert strict.counts() != weak.counts()
    assert "duplicate" in weak.table("attempts")["reason"].to_pylist()
    filtered = again(strict.root, "again", **WEAK)
    # Also the rounds: those that a weaker filter would not have asked for are left out.
    assert tables(filtered) == tables(weak)
    assert count_unfinished(filtered) == 0


def test_stronger_filter_keeps_a_part_and_counts_what_is_left_to_do(job: Job) -> None:
    weak, strict = job("weak", filter=WEAK), job("strict", filter=STRICT)
    filtered = again(weak.root, "again", **STRICT, rules={"max_new_words": 3})

    def accepted(artifact: Artifact, rounds: int) -> set[tuple[Any, ...]]:
        return {
            (a["row_id"], a["attempt"], a["sample"], a["text"])
            for a in artifact.table("attempts").to_pylist()
            if a["accepted"] and a["attempt"] < rounds
        }

    assert accepted(filtered, 1) == accepted(strict, 1)
    assert accepted(filtered, 9) < accepted(strict, 9)
    left = [r for r in filtered.table("rows").to_pylist() if r["state"] == "rejected" and r["num_attempts"] < 3]
    assert count_unfinished(filtered) == len(left) > 0


def test_another_encoder_embeds_everything_again(job: Job) -> None:
    made = job(filter=WEAK)
    asked: list[str] = []

    class Turned(FakeEncoder):
        def encode(self, texts: Sequence[str]) -> torch.Tensor:
            asked.extend(texts)
            return super().encode([text[::-1] for text in texts])

    with pytest.raises(AssertionError, match="embedded"):
        again(made.root, "again", encoder_dtype="bfloat16")
    filtered = again(made.root, "again", lambda name, dtype: Turned(), encoder_dtype="bfloat16")
    before, after = made.table("attempts").to_pylist(), filtered.table("attempts").to_pylist()
    assert set(asked) == {a["text"] for a in before} | set(made.table("rows")["source_text"].to_pylist())
    scores = [{(a["row_id"], a["attempt"], a["sample"]): a["similarity"] for a in side} for side in (before, after)]
    assert any(scores[0][key] != pytest.approx(value) for key, value in scores[1].items())


def test_an_interrupted_run_goes_on_and_ends_the_same(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from sclmkb.generate.captions import refilter as module

    made = job(filter=STRICT).root
    whole = again(made, "whole", **WEAK)
    judged, real = [], module.rejudge

    def stopping(*arguments: Any) -> Any:
        judged.append(arguments)
        if len(judged) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "rejudge", stopping)
    with pytest.raises(KeyboardInterrupt):
        again(made, "cut", **WEAK)
    resumed = again(made, "cut", **WEAK)
    assert len(judged) == 2 + 2  # three shards; the first was committed before
    assert resumed.fingerprint == whole.fingerprint


def test_a_calibration_goes_before_the_thresholds_of_the_run(job: Job) -> None:
    made, file = job(filter=STRICT).root, job.home / "calibration.json"
    found = {"encoder": "minilm", "encoder_dtype": "float32", "min_similarity": 0.55, "min_margin": -0.3}

    def thresholds(*overrides: str) -> tuple[float, float]:
        chosen = RefilterSettings.of_run(made, overrides=[f"filter.calibration={file}", *overrides]).filter
        return chosen.min_similarity, chosen.min_margin

    file.write_text(json.dumps({"filter": found}))
    assert thresholds() == (0.55, -0.3)
    assert thresholds("filter.min_margin=0.1") == (0.55, 0.1)
    with pytest.raises(UserError, match="made with encoder 'minilm', not 'other'"):
        thresholds("filter.encoder=other")
    filtered = again(made, "again", calibration=str(file))
    file.write_text("{}")
    with pytest.raises(UserError, match="no calibration"):
        thresholds()
    assert RefilterSettings.of_run(filtered.root).filter.min_similarity == 0.55, "what was resolved stands by itself"


def test_other_settings_in_the_same_folder_are_refused(job: Job) -> None:
    made = job(filter=STRICT).root
    again(made, "again", min_similarity=0.7)
    with pytest.raises(UserError, match="filter"):
        again(made, "again", min_similarity=0.6)
    with pytest.raises(UserError, match="sclmkb-gen sdg"):
        again(made.with_name("nothing"), "other")
    with pytest.raises(UserError, match="does not exist"):
        again(made, "other", min_similarty=0.6)


def test_the_command_says_what_is_left(job: Job) -> None:
    made, out = job(filter=WEAK).root, job.home / "again"
    done = must_run(["sclmkb-gen", "filter", "--sdg", made, "--out", out, "--set", "filter.min_similarity=0.76"])
    artifact = Artifact.open(out, "sdg")
    assert f"{artifact.counts()['ok']} ok" in done.err
    assert f"{count_unfinished(artifact)} rows have no caption left" in done.err
    assert list(find_problems(out)) == []
    card = (out / "README.md").read_text()
    assert "Filtered again from the attempts of" in card
    assert "similarity at least 0.76" in card
