"""The evidence on CSI prediction: data, every predictor, ablations, the table and the map of a sector.

::

    train/SET ─► models/NAME/seed-N ─┐
    test/SET  ───────────────────────┴─► eval
"""

from fnmatch import fnmatch
from pathlib import Path

from pydantic import Field, PositiveInt

from sclmkb.common.config import Settings
from sclmkb.common.studies.cells import Planner, Study, sets
from sclmkb.evaluate.studies.base import OFFLINE, StudyKind, Where

PARTS = {
    "data": "CSI: sets to train and to test on",
    "cdg": "CDG, and the classical bars",
    "baselines": "Learned predictors",
    "ablations": "Ablations of CDG",
    "few": "100 drops to learn from, 200 steps",
    "eval": "NMSE of all of them, on every test set",
}
_BOTH = "scenario=[umi-los, umi-nlos]"
_TRAIN_SETS: dict[str, tuple[str, ...]] = {
    "mixed": (_BOTH, "speed_kmh=[3, 120]", "num_train=3000", "num_val=200", "num_test=25", "seed=1"),
    "fast": (_BOTH, "speed_kmh=[120, 300]", "num_train=1000", "num_val=50", "num_test=25", "seed=2"),
    "umi-los-30": ("scenario=umi-los", "speed_kmh=30", "num_train=1500", "num_val=100", "num_test=25", "seed=3"),
}
_FEW = (_BOTH, "speed_kmh=[3, 120]", "num_train=100", "num_val=100", "num_test=25", "seed=4100")
_TESTED = ("num_train=25", "num_val=25")
_TEST_SETS: dict[str, tuple[str, ...]] = {
    "umi-los-30": (*_TESTED, "num_test=300", "scenario=umi-los", "speed_kmh=30", "seed=11"),
    "uma-nlos-30": (*_TESTED, "num_test=300", "scenario=uma-nlos", "speed_kmh=30", "seed=12"),
    "umi-los-10-100": (*_TESTED, "num_test=300", "scenario=umi-los", "speed_kmh=[10, 100]", "seed=13"),
    "umi-nlos-30": (*_TESTED, "num_test=300", "scenario=umi-nlos", "speed_kmh=30", "seed=14"),
    "umi-nlos-10-100": (*_TESTED, "num_test=300", "scenario=umi-nlos", "speed_kmh=[10, 100]", "seed=15"),
    "uma-nlos-10-100": (*_TESTED, "num_test=300", "scenario=uma-nlos", "speed_kmh=[10, 100]", "seed=16"),
    # Cells that no predictor is trained for: speed, scenario, sampling.
    "uma-los-200": (*_TESTED, "num_test=100", "scenario=uma-los", "speed_kmh=200", "seed=21"),
    "umi-nlos-3": (*_TESTED, "num_test=100", "scenario=umi-nlos", "speed_kmh=3", "seed=22"),
    "uma-nlos-60-1ms": (
        *_TESTED, "num_test=100", "scenario=uma-nlos", "speed_kmh=60", "sample_period_s=0.001", "seed=23"
    ),
    # The map of a sector with 100 terminals (Fig. 11 of the paper), in both scenarios.
    "map-umi-los": ("scenario=umi-los", "speed_kmh=30", "users=100", "seed=31"),
    "map-uma-nlos": ("scenario=uma-nlos", "speed_kmh=30", "users=100", "seed=31"),
}  # fmt: skip
_CE_WEIGHTS = {f"ce-{weight}": f"model.ce_weight={weight}" for weight in ("0", "0.01", "1")}
_ABLATIONS = {
    "backbone-random": "model.backbone=random",
    "backbone-none": "model.backbone=none",
    "layers-8": "model.num_layers=8",
    "no-array": "model.array_weight=0",
    "head-direct": "model.head=direct",
    "no-cross-attention": "model.cross_attention=false",
    **_CE_WEIGHTS,
}
_FEW_ABLATIONS = {
    **{f"layers-{number}": f"model.num_layers={number}" for number in (1, 8, 30)},
    "head-direct": "model.head=direct",
    "no-cross-attention": "model.cross_attention=false",
    "no-array": "model.array_weight=0",
    **_CE_WEIGHTS,
}


class CsiStudySettings(Settings):
    """Settings of ``sclmkb-eval study csi``."""

    steps: PositiveInt = Field(default=900, description="optimiser steps of a training; those on few drops take 200")
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1, description="seeds of training the predictors")
    drops: PositiveInt | None = Field(
        default=None, description="drops of each test set that are measured; default: all. LLM4CP predicts 4 per second"
    )
    tests: str = Field(default="*", description="test sets that are measured, as a pattern such as `umi-*`")


class _Planner(Planner):
    def csi(self, name: str, settings: tuple[str, ...]) -> None:
        self.add(name, "sclmkb-gen", "csi", *sets(*settings), cores=0)

    def train(self, name: str, seed: int, steps: int, *words: str, data: tuple[str, ...] = ("mixed", "fast")) -> None:
        """Add a training on one core."""
        read = [word for one in data for word in ("--csi", self.out / "train" / one)]
        own = ["--seed", seed, *sets("threads=1", f"num_steps={steps}"), *words]
        self.add(f"models/{name}/seed-{seed}", "sclmkb-train", "cdg", *read, *own)


def plan_csi(settings: CsiStudySettings, where: Where) -> Study:
    """Return every command of the study."""
    planner, steps = _Planner(where.out), settings.steps
    planner.part = "data"
    for folder, data in (("train", _TRAIN_SETS), ("test", _TEST_SETS)):
        for name, own in data.items():
            planner.csi(f"{folder}/{name}", own)
    planner.part = "cdg"
    for seed in settings.seeds:
        planner.train("cdg", seed, steps)
    planner.train("lmmse", 0, steps, "--predictor", "lmmse")
    planner.train("global-lmmse", 0, steps, "--predictor", "global_lmmse")
    # The bar of a bank fitted to the very speed and scenario.
    fitted = ["--predictor", "lmmse", "--csi", where.out / "train" / "umi-los-30"]
    planner.add("models/lmmse-umi-los-30/seed-0", "sclmkb-train", "cdg", *fitted, cores=0)
    planner.part = "baselines"
    for seed in settings.seeds:
        for kind in ("gru", "transformer", "csi_llm", "llm4cp"):
            planner.train(kind, seed, steps, "--predictor", kind)
    planner.part = "ablations"
    for seed in settings.seeds:
        for name, change in _ABLATIONS.items():
            planner.train(name, seed, steps, *sets(change))
    planner.part = "few"
    _plan_few(planner, settings.seeds)
    planner.part = "eval"
    read = [word for name in _tested(settings.tests, where.out) for word in ("--csi", where.out / "test" / name)]
    how = sets("main_system=cdg", *([f"max_drops={settings.drops}"] if settings.drops else []))
    models = ["--checkpoints", where.out / "models"]
    planner.add("eval", "sclmkb-eval", "csi", *read, *models, *how, cores=0, again=True)
    return Study(
        name="csi", out=where.out, cells=planner.cells, parts=PARTS, environment=OFFLINE, side_by_side=2, shown=True
    )


def _plan_few(planner: _Planner, seeds: tuple[int, ...]) -> None:
    """Add what asks whether the language model's pre-training pays with few drops; and the ablations in minutes."""
    planner.csi("train/few", _FEW)
    for seed in seeds:
        planner.train("few/cdg", seed, 200, data=("few",))
        for backbone in ("random", "none"):
            change = f"model.backbone={backbone}"
            planner.train(f"few/backbone-{backbone}", seed, 200, *sets(change), data=("few",))
    for name, change in _FEW_ABLATIONS.items():
        planner.train(f"few/{name}", 0, 200, *sets(change), data=("few",))


def _tested(pattern: str, out: Path) -> list[str]:
    """Return the test sets that are measured: those of the study, and others that a user put beside them."""
    there = {path.name for path in (out / "test").glob("*") if ".old-" not in path.name}
    return sorted(name for name in {*_TEST_SETS, *there} if fnmatch(name, pattern))


STUDY = StudyKind(
    settings=CsiStudySettings,
    section="csi-study",
    folder=lambda _: Path("artifacts", "csi-study"),
    plan=plan_csi,
    ending="Tables and figures are in {out}/eval.",
)
