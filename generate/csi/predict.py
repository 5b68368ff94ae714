"""Predicted CSI: a fitted predictor, or one that needs no fitting, applied to every drop of a CSI artifact.

::

    shard of CSI ─► history ─► predictor ─► predicted future, NMSE beside persistence and AR ─► shard of predicted CSI

Every split is predicted unless told otherwise, the training split too: the transceiver trains through predicted CSI.
Shards are read, predicted and written one at a time, so memory does not grow with the number of drops.
"""

import functools
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import torch
from pydantic import Field

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.checkpoints import load_checkpoint
from sclmkb.common.artifacts.files import sha256_file
from sclmkb.common.artifacts.plan import Plan, Shard
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import pack_complex, predicted_schema
from sclmkb.common.config import Settings, speed_only
from sclmkb.common.console import limit_threads, say
from sclmkb.common.csi.tensors import CsiSet, csi_from_table, finite_rows
from sclmkb.common.errors import UserError
from sclmkb.common.executors.stage import Made, Session, Work
from sclmkb.common.metrics import mean_nmse_db, nmse, nmse_by_snr_db
from sclmkb.common.models.csi.ar import AutoRegression
from sclmkb.common.models.csi.base import CsiPredictor, predict_in_batches
from sclmkb.common.models.csi.persistence import Persistence
from sclmkb.common.models.csi.zoo import check_shape, load_predictor
from sclmkb.common.precision import best_device


class PredictSettings(Settings):
    """Settings of ``sclmkb-gen cdg``."""

    predictor: Literal["checkpoint", "persistence", "ar"] = Field(
        default="checkpoint", description="checkpoint: the trained predictor; persistence and ar need no training"
    )
    ar_order: int = Field(
        default=8, ge=1, description="order of the AR predictor, which also gives a column beside each prediction"
    )
    splits: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="splits to predict; default: all, which a transceiver needs that trains on predicted CSI",
    )
    batch_size: int = Field(
        default=50, ge=1, description="drops per batch; part of the fingerprint, since rounding depends on it"
    )
    threads: int | None = speed_only(None, description="CPU threads; default: all cores")


def plan_predicted(
    settings: PredictSettings,
    csi: Path,
    checkpoint: Path | None,
    out: Path,
    *,
    new_run: bool = False,
    join: bool = False,
) -> Work:
    """Freeze the plan of a predicted CSI artifact, or go back to the one that is there.

    The predictor is loaded only when there are drops to predict; that it fits the CSI is checked before.

    Args:
        settings: which predictor.
        csi: CSI artifact.
        checkpoint: of any fitted predictor (``sclmkb-train cdg``); not read if the settings name another predictor.
        out: folder of the artifact.
        new_run: set a run with other settings aside.
        join: never start a run.

    Raises:
        UserError: on bad CSI, a missing or unfitting checkpoint, or another run in ``out``, or none to join.
    """
    limit_threads(settings.threads)
    source = Artifact.open(csi, "csi")
    shape = csi_from_table(source.shard_table("csi", source.plan.shards[0].name), f"{csi}").shape
    least = settings.ar_order + shape.num_future
    if shape.num_history < least:
        raise UserError(
            f"AR({settings.ar_order}) needs {least} history samples, the CSI in {csi} has {shape.num_history}:"
            " --set ar_order=…"
        )
    inputs = {"csi": source.fingerprint}
    if settings.predictor == "checkpoint":
        if checkpoint is None:
            raise UserError("prediction needs --checkpoint, a folder that sclmkb-train cdg wrote, or --predictor ar")
        check_shape(load_checkpoint(checkpoint, "cdg"), shape, csi)
        inputs["checkpoint"] = sha256_file(checkpoint / "model.safetensors")
    plan = Plan(
        kind="predicted",
        tables={"predicted": predicted_schema(shape.num_future, shape.num_rx, shape.num_tx)},
        settings=settings.fingerprint_fields(),
        shards=_shards(source, settings.splits),
        inputs=inputs,
        versions=("torch",),
    )
    run = Run.open(out, plan, new_run=new_run, join=join)

    @functools.cache
    def load() -> CsiPredictor:
        return _load_predictor(settings, checkpoint)

    def produce(pending: Sequence[Shard], session: Session) -> Generator[Made, None, None]:
        predictor = load()
        for shard in pending:
            drops = csi_from_table(source.shard_table("csi", shard.name), f"shard {shard.name} of {csi}")
            table = _predict_shard(settings, predictor, shard, drops, plan.tables["predicted"])
            yield Made(shard=shard, tables={"predicted": table})

    return Work(name="cdg", run=run, produce=produce, finish=lambda: _finish(run, settings.ar_order), unit="drops")


def _finish(run: Run, ar_order: int) -> Artifact:
    """Write the card and print what came out."""
    name = _name_of_predictor(Artifact.open(run.root, "predicted", verify=False))
    artifact = run.finish(
        "Predicted channel state information",
        f"Future CSI predicted by `{name}`, its NMSE beside persistence and AR({ar_order}).",
    )
    _say_nmse(artifact, name, ar_order)
    return artifact


def _name_of_predictor(artifact: Artifact) -> str:
    """Return the predictor of the first drop, which is that of the whole run."""
    first = next(shard.name for shard in artifact.plan.shards if shard.row_ids)
    name: str = artifact.shard_table("predicted", first, ["predictor"])["predictor"][0].as_py()
    return name


def _shards(source: Artifact, splits: tuple[str, ...] | None) -> list[Shard]:
    """Return the shards to predict."""
    if missing := sorted(set(splits or ()) - set(source.splits)):
        raise UserError(f"{source.root} has no split '{missing[0]}', only {', '.join(source.splits)}")
    return [shard for shard in source.plan.shards if splits is None or shard.split in splits]


def _load_predictor(settings: PredictSettings, checkpoint: Path | None) -> CsiPredictor:
    if settings.predictor == "ar":
        return AutoRegression(settings.ar_order)
    if settings.predictor == "persistence" or checkpoint is None:
        return Persistence()
    model, _ = load_predictor(checkpoint)
    return model.to(best_device())


def _predict_shard(
    settings: PredictSettings, predictor: CsiPredictor, shard: Shard, drops: CsiSet, schema: pa.Schema
) -> pa.Table:
    num_future, history = drops.future.shape[1], drops.history.to(best_device())
    wanted = {"": predictor, "_persistence": Persistence(), "_ar": AutoRegression(settings.ar_order)}
    predicted = {
        name: predict_in_batches(p, history, num_future, settings.batch_size).cpu() for name, p in wanted.items()
    }
    finite = finite_rows(predicted[""])
    if not finite.all():
        bad = drops.drop_ids[int((~finite).nonzero()[0])]
        raise UserError(f"predictor '{predictor.name}' gives NaN for drop {bad} of shard {shard.name}: train it again")
    arrays: dict[str, pa.Array] = {
        "drop_id": pa.array(drops.drop_ids),
        "split": pa.array([shard.split] * len(drops)),
        "predictor": pa.array([predictor.name] * len(drops)),
        "speed_kmh": pa.array(drops.speed_kmh.numpy(), pa.float32()),
        "pilot_snr_db": pa.array(drops.pilot_snr_db.numpy(), pa.float32()),
        **pack_complex("predicted", predicted[""]),
    }
    for name, values in predicted.items():
        arrays[f"nmse{name}"] = pa.array(nmse(drops.future, values).numpy(), pa.float32())
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def _say_nmse(artifact: Artifact, predictor: str, ar_order: int) -> None:
    """Print the test split's mean per-sample NMSE in dB beside persistence and AR, in all and by pilot SNR."""
    split = "test" if "test" in artifact.splits else artifact.splits[-1]
    table = artifact.table("predicted", split, ["pilot_snr_db", "nmse", "nmse_persistence", "nmse_ar"])
    columns = {name: torch.tensor(table.column(name).to_pylist()) for name in table.column_names}
    snr_db = columns.pop("pilot_snr_db")
    names = [predictor, "persistence", f"AR({ar_order})"]
    say(f"NMSE in dB, {split} split, {len(snr_db)} drops: {' / '.join(names)}")
    rows = {"all": [mean_nmse_db(values) for values in columns.values()]}
    for values in columns.values():
        for key, (_, value) in nmse_by_snr_db(values, snr_db).items():
            rows.setdefault(f"pilot SNR {key}", []).append(value)
    for key, row in rows.items():
        say(f"  {key}: {' / '.join(f'{value:.2f}' for value in row)}")
