"""Small corpora of pictures with questions about their colour, and of pictures without texts."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from sclmkb.common.artifacts import schemas
from sclmkb.common.artifacts.plan import Plan, Shard, make_row_id
from sclmkb.common.artifacts.run_folder import Run

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
SIZES = {"train": 48, "val": 12, "test": 12}


def write_questions(root: Path, sizes: dict[str, int] = SIZES) -> Path:
    """Pictures of one colour, each with the questions what colour it is and whether it is red."""
    items, texts = [], []
    for split, count in sizes.items():
        for i in range(count):
            name = list(COLOURS)[i % len(COLOURS)]
            of = {"identity": f"{split}-{i}", "group": f"{split}-{i}", "split": split}
            items.append({**of, **_picture(f"{split}-{i}", COLOURS[name], i)})
            words = ["what color is this?", name, "is it red?", "yes" if name == "red" else "no"]
            for index, text in enumerate(words):
                role = "answer" if index % 2 else "question"
                texts.append({**of, "row_id": make_row_id("toy", split, f"{split}-{i}", index), "caption_index": index,
                              "wording": "caption", "role": role, "text": text})  # fmt: skip
    return _write(root, items, texts)


def write_pictures(root: Path, sizes: dict[str, int] = SIZES) -> Path:
    """Pictures of slowly changing colours, without texts."""
    items = []
    for split, count in sizes.items():
        for i in range(count):
            of = {"identity": f"{split}-{i}", "group": f"{split}-{i}", "split": split}
            colour = tuple(int(c) for c in np.random.default_rng(i).integers(0, 256, 3))
            items.append({**of, **_picture(f"{split}-{i}", colour, i)})
    return _write(root, items, [])


def _picture(name: str, colour: tuple[int, ...], seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    pixels = np.clip(np.array(colour) + draw.integers(-20, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    media = {"bytes": file.getvalue(), "path": f"{name}.png"}
    return {"item_id": name, "source": "toy", "modality": "pictures", "media": media}


def _write(root: Path, items: list[dict[str, Any]], texts: list[dict[str, Any]]) -> Path:
    tables = {"items": (schemas.ITEMS, items), "captions": (schemas.CAPTIONS, texts)}
    splits = list(dict.fromkeys(item["split"] for item in items))
    shards = [
        Shard(
            name=f"{split}-00000-of-00001",
            split=split,
            row_ids=tuple(i["item_id"] for i in items if i["split"] == split),
        )
        for split in splits
    ]
    schema_of = {name: schema for name, (schema, _) in tables.items()}
    run = Run.open(
        root, Plan(kind="corpus", tables=schema_of, settings={"dataset": root.name}, shards=shards, inputs={})
    )
    for shard in run.pending():
        of = {
            name: pa.Table.from_pylist([row for row in rows if row["split"] == shard.split], schema=schema)
            for name, (schema, rows) in tables.items()
        }
        run.commit_shard(shard, of, counts={"ok": len(shard.row_ids)})
    run.finish("toy", "Pictures of one colour.")
    return root
