"""The commands on URLs: what they read and write there is what they read and write in folders."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from commands import Done, run_command
from sdg_fakes import FlakyEngine, InterruptedEngine, Job, write_corpus

from sclmkb.common.artifacts import object_calls
from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.executors.runlog import RunLog
from sclmkb.generate.runs.status import read_status
from sclmkb.generate.runs.verify import find_problems

Store = Any  # of conftest.py


def call(*words: object) -> Done:
    return run_command(["sclmkb-gen", *map(str, words)])


def results(store: Store, root: Path) -> dict[str, bytes]:
    """Return plan, data and card of a run."""
    return {name: data for name, data in store.files(root).items() if not name.startswith(("manifests/", "logs/"))}


@pytest.mark.parametrize("place", ["memory", "s3"])
def test_sdg_that_was_killed_goes_on_and_ends_as_in_a_folder(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store = request.getfixturevalue(place)
    local, job = (Job(root, write_corpus(root / "corpus", 100)) for root in (tmp_path, store.root))
    local()
    store.faults.set(0.1)
    with pytest.raises(KeyboardInterrupt):
        job(writer=InterruptedEngine(9))
    status = read_status(store.root / "sdg")
    assert 0 < status.shards_done < status.shards
    assert status.samples > 0
    job()
    assert store.faults.failed > 5
    store.faults.set(0.0)
    assert results(store, store.root / "sdg") == results(store, tmp_path / "sdg")
    assert list(find_problems(store.root / "sdg")) == []
    assert read_status(store.root / "sdg").has_card
    logs = [data for name, data in store.files(store.root / "sdg").items() if name.startswith("logs/")]
    ends = sorted(json.loads(log.splitlines()[-1])["how"].partition(":")[0] for log in logs)
    assert ends == ["KeyboardInterrupt", "done"]


def test_a_retry_reads_and_writes_urls(memory: Store) -> None:
    job = Job(memory.root, write_corpus(memory.root / "corpus", 100))
    whole = job("whole")
    assert job("broken", FlakyEngine()).counts()["error"] > 3
    again = job("again", retry="broken")
    assert again.table("rows").equals(whole.table("rows"))
    assert list(find_problems(memory.root / "again")) == []


def test_corpus_csi_and_cdg_take_urls(memory: Store, tmp_path: Path, write_path_csi: Callable[..., Path]) -> None:
    (tmp_path / "captions.csv").write_text("caption,identity\n" + "".join(f"a thing {i},{i}\n" for i in range(20)))
    write_path_csi(memory.root / "csi", sizes=(30, 5, 5))
    write_path_csi(tmp_path / "csi", sizes=(30, 5, 5))
    for root in (memory.root, tmp_path):
        table = ["--root", tmp_path / "captions.csv", "--set", "media=none"]
        assert call("corpus", "table", *table, "--out", root / "corpus").code == 0
        given = ["--csi", root / "csi", "--predictor", "persistence", "--out", root / "predicted"]
        assert call("cdg", *given, "--shards", "0-1").code == 0
        assert call("cdg", *given, "--join").code == 0
        assert call("verify", root / "predicted").code == 0
    for name in ("corpus", "csi", "predicted"):
        assert results(memory, memory.root / name) == results(memory, tmp_path / name)


def test_a_run_in_a_store_is_watched_like_one_in_a_folder(memory: Store) -> None:
    root, captions = memory.root / "run", [f"row-{i}" for i in range(6)]
    planned = make_shards("train", captions, 2)
    schema = pa.schema([("row_id", pa.string())])
    run = Run.open(root, Plan(kind="predicted", tables={"rows": schema}, settings={}, shards=planned, inputs={}))
    with RunLog.open(run, planned[1:]) as log:
        for index in range(300):  # more than the end of a log that is read of a file
            log.write("chunk", shard=index, tokens=10, samples=2, seconds=2.0)
        table = pa.table({"row_id": list(planned[0].row_ids)}, schema=schema)
        run.commit_shard(planned[0], {"rows": table}, counts={"ok": 2}, seconds=1.0)
        found = read_status(root)
        assert (found.kind, found.shards_done, found.resubmit) == ("predicted", 1, "")
        assert [(p.shards, p.tokens_per_s) for p in found.processes] == [("1-2", 5.0)]
    assert read_status(root).processes == []
    for shard in planned[1:]:
        run.commit_shard(shard, {"rows": pa.table({"row_id": list(shard.row_ids)}, schema=schema)}, counts={"ok": 2})
    run.finish("Test", "A test.")
    assert json.loads(call("status", root, "--watch", "--json", "--metrics").out)["has_card"]
    done = b'sclmkb_shards_done{kind="predicted",run="memory://bucket/runs/run"} 3.0'
    assert done in memory.files(root)["metrics.prom"]


@pytest.mark.parametrize("words", [["--executor", "slurm"], ["--executor", "slurm", "--print"]])
def test_slurm_is_refused_before_anything_is_written(words: list[str], memory: Store) -> None:
    given = ["csi", "--preset", "tiny", "--out", memory.root / "csi", *words]
    for more, message in (
        ([], "needs a folder for scripts and logs, and memory://bucket/runs/csi is none"),
        (["--set", "slurm.logs=s3://bucket/logs"], "setting 'slurm.logs' = 's3://bucket/logs'"),
    ):
        done = call(*given, *more)
        assert done.code == 2
        assert message in done.err
    assert memory.files(memory.root) == {}


def test_slurm_works_on_a_run_in_a_store_with_a_folder_for_its_logs(
    memory: Store, fake_slurm: Any, tmp_path: Path, write_path_csi: Callable[..., Path]
) -> None:
    out, logs = memory.root / "predicted", tmp_path / "lo gs"
    csi = write_path_csi(tmp_path / "csi", sizes=(30, 5, 5))
    given = ["cdg", "--csi", csi, "--predictor", "persistence"]
    assert call(*given, "--out", tmp_path / "whole").code == 0
    submit = [*given, "--out", out, "--executor", "slurm", "--set", f"slurm.logs={logs}"]
    assert call(*submit, "--print").code == 0
    assert call(*submit).code == 0
    (array, _), (last, _) = fake_slurm.submitted().values()
    assert [re.sub("-[0-9a-f]{8}", "", name) for name in memory.files(out)] == ["plan-rows.parquet", "plan.json"]
    assert {p.name: p.read_text() for p in logs.iterdir()} == {"101.sh": array, "102.sh": last}
    assert f'#SBATCH "--output={logs}/%A_%a.slurm.log"' in array
    assert f"exec >>'{logs}'/\"${{SLURM_ARRAY_JOB_ID}}" in array
    assert "#SBATCH --array=0-3\n" in array
    name = re.search("--job-name=(.*)", array)
    assert name is not None

    (fake_slurm.root / "queue").write_text("101 2 shards_per_task=1\n102 N/A (null)\n")
    for shards in ("0", "3"):
        assert call(*_task(array), "--shards", shards).code == 0
    assert call(*submit).code == 0
    second = list(fake_slurm.submitted().values())[2:]
    assert "#SBATCH --array=1\n" in second[0][0]
    assert second[1][1] == "--parsable --dependency=afterany:101,afterok:103"
    assert f"--name={name[1]}," in (fake_slurm.root / "asked").read_text(), "found by the hash of the URL"

    refused = call(*submit, "--new-run", "--set", "ar_order=4")
    assert refused.code == 2
    assert f"{out} is in object storage, where no run can be set aside" in refused.err
    assert len(fake_slurm.submitted()) == 4
    for shards in ("1", "2", "none"):
        assert call(*_task(array), "--shards", shards).code == 0
    assert results(memory, out) == results(memory, tmp_path / "whole")
    assert f"{out} is done, nothing to submit" in call(*submit).err
    assert len(fake_slurm.submitted()) == 4


def _task(script: str) -> list[str]:
    """Return what a script gives to the command, but for the shards."""
    return shlex.split(script.partition("-m sclmkb.generate.cli ")[2].partition(" --shards ")[0])


def test_what_takes_local_paths_alone_refuses_urls(
    memory: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["merge", tmp_path, "--out", memory.root], ["merge", memory.root, "--out", tmp_path / "merged"],
                  ["export", "--out", memory.root], ["inspect", "--out", memory.root]):  # fmt: skip
        done = call(*words)
        assert done.code == 2
        assert "error: memory://bucket/runs is in object storage, and this option" in done.err
    assert list(tmp_path.iterdir()) == []


def test_csi_goes_to_a_url(memory: Store, tmp_path: Path) -> None:
    pytest.importorskip("sionna.phy")
    small = ["--preset", "tiny", "--set", "array_rows=1", "--set", "array_columns=1", "--set", "num_history=2"]
    for root in (memory.root, tmp_path):
        assert call("csi", *small, "--out", root / "csi").code == 0
    assert results(memory, memory.root / "csi") == results(memory, tmp_path / "csi")


def test_what_goes_wrong_is_one_line_and_an_exit_code(
    memory: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_calls, "ATTEMPTS", 2)
    memory.faults.set(1.0)
    for words, message in (
        (
            ["cdg", "--csi", memory.root / "csi", "--predictor", "ar", "--out", tmp_path],
            "csi/plan.json: failed 2 times, at last with 'injected",
        ),
        (["status", "nowhere://bucket/a"], "nothing is known of nowhere://"),
    ):
        done = call(*words)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert message in done.err


def test_what_was_copied_to_a_store_is_read_there(memory: Store, tmp_path: Path) -> None:
    local = write_corpus(tmp_path / "corpus", 20)
    for name, data in memory.files(local).items():
        (memory.root / "copied" / name).write_bytes(data)
    copied = Artifact.open(memory.root / "copied", "corpus")
    assert copied.fingerprint == Artifact.open(local, "corpus").fingerprint
    assert copied.table("captions").equals(Artifact.open(local, "corpus").table("captions"))
