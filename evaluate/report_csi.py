"""The section of the report on how well future CSI is predicted."""

from pathlib import Path
from typing import Any

from sclmkb.evaluate.csi_output import all_tables
from sclmkb.evaluate.csi_samples import Measured
from sclmkb.evaluate.report_sdg import inline_svg


def csi_eval_section(folder: Path) -> dict[str, Any]:
    """Return tables and figures of a folder of ``sclmkb-eval csi``.

    Raises:
        UserError: if the folder holds no measurement.
    """
    measured = Measured(folder)
    drawn = sorted((folder / "figures").glob("*.svg"), key=lambda path: (path.name.startswith("map-"), path.name))
    wanted = {f"{kind}-{name}" for kind in ("snr", "steps", "map") for name in measured.artifacts}
    shown = [path for path in drawn if path.stem in wanted]
    return {
        "tables": [
            {"title": t.title, "columns": t.columns, "rows": t.rows, "note": t.note} for t in all_tables(measured)
        ],
        "figures": [inline_svg(path) for path in shown if not path.name.startswith("map-")],
        "maps": [inline_svg(path) for path in shown if path.name.startswith("map-")],
    }
