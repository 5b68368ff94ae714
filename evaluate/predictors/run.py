"""``sclmkb-eval csi``: measures every predictor on the test split of every CSI artifact.

::

    DIR/config.json               settings, fingerprints of the inputs, settings of every predictor
    DIR/work/PREDICTOR-HASH/ARTIFACT-HASH-SNR.parquet   what a resumed run does not do again
    DIR/samples.parquet           one row per predictor, seed, artifact, pilot SNR and drop
    DIR/results.parquet, .csv     one row per predictor, seed, artifact and pilot SNR
    DIR/tables.md                 what is printed
    DIR/figures/                  NMSE over SNR, over steps, and the map

Every predictor meets the same drops and the same noise. The noise is drawn anew on the clean histories, from a seed of
the drop and the pilot SNR. So every drop counts at every SNR. Some artifacts keep no clean history, or a pilot pattern
or a quantiser shaped what they store. Their histories are taken as they are, and the pilot SNR is empty.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from sclmkb.common.artifacts.files import write_json, write_parquet
from sclmkb.common.artifacts.plan import plan_differences
from sclmkb.common.artifacts.run_folder import holds_run
from sclmkb.common.config import Settings, speed_only
from sclmkb.common.console import limit_threads, progress
from sclmkb.common.csi.sets import CsiSet, iter_csi, rows_not_finite
from sclmkb.common.csi.tensors import add_pilot_noise
from sclmkb.common.errors import UserError
from sclmkb.common.metrics import nmse
from sclmkb.common.models.csi.base import CsiPredictor, FittedPredictor, predict_in_batches
from sclmkb.common.precision import best_device
from sclmkb.common.seeds import make_generator
from sclmkb.evaluate.predictors.inputs import SPLIT, Candidate, Source, classical, find_candidates, open_sources
from sclmkb.evaluate.predictors.measures import beam_measures, link_nmse, step_nmse

SAMPLES = pa.schema(
    [
        ("system", pa.string()),
        ("kind", pa.string()),
        ("seed", pa.int64()),
        ("artifact", pa.string()),
        ("pilot_snr_db", pa.float64()),  # null: the noise as it was stored
        ("drop_id", pa.string()),
        ("scenario", pa.string()),
        ("speed_kmh", pa.float32()),
        ("user", pa.string()),
        ("x_m", pa.float32()),  # NaN where there is no place
        ("y_m", pa.float32()),
        ("nmse", pa.float64()),
        ("nmse_steps", pa.list_(pa.float64())),
        ("nmse_link", pa.float64()),  # NaN for narrowband CSI
        ("error_power", pa.float64()),
        ("power", pa.float64()),
        ("subspace", pa.float64()),
        ("efficiency", pa.float64()),
        ("efficiency_perfect", pa.float64()),
    ]
)

RESULTS = pa.schema(
    [
        ("system", pa.string()),
        ("kind", pa.string()),
        ("seed", pa.int64()),
        ("artifact", pa.string()),
        ("pilot_snr_db", pa.float64()),
        ("drops", pa.int64()),
        ("nmse_db", pa.float64()),  # of the mean of the per-drop ratios
        ("median_db", pa.float64()),
        ("ratio_of_sums_db", pa.float64()),
        ("step_db", pa.list_(pa.float64())),
        ("nmse_link", pa.float64()),  # linear
        ("subspace", pa.float64()),
        ("efficiency", pa.float64()),  # bit per channel use
        ("efficiency_share", pa.float64()),  # of perfect CSI
    ]
)


class CsiEvalSettings(Settings):
    """Settings of ``sclmkb-eval csi``."""

    pilot_snrs_db: tuple[float, ...] = Field(
        default=(10.0, 15.0, 20.0), min_length=1, description="pilot SNRs of the histories [dB]"
    )
    num_streams: PositiveInt = Field(
        default=4,
        description="streams k of subspace similarity and spectral efficiency, at most the number of antennas",
    )
    link_snr_db: float = Field(default=20.0, description="SNR of the spectral efficiency [dB], before array gain")
    max_subcarriers: PositiveInt = Field(
        default=16, description="number of evenly spaced subcarriers on which these two are measured"
    )
    max_drops: PositiveInt | None = Field(
        default=None, description="number of drops per test split, taken from the start; default: all"
    )
    ar_order: PositiveInt = Field(default=8, description="order of the AR predictor")
    seed: int = Field(default=0, description="seed of the noise")
    references: tuple[str, ...] = Field(
        default=("ar", "lmmse"), description="systems, or kinds of systems, that the others are compared with"
    )
    main_system: str | None = Field(
        default=None, description="system that ablations are compared with; default: the one with the most neighbours"
    )
    map_systems: tuple[str, ...] = Field(
        default=(), description="three systems of the map; default: those of Csi-LLM, LLM4CP and CDG that exist"
    )
    shown_snr_db: float | None = Field(
        default=None, description="pilot SNR of the map and of the curves over steps [dB]; default: the middle one"
    )
    benchmark: Literal["csi-4cast"] | None = Field(
        default=None, description="public benchmark whose published table is shown beside the results"
    )
    num_resamples: PositiveInt = Field(default=2000, description="resamples of the bootstrap")
    batch_size: int = speed_only(50, ge=1, description="drops per batch")
    threads: int | None = speed_only(None, description="CPU threads; default: all cores")

    def measuring(self) -> dict[str, Any]:
        """Return what decides a measurement; the rest decides which ones are made and shown."""
        names = {"num_streams", "link_snr_db", "max_subcarriers", "seed", "max_drops"}
        return self.model_dump(include=names, exclude_none=True)


def measure_csi(
    settings: CsiEvalSettings, csi: Sequence[Path], checkpoints: Path, out: Path, *, new_run: bool = False
) -> Path:
    """Measure every predictor below a folder, or go on with the measurement in ``out``.

    Raises:
        UserError: if there is no finished checkpoint, an artifact is missing, unfinished, corrupt or of another shape
            than a predictor was built for, or ``out`` was measured with other settings or inputs.
    """
    limit_threads(settings.threads)
    sources = open_sources(csi)
    candidates = [*classical(settings.ar_order), *find_candidates(checkpoints)]
    _open_run(settings, sources, candidates, out, new_run)
    parts = [
        (candidate, source, snr_db, _part(out, candidate, source, snr_db))
        for candidate in candidates
        for source in sources
        for snr_db in (settings.pilot_snrs_db if source.redraws else (None,))
    ]
    missing = [part for part in parts if not part[3].exists()]
    total, left = (sum(min(p[1].drops, settings.max_drops or p[1].drops) for p in some) for some in (parts, missing))
    with progress("eval: drops", total, total - left) as ticker:
        for (candidate, source), group in groupby(missing, key=lambda part: part[:2]):
            predictor = _to_device(candidate.load(source.shape, source.root))
            for *_, snr_db, path in group:
                tables = []
                for table in _measured_shards(settings, predictor, candidate, source, snr_db):
                    tables.append(table)
                    ticker.advance(len(table), candidate.system)
                write_parquet(path, pa.concat_tables(tables))
    samples = pa.concat_tables([pq.read_table(path, schema=SAMPLES) for *_, path in parts])
    write_parquet(out / "samples.parquet", samples)
    return out


def _measured_shards(
    settings: CsiEvalSettings, predictor: CsiPredictor, candidate: Candidate, source: Source, snr_db: float | None
) -> Iterator[pa.Table]:
    left = settings.max_drops or source.drops
    for _, shard in iter_csi(source.root, SPLIT):
        drops = shard.part(slice(0, left))
        left -= len(drops)
        if not len(drops):
            return
        history = drops.history if snr_db is None else noisy_history(drops, snr_db, settings.seed)
        try:
            num_future = drops.future.shape[1]
            predicted = predict_in_batches(predictor, history.to(best_device()), num_future, settings.batch_size).cpu()
        except ValueError as error:
            raise UserError(f"{candidate.system} cannot predict the CSI in {source.root}: {error}") from None
        if bad := rows_not_finite(predicted):
            which = f"drop {drops.drop_ids[bad[0]]} of {source.root}"
            raise UserError(f"{candidate.root or candidate.system} gives NaN for {which}")
        measured = _measure(settings, drops, predicted, source.shape.num_subcarriers)
        count = len(drops)
        constant = {
            "system": candidate.system,
            "kind": candidate.kind,
            "seed": candidate.seed,
            "artifact": source.name,
            "pilot_snr_db": snr_db,
        }
        columns: dict[str, Any] = {name: [value] * count for name, value in constant.items()}
        columns |= {"drop_id": drops.drop_ids, "scenario": drops.scenarios, "user": drops.users}
        columns |= {name: getattr(drops, name).tolist() for name in ("speed_kmh", "x_m", "y_m")}
        columns |= {name: values.double().tolist() for name, values in measured.items()}
        yield pa.table([pa.array(columns[f.name], f.type) for f in SAMPLES], schema=SAMPLES)


def _to_device(predictor: CsiPredictor) -> CsiPredictor:
    return predictor.to(best_device()) if isinstance(predictor, FittedPredictor) else predictor


def noisy_history(drops: CsiSet, snr_db: float, seed: int) -> Tensor:
    """Return the clean histories with pilot noise that follows from the seed, each drop's id and the SNR alone.

    The SNR holds for each drop's own power, whatever the scale of the artifact.
    """
    noisy = []
    for drop, clean in zip(drops.drop_ids, drops.clean_history, strict=True):
        power = clean.abs().square().mean()
        generator = make_generator(seed, "csi eval", drop, f"{snr_db:g}")
        level = torch.full((1,), snr_db) - 10 * power.clamp(min=1e-30).log10()
        noisy.append(add_pilot_noise(clean[None], level, generator))
    return torch.cat(noisy)


def _measure(settings: CsiEvalSettings, drops: CsiSet, predicted: Tensor, num_subcarriers: int) -> dict[str, Tensor]:
    parts = []
    for i in range(0, len(drops), settings.batch_size):
        truth, guess = drops.future[i : i + settings.batch_size], predicted[i : i + settings.batch_size]
        parts.append(
            {
                "nmse": nmse(truth, guess),
                "nmse_steps": step_nmse(truth, guess),
                "nmse_link": link_nmse(truth, guess, num_subcarriers),
                "error_power": (truth - guess).abs().square().flatten(1).sum(1),
                "power": truth.abs().square().flatten(1).sum(1),
                **beam_measures(
                    truth,
                    guess,
                    num_subcarriers=num_subcarriers,
                    num_streams=settings.num_streams,
                    link_snr_db=settings.link_snr_db,
                    max_subcarriers=settings.max_subcarriers,
                ),
            }
        )
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _part(out: Path, candidate: Candidate, source: Source, snr_db: float | None) -> Path:
    slug = "".join(c if c.isalnum() else "-" for c in candidate.system)
    condition = "stored" if snr_db is None else f"{snr_db:g}"
    folder = out / "work" / f"{slug}-{candidate.seed}-{candidate.digest}"
    return folder / f"{source.name}-{source.fingerprint[:8]}-{condition}.parquet"


def _open_run(
    settings: CsiEvalSettings, sources: Sequence[Source], candidates: Sequence[Candidate], out: Path, new_run: bool
) -> None:
    inputs = {source.name: source.fingerprint for source in sources}
    config = {
        "kind": "csi-eval",
        "measuring": settings.measuring(),
        "settings": settings.fingerprint_fields(),
        "inputs": inputs,
    }

    def differences(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
        there, now = ({"kind": p.get("kind"), "settings": p.get("measuring", {})} for p in (existing, wanted))
        return plan_differences(there, now)

    holds_run(out, "config.json", config, new_run=new_run, differences=differences)
    described = [
        {"system": c.system, "kind": c.kind, "seed": c.seed, "folder": str(c.root or ""), "settings": c.settings}
        for c in candidates
    ]
    shapes = {source.name: source.shape.to_dict() for source in sources}
    write_json(out / "config.json", {**config, "shapes": shapes, "predictors": described})
