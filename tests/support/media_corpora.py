"""Small corpora: pictures with questions about their colour, pictures without texts, sounds and clips with captions."""

import io
from collections.abc import Callable
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


def write_sounds(root: Path, sizes: dict[str, int] = SIZES) -> Path:
    """Tones of three pitches, each with a caption that names it."""
    pitches = {"a low tone": 200, "a middle tone": 800, "a high tone": 3000}
    return _write_captioned(root, sizes, list(pitches), "audio", lambda name, seed: _tone(pitches[name], seed))


def write_clips(root: Path, sizes: dict[str, int] = SIZES) -> Path:
    """Clips of three colours, each with a caption that names it."""
    return _write_captioned(root, sizes, list(COLOURS), "video", lambda name, seed: _clip(COLOURS[name], seed))


def _write_captioned(
    root: Path, sizes: dict[str, int], captions: list[str], modality: str, file_of: Callable[[str, int], bytes]
) -> Path:
    items, texts = [], []
    suffix = {"audio": "wav", "video": "webp"}[modality]
    for split, count in sizes.items():
        for i in range(count):
            text, name = captions[i % len(captions)], f"{split}-{i}"
            of = {"identity": name, "group": name, "split": split}
            media = {"bytes": file_of(text, i), "path": f"{name}.{suffix}"}
            items.append({**of, "item_id": name, "source": "toy", "modality": modality, "media": media})
            texts.append({**of, "row_id": make_row_id("toy", split, name, 0), "caption_index": 0, "wording": "caption",
                          "role": "caption", "text": text})  # fmt: skip
    return _write(root, items, texts)


def _tone(pitch_hz: float, seed: int) -> bytes:
    import soundfile

    time = np.arange(8000) / 16000
    values = 0.3 * np.sin(2 * np.pi * pitch_hz * time) + np.random.default_rng(seed).normal(0, 0.01, len(time))
    file = io.BytesIO()
    soundfile.write(file, values, 16000, format="WAV")
    return file.getvalue()


def _clip(colour: tuple[int, ...], seed: int) -> bytes:
    frames = [Image.new("RGB", (16, 16), tuple(max(0, c - 10 * step - seed % 5) for c in colour)) for step in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], duration=100, lossless=True)
    return file.getvalue()


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
