"""One file of figures a run, in the text format of Prometheus, for dashboards to scrape.

It is computed from what ``sclmkb-gen status`` finds, so that it is right whoever made the shards and whatever was
killed meanwhile. The textfile collector of node_exporter reads such files.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from sclmkb.common.artifacts.files import write_bytes
from sclmkb.generate.runs.status import Status

FILE = "metrics.prom"

_Sample = tuple[Mapping[str, str], float]


def write_metrics(status: Status, root: Path) -> Path:
    """Write ``metrics.prom`` into the folder of a run, so that it is either the old file or the new one.

    Raises:
        OSError: if the folder cannot be written to.
    """
    lines = []
    labels = {"run": str(root.absolute()), "kind": status.kind}
    for name, description, samples in _metrics(status):
        lines += [f"# HELP sclmkb_{name} {description}", f"# TYPE sclmkb_{name} gauge"]
        lines += [f"sclmkb_{name}{_labels({**labels, **own})} {value!r}" for own, value in samples]
    path = root / FILE
    write_bytes(path, ("\n".join(lines) + "\n").encode())
    return path


def _metrics(status: Status) -> Iterator[tuple[str, str, list[_Sample]]]:
    """Yield name, description and samples of each metric; all are gauges, since a retry may take figures back."""
    one: Mapping[str, str] = {}
    yield "shards_planned", "Planned shards.", [(one, status.shards)]
    yield "shards_done", "Committed shards.", [(one, status.shards_done)]
    yield "rows_planned", "Planned rows.", [(one, status.rows)]
    yield "rows_finished", "Finished rows by state.", [({"state": s}, n) for s, n in status.states.items()]
    yield "samples", "Generated samples.", [(one, status.samples)]
    yield "samples_kept", "Samples that the filter kept.", [(one, status.kept)]
    yield "samples_failed", "Samples that the engine failed to write.", [(one, status.failed)]
    yield "tokens", "Generated tokens.", [(one, status.tokens)]
    yield "work_seconds", "Seconds of work, added up over processes.", [(one, status.seconds)]
    yield "processes", "Processes at work.", [(one, len(status.processes))]
    yield "done", "1 when nothing is left to do.", [(one, int(status.is_done))]
    if status.last_commit is not None:
        yield "last_commit_timestamp_seconds", "When a shard was committed last.", [(one, status.last_commit)]


def _labels(labels: Mapping[str, str]) -> str:
    escaped = {k: v.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for k, v in labels.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
