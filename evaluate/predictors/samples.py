"""The samples of ``sclmkb-eval csi``, read back: by artifact, pilot SNR and system."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sclmkb.common.artifacts.files import read_json
from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.errors import UserError
from sclmkb.evaluate.intervals import Array, Condition, to_db
from sclmkb.evaluate.predictors.ablations import Predictor, ablations, find_reference
from sclmkb.evaluate.predictors.run import CsiEvalSettings


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
        self.settings = CsiEvalSettings.model_validate(config["settings"])
        self.samples: pa.Table = pq.read_table(path)
        self.inputs: dict[str, str] = config["inputs"]
        self.artifacts = list(self.inputs)
        self.shapes = {name: CsiShape(**sizes) for name, sizes in config["shapes"].items()}
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
        return np.stack(list(self.of_seeds(artifact, snr_db, system, column).values()))

    def of_seeds(self, artifact: str, snr_db: float | None, system: str, column: str) -> dict[int, Array]:
        """Return a column of a system for each seed, ``[drops]`` or ``[drops, steps]``."""
        table = self.select(artifact, snr_db, system)
        seeds = table.column("seed").to_numpy()
        values = np.asarray(table.column(column).to_pylist(), dtype=np.float64)
        return {int(seed): values[seeds == seed] for seed in np.unique(seeds)}

    def condition(self, artifact: str, snr_db: float | None) -> Condition:
        """Return the ratios of all systems on one artifact at one SNR."""
        key = (artifact, snr_db)
        if key not in self._conditions:
            first = self.select(artifact, snr_db, self.systems[0]).to_pydict()
            clusters = [user or drop for user, drop in zip(first["user"], first["drop_id"], strict=True)]
            self._conditions[key] = Condition(
                {name: self.of_seeds(artifact, snr_db, name, "nmse") for name in self.systems},
                self.kinds,
                clusters=clusters,
                scale=to_db,
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

    def title(self, artifact: str) -> str:
        """Return scenario and speeds of an artifact, behind its name unless that is the scenario's."""
        table = self.select(artifact, self.shown_snr(artifact), self.systems[0])
        scenarios = sorted(set(table.column("scenario").to_pylist()))
        speeds = table.column("speed_kmh").to_pylist()
        low, high = min(speeds), max(speeds)
        shown = ", ".join(scenarios) if len(scenarios) <= 3 else f"{len(scenarios)} scenarios"
        speed = f"{low:.0f} km/h" if high - low < 1 else f"{low:.0f} to {high:.0f} km/h"
        return f"{shown}, {speed}" if shown == artifact else f"{artifact}: {shown}, {speed}"

    def caption(self, artifact: str) -> str:
        """Return what an artifact is, from its rows: scenario, speeds, sizes, number of drops."""
        table = self.select(artifact, self.shown_snr(artifact), self.systems[0])
        shape = self.shapes[artifact]
        antennas = f"{shape.num_rx // shape.num_subcarriers}×{shape.num_tx} antennas"
        wide = f", {shape.num_subcarriers} subcarriers" if shape.num_subcarriers > 1 else ""
        steps = f"{shape.num_history} → {shape.num_future} samples"
        return f"{self.title(artifact)}, {antennas}{wide}, {steps}, {len(table)} test drops"
