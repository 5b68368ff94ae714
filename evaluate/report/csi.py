"""The sections of the report on CSI: what was predicted for the link, and how well each predictor does."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.evaluate.drawing.figures import bars
from sclmkb.evaluate.intervals import to_db
from sclmkb.evaluate.predictors.output import all_tables
from sclmkb.evaluate.predictors.samples import Measured
from sclmkb.evaluate.report.sdg import inline_svg
from sclmkb.evaluate.report.tables import page_table

Row = Mapping[str, Any]


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
        "tables": [page_table(table) for table in all_tables(measured)],
        "figures": [inline_svg(path) for path in shown if not path.name.startswith("map-")],
        "maps": [inline_svg(path) for path in shown if path.name.startswith("map-")],
    }


def predicted_section(predicted: Artifact) -> dict[str, Any]:
    """Return the error of predicted CSI over pilot SNR, beside AR(8) and the stale CSI."""
    rows = predicted.table(
        "predicted", "test", columns=["predictor", "pilot_snr_db", "speed_kmh", "nmse", "nmse_ar", "nmse_persistence"]
    ).to_pylist()
    bins: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        bins[5 * round(row["pilot_snr_db"] / 5)].append(row)
    series = {"stale (persistence)": "nmse_persistence", "AR(8)": "nmse_ar", rows[0]["predictor"].upper(): "nmse"}
    speeds = dict.fromkeys(f"{extreme(row['speed_kmh'] for row in rows):.0f}" for extreme in (min, max))
    return {
        "summary": (
            f"{len(rows)} test drops that no part was trained on, {' to '.join(speeds)} km/h. NMSE is"
            " 10 log10 of the mean of the per-sample ratios against the clean future; lower is better."
        ),
        "bars": bars(
            [f"{center} dB" for center in sorted(bins)],
            {
                name: [mean_db([row[column] for row in bins[center]]) for center in sorted(bins)]
                for name, column in series.items()
            },
            title="prediction error of the next 4 samples",
            x_label="pilot SNR (nearest 5 dB)",
            y_label="NMSE [dB]",
        ),
    }


def predicted_card(predicted: Artifact) -> dict[str, str]:
    """Return the error of predicted CSI in one line."""
    rows = predicted.table("predicted", "test", columns=["nmse", "nmse_ar", "nmse_persistence"]).to_pydict()
    label = f"test NMSE of CDG; AR(8) {mean_db(rows['nmse_ar']):.1f}, stale {mean_db(rows['nmse_persistence']):.1f}"
    return {"value": f"{mean_db(rows['nmse']):.1f} dB", "label": label}


def mean_db(ratios: Sequence[float]) -> float:
    """Return 10 log10 of the mean of per-sample ratios: never a mean of dB."""
    return float(to_db(fmean(ratios)))
