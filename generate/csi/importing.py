"""CSI from files: windows of longer sequences become the same artifact that ``sclmkb-gen csi`` writes.

::

    sequence of a user [S, K, Nr, Nt] ─► windows of T+P samples ─► unit power ─┬─► history + pilot noise   [T, K·Nr, Nt]
                                         (all in the user's split)            ├─► clean history           [T, K·Nr, Nt]
                                                                              └─► future                  [P, K·Nr, Nt]

Splits are by user: windows of one user, which overlap or follow each other, never fall into two. As with simulated
drops, a window is divided by the root mean square of its clean history, and nothing of the future leaks into the scale.
"""

from collections.abc import Generator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from sclmkb.common.artifacts.files import sha256_file
from sclmkb.common.artifacts.plan import Plan, Shard, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import SPLITS, csi_schema
from sclmkb.common.config import Settings
from sclmkb.common.csi.sets import CsiSet, csi_to_table
from sclmkb.common.csi.tensors import add_pilot_noise, normalise_power
from sclmkb.common.errors import UserError
from sclmkb.common.executors.stage import Made, Session, Work
from sclmkb.common.seeds import derive_seed, make_generator
from sclmkb.generate.csi.layouts import CSI_LAYOUTS, Sequences
from sclmkb.generate.csi.settings import Range, several, uniform


class ImportSettings(Settings):
    """Settings of ``sclmkb-gen import-csi``."""

    num_history: int = Field(default=16, ge=1, description="noisy samples T that a predictor sees")
    num_future: int = Field(default=4, ge=1, description="clean samples P to predict")
    stride: int | None = Field(
        default=None,
        ge=1,
        description="samples between the starts of two windows of a sequence; default: T + P, so that windows do not "
        "overlap",
    )
    num_subcarriers: int | None = Field(
        default=None, ge=1, description="number of evenly spaced subcarriers to keep; 1: the middle one; default: all"
    )
    num_rx: int | None = Field(default=None, ge=1, description="receive antennas, where the file does not give them")
    num_tx: int | None = Field(default=None, ge=1, description="transmit antennas, where the file does not give them")
    val_share: float = Field(default=0.1, ge=0, lt=1, description="share of the users for validation")
    test_share: float = Field(
        default=0.1, ge=0, lt=1, description="share of the users for test, unless the files have a test split"
    )
    speed_kmh: Annotated[tuple[float, ...], BeforeValidator(several)] = Field(
        default=(), description="terminal speed [km/h] in place of the file's; for llm4cp also one value per speed"
    )
    carrier_hz: float | None = Field(default=None, gt=0, description="carrier frequency [Hz] in place of the file's")
    sample_period_s: float | None = Field(
        default=None, gt=0, description="time between samples [s] in place of the file's"
    )
    scenario: str | None = Field(default=None, description="name of the channel model in place of the file's")
    pilot_snr_db: Range = Field(
        default=(8.0, 22.0), description="range (least, most) of the pilot SNR [dB], drawn uniformly"
    )
    test_pilot_snr_db: tuple[float, ...] = Field(
        default=(), description="pilot SNRs [dB] that the test windows take in turn; empty: as the other splits"
    )
    seed: int = Field(default=0, description="seed of the noise and of the division of the users")
    shard_size: int = Field(default=100, ge=1, description="windows per shard")

    @model_validator(mode="after")
    def _something_to_train_on(self) -> "ImportSettings":
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share leave nothing to train on")
        return self

    @property
    def num_samples(self) -> int:
        """Samples of a window."""
        return self.num_history + self.num_future


def plan_import(
    settings: ImportSettings, layout: str, root: Path, out: Path, *, new_run: bool = False, join: bool = False
) -> Work:
    """Freeze the plan of a CSI artifact from a file, or a folder of files; see :meth:`Run.open`.

    Raises:
        UserError: if a file cannot be read, is of another layout, too short, real, not finite or zero, or does not say
            what no setting says either; if ``out`` holds another run, or none to join.
    """
    if layout not in CSI_LAYOUTS:
        raise UserError(f"unknown layout '{layout}': there are {', '.join(CSI_LAYOUTS)}")
    if not root.exists():
        raise UserError(f"no such file or folder: {root}")
    found = CSI_LAYOUTS[layout](root, settings.num_rx, settings.num_tx)
    facts = _facts(settings, found, root)
    _check(settings, found, root)
    kept = _subcarriers(settings, found)
    starts = range(0, found.num_samples - settings.num_samples + 1, settings.stride or settings.num_samples)
    windows = {
        f"{user}-{sequence:06d}-w{start:05d}": (sequence, start)
        for sequence, user in enumerate(found.users)
        for start in starts
    }
    split_of = _divide(settings, found)
    ids = {
        split: [name for name, (sequence, _) in windows.items() if split_of[found.users[sequence]] == split]
        for split in SPLITS
    }
    snr_of = dict(zip(ids["test"], cycle(settings.test_pilot_snr_db), strict=False))
    shards = [shard for split in SPLITS if ids[split] for shard in make_shards(split, ids[split], settings.shard_size)]
    num_rx = found.num_rx * len(kept)
    files = sorted(root.rglob("*.mat")) if root.is_dir() else [root]
    plan = Plan(
        kind="csi",
        tables={"csi": csi_schema(settings.num_history, settings.num_future, num_rx, found.num_tx)},
        settings={"layout": layout, **settings.fingerprint_fields()},
        shards=shards,
        inputs={str(file.relative_to(root)) or file.name: sha256_file(file) for file in files},
        versions=("torch",),
    )
    run = Run.open(out, plan, new_run=new_run, join=join)

    def produce(pending: Sequence[Shard], session: Session) -> Generator[Made, None, None]:
        for shard in pending:
            chosen = {name: windows[name] for name in shard.row_ids}
            drops = _make_drops(settings, found, facts, kept, chosen, snr_of)
            yield Made(shard=shard, tables={"csi": csi_to_table(drops, shard.split)})

    card = ("Channel state information", f"Windows of sequences in the layout {layout}, with pilot noise.")
    return Work(name="import-csi", run=run, produce=produce, finish=lambda: run.finish(*card), unit="windows")


def _make_drops(
    settings: ImportSettings,
    found: Sequences,
    facts: dict[str, Any],
    kept: Sequence[int],
    windows: Mapping[str, tuple[int, int]],
    snr_of: Mapping[str, float],
) -> CsiSet:
    """Cut windows (sequence and first sample) out; their pilot SNR is drawn unless ``snr_of`` gives it."""
    h = torch.stack([_window(settings, found, kept, sequence, start) for sequence, start in windows.values()])
    h, _ = normalise_power(h, settings.num_history)
    clean, future = h[:, : settings.num_history], h[:, settings.num_history :]
    snrs, noisy = [], []
    # One by one, so that the size of a shard changes nothing.
    for name, one in zip(windows, clean, strict=True):
        generator = make_generator(settings.seed, "import-csi", name)
        drawn = uniform(settings.pilot_snr_db, 1, generator)
        snrs.append(torch.tensor([snr_of[name]]) if name in snr_of else drawn)
        noisy.append(add_pilot_noise(one[None], snrs[-1], generator))
    size, sequences = len(windows), [sequence for sequence, _ in windows.values()]
    places = torch.full((size, 2), torch.nan)
    if found.places is not None:
        places = torch.from_numpy(np.asarray(found.places)[sequences].astype(np.float32))
    return CsiSet(
        drop_ids=list(windows),
        scenarios=[facts["scenario"]] * size,
        users=[found.users[sequence] for sequence in sequences],
        num_subcarriers=len(kept),
        history=torch.cat(noisy),
        clean_history=clean.contiguous(),
        future=future.contiguous(),
        speed_kmh=torch.from_numpy(facts["speed_kmh"][sequences].astype(np.float32)),
        pilot_snr_db=torch.cat(snrs),
        carrier_hz=torch.full((size,), facts["carrier_hz"], dtype=torch.float64),
        sample_period_s=torch.full((size,), facts["sample_period_s"], dtype=torch.float64),
        x_m=places[:, 0].contiguous(),
        y_m=places[:, 1].contiguous(),
    )


def _window(settings: ImportSettings, found: Sequences, kept: Sequence[int], sequence: int, start: int) -> Tensor:
    """Return one window ``[T + P, K · Nr, Nt]``."""
    samples = found.read(sequence)[start : start + settings.num_samples][:, kept]
    return torch.from_numpy(np.ascontiguousarray(samples, dtype=np.complex64)).flatten(1, 2)


def _check(settings: ImportSettings, found: Sequences, root: Path) -> None:
    """Refuse sequences that are too short, not finite or zero, before anything is written."""
    if found.num_samples < settings.num_samples:
        raise UserError(
            f"the sequences of {root} have {found.num_samples} samples, {settings.num_samples} are needed:"
            " --set num_history=… --set num_future=…"
        )
    if not found.users:
        raise UserError(f"{root} holds no sequences")
    for i, user in enumerate(found.users):
        power = np.square(np.abs(found.read(i))).mean((1, 2, 3))
        if not np.isfinite(power).all():
            raise UserError(f"{root}: sample {int((~np.isfinite(power)).argmax())} of {user} is NaN or infinite")
        if not power.all():
            raise UserError(f"{root}: sample {int((power == 0).argmax())} of {user} is zero everywhere")


def _facts(settings: ImportSettings, found: Sequences, root: Path) -> dict[str, Any]:
    """Return what is known of the sequences, from the settings first."""
    facts: dict[str, Any] = {}
    for name in ("carrier_hz", "sample_period_s", "scenario"):
        chosen = getattr(settings, name)
        facts[name] = found.facts.get(name) if chosen is None else chosen
        if facts[name] is None:
            raise UserError(f"{root} does not say {name}: --set {name}=…")
    speeds, size = settings.speed_kmh, len(found.users)
    if len(speeds) == 1:
        facts["speed_kmh"] = np.full(size, speeds[0])
    elif found.speed_kmh is None:
        raise UserError(f"{root} does not say the speed: --set speed_kmh=…")
    else:
        facts["speed_kmh"] = np.asarray(found.speed_kmh, dtype=np.float64)
        if speeds:
            grid = np.unique(facts["speed_kmh"])
            if len(grid) != len(speeds):
                raise UserError(f"{root} has {len(grid)} speeds, not {len(speeds)}: --set 'speed_kmh=[…]'")
            facts["speed_kmh"] = np.asarray(speeds)[np.searchsorted(grid, facts["speed_kmh"])]
    return facts


def _subcarriers(settings: ImportSettings, found: Sequences) -> list[int]:
    count, there = settings.num_subcarriers or found.num_subcarriers, found.num_subcarriers
    if count > there:
        raise UserError(f"there are {there} subcarriers, not {count}: --set num_subcarriers=…")
    return [int((2 * i + 1) * there / (2 * count)) for i in range(count)]


def _divide(settings: ImportSettings, found: Sequences) -> dict[str, str]:
    """Return the split of each user: as the files say, else by a hash of the user's name."""
    given = dict(zip(found.users, found.splits, strict=True)) if found.splits else {}
    users = sorted({user for user in found.users if given.get(user, "train") == "train"})
    users.sort(key=lambda user: derive_seed(settings.seed, "import-csi", "split", user))
    shares = {"val": settings.val_share, "test": 0.0 if given else settings.test_share}
    split_of, taken = dict(given), 0
    for split, share in shares.items():
        count = max(1, round(share * len(users))) if share else 0
        split_of |= dict.fromkeys(users[taken : taken + count], split)
        taken += count
    split_of |= dict.fromkeys(users[taken:], "train")
    if taken >= len(users):
        raise UserError(f"{len(users)} users are too few for {', '.join(s for s in SPLITS if shares.get(s, 1))}")
    return split_of
