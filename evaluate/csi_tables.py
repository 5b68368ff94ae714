"""What the samples of ``sclmkb-eval csi`` say, as tables for the terminal, for Markdown and for the report."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sclmkb.common.artifacts import read_json
from sclmkb.common.errors import UserError
from sclmkb.evaluate.csi import RESULTS, CsiEvalSettings
from sclmkb.evaluate.csi_statistics import Array, Condition, Predictor, ablations, find_reference


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def to_markdown(self) -> str:
        """Return the table in Markdown, aligned for a terminal."""
        lines = [list(self.columns), *(list(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        drawn = [
            "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines
        ]
        drawn.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
        return "\n".join([f"### {self.title}", "", *drawn, *(["", self.note] if self.note else [])]) + "\n"


class Measured:
    """The samples in a folder of ``sclmkb-eval csi``, by artifact, pilot SNR and system.

    Raises:
        UserError: if the folder holds none.
    """

    def __init__(self, root: Path) -> None:
        path = root / "samples.parquet"
        if not path.exists():
            raise UserError(f"no samples.parquet in {root}: run sclmkb-eval csi with --out {root} first")
        config = read_json(root / "config.json")
        self.root, self.config = root, config
        self.settings = CsiEvalSettings.model_validate(config["settings"])
        self.samples: pa.Table = pq.read_table(path)
        self.artifacts = list(config["inputs"])
        predictors: dict[str, Predictor] = {}
        for entry in config["predictors"]:
            name = entry["system"]
            predictors.setdefault(name, Predictor(system=name, kind=entry["kind"], settings=entry["settings"]))
        self.predictors = predictors
        order = {"persistence": 0, "ar": 1, "global_lmmse": 2, "lmmse": 3, "cdg": 9}
        self.systems = sorted(predictors, key=lambda name: (order.get(predictors[name].kind, 5), name))
        self.kinds = {name: p.kind for name, p in predictors.items()}
        self._conditions: dict[tuple[str, float | None], Condition] = {}

    def snrs(self, artifact: str) -> list[float | None]:
        """Return the pilot SNRs of an artifact; None: the noise as stored."""
        return sorted(set(self.select(artifact).column("pilot_snr_db").to_pylist()), key=lambda v: (v is None, v))

    def shown_snr(self, artifact: str) -> float | None:
        """Return the pilot SNR of the details: as set, or the middle one."""
        snrs = self.snrs(artifact)
        wanted = self.settings.shown_snr_db
        return wanted if wanted in snrs else snrs[len(snrs) // 2]

    def select(self, artifact: str, snr_db: float | str | None = "all", system: str | None = None) -> pa.Table:
        """Return the samples of an artifact, at one SNR and of one system if they are named."""
        mask = pc.equal(self.samples.column("artifact"), artifact)
        if snr_db is None:
            mask = pc.and_(mask, pc.is_null(self.samples.column("pilot_snr_db")))
        elif snr_db != "all":
            at = pc.equal(self.samples.column("pilot_snr_db"), float(snr_db))
            mask = pc.and_(mask, pc.fill_null(at, False))
        if system is not None:
            mask = pc.and_(mask, pc.equal(self.samples.column("system"), system))
        return self.samples.filter(mask)

    def values(self, artifact: str, snr_db: float | None, system: str, column: str) -> Array:
        """Return a column of a system as ``[seeds, drops]``, or ``[seeds, drops, steps]``."""
        table = self.select(artifact, snr_db, system)
        seeds = np.asarray(table.column("seed").to_pylist())
        values = np.asarray(table.column(column).to_pylist(), dtype=np.float64)
        return np.stack([values[seeds == seed] for seed in np.unique(seeds)])

    def condition(self, artifact: str, snr_db: float | None) -> Condition:
        """Return the ratios of all systems on one artifact at one SNR."""
        key = (artifact, snr_db)
        if key not in self._conditions:
            first = self.select(artifact, snr_db, self.systems[0]).to_pydict()
            clusters = [user or drop for user, drop in zip(first["user"], first["drop_id"], strict=True)]
            self._conditions[key] = Condition(
                {name: self.values(artifact, snr_db, name, "nmse") for name in self.systems},
                self.kinds,
                clusters=clusters,
                num_resamples=self.settings.num_resamples,
                seed=self.settings.seed,
            )
        return self._conditions[key]

    def references(self) -> list[str]:
        """Return the systems that the others are compared with."""
        wanted = self.settings.references
        return [name for name in self.systems if name in wanted or self.kinds[name] in wanted]

    def main(self) -> Predictor | None:
        """Return the system that ablations are compared with.

        Raises:
            UserError: if the one that is set is not there.
        """
        wanted = self.settings.main_system
        if wanted is not None and wanted not in self.predictors:
            raise UserError(f"setting 'csi.main_system' = '{wanted}': there are {', '.join(self.systems)}")
        return self.predictors[wanted] if wanted else find_reference(list(self.predictors.values()))

    def compared(self) -> list[str]:
        """Return the systems without the ablations of the main one, for figures."""
        main = self.main()
        left_out = {p.system for names, p in ablations(list(self.predictors.values()), main)} if main else set()
        return [name for name in self.systems if name not in left_out]

    def caption(self, artifact: str) -> str:
        """Return what an artifact is, from its rows: scenario, speeds, sizes, number of drops."""
        table = self.select(artifact, self.shown_snr(artifact), self.systems[0])
        scenarios = sorted(set(table.column("scenario").to_pylist()))
        speeds = table.column("speed_kmh").to_pylist()
        low, high = min(speeds), max(speeds)
        shown = ", ".join(scenarios) if len(scenarios) <= 3 else f"{len(scenarios)} scenarios"
        speed = f"{low:.0f} km/h" if high - low < 1 else f"{low:.0f} to {high:.0f} km/h"
        sizes = self.config["shapes"][artifact]
        carriers = sizes["num_subcarriers"]
        rows = f"{sizes['num_rx'] // carriers}×{sizes['num_tx']} antennas"
        wide = f", {carriers} subcarriers" if carriers > 1 else ""
        steps = f"{sizes['num_history']} → {sizes['num_future']} samples"
        return f"{artifact}: {shown}, {speed}, {rows}{wide}, {steps}, {len(table)} test drops"


def results_table(measured: Measured) -> pa.Table:
    """Return one row a predictor, seed, artifact and pilot SNR."""
    rows: list[dict[str, Any]] = []
    for artifact in measured.artifacts:
        for snr_db in measured.snrs(artifact):
            for system in measured.systems:
                table = measured.select(artifact, snr_db, system)
                for seed in sorted(set(table.column("seed").to_pylist())):
                    part = table.filter(pc.equal(table.column("seed"), seed)).to_pydict()
                    base = {"system": system, "kind": measured.kinds[system], "seed": seed, "artifact": artifact}
                    rows.append({**base, "pilot_snr_db": snr_db, **_summary(part)})
    return pa.Table.from_pylist(rows, schema=RESULTS)


def csv_table(results: pa.Table) -> pa.Table:
    """Return the results with lists as JSON text, as CSV needs it."""
    index = results.column_names.index("step_db")
    text = [json.dumps([round(value, 4) for value in row]) for row in results.column("step_db").to_pylist()]
    return results.set_column(index, "step_db", pa.array(text))


def _summary(part: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {
        "drops": len(part["nmse"]),
        "nmse_db": _db(np.mean(part["nmse"])),
        "median_db": _db(np.median(part["nmse"])),
        "ratio_of_sums_db": _db(np.sum(part["error_power"]) / np.sum(part["power"])),
        "step_db": [_db(value) for value in np.mean(np.asarray(part["nmse_steps"]), 0)],
        "nmse_link": float(np.mean(part["nmse_link"])),
        "subspace": float(np.mean(part["subspace"])),
        "efficiency": float(np.mean(part["efficiency"])),
        "efficiency_share": float(np.sum(part["efficiency"]) / np.sum(part["efficiency_perfect"])),
    }


def nmse_tables(measured: Measured) -> list[Table]:
    """Return the mean NMSE of every predictor with its interval, and the differences to the references."""
    tables = []
    for artifact in measured.artifacts:
        snrs = measured.snrs(artifact)
        conditions = [measured.condition(artifact, snr_db) for snr_db in snrs]
        rows = []
        for system in measured.systems:
            cells = [str(condition.nmse(system)) for condition in conditions]
            for reference in measured.references():
                same = reference == system
                cells += ["" if same else _signed(c.difference(system, reference)) for c in conditions]
            seeds = str(len(conditions[0].ratios[system]))
            rows.append([system, seeds + ("*" if conditions[0].lacks_seeds(system) else ""), *cells])
        columns = ["system", "seeds", *(f"{snr_name(v)}" for v in snrs)]
        columns += [f"less {reference}, {snr_name(v)}" for reference in measured.references() for v in snrs]
        title = f"NMSE [dB], {measured.caption(artifact)}"
        tables.append(
            Table(title=title, columns=columns, rows=rows, note=f"{_NOTE} {_language_models(measured)}".strip())
        )
    return tables


def _language_models(measured: Measured) -> str:
    """Return which language model each predictor holds, LLM4CP's and Csi-LLM's stand-ins too."""
    names = []
    for system in measured.compared():
        settings = measured.predictors[system].settings
        if "model.language_model" in settings and settings.get("model.backbone") != "none":
            weights = "random weights of " if settings.get("model.backbone") == "random" else ""
            names.append(
                f"{system}: {settings['model.num_layers']} layers, {weights}{settings['model.language_model']}"
            )
    return f"Language models: {'; '.join(names)}." if names else ""


_NOTE = (
    "Mean per-sample NMSE in dB by pilot SNR ± half a 95 % interval: bootstrap over drops, and deviation between seeds"
    " pooled over a kind of predictor. 'less X': minus that of X on the same drops, paired; below 0 is better. *: no"
    " predictor of the kind has two seeds, so the interval is over drops alone."
)


def detail_tables(measured: Measured) -> list[Table]:
    """Return median, ratio of sums, NMSE of each step, subspace similarity and spectral efficiency."""
    tables = []
    for artifact in measured.artifacts:
        snr_db = measured.shown_snr(artifact)
        rows = []
        for system in measured.systems:
            part = measured.select(artifact, snr_db, system).to_pydict()
            found = _summary(part)
            cells = [f"{found[name]:.2f}" for name in ("nmse_db", "median_db", "ratio_of_sums_db")]
            cells += [f"{value:.2f}" for value in found["step_db"]]
            cells += [f"{found['subspace']:.4f}", f"{found['efficiency']:.2f}", f"{found['efficiency_share']:.2%}"]
            rows.append([system, *cells])
        steps = [f"step {i + 1}" for i in range(len(found["step_db"]))]
        settings = measured.settings
        tables.append(
            Table(
                title=f"At pilot SNR {snr_name(snr_db)}, {measured.caption(artifact)}",
                columns=["system", "mean", "median", "ratio of sums", *steps, "subspace", "bit/use", "of perfect CSI"],
                rows=rows,
                note=(
                    f"NMSE in dB. Subspace: ‖V_k^H V^_k‖²_F / k of the {settings.num_streams} strongest right singular"
                    " vectors of true and predicted CSI. Spectral efficiency: equal power on as many streams along"
                    f" those of the prediction, at {settings.link_snr_db:g} dB before array gain."
                ),
            )
        )
    return tables


def ablation_tables(measured: Measured) -> list[Table]:
    """Return what changes if one setting of the main system is another, as paired differences in dB."""
    main = measured.main()
    others = ablations(list(measured.predictors.values()), main) if main else []
    if main is None or not others:
        return []
    tables = []
    for artifact in measured.artifacts:
        snrs = measured.snrs(artifact)
        conditions = [measured.condition(artifact, snr_db) for snr_db in snrs]
        own = [str(condition.nmse(main.system)) for condition in conditions]
        rows = [[f"{main.system} (reference)", "", str(len(conditions[0].ratios[main.system])), *own]]
        for names, other in others:
            if len(names) > _MOST_DIFFERENCES:
                continue
            changed = ", ".join(f"{_short(name)}: {other.settings.get(name)}" for name in names)
            cells = [_signed(condition.difference(other.system, main.system)) for condition in conditions]
            rows.append([other.system, changed, str(len(conditions[0].ratios[other.system])), *cells])
        if left_out := [other.system for names, other in others if len(names) > _MOST_DIFFERENCES]:
            left = f" Left out, since they differ in more settings: {', '.join(left_out)}."
        else:
            left = ""
        tables.append(
            Table(
                title=f"Ablations of {main.system}, {measured.caption(artifact)}",
                columns=["system", "what differs", "seeds", *(snr_name(v) for v in snrs)],
                rows=rows,
                note=(
                    "First row: NMSE [dB]. Others: NMSE minus that of the reference, on the same drops; above 0 is"
                    f" worse than the reference; where the interval holds 0 nothing is claimed.{left}"
                ),
            )
        )
    return tables


_MOST_DIFFERENCES = 3


def snr_name(snr_db: float | None) -> str:
    """Return how a pilot SNR is called in tables."""
    return "as stored" if snr_db is None else f"{snr_db:g} dB"


def _short(name: str) -> str:
    return name.removeprefix("model.")


def _signed(interval: Any) -> str:
    return f"{interval.mean:+.2f} ± {interval.half_width:.2f}"


def _db(ratio: Any) -> float:
    return 10 * math.log10(max(float(ratio), 1e-30))
