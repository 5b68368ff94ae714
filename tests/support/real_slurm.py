"""A Slurm of one node on this machine, in a folder of its own and on ports of its own."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waiting import free_ports, wait_for

NUM_CPUS = 8
"""That the node says it has: tasks of tests mostly wait, and all shall run at once."""
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=cred_expire=5,socket={root}/munge.socket
CommunicationParameters=NoAddrCache
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser=root
SlurmdUser=root
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
StateSaveLocation={root}/slurmctld
SlurmdSpoolDir={root}/slurmd
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
ReturnToService=2
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=100000
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE
PartitionName=graced Nodes={host} PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes={host} PriorityTier=10
"""


def why_not() -> str:
    """Return why there can be no Slurm here; empty if there can."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "srun", "sbatch") if not shutil.which(name)]
    if missing:
        return f"there is no {missing[0]} here: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "only root can start slurmd"


@contextmanager
def slurm(root: Path) -> Iterator[dict[str, str]]:
    """Start Slurm, yield the environment that its programs need, and end it."""
    for name in ("slurmctld", "slurmd"):
        (root / name).mkdir(parents=True)
    ports = free_ports(2)
    host = socket.gethostname().partition(".")[0]
    configuration = root / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, ports=ports, root=root, cpus=NUM_CPUS))
    key = root / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    munged = ["munged", "--foreground", "--force", f"--key-file={key}"]
    munged += [
        f"--{name}={root}/munge.{name.split('-')[0]}" for name in ("socket", "pid-file", "log-file", "seed-file")
    ]
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    programs = [munged, ["slurmctld", "-D", "-f", str(configuration)], ["slurmd", "-D", "-f", str(configuration)]]
    running = []

    def is_idle() -> bool:
        asked = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, env=environment)
        return "idle" in asked.stdout

    try:
        for number, program in enumerate(programs):
            log = (root / f"{program[0]}.out").open("wb")
            running.append(subprocess.Popen(program, stdout=log, stderr=subprocess.STDOUT, env=environment))
            if not number:
                wait_for((root / "munge.socket").exists, 20)
        wait_for(is_idle, 60)
        try:
            yield environment
        finally:  # what runs outlives the daemons
            subprocess.run(["scancel", "--user=root"], env=environment, check=False)
            wait_for(lambda: not subprocess.check_output(["squeue", "--noheader"], env=environment), 60)
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
        for process in reversed(running):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
