import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from commands import must_run, run_command
from sdg_fakes import FakeEngine, InterruptedEngine, Job, fake_settings, files, make_backend, write_corpus

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import CAPTIONS, ITEMS
from sclmkb.common.errors import UserError
from sclmkb.common.seeds import derive_seed
from sclmkb.generate.captions.sdg import SdgSettings, plan_captions
from sclmkb.generate.captions.summary import summarise
from sclmkb.generate.engines.base import Completion, Engine, Request


def test_every_row_ends_in_a_state_and_follows_algorithm_1(job: Job) -> None:
    artifact = job(seed=7)
    rows, attempts = artifact.table("rows").to_pylist(), artifact.table("attempts").to_pylist()
    captions = Artifact.open(job.corpus, "corpus").table("captions").to_pylist()
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
    assert all(a["seed"] == derive_seed(7, a["row_id"], a["attempt"], a["sample"]) for a in attempts)
    assert len({a["seed"] for a in attempts}) == len(attempts)
    counts, text = artifact.counts(), "\n".join(summarise(artifact))
    assert f"100 rows: {counts['ok']} ok" in text
    assert f"{counts['rejected']} rejected" in text
    assert f"{len(attempts)} samples" in text


def test_shard_by_shard_one_engine_writes_what_one_call_writes(job: Job) -> None:
    engines = []

    def build() -> Engine:
        engines.append(FakeEngine())
        return engines[-1]

    settings = fake_settings()
    backend = replace(make_backend(settings, FakeEngine()), engine=build)
    work = plan_captions(settings, job.corpus, job.home / "sdg", backend)
    for number in work.left():
        work.make(work.shards(str(number)))
    assert len(engines) == 1
    assert files(job.home / "sdg") == files(job("whole").root)


@pytest.mark.parametrize("wave_size", [1, 5, 1000])
def test_what_is_written_does_not_depend_on_the_waves(job: Job, wave_size: int) -> None:
    assert files(job("one").root) == files(job("other", wave_size=wave_size).root)


def test_the_batch_is_full_until_a_few_rows_are_left(job: Job) -> None:
    writer = FakeEngine()
    job(writer=writer, shard_size=1000)
    sizes = [len(call) for call in writer.calls]
    assert sizes[:-1] == [16] * (len(sizes) - 1)
    # The first round of the last rows and the second one of the first rows share a call.
    seen: set[tuple[object, ...]] = set()
    mixed = 0
    for call in writer.calls:
        again = sum(request.messages in seen for request in call)
        mixed += 0 < again < len(call)
        seen.update(request.messages for request in call)
    assert mixed > 0


@pytest.mark.parametrize("stop_after", [1, 4, 9])
def test_interrupted_run_ends_with_the_same_bytes(job: Job, stop_after: int) -> None:
    whole_engine, rest = FakeEngine(), FakeEngine()
    whole = job("whole", whole_engine)
    with pytest.raises(KeyboardInterrupt):
        job(writer=InterruptedEngine(stop_after))
    with pytest.raises(UserError, match="num_samples: 2 there, 1 now"):
        job(num_samples=1)
    assert files(job(writer=rest).root) == files(whole.root)
    # The waves that were left are exactly those of the uninterrupted run.
    assert rest.calls == whole_engine.calls[stop_after:]


def test_a_refused_row_is_an_error_and_the_others_go_on(tmp_path: Path) -> None:
    texts = [f"lantern beside mark{i}" for i in range(6)] + ["unspeakable thing"]
    artifact = Job(tmp_path, write_corpus(tmp_path / "corpus", 7, texts))()
    (bad,) = (r for r in artifact.table("rows").to_pylist() if r["source_text"] == "unspeakable thing")
    assert (bad["state"], bad["error"], bad["num_attempts"], bad["captions"]) == ("error", "refused", 1, [])
    assert sum(artifact.counts().values()) == 7
    assert artifact.counts()["error"] == 1


def test_samples_of_a_row_that_say_the_same_are_kept_once(job: Job) -> None:
    class Parrot(FakeEngine):
        def _write(self, request: Request) -> Completion:
            caption = request.messages[-1].content.removeprefix("Caption: ")
            return Completion(text=f"there stands {caption}", finish_reason="stop", num_tokens=5)

    artifact = job(writer=Parrot(), num_samples=3, filter={"min_margin": -1})
    reasons = Counter(a["reason"] for a in artifact.table("attempts").to_pylist())
    assert reasons == {"": 100, "duplicate": 200}


def test_bad_corpora_are_refused(tmp_path: Path) -> None:
    small = write_corpus(tmp_path / "small", 3)
    with pytest.raises(UserError, match="no captions"):
        Job(tmp_path, write_corpus(tmp_path / "empty", 0))()
    with pytest.raises(UserError, match="split 'dev'"):
        Job(tmp_path, small)(splits=("dev",))
    shard = next((small / "captions").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-9] + b"not whole")
    with pytest.raises(UserError, match="corrupt shard file"):
        Job(tmp_path, small)()
    assert not (tmp_path / "sdg").exists()


def test_a_row_id_that_is_there_twice_is_named(job: Job) -> None:
    table = Artifact.open(job.corpus, "corpus").table("captions")
    tables = {"items": ITEMS.empty_table(), "captions": pa.concat_tables([table, table.slice(3, 1)])}
    schemas = {"items": ITEMS, "captions": CAPTIONS}
    shards = make_shards("train", ["all"], 1)
    spoiled = Run.open(job.home / "twice", Plan(kind="corpus", tables=schemas, settings={}, shards=shards, inputs={}))
    spoiled.commit_shard(shards[0], tables)
    with pytest.raises(UserError, match=f"two captions with the row id {table['row_id'][3]}"):
        Job(job.home, spoiled.root)()


@pytest.mark.parametrize(
    "values", [{"num_samples": 0}, {"sampling": {"temperature": 0}}, {"filter": {"min_similarity": 2}}, {"x": 1}]
)
def test_bad_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(UserError, match="sdg"):
        SdgSettings.resolve(presets="sclmkb.generate", section="sdg", options=values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sdg --corpus none --out o", "no corpus artifact"),
        ("sdg --corpus corpus --out o --model ./nowhere", "no readable folder"),
        ("sdg --corpus corpus --preset huge", "demo, tiny"),
        ("sdg --corpus corpus --set prompt=nothing", "unknown prompt"),
        ("sdg --corpus corpus --set filter.encoder=./nowhere", "no readable folder"),
        ("corpus other", "unknown corpus"),
    ],
)
@pytest.mark.usefixtures("job")
def test_the_command_ends_with_one_line_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_command(f"sclmkb-gen {arguments}")
    assert (done.code, done.err.count("error:")) == (2, 1)
    assert message in done.err
    assert "Traceback" not in done.err


def test_the_control_without_language_model_and_a_run_with_nothing_to_do(job: Job) -> None:
    """The second time as cron starts it, in a process of its own: it loads neither torch nor an engine."""
    command = ["sclmkb-gen", "sdg", "--set=engine=template", f"--corpus={job.corpus}", f"--out={job.home / 'sdg'}"]
    must_run(command)
    artifact = Artifact.open(job.home / "sdg", "sdg")
    assert artifact.counts()["ok"] > 50
    assert all(a["text"] for a in artifact.table("attempts").to_pylist())
    code = (
        "import sys\n"
        "from sclmkb.generate.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "found = {'torch', 'transformers', 'vllm', 'faiss'} & set(sys.modules)\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code, *command[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "100 rows" in done.stderr
