"""What the cells of a study took."""

from sclmkb.common.studies.cells import Study
from sclmkb.evaluate.tables import Table


def study_costs(study: Study) -> Table:
    """Return seconds and memory of the cells that stand, by what they make."""
    done, kinds = study.done(), dict[str, list[str]]()
    for name in done:
        program, command, *_ = study.cells[name].command
        kinds.setdefault(f"{program} {command}", []).append(name)
    rows = []
    for kind, names in kinds.items():
        records = [done[name] for name in names]
        seconds = [record.seconds for record in records]
        peak = max(record.peak_gb for record in records)
        rows.append([kind, str(len(names)), f"{sum(seconds):.0f}", f"{max(seconds):.0f}", f"{peak:.1f}"])
    total = sum(record.seconds for record in done.values())
    rows.append(["all", str(len(done)), f"{total:.0f}", "", ""])
    return Table(
        title="What the study took",
        columns=["command", "cells", "seconds in all", "longest [s]", "most memory of a process [GB]"],
        rows=rows,
        note="Wall-clock seconds of each process, beside others; sclmkb-gen sdg keeps all cores busy, the others one.",
    )
