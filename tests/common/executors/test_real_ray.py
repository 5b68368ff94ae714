"""What only a real Ray shows: a shard that kills its actor, a driver that is killed, a node that is lost."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import real_ray
from toy_runs import OnRay, Toy
from waiting import wait_for

pytestmark = pytest.mark.long


on_ray = pytest.mark.parametrize("runner", ["ray"], indirect=True)


@on_ray
def test_a_shard_that_kills_its_actor_is_given_up_and_named(toy: Toy, runner: OnRay) -> None:
    toy.mood("bad-0")
    toy.mood("deadly-1")
    runner.run(toy)
    line = runner.wait(toy, code=2).splitlines()[-1]
    assert "error: shards 0-1 of toy run are not done; shard 0 (train-00000-of-00003): on " in line
    assert "shard train-00000-of-00003 is bad; mend that, then run the same command again" in line
    assert line.endswith("--executor local --shards 0)")
    assert [toy.times_at_work(number) for number in range(3)] == [0, 2, 0]
    assert toy.done() == ["2"], "the others go on"


@on_ray
def test_a_killed_driver_leaves_nothing_at_work(toy: Toy, runner: OnRay) -> None:
    toy.mood("slow-2")
    toy.start("--executor=ray")  # on a Ray of its own
    runner.wait_at_work(toy, 1)
    processes = real_ray.family(toy.commands[-1].pid)
    at_work = [p for p in processes if "_Maker" in "".join(p.cmdline())]
    assert at_work
    toy.commands[-1].kill()
    wait_for(lambda: not real_ray.living(at_work), 60)
    real_ray.kill(real_ray.living(processes))  # two agents of Ray's own outlive it
    toy.mood("go")
    runner.run(toy)
    runner.wait(toy)
    assert toy.done() == ["0", "1", "2"]


def test_a_node_is_lost_in_the_middle_of_csi(ray_cluster: Any, tmp_path: Path) -> None:
    pytest.importorskip("sionna.phy")
    words = ["csi", "--preset", "tiny", "--set=num_train=800", "--set=shard_size=25", "--set=array_rows=1"]
    command = [sys.executable, "-m", "sclmkb.generate.cli", *words, "--set=array_columns=1"]
    alone, shared, environment = tmp_path / "alone", tmp_path / "shared", ray_cluster.environment
    subprocess.run([*command, f"--out={alone}"], check=True, env=environment)

    def found(root: Path, pattern: str) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in root.glob(pattern)}

    node = ray_cluster.add()
    options = [f"--out={shared}", "--executor=ray", f"--ray-address={ray_cluster.address}"]
    driver = subprocess.Popen([*command, *options], env=environment, start_new_session=True)
    try:
        wait_for(lambda: len(found(shared, "manifests/*")) >= 2 or driver.poll() is not None)
        ray_cluster.lose(node)
        assert len(found(shared, "manifests/*")) < len(found(alone, "manifests/*")), "it is lost in the middle"
        assert driver.wait(400) == 0
    finally:
        real_ray.kill(real_ray.family(driver.pid))
    for pattern in ("csi/*.parquet", "*.parquet", "*.md"):
        assert found(shared, pattern) == found(alone, pattern)
