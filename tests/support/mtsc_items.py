"""Items of ``sclmkb-eval mtsc`` with made-up values, and checkpoints that say what a training took."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sclmkb.common.artifacts.files import write_json
from sclmkb.common.studies.cells import Record, Study
from sclmkb.evaluate.multitask.run import ITEMS

SNRS = (-12.0, -6.0, 0.0, 6.0, 12.0, 18.0)
MEASURES = {"answer": ("accuracy", "bleu1"), "reconstruct": ("psnr", "ms_ssim")}
MEASURES |= dict.fromkeys(("caption", "caption_video"), ("cider", "bleu4"))
USES = {"answer": 8, "caption": 16, "caption_video": 16, "reconstruct": 512}
Skill = Callable[[str, str, float], float]
"""From a system, a task and an SNR to the mean of its values."""


def skill(system: str, task: str, snr_db: float) -> float:
    """MTSC is above all and rises with SNR; the digital link is flat from 6 dB on, and 0 below 0 dB."""
    share = 1 / (1 + np.exp(-(snr_db + 9) / 6))
    digital = 0.8 if snr_db >= 6 else 0.5 * (snr_db >= 0)
    level = {"mtsc": 1.0, "random-lam": 0.8, "no-lam": 0.8, "digital": digital}.get(system, 0.6)
    scale = {"answer": 0.9, "caption": 0.8, "caption_video": 0.4, "reconstruct": 30.0}[task]
    return float(scale * level * (1.0 if system == "digital" else share))


def write_items(
    root: Path,
    systems: Mapping[str, Sequence[str]],
    samples: Mapping[str, Sequence[str]],
    mean_of: Skill = skill,
    seeds: Sequence[int] = (0,),
    snrs_db: Sequence[float] = SNRS,
) -> Path:
    """Write the items of one evaluation.

    Args:
        root: its folder.
        systems: tasks of each system.
        samples: row ids of each task.
        mean_of: mean of the values.
        seeds: of the systems.
        snrs_db: that were measured.
    """
    rows: list[dict[str, Any]] = []
    for system, tasks in systems.items():
        for task in tasks:
            for seed in seeds:
                for snr_db in snrs_db:
                    for inputs in ("own",) if system == "digital" else ("own", "shuffled"):
                        of = {"system": system, "seed": seed, "task": task, "channel": "awgn", "snr_db": snr_db}
                        rows += _rows(
                            of | {"inputs": inputs, "rate": "full", "uses": USES[task]}, samples[task], mean_of
                        )
    root.mkdir(parents=True, exist_ok=True)
    names = [name for name in ITEMS.names if name != "picture"]
    schema = pa.schema([*(ITEMS.field(name) for name in names), ("picture", pa.binary())])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), root / "items.parquet")
    shared = {"snrs_db": list(snrs_db), "channels": [{"kind": "awgn"}], "split": "test", "max_samples": 9, "seed": 0}
    write_json(root / "config.json", {"settings": shared})
    return root


def _rows(of: dict[str, Any], samples: Sequence[str], mean_of: Skill) -> list[dict[str, Any]]:
    task = of["task"]
    mean = mean_of(of["system"], task, of["snr_db"]) * (1.0 if of["inputs"] == "own" else 0.5)
    draw = np.random.default_rng(len(samples) + of["seed"])  # the same sway for all systems: differences are exact
    sway = draw.normal(0, 0.05, len(samples)) * (30 if task == "reconstruct" else 1)
    rows = []
    for measure in MEASURES[task]:
        for i, row_id in enumerate(samples):
            shown = task == "reconstruct" and measure == "psnr"
            rows.append(
                {**of, "row_id": row_id, "group": f"{task}-{i // 2}", "measure": measure, "value": mean + sway[i]}
                | {"output": "" if task == "reconstruct" else "red <b>", "picture": _png(i) if shown else None}
            )
    return rows


def _png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (20 * shade % 256, 90, 120)).save(file, "PNG")
    return file.getvalue()


def finish(study: Study, name: str) -> Path:
    """Say that a cell is done; return its folder."""
    cell = study.cells[name]
    cell.out.mkdir(parents=True, exist_ok=True)
    study.write_record(cell, Record(key=study.keys()[name], seconds=60.0, peak_gb=1.5, command=cell.line()))
    return cell.out


def write_training(root: Path, tasks: Sequence[str], num_steps: int = 100, seconds: float = 50.0) -> None:
    """Write what a checkpoint says of its training."""
    write_json(
        root / "config.json",
        {"settings": {"num_steps": num_steps, "tasks": list(tasks)}, "measured": {"seconds": seconds}},
    )
