"""One file of figures per run, in the text format of Prometheus, for dashboards to scrape.

It is computed from what ``sclmkb-gen status`` finds. So it is right whichever processes made the shards, and if some
were killed meanwhile. The textfile collector of node_exporter reads such files.
"""

from pathlib import Path
from typing import Any

from sclmkb.common.artifacts.files import write_bytes
from sclmkb.generate.runs.status import Status

FILE = "metrics.prom"


def write_metrics(status: Status, root: Path) -> Path:
    """Write ``metrics.prom`` into the folder of a run, so that it is either the old file or the new one.

    All metrics are gauges, since a retry may take figures back.

    Raises:
        OSError: if the folder cannot be written to.
    """
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry, own = CollectorRegistry(), {"run": str(root.absolute()), "kind": status.kind}

    def gauge(name: str, description: str, *labels: str) -> Any:
        return Gauge(f"sclmkb_{name}", description, (*own, *labels), registry=registry)

    figures = {
        ("shards_planned", "Planned shards."): status.shards,
        ("shards_done", "Committed shards."): status.shards_done,
        ("rows_planned", "Planned rows."): status.rows,
        ("samples", "Generated samples."): status.samples,
        ("samples_kept", "Samples that the filter kept."): status.kept,
        ("samples_failed", "Samples that the engine failed to write."): status.failed,
        ("tokens", "Generated tokens."): status.tokens,
        ("work_seconds", "Seconds of work, added up over processes."): status.seconds,
        ("processes", "Processes at work."): len(status.processes),
        ("done", "1 when nothing is left to do."): status.is_done,
        ("last_commit_timestamp_seconds", "When a shard was committed last."): status.last_commit,
    }
    for (name, description), value in figures.items():
        if value is not None:
            gauge(name, description).labels(**own).set(value)
    states = gauge("rows_finished", "Finished rows by state.", "state")
    for state, count in status.states.items():
        states.labels(**own, state=state).set(count)
    path = root / FILE
    write_bytes(path, generate_latest(registry))
    return path
