"""Untrained checkpoints, measurements whose numbers are made up, and what their tables say."""

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sclmkb.common.artifacts.checkpoints import save_checkpoint
from sclmkb.common.artifacts.files import write_json
from sclmkb.common.models.encoders.audio_cnn import AudioCnnSettings
from sclmkb.common.models.encoders.base import MediaEncoderSettings
from sclmkb.common.models.encoders.image_cnn import CnnSettings
from sclmkb.common.models.encoders.motion import MotionTransformerSettings
from sclmkb.common.models.encoders.text import TextSettings
from sclmkb.common.models.transceiver import TransceiverSettings, build_transceiver
from sclmkb.common.tasks.retrieval import RETRIEVAL
from sclmkb.common.tasks.retrieval_corpus import SAME_WORDING
from sclmkb.evaluate.measure.schemas import as_table, tables_of
from sclmkb.evaluate.measure.settings import RunInputs

PARENTS = [-1, 0, 1, 1]
"""Of the joints of motion."""
ENCODERS: dict[str, MediaEncoderSettings] = {
    "pictures": CnnSettings(size=16, widths=(8, 8)),
    "motion": MotionTransformerSettings(num_frames=12, frames_per_second=None, width=16, num_layers=1, num_heads=2),
    "audio": AudioCnnSettings(sample_rate=4000, seconds=0.5, num_mels=16, widths=(8, 8)),
}
INPUTS = {"corpus": "c0", "csi": "h0"}
TABLES = tables_of(RETRIEVAL)


def transceiver(kind: str = "pictures", num_uses: int = 4) -> TransceiverSettings:
    return TransceiverSettings(
        num_streams=2, num_uses=num_uses, hidden_width=32, embedding_width=16, media=ENCODERS[kind]
    )


def save_jscc(
    root: Path,
    system: str = "sc-lmkb",
    seed: int = 0,
    csi_source: str = "perfect",
    kind: str = "pictures",
    num_uses: int = 4,
    **other: Any,
) -> Path:
    """Save an untrained transceiver as ``sclmkb-train jscc`` saves a trained one."""
    folder, model = root / "jscc" / system / f"seed-{seed}", transceiver(kind, num_uses)
    torch.manual_seed(seed)
    settings = {"system": system, "seed": seed, "csi_source": csi_source, "with_sdg": True, "fusion": "mixed"}
    settings |= {"text": {"name": "minilm"}, "link": {}, "model": model.model_dump(mode="json")} | other
    write_json(folder / "plan.json", {"kind": "jscc", "settings": settings})
    tensors = build_transceiver(model, TextSettings(), (0, 3 * len(PARENTS))).state_dict()
    save_checkpoint(folder, kind="jscc", settings=settings, tensors=tensors)
    return folder


def inputs(tiny: Any, root: Path) -> RunInputs:
    """Return the checkpoints below a folder, with tiny artifacts."""
    return RunInputs(checkpoints=root / "jscc", corpus=tiny.corpus, csi=tiny.csi, predicted=tiny.predicted)


def table_rows(out: Path, table: str = "results", **wanted: Any) -> list[dict[str, Any]]:
    """Return the rows of a table that have certain values."""
    rows: list[dict[str, Any]] = pq.read_table(out / f"{table}.parquet").to_pylist()
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def rewrite(root: Path, table: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Give each row of a table other values, or leave it out where there are none."""
    rows = [row | new for row in table_rows(root, table) if (new := change(row)) is not None]
    pq.write_table(pa.Table.from_pylist(rows), root / f"{table}.parquet")


def write_config(
    root: Path,
    trained: Iterable[Mapping[str, Any]],
    *,
    kind: str = "eval",
    settings: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] = INPUTS,
    trained_on: Mapping[str, str] = INPUTS,
) -> Path:
    """Write what a measurement of systems with these settings of training says of itself."""
    checkpoints = [
        {"folder": f"jscc/{one['system']}/seed-{one['seed']}", "settings": dict(one), "inputs": dict(trained_on)}
        for one in trained
    ]
    config = {"kind": kind, "settings": {"seed": 0, **(settings or {})}, "inputs": inputs, "checkpoints": checkpoints}
    write_json(root / "config.json", config)
    return root


def write_measurement(
    root: Path,
    systems: Iterable[str],
    ap: Callable[[dict[str, Any]], Any],
    rank: Callable[[np.ndarray], Any] = np.ones_like,
    *,
    seeds: Iterable[int] = (0, 1),
    snrs_db: Iterable[float] = (15.0,),
    receivers: Iterable[str] = ("literal",),
    wordings: Iterable[str] = (SAME_WORDING,),
    sources: Mapping[str, str] | None = None,
    trained: Mapping[str, Any] | None = None,
    **config: Any,
) -> Path:
    """Write a measurement whose queries have made-up average precisions.

    ``ap`` returns those of all queries of a system, seed, receiver, SNR and wording; ``rank`` makes best ranks of
    them. ``sources`` is the CSI of each system at the transmitter, by default predicted.
    """
    results, queries, errors = [], [], []
    pairs = list(product(systems, seeds))
    for (system, seed), snr_db, receiver in product(pairs, snrs_db, receivers):
        at = {"system": system, "seed": seed, "receiver": receiver, "snr_db": snr_db}
        at |= {"csi_source": (sources or {}).get(system, "predicted"), "sdg": "sdg" not in system, "fusion": "mixed"}
        for wording in wordings:
            own = np.asarray(ap({**at, "wording": wording}), dtype=float)
            scores = {"ap": own, "rank": np.asarray(rank(own), dtype=int)}
            called = "same" if wording == SAME_WORDING else "changed"
            results.append({**at, "wording": called, "queries": len(own), **RETRIEVAL.summarise(scores)})
            of = {name: [value] * len(own) for name, value in {**at, "wording": wording}.items()}
            ids = {"row_id": [f"{wording}/{i:03}" for i in range(len(own))], "identity": range(len(own))}
            queries.append(as_table({**of, **ids, **scores}, TABLES["queries"]))
        errors.append({**at, "symbol_mse": 0.1, "spectral_efficiency": 1.0})
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(as_table(results, TABLES["results"]), root / "results.parquet")
    pq.write_table(pa.concat_tables(queries), root / "queries.parquet")
    pq.write_table(as_table(errors, TABLES["symbol_mse"]), root / "symbol_mse.parquet")
    settings = [{"system": system, "seed": seed, **(trained or {})} for system, seed in pairs]
    return write_config(root, settings, **config)
