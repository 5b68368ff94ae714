"""Small artifacts for tests: of random content, and CSI that is a sum of paths."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from media_files import as_png
from PIL import Image
from torch import Tensor

from sclmkb.common.artifacts import schemas
from sclmkb.common.artifacts.plan import Plan, Shard, make_row_id, make_shards
from sclmkb.common.artifacts.run_folder import Run

SPLITS = ("train", "val", "test")
NAN = float("nan")
NUM_DROPS, ANTENNAS = 12, 16


def write_artifact(root: Path, kind: str, parts: Sequence[tuple[Shard, Mapping[str, pa.Table]]]) -> Path:
    """Write an artifact of shards and their tables."""
    of_each = {name: table.schema for name, table in parts[0][1].items()}
    plan = Plan(kind=kind, tables=of_each, settings={}, shards=[shard for shard, _ in parts], inputs={})
    run = Run.open(root, plan)
    for shard, tables in parts:
        run.commit_shard(shard, tables, counts={"ok": len(shard.row_ids)})
    run.finish("Tiny", "Content for tests.")
    return root


def caption_row(row_id: str, text: str, identity: str = "", **more: Any) -> dict[str, Any]:
    """Return a row of a table of captions; without an identity the caption is of one of its own."""
    name = identity or row_id
    row = {"split": "train", "caption_index": 0, "wording": "label", "role": "caption"}
    return {"row_id": row_id, "identity": name, "group": name, **row, "text": text, **more}


def caption_table(row_ids: Sequence[str], text: str = "text", **more: Any) -> pa.Table:
    """Return captions that all have one text."""
    return pa.Table.from_pylist([caption_row(row_id, text, **more) for row_id in row_ids], schema=schemas.CAPTIONS)


def csi_table(ids: Sequence[str], split: str, columns: Mapping[str, Tensor], **more: Any) -> pa.Table:
    """Return a table of CSI.

    Args:
        ids: of the drops.
        split: the split.
        columns: ``history`` ``[N, T, Nr, Nt]`` with noise, ``clean_history`` and ``future``.
        more: other columns; one value is that of all drops.
    """
    (_, num_history, num_rx, num_tx), num_future = columns["history"].shape, columns["future"].shape[1]
    schema = schemas.csi_schema(num_history, num_future, num_rx, num_tx)
    row = {
        "scenario": "tiny", "speed_kmh": 30.0, "pilot_snr_db": 20.0, "carrier_hz": 3.5e9, "sample_period_s": 5e-4,
        "num_subcarriers": 1, "user": "", "x_m": NAN, "y_m": NAN,
    }  # fmt: skip
    return _table(schema, ids, {"split": split, **row, **more}, columns)


def _table(schema: pa.Schema, ids: Sequence[str], row: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> pa.Table:
    columns = {name: value if isinstance(value, list) else [value] * len(ids) for name, value in row.items()}
    arrays = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
    arrays["drop_id"] = pa.array(ids, pa.string())
    for name, tensor in tensors.items():
        arrays |= schemas.pack_complex(name, tensor)
    return pa.Table.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _shard(split: str, table: pa.Table) -> Shard:
    """Return the one shard of a split that has this table."""
    (shard,) = make_shards(split, [str(i) for i in range(len(table))], max(len(table), 1))
    return shard


def generator(seed: int) -> torch.Generator:
    """Return a generator for random content."""
    return torch.Generator().manual_seed(seed)


class TinyArtifacts:
    """Folders of artifacts with random content: 16×16 antennas, 4 history and 2 future samples."""

    def __init__(self, root: Path) -> None:
        self.root, self.corpus, self.sdg = root, root / "corpus", root / "sdg"
        self.csi, self.predicted = root / "csi", root / "predicted"

    def write_corpus(self, identities: int = 10) -> None:
        items, captions = [], []
        draw = np.random.default_rng(0)
        for split in SPLITS:
            for identity in (f"{split}-{i}" for i in range(identities)):
                color = draw.integers(0, 256, 3)
                for p in range(3):
                    pixels = np.clip(draw.integers(-40, 40, (16, 16, 3)) + color, 0, 255).astype(np.uint8)
                    media = {"bytes": as_png(Image.fromarray(pixels)), "path": f"{identity}-{p}.png"}
                    items.append(
                        {
                            "item_id": f"{identity}-{p}", "identity": identity, "group": identity, "split": split,
                            "source": f"artist {p}", "modality": "pictures", "media": media,
                        }
                    )  # fmt: skip
                for index, wording in enumerate(("label",) if split == "train" else ("label", "sentence")):
                    text = f"{wording} of color {color[0]} {color[1]} {color[2]}"
                    place = {"split": split, "caption_index": index, "wording": wording}
                    captions.append(caption_row(make_row_id("tiny", split, identity, index), text, identity, **place))
        self._write("corpus", {"items": (schemas.ITEMS, items), "captions": (schemas.CAPTIONS, captions)})

    def write_sdg(self) -> None:
        rows, attempts = [], []
        for i in range(10):
            row = {"row_id": make_row_id("tiny", "train", f"train-{i}", 0), "split": "train"}
            kept = [f"caption {k} of {i}" for k in range(i % 3)]
            rows.append(
                {
                    **row, "identity": f"train-{i}", "source_text": f"label {i}", "state": "ok" if kept else "rejected",
                    "num_attempts": 1, "num_samples": 2, "captions": kept, "similarities": [0.9] * len(kept),
                    "error": "",
                }
            )  # fmt: skip
            attempts.append(
                {
                    **row, "attempt": 0, "sample": 0, "retry": 0, "text": f"caption of {i}", "similarity": 0.9,
                    "margin": 0.1, "accepted": bool(kept), "reason": "" if kept else "similarity",
                    "finish_reason": "stop", "num_tokens": 5, "seed": i,
                }
            )  # fmt: skip
        self._write("sdg", {"rows": (schemas.SDG_ROWS, rows), "attempts": (schemas.SDG_ATTEMPTS, attempts)})

    def write_csi(self, nan_in: str | None = None) -> None:
        """Write a channel that turns by a constant phase from sample to sample; ``nan_in`` spoils one column."""
        parts = []
        for split in SPLITS:
            clean = self._channels(split)
            noise = torch.randn(clean[:, :4].shape, dtype=torch.complex64, generator=generator(1))
            columns = {"history": clean[:, :4] + 0.1 * noise, "clean_history": clean[:, :4], "future": clean[:, 4:]}
            if nan_in:
                columns[nan_in] = columns[nan_in].clone()
                columns[nan_in][0, 0, 0, 0] = torch.nan
            table = csi_table([f"{split}-drop-{i}" for i in range(NUM_DROPS)], split, columns)
            parts.append((_shard(split, table), {"csi": table}))
        write_artifact(self.csi, "csi", parts)

    def write_predicted(self, only: int | None = None) -> None:
        """Write the true future with a little noise, in another order; ``only`` so many drops."""
        schema = schemas.predicted_schema(2, ANTENNAS, ANTENNAS)
        figures = dict.fromkeys(("speed_kmh", "pilot_snr_db", "nmse", "nmse_persistence", "nmse_ar"), 0.5)
        parts = []
        for split in SPLITS:
            keep = list(reversed(range(NUM_DROPS)))[:only]
            future = self._channels(split)[keep, 4:]
            noise = torch.randn(future.shape, dtype=torch.complex64, generator=generator(2))
            row = {"split": split, "predictor": "tiny", **figures}
            ids = [f"{split}-drop-{i}" for i in keep]
            table = _table(schema, ids, row, {"predicted": future + 0.05 * noise})
            parts.append((_shard(split, table), {"predicted": table}))
        write_artifact(self.predicted, "predicted", parts)

    def write_all(self) -> None:
        self.write_corpus()
        self.write_sdg()
        self.write_csi()
        self.write_predicted()

    def _channels(self, split: str) -> Tensor:
        size, draw = (NUM_DROPS, 1, ANTENNAS, ANTENNAS), generator(SPLITS.index(split))
        h = torch.randn(size, dtype=torch.complex64, generator=draw)
        return h * torch.polar(torch.ones(6), 0.5 * torch.arange(6))[:, None, None]

    def _write(self, kind: str, tables: Mapping[str, tuple[pa.Schema, list[dict[str, Any]]]]) -> None:
        """Write rows, each of which says its split, as a shard for each split that there is; train if there is none."""
        (_, first), *_ = tables.values()
        parts = []
        for split in list(dict.fromkeys(row["split"] for row in first)) or ["train"]:
            of_split = {name: [row for row in rows if row["split"] == split] for name, (_, rows) in tables.items()}
            found = {name: pa.Table.from_pylist(rows, schema=tables[name][0]) for name, rows in of_split.items()}
            parts.append((_shard(split, next(iter(found.values()))), found))
        write_artifact(self.root / kind, kind, parts)


def path_channels(drops: int, samples: int, antennas: int, seed: int) -> Tensor:
    """Return channels of unit power that are sums of five paths, each with its own Doppler frequency."""
    draw, gains = generator(seed), torch.tensor([1.0, 0.5, 0.3, 0.2, 0.1])
    receive, transmit = (
        torch.randn(drops, len(gains), antennas, dtype=torch.complex64, generator=draw) for _ in range(2)
    )
    doppler = 0.3 * torch.cos(2 * torch.pi * torch.rand(drops, len(gains), generator=draw))
    turn = torch.polar(gains.expand(drops, samples, -1).contiguous(), doppler[:, None] * torch.arange(samples)[:, None])
    h = torch.einsum("btl,bli,blj->btij", turn, receive, transmit)
    return h / h.abs().square().mean((1, 2, 3), keepdim=True).sqrt()


def write_path_csi(
    root: Path, *, sizes: tuple[int, int, int] = (48, 12, 12), antennas: int = 4, num_history: int = 16,
    num_future: int = 4, shard_size: int = 25, nan_in: str | None = None, zero_in: str | None = None,
    num_subcarriers: int = 1, future_scale: float = 1.0, prefixes: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """Write CSI of :func:`path_channels`; ``nan_in`` and ``zero_in`` spoil the last drop, ``prefixes`` name drops."""
    parts = []
    for seed, (split, size) in enumerate(zip(SPLITS, sizes, strict=True)):
        h = path_channels(size, num_history + num_future, antennas, seed)
        snr_db = torch.tensor([10.0, 20.0]).repeat(size)[:size]
        clean, sigma = h[:, :num_history], torch.pow(10, -snr_db / 20)
        noise = torch.randn(clean.shape, dtype=torch.complex64, generator=generator(100 + seed))
        columns = {
            "history": clean + sigma[:, None, None, None] * noise,
            "clean_history": clean,
            "future": future_scale * h[:, num_history:],
        }
        if nan_in:
            columns[nan_in][size - 1, 0, 0, 0] = torch.nan
        if zero_in:
            columns[zero_in][size - 1] = 0
        ids = [f"{(prefixes or {}).get(split, split)}-{i}" for i in range(size)]
        for shard in make_shards(split, ids, shard_size):
            rows = [int(name.rpartition("-")[2]) for name in shard.row_ids]
            own = {"scenario": "paths", "pilot_snr_db": snr_db[rows].tolist(), "num_subcarriers": num_subcarriers}
            chosen = {name: values[rows] for name, values in columns.items()}
            parts.append((shard, {"csi": csi_table(list(shard.row_ids), split, chosen, **own)}))
    return write_artifact(root, "csi", parts)
