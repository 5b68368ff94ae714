"""What the samples of ``sclmkb-eval csi`` say, as tables for the terminal, for Markdown and for the report."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sclmkb.evaluate.predictors.ablations import ablations
from sclmkb.evaluate.predictors.run import RESULTS
from sclmkb.evaluate.predictors.samples import Measured
from sclmkb.evaluate.tables import Table


def results_table(measured: Measured) -> pa.Table:
    """Return one row per predictor, seed, artifact and pilot SNR."""
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
        of: dict[str, list[list[str]]] = {"": []}  # for the predictor itself, then for each reference
        for system in measured.systems:
            of[""].append([condition.mean(system).text() for condition in conditions])
            for reference in measured.references():
                same = reference == system
                cells = ["" if same else c.difference(system, reference).text(signed=True) for c in conditions]
                of.setdefault(reference, []).append(cells)
        first = [
            [system, f"{len(conditions[0].values[system])}{'*' if conditions[0].lacks_seeds(system) else ''}"]
            for system in measured.systems
        ]
        groups = [list(of)] if len(snrs) <= _MOST_TOGETHER else [[name] for name in of]
        for group in groups:
            columns = [f"less {name}, {snr_name(v)}" if name else snr_name(v) for name in group for v in snrs]
            rows = [[*first[i], *(cell for name in group for cell in of[name][i])] for i in range(len(first))]
            tables.append(
                Table(
                    title=f"NMSE [dB]{f' less that of {group[0]}' if group[0] else ''}, {measured.caption(artifact)}",
                    columns=["system", "seeds", *columns],
                    rows=rows,
                    note=f"{_NOTE} {_language_models(measured)}".strip(),
                )
            )
    return tables


_MOST_TOGETHER = 3
"""Pilot SNRs that fit into one table with all differences."""


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
        own = [condition.mean(main.system).text() for condition in conditions]
        rows = [[f"{main.system} (reference)", "", str(len(conditions[0].values[main.system])), *own]]
        for names, other in others:
            if len(names) > _MOST_DIFFERENCES:
                continue
            changed = ", ".join(_setting(measured, name, other.settings.get(name)) for name in names)
            cells = [condition.difference(other.system, main.system).text(signed=True) for condition in conditions]
            rows.append([other.system, changed, str(len(conditions[0].values[other.system])), *cells])
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
                    "First row: NMSE [dB]. Others: NMSE minus that of the reference, on the same drops and on the seeds"
                    f" that both have; above 0 is worse than the reference; where the interval holds 0 nothing is"
                    f" claimed.{left}"
                ),
            )
        )
    return tables


_MOST_DIFFERENCES = 3


def snr_name(snr_db: float | None) -> str:
    """Return how a pilot SNR is called in tables."""
    return "as stored" if snr_db is None else f"{snr_db:g} dB"


def _setting(measured: Measured, name: str, value: Any) -> str:
    """Return a setting and its value; CSI that was trained on by its folder's name, if it was measured too."""
    if name.startswith("trained on"):
        folders = {fingerprint: folder for folder, fingerprint in measured.inputs.items()}
        value = folders.get(value, f"other CSI ({str(value)[:6]})" if value else "nothing")
    return f"{name.removeprefix('model.')}: {value}"


def _db(ratio: Any) -> float:
    return 10 * math.log10(max(float(ratio), 1e-30))
