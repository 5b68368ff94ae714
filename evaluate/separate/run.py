"""``sclmkb-eval sscc``: measures SSCC under the conditions of a measurement of ``sclmkb-eval run``, and resumes.

::

    DIR/config.json           settings, fingerprints of the inputs, the codes, settings of every checkpoint
    DIR/work/…                measurements with one checkpoint: what a resumed run does not do again
    DIR/results.parquet, symbol_mse.parquet, queries.parquet    as those of sclmkb-eval run, with more columns
    DIR/tables.md             what is printed
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sclmkb.common.artifacts.files import read_json, write_json
from sclmkb.common.console import limit_threads, say
from sclmkb.common.errors import UserError
from sclmkb.common.models.transceiver import TransceiverSettings
from sclmkb.common.tasks.trained import TrainedSystem
from sclmkb.evaluate.measure.fairness import channel_of
from sclmkb.evaluate.measure.record import SHARED, read_measurement
from sclmkb.evaluate.measure.retrieval import read_rows, write_tables
from sclmkb.evaluate.measure.run import by_work_name, measure_missing, open_run
from sclmkb.evaluate.measure.settings import RunInputs
from sclmkb.evaluate.measure.systems import find_checkpoints, warn_of_other_inputs
from sclmkb.evaluate.separate.ldpc import has_sionna
from sclmkb.evaluate.separate.sscc import TABLES, SsccBench, SsccSettings
from sclmkb.evaluate.tables import Table

WHOLE = "all"
"""Name of the one part of a measurement: how texts are embedded together depends on the SNRs, in the last digits."""


def run_sscc(
    settings: SsccSettings, inputs: RunInputs, out: Path, *, compared: Path | None = None, new_run: bool = False
) -> Path:
    """Measure every scheme with each checkpoint that was trained without a link, or go on in ``out``.

    All checkpoints below a folder must send as many symbols per caption. ``compared`` is a folder of
    ``sclmkb-eval run`` whose conditions must be the same.

    Raises:
        UserError: if there is no checkpoint without a link, an input is missing or corrupt, no scheme fits, conditions
            differ from those of ``compared``, or ``out`` was measured with other settings or inputs.
    """
    limit_threads(settings.threads)
    if settings.modern_schemes and not has_sionna():  # what was measured is what config.json says
        say("eval: left out: the modern schemes, whose LDPC codes need Sionna: pip install sionna-no-rt")
        settings = settings.model_copy(update={"modern_schemes": ()})
    checkpoints = retrieving_checkpoints(inputs.checkpoints, settings.seeds)
    on_shards = settings.link.needs_csi
    opened = inputs.open(csi=on_shards, predicted=on_shards and settings.csi_source == "predicted")
    fingerprints = {name: artifact.fingerprint for name, artifact in opened.items()}
    shape = checkpoints[0].settings.model
    if compared is not None:
        check_conditions(settings, shape, fingerprints, compared)
    bench = SsccBench(settings, inputs, opened["corpus"], shape.num_streams, shape.num_uses)
    codes = {coder.scheme.name: coder.describe() for coder in bench.coders}
    open_run("sscc", settings.fingerprint_fields(), fingerprints, checkpoints, out, new_run, free=("seeds",))
    write_json(out / "config.json", {**read_json(out / "config.json"), "codes": codes})
    warn_of_other_inputs(checkpoints, {"corpus": fingerprints["corpus"]})
    measure_missing(
        lambda checkpoint, _, tick: [(WHOLE, bench.measure(checkpoint, tick))],
        by_work_name(checkpoints),
        {WHOLE: list(TABLES)},
        TABLES,
        out,
        bench.num_ticks,
    )
    return out


def retrieving_checkpoints(root: Path, seeds: Collection[int] | None = None) -> list[TrainedSystem]:
    """Return the checkpoints below a folder that were trained without a link, all seeds of one system.

    Raises:
        UserError: if there is none, they are of several systems, or a checkpoint there sends another number of symbols
            per caption.
    """
    everything = find_checkpoints(root, seeds)
    chosen = [c for c in everything if c.settings.link.channel == "none"]
    if not chosen:
        raise UserError(
            f"no checkpoint below {root} was trained without a link, and SSCC retrieves with such a one: train one"
            " with sclmkb-train jscc --system no-link --csi-source perfect --set link.channel=none"
        )
    names = sorted({c.settings.system for c in chosen})
    if len(names) > 1:
        raise UserError(f"several systems below {root} have no link: name one, e.g. --checkpoints {root}/{names[0]}")
    for checkpoint in everything:
        _check_shape(chosen[0].settings.model, checkpoint.settings.model, checkpoint.root)
    return chosen


def conditions_of(evaluation: Path) -> dict[str, Any]:
    """Return the settings that a measurement of ``sclmkb-eval run`` shares with one of SSCC: what to start from.

    Raises:
        UserError: if it is none, or its systems were measured on different links.
    """
    measured = read_measurement(evaluation, ["eval"])
    links = measured.links
    if any(channel_of(link) != channel_of(links[0]) for link in links):
        raise UserError(f"the systems in {evaluation} were measured on different links: name one with --set link.…")
    found = measured.sweep.model_dump(mode="json", include=set(SHARED))
    return found | ({"link": links[0].model_dump(mode="json")} if links else {})


def check_conditions(
    settings: SsccSettings, shape: TransceiverSettings, fingerprints: Mapping[str, str], evaluation: Path
) -> None:
    """Refuse what would compare SSCC with systems under other conditions.

    Raises:
        UserError: if SNRs, receivers, steps, seed, channel, power, corpus, CSI or the number of symbols differ.
    """
    measured = read_measurement(evaluation, ["eval"])
    differing = [name for name in SHARED if getattr(measured.sweep, name) != getattr(settings, name)]
    given = measured.inputs
    differing += [name for name in ("corpus", "csi") if given.get(name, "") != fingerprints.get(name, "")]
    differing += ["link"] * any(channel_of(link) != channel_of(settings.link) for link in measured.links)
    if differing:
        raise UserError(
            f"{evaluation} was measured under other conditions ({', '.join(differing)}): use those, or leave --eval out"
        )
    for trained in measured.systems:
        _check_shape(shape, trained.settings.model, trained.root)


def write_sscc_tables(root: Path, snr_db: float = 15.0) -> str:
    """Write ``tables.md`` with the measures and the failures of every scheme, and return it."""
    rows = [row for row in read_rows(root / "results.parquet") if row["wording"] == "same"]
    rows = [row for row in rows if row["seed"] == rows[0]["seed"] and row["receiver"] == rows[0]["receiver"]]
    codes = read_json(root / "config.json")["codes"]
    table = Table(
        title=f"Captions of the trained wording, receiver {rows[0]['receiver']}",
        columns=["system", "SNR [dB]", "scheme", "code", "overflow", "decoding failures", "delivered"],
        rows=[
            [row["system"], f"{row['snr_db']:g}", row["scheme"], codes[row["scheme"]]]
            + [f"{row[name]:.3f}" for name in ("overflow", "decoding_failures", "delivered")]
            for row in sorted(rows, key=lambda row: (row["system"], row["snr_db"]))
        ],
        note="Shares of all captions. Text that could not be corrected may arrive all the same: its parities were hit.",
    )
    return write_tables(root, snr_db, [table])


def _check_shape(own: TransceiverSettings, other: TransceiverSettings, folder: Path) -> None:
    def words(of: TransceiverSettings) -> str:
        return f"{of.num_streams} x {of.num_uses} symbols per caption, pilots at {of.dmrs_pilot_boost_db:+g} dB"

    if words(own) != words(other):
        raise UserError(
            f"{folder} sends {words(other)}; the system without a link {words(own)}: compare systems of one size"
        )
