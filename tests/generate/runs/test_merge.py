from commands import Done, run_command
from sdg_fakes import Job, files

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.generate.runs.verify import find_problems


def merge(job: Job, *names: str) -> Done:
    return run_command(["sclmkb-gen", "merge", *(job.home / name for name in names), "--out", job.home / "merged"])


def test_merged_folders_are_the_run_done_at_once(job: Job) -> None:
    whole, out = job("whole"), job.home / "merged"
    job("a", shards="0-1")
    job("b", shards="1-2")
    unfinished = "shards 2 have no manifest: the run is unfinished, run its command again"
    assert list(find_problems(job.home / "a")) == [unfinished], "what its processes share is none of its contents"
    for _ in range(2):  # the second time nothing is left to do
        assert merge(job, "a", "b").code == 0
        assert Artifact.open(out, "sdg").fingerprint == whole.fingerprint
    assert files(out) == files(whole.root)
    assert (out / "README.md").read_bytes() == (whole.root / "README.md").read_bytes()
    assert list(find_problems(out)) == []
    assert not (out / "work").exists()


def test_what_does_not_belong_together_is_refused(job: Job) -> None:
    job("a", shards="0-1")
    job("other", shards="2", seed=5, max_attempts=2)
    done = merge(job, "a", "other")
    assert done.code == 2
    assert "max_attempts: 3 there, 2 now; seed: 0 there, 5 now" in done.err
    assert "no folder has the shards 2: make them with --shards" in merge(job, "a").err
    assert not (job.home / "merged").exists()
