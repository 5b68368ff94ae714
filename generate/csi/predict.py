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
from sclmkb.common.csi.sets import CsiSet, csi_shard, rows_not_finite
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
    """Freeze the plan of a predicted CSI artifact; see :meth:`Run.open`.

    The predictor is loaded only when there are drops to predict; that it fits the CSI is checked before. The checkpoint
    is not read if the settings name another predictor.

    Raises:
        UserError: on bad CSI, a missing or unfitting checkpoint, or another run in ``out``, or none to join.
    """
    limit_threads(settings.threads)
    source = Artifact.open(csi, "csi")
    shape = csi_shard(source).shape
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

    load = functools.cache(lambda: _load_predictor(settings, checkpoint))

    def produce(pending: Sequence[Shard], session: Session) -> Generator[Made, None, None]:
        predictor = load()
        for shard in pending:
            table = _predict_shard(settings, predictor, shard, csi_shard(source, shard.name), plan.tables["predicted"])
            yield Made(shard=shard, tables={"predicted": table})

    return Work(name="cdg", run=run, produce=produce, finish=lambda: _finish(run, settings.ar_order), unit="drops")


def _finish(run: Run, ar_order: int) -> Artifact:
    """Write the card and print what came out."""
    made = Artifact.open(run.root, "predicted", verify=False)
    first = next(shard.name for shard in made.plan.shards if shard.row_ids)
    name = made.shard_table("predicted", first, ["predictor"])["predictor"][0].as_py()
    artifact = run.finish(
        "Predicted channel state information",
        f"Future CSI predicted by `{name}`, its NMSE beside persistence and AR({ar_order}).",
    )
    _say_nmse(artifact, name, ar_order)
    return artifact


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
    if bad := rows_not_finite(predicted[""]):
        which = f"drop {drops.drop_ids[bad[0]]} of shard {shard.name}"
        raise UserError(f"predictor '{predictor.name}' gives NaN for {which}: train it again")
    columns = {
        "drop_id": drops.drop_ids,
        "split": [shard.split] * len(drops),
        "predictor": [predictor.name] * len(drops),
        "speed_kmh": drops.speed_kmh.numpy(),
        "pilot_snr_db": drops.pilot_snr_db.numpy(),
        **pack_complex("predicted", predicted[""]),
        **{f"nmse{name}": nmse(drops.future, values).numpy() for name, values in predicted.items()},
    }
    return pa.table(columns, schema=schema)


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
