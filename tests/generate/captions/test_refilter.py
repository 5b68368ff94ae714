import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
import torch

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.common.executors.local import Local
from sclmkb.generate import cli
from sclmkb.generate.captions.refilter import RefilterSettings, count_unfinished, plan_refilter
from sclmkb.generate.captions.sdg import plan_captions
from sclmkb.generate.filter.encoder import TextEncoder
from sclmkb.generate.runs.verify import find_problems

STRICT = {"min_similarity": 0.76, "min_margin": -0.1}
WEAK = {"min_similarity": -1.0, "min_margin": -2.0, "rules": {"max_new_words": 9}}


@pytest.fixture
def corpus(fakes: ModuleType, tmp_path: Path) -> Path:
    """Captions in identities of two, some of them nearly alike."""
    texts = [f"{fakes.NOUNS[i % 10]} beside {fakes.NOUNS[i // 10 % 10]} with mark{i // 4}" for i in range(100)]
    return fakes.write_corpus(tmp_path / "corpus", 100, texts)


@pytest.fixture
def same_identities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the captions of the fake corpus, two by two, into one identity."""
    from sclmkb.generate.captions import sdg

    read = sdg._read_captions

    def paired(*arguments: Any) -> dict[str, dict[str, Any]]:
        found = read(*arguments)
        return {key: {**row, "identity": f"pair-{i // 2}"} for i, (key, row) in enumerate(found.items())}

    monkeypatch.setattr(sdg, "_read_captions", paired)


def run(fakes: ModuleType, corpus: Path, out: Path, chosen: dict[str, Any], engine: object = None) -> Artifact:
    settings = fakes.fake_settings(filter=chosen)
    artifact = plan_captions(
        settings, corpus, out, fakes.make_backend(settings, engine or fakes.FakeEngine())
    ).run_here()
    assert artifact is not None
    return artifact


def again(sdg: Path, out: Path, load: object = None, **chosen: Any) -> Artifact:
    overrides = [f"filter.{name}={json.dumps(value)}" for name, value in chosen.items()]
    settings = RefilterSettings.of_run(sdg, overrides=overrides)
    return plan_refilter(settings, sdg, out, load_encoder=load or no_encoder).run_here()


def no_encoder(name: str, dtype: str) -> TextEncoder:
    raise AssertionError("nothing must be embedded")


def tables(artifact: Artifact) -> dict[str, pa.Table]:
    return {name: artifact.table(name) for name in ("rows", "attempts")}


def test_shards_judged_apart_are_those_judged_at_once(fakes: ModuleType, corpus: Path, tmp_path: Path) -> None:
    made = run(fakes, corpus, tmp_path / "sdg", WEAK)
    whole = again(made.root, tmp_path / "whole", **STRICT)
    overrides = [f"filter.{name}={json.dumps(value)}" for name, value in STRICT.items()]
    settings = RefilterSettings.of_run(made.root, overrides=overrides)
    assert Local("1").execute(plan_refilter(settings, made.root, tmp_path / "parts")) is None
    last = Local("0,2").execute(plan_refilter(settings, made.root, tmp_path / "parts", join=True))
    assert last is not None
    assert last.fingerprint == whole.fingerprint
    assert (last.root / "README.md").read_bytes() == (whole.root / "README.md").read_bytes()


def test_the_same_settings_give_the_same_tables(fakes: ModuleType, corpus: Path, tmp_path: Path) -> None:
    made = run(fakes, corpus, tmp_path / "sdg", STRICT, fakes.FlakyEngine())
    assert {"ok", "rejected", "error"} == set(made.table("rows")["state"].to_pylist())
    filtered = again(made.root, tmp_path / "again")
    assert tables(filtered) == tables(made)
    assert filtered.counts() == made.counts()


@pytest.mark.usefixtures("same_identities")
def test_weaker_filter_keeps_what_sdg_would_have_kept(fakes: ModuleType, corpus: Path, tmp_path: Path) -> None:
    strict = run(fakes, corpus, tmp_path / "strict", STRICT)
    weak = run(fakes, corpus, tmp_path / "weak", WEAK)
    assert strict.counts() != weak.counts()
    assert "duplicate" in weak.table("attempts")["reason"].to_pylist()
    filtered = again(strict.root, tmp_path / "again", **WEAK)
    # Also the rounds: those that a weaker filter would not have asked for are left out.
    assert tables(filtered) == tables(weak)
    assert count_unfinished(filtered) == 0


def test_stronger_filter_keeps_a_part_and_counts_what_is_left_to_do(
    fakes: ModuleType, corpus: Path, tmp_path: Path
) -> None:
    weak, strict = (run(fakes, corpus, tmp_path / n, f) for n, f in (("weak", WEAK), ("strict", STRICT)))
    filtered = again(weak.root, tmp_path / "again", **STRICT, rules={"max_new_words": 3})

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


def test_another_encoder_embeds_everything_again(fakes: ModuleType, corpus: Path, tmp_path: Path) -> None:
    made = run(fakes, corpus, tmp_path / "sdg", WEAK)
    asked: list[str] = []

    class Turned(fakes.FakeEncoder):  # type: ignore[name-defined, misc]
        def encode(self, texts: Sequence[str]) -> torch.Tensor:
            asked.extend(texts)
            features: torch.Tensor = super().encode([text[::-1] for text in texts])
            return features

    with pytest.raises(AssertionError, match="embedded"):
        again(made.root, tmp_path / "again", encoder_dtype="bfloat16")
    filtered = again(made.root, tmp_path / "again", lambda name, dtype: Turned(), encoder_dtype="bfloat16")
    before, after = made.table("attempts").to_pylist(), filtered.table("attempts").to_pylist()
    assert set(asked) == {a["text"] for a in before} | set(made.table("rows")["source_text"].to_pylist())
    scores = [{(a["row_id"], a["attempt"], a["sample"]): a["similarity"] for a in side} for side in (before, after)]
    assert any(scores[0][key] != pytest.approx(value) for key, value in scores[1].items())


def test_an_interrupted_run_goes_on_and_ends_the_same(
    fakes: ModuleType, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sclmkb.generate.captions import refilter as module

    made = run(fakes, corpus, tmp_path / "sdg", STRICT)
    whole = again(made.root, tmp_path / "whole", **WEAK)
    judged, real = [], module.judge_shard

    def stopping(*arguments: Any) -> dict[str, pa.Table]:
        judged.append(arguments)
        if len(judged) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "judge_shard", stopping)
    with pytest.raises(KeyboardInterrupt):
        again(made.root, tmp_path / "cut", **WEAK)
    resumed = again(made.root, tmp_path / "cut", **WEAK)
    assert len(judged) == 2 + 2  # three shards; the first was committed before
    assert resumed.fingerprint == whole.fingerprint


@pytest.mark.parametrize("batch", [1, 7])
def test_batches_do_not_matter(
    fakes: ModuleType, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    made = run(fakes, corpus, tmp_path / "sdg", STRICT)
    whole = again(made.root, tmp_path / "whole", **WEAK)
    monkeypatch.setattr("sclmkb.generate.captions.rejudge.BATCH_ROWS", batch)
    assert tables(again(made.root, tmp_path / "small", **WEAK)) == tables(whole)


def test_a_calibration_goes_before_the_thresholds_of_the_run(fakes: ModuleType, corpus: Path, tmp_path: Path) -> None:
    made = run(fakes, corpus, tmp_path / "sdg", STRICT)
    file = tmp_path / "calibration.json"
    found = {"encoder": "minilm", "encoder_dtype": "float32", "min_similarity": 0.55, "min_margin": -0.3}
    file.write_text(json.dumps({"filter": found}))
    chosen = RefilterSettings.of_run(made.root, overrides=[f"filter.calibration={file}"]).filter
    assert (chosen.min_similarity, chosen.min_margin) == (0.55, -0.3)
    both = [f"filter.calibration={file}", "filter.min_margin=0.1"]
    chosen = RefilterSettings.of_run(made.root, overrides=both).filter
    assert (chosen.min_similarity, chosen.min_margin) == (0.55, 0.1)
    with pytest.raises(UserError, match="made with encoder 'minilm', not 'other'"):
        RefilterSettings.of_run(made.root, overrides=[f"filter.calibration={file}", "filter.encoder=other"])
    file.write_text("{}")
    with pytest.raises(UserError, match="no calibration"):
        RefilterSettings.of_run(made.root, overrides=[f"filter.calibration={file}"])
    # What was resolved stands by itself: the file may be gone.
    file.write_text(json.dumps({"filter": found}))
    filtered = again(made.root, tmp_path / "again", calibration=str(file))
    file.unlink()
    assert RefilterSettings.of_run(filtered.root).filter.min_similarity == 0.55


def test_other_settings_in_the_same_folder_are_refused(fakes: ModuleType, corpus: Path, tmp_path: Path) -> None:
    made = run(fakes, corpus, tmp_path / "sdg", STRICT)
    again(made.root, tmp_path / "again", min_similarity=0.7)
    with pytest.raises(UserError, match="filter"):
        again(made.root, tmp_path / "again", min_similarity=0.6)
    with pytest.raises(UserError, match="sclmkb-gen sdg"):
        again(tmp_path / "nothing", tmp_path / "other")
    with pytest.raises(UserError, match="does not exist"):
        again(made.root, tmp_path / "other", min_similarty=0.6)


def test_the_command_says_what_is_left(
    fakes: ModuleType, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run(fakes, corpus, tmp_path / "sdg", WEAK)
    folders = ["--sdg", str(made.root), "--out", str(tmp_path / "again")]
    cli.app(["filter", *folders, "--set", "filter.min_similarity=0.76"], standalone_mode=False)
    shown = capsys.readouterr().err
    artifact = Artifact.open(tmp_path / "again", "sdg")
    assert f"{artifact.counts()['ok']} ok" in shown
    assert f"{count_unfinished(artifact)} rows have no caption left" in shown
    assert list(find_problems(artifact.root)) == []
    card = (artifact.root / "README.md").read_text()
    assert "Filtered again from the attempts of" in card
    assert "similarity at least 0.76" in card
