import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import CAPTIONS, ITEMS
from sclmkb.common.errors import UserError
from sclmkb.common.seeds import derive_seed
from sclmkb.generate import cli
from sclmkb.generate.captions.backend import make_backend
from sclmkb.generate.captions.rows import clean
from sclmkb.generate.captions.sdg import SdgSettings, plan_captions
from sclmkb.generate.captions.summary import summarise
from sclmkb.generate.engines.base import Completion, Engine, Hear, Request


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.parquet"))}


@pytest.fixture
def corpus(fakes: ModuleType, tmp_path: Path) -> Path:
    return fakes.write_corpus(tmp_path / "corpus", 100)


def run(fakes: ModuleType, corpus: Path, out: Path, engine: object = None, **values: object) -> Artifact:
    settings = fakes.fake_settings(**values)
    backend = fakes.make_backend(settings, engine or fakes.FakeEngine())
    return plan_captions(settings, corpus, out, backend).run_here()


def test_every_row_ends_in_a_state_and_follows_algorithm_1(fakes: ModuleType, corpus: Path, tmp_path: Path) -> None:
    artifact = run(fakes, corpus, tmp_path / "sdg")
    rows, attempts = artifact.table("rows").to_pylist(), artifact.table("attempts").to_pylist()
    captions = Artifact.open(corpus, "corpus").table("captions").to_pylist()
    assert [r["row_id"] for r in rows] == [c["row_id"] for c in captions]
    assert artifact.counts() == {s: sum(r["state"] == s for r in rows) for s in ("ok", "rejected", "error")}
    assert {r["state"] for r in rows} == {"ok", "rejected"}
    for row in rows:
        own = [a for a in attempts if a["row_id"] == row["row_id"]]
        rounds = Counter(a["attempt"] for a in own)
        assert sorted(rounds) == list(range(row["num_attempts"]))
        assert set(rounds.values()) == {2}
        accepted_in = {a["attempt"] for a in own if a["accepted"]}
        # Asked again exactly while nothing was kept, and at most three times.
        assert accepted_in <= {row["num_attempts"] - 1}
        assert row["num_attempts"] == 3 or accepted_in
        assert sorted(row["captions"]) == sorted(a["text"] for a in own if a["accepted"])
        assert row["similarities"] == sorted(row["similarities"], reverse=True)
        assert all(bool(a["reason"]) != a["accepted"] for a in own)
        assert all(a["similarity"] >= 0.6 - 1e-6 for a in own if a["accepted"])


def test_every_sample_has_the_seed_of_its_row_attempt_and_place(
    fakes: ModuleType, corpus: Path, tmp_path: Path
) -> None:
    attempts = run(fakes, corpus, tmp_path / "sdg", seed=7).table("attempts").to_pylist()
    assert all(a["seed"] == derive_seed(7, a["row_id"], a["attempt"], a["sample"]) for a in attempts)
    assert len({a["seed"] for a in attempts}) == len(attempts)


def test_shard_by_shard_one_engine_writes_what_one_call_writes(fakes: ModuleType, corpus: Path, tmp_path: Path) -> None:
    run(fakes, corpus, tmp_path / "whole")
    engines = []

    def build() -> Engine:
        engines.append(fakes.FakeEngine())
        return engines[-1]

    settings = fakes.fake_settings()
    backend = dataclasses.replace(fakes.make_backend(settings, fakes.FakeEngine()), engine=build)
    work = plan_captions(settings, corpus, tmp_path / "sdg", backend)
    for number in work.left():
        work.make(work.shards(str(number)))
    assert len(engines) == 1
    assert len(list((tmp_path / "sdg" / "logs").glob("*.jsonl"))) == 3, "a log a call, each with its end"
    assert files(tmp_path / "sdg") == files(tmp_path / "whole")


@pytest.mark.parametrize("wave_size", [1, 5, 1000])
def test_what_is_written_does_not_depend_on_the_waves(
    fakes: ModuleType, corpus: Path, tmp_path: Path, wave_size: int
) -> None:
    one = run(fakes, corpus, tmp_path / "one")
    other = run(fakes, corpus, tmp_path / "other", wave_size=wave_size)
    assert files(one.root) == files(other.root)


def test_the_batch_is_full_until_a_few_rows_are_left(fakes: ModuleType, corpus: Path, tmp_path: Path) -> None:
    engine = fakes.FakeEngine()
    run(fakes, corpus, tmp_path / "sdg", engine, shard_size=1000)
    sizes = [len(call) for call in engine.calls]
    assert sizes[:-1] == [16] * (len(sizes) - 1)
    # The first round of the last rows and the second one of the first rows share a call.
    seen: set[tuple[object, ...]] = set()
    mixed = 0
    for call in engine.calls:
        again = sum(request.messages in seen for request in call)
        mixed += 0 < again < len(call)
        seen.update(request.messages for request in call)
    assert mixed > 0


@pytest.mark.parametrize("stop_after", [1, 4, 9])
def test_interrupted_run_ends_with_the_same_bytes(
    fakes: ModuleType, corpus: Path, tmp_path: Path, stop_after: int
) -> None:
    class Stopping(fakes.FakeEngine):  # type: ignore[name-defined, misc]
        def generate(self, requests: list[Request], hear: Hear) -> list[Completion]:
            if len(self.calls) == stop_after:
                raise KeyboardInterrupt
            return super().generate(requests, hear)  # type: ignore[no-any-return]

    whole_engine, rest = fakes.FakeEngine(), fakes.FakeEngine()
    whole = run(fakes, corpus, tmp_path / "whole", whole_engine)
    with pytest.raises(KeyboardInterrupt):
        run(fakes, corpus, tmp_path / "cut", Stopping())
    resumed = run(fakes, corpus, tmp_path / "cut", rest)
    assert files(whole.root) == files(resumed.root)
    # The waves that were left are exactly those of the uninterrupted run.
    assert rest.calls == whole_engine.calls[stop_after:]


def test_killed_run_resumes_with_no_row_lost_repeated_or_changed(
    fakes: ModuleType, corpus: Path, tmp_path: Path
) -> None:
    whole = run(fakes, corpus, tmp_path / "whole")
    out = tmp_path / "killed"
    command = [sys.executable, str(Path(fakes.__file__)), str(corpus), str(out)]
    for commits in (2, 7, 11):
        process = subprocess.Popen([*command, "0.1"], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(FileNotFoundError):  # a committed shard's work is deleted while it is looked at
                chunks = len(list(out.glob("work/*/chunk-*.json"))) + 4 * len(list(out.glob("manifests/*.json")))
                if chunks >= commits:
                    break
            time.sleep(0.02)
        assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pytest.raises(UserError, match="unfinished"):
        Artifact.open(out, "sdg")
    subprocess.run([*command, "0"], check=True, stderr=subprocess.DEVNULL)
    assert files(whole.root) == files(out)
    assert Artifact.open(out, "sdg").fingerprint == whole.fingerprint


def test_a_finished_run_starts_neither_engine_nor_filter(fakes: ModuleType, corpus: Path, tmp_path: Path) -> None:
    run(fakes, corpus, tmp_path / "sdg")
    engine = fakes.FakeEngine()
    run(fakes, corpus, tmp_path / "sdg", engine)
    assert engine.calls == []


def test_a_refused_row_is_an_error_and_the_others_go_on(fakes: ModuleType, tmp_path: Path) -> None:
    texts = [f"lantern beside mark{i}" for i in range(6)] + ["unspeakable thing"]
    corpus = fakes.write_corpus(tmp_path / "corpus", 7, texts)
    artifact = run(fakes, corpus, tmp_path / "sdg")
    rows = {r["source_text"]: r for r in artifact.table("rows").to_pylist()}
    bad = rows["unspeakable thing"]
    assert (bad["state"], bad["error"], bad["num_attempts"], bad["captions"]) == ("error", "refused", 1, [])
    assert sum(artifact.counts().values()) == 7
    assert artifact.counts()["error"] == 1


def test_samples_of_a_row_that_say_the_same_are_kept_once(fakes: ModuleType, corpus: Path, tmp_path: Path) -> None:
    class Parrot(fakes.FakeEngine):  # type: ignore[name-defined, misc]
        def _write(self, request: Request) -> Completion:
            caption = request.messages[-1].content.removeprefix("Caption: ")
            return Completion(text=f"there stands {caption}", finish_reason="stop", num_tokens=5)

    artifact = run(fakes, corpus, tmp_path / "sdg", Parrot(), num_samples=3, filter={"min_margin": -1})
    reasons = Counter(a["reason"] for a in artifact.table("attempts").to_pylist())
    assert reasons == {"": 100, "duplicate": 200}


def test_summary_adds_up(fakes: ModuleType, corpus: Path, tmp_path: Path) -> None:
    artifact = run(fakes, corpus, tmp_path / "sdg")
    counts, text = artifact.counts(), "\n".join(summarise(artifact))
    assert f"100 rows: {counts['ok']} ok" in text
    assert f"{counts['rejected']} rejected" in text
    assert f"{artifact.table('attempts').num_rows} samples" in text


def test_other_settings_are_refused_and_named(fakes: ModuleType, corpus: Path, tmp_path: Path) -> None:
    run(fakes, corpus, tmp_path / "sdg")
    with pytest.raises(UserError, match="num_samples: 2 there, 1 now"):
        run(fakes, corpus, tmp_path / "sdg", num_samples=1)


def test_bad_corpora_are_refused(fakes: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sclmkb-gen corpus"):
        run(fakes, tmp_path / "nothing", tmp_path / "sdg")
    empty = fakes.write_corpus(tmp_path / "empty", 0)
    with pytest.raises(UserError, match="no captions"):
        run(fakes, empty, tmp_path / "sdg")
    small = fakes.write_corpus(tmp_path / "small", 3)
    with pytest.raises(UserError, match="split 'dev'"):
        run(fakes, small, tmp_path / "sdg", splits=("dev",))
    shard = next((small / "captions").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-9] + b"not whole")
    with pytest.raises(UserError, match="corrupt shard file"):
        run(fakes, small, tmp_path / "sdg")
    assert not (tmp_path / "sdg").exists()


def test_a_row_id_that_is_there_twice_is_named(fakes: ModuleType, tmp_path: Path) -> None:
    table = Artifact.open(fakes.write_corpus(tmp_path / "corpus", 30), "corpus").table("captions")
    tables = {"items": ITEMS.empty_table(), "captions": pa.concat_tables([table, table.slice(3, 1)])}
    schemas = {"items": ITEMS, "captions": CAPTIONS}
    shards = make_shards("train", ["all"], 1)
    spoiled = Run.open(tmp_path / "twice", Plan(kind="corpus", tables=schemas, settings={}, shards=shards, inputs={}))
    spoiled.commit_shard(shards[0], tables)
    twice = table.column("row_id")[3].as_py()
    with pytest.raises(UserError, match=f"two captions with the row id {twice}"):
        run(fakes, tmp_path / "twice", tmp_path / "sdg")


def test_the_attempts_load_with_datasets(fakes: ModuleType, corpus: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    artifact = run(fakes, corpus, tmp_path / "sdg")
    loaded = datasets.load_dataset(str(artifact.root), "rows", split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 100
    assert json.loads((artifact.root / "plan.json").read_text())["inputs"]["model"] == "fake"


@pytest.mark.parametrize(
    "values", [{"num_samples": 0}, {"sampling": {"temperature": 0}}, {"filter": {"min_similarity": 2}}, {"x": 1}]
)
def test_bad_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(UserError, match="sdg"):
        SdgSettings.resolve(presets="sclmkb.generate", section="sdg", options=values)


def test_clean_strips_quotes() -> None:
    assert clean(' "A boat." \n') == "A boat."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sdg", "--corpus", "{tmp}/none", "--out", "{tmp}/o"], "no corpus artifact"),
        (["sdg", "--corpus", "{tmp}/corpus", "--out", "{tmp}/o", "--model", "./nowhere"], "no readable folder"),
        (["sdg", "--corpus", "{tmp}/corpus", "--preset", "huge"], "demo, tiny"),
        (["sdg", "--corpus", "{tmp}/corpus", "--set", "prompt=nothing"], "unknown prompt"),
        (["sdg", "--corpus", "{tmp}/corpus", "--set", "filter.encoder=./nowhere"], "no readable folder"),
        (["corpus", "other"], "unknown corpus"),
    ],
)
def test_the_command_ends_with_one_line_and_code_2(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sclmkb-gen", *(a.replace("{tmp}", str(tmp_path)) for a in arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr().err
    assert (ended.value.code, printed.count("error:")) == (2, 1)
    assert message in printed
    assert "Traceback" not in printed


def test_the_control_without_language_model(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["sclmkb-gen", "sdg", f"--corpus={corpus}", f"--out={tmp_path / 't'}", "--set=engine=template"]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    artifact = Artifact.open(tmp_path / "t", "sdg")
    assert artifact.counts()["ok"] > 50
    assert all(a["text"] for a in artifact.table("attempts").to_pylist())


def test_a_run_with_nothing_to_do_loads_neither_torch_nor_an_engine(
    fakes: ModuleType, corpus: Path, tmp_path: Path
) -> None:
    """As cron starts it, in a process of its own."""
    settings = SdgSettings(engine="template", max_error_rate=1.0)
    fake = fakes.make_backend(settings, fakes.FakeEngine())
    plan_captions(settings, corpus, tmp_path / "sdg", replace(make_backend(settings), filter=fake.filter)).run_here()
    code = (
        "import sys\n"
        "from sclmkb.generate.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "found = {'torch', 'transformers', 'vllm', 'faiss'} & set(sys.modules)\n"
        "assert not found, found"
    )
    command = ["sdg", "--set", "engine=template", "--corpus", str(corpus), "--out", str(tmp_path / "sdg")]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "100 rows" in done.stderr
