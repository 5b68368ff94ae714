"""Corpora of pictures with captions or labels, in small files of their official layouts."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_files import DATA, made, picture, problems_of, write
from PIL import Image

from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.readers.pictures.cifar10_files import CLASSES

DRAW = np.random.default_rng(0)


# Flickr8k and COCO captions


def test_flickr8k(tmp_path: Path) -> None:
    root = tmp_path / "data"
    lines = [
        {"image": f"images/{split}.jpg", "captions": [f"a {split}", f"one {split}"], "split": split}
        for split in ("train", "val", "test")
    ]
    lines += [{"image": "images/gone.jpg", "captions": ["gone"], "split": "test"}, {"image": "images/x.jpg"}]
    write(root / "captions.jsonl", "\n".join(map(json.dumps, lines)))
    for split in ("train", "val", "test"):
        picture(root / "images" / f"{split}.jpg")
    corpus = made("flickr8k", root, tmp_path / "out")
    assert corpus.table("captions", "val")["text"].to_pylist() == ["a val", "one val"]
    assert corpus.table("items", "test")["item_id"].to_pylist() == ["images/test.jpg"]
    assert problems_of(corpus) == [
        (5, "has no 'image' and no list 'captions'"),
        (4, "images/gone.jpg: No such file or directory"),
    ]


@pytest.mark.skipif(not (DATA / "flickr8k").is_dir(), reason=f"no Flickr8k in {DATA}")
def test_real_flickr8k(tmp_path: Path) -> None:
    corpus = made("flickr8k", DATA / "flickr8k", tmp_path / "out")
    assert [corpus.table("items", split).num_rows for split in ("train", "val", "test")] == [558, 83, 155]
    assert corpus.table("captions").num_rows == 5 * 796
    assert problems_of(corpus) == []


@pytest.mark.parametrize("year", [2014, 2017])
def test_coco_captions_of_both_years(tmp_path: Path, year: int) -> None:
    root = tmp_path / "data"
    for part, images in (("train", range(1, 11)), ("val", (101, 102))):
        named = [{"id": image, "file_name": f"{image:012d}.jpg"} for image in images]
        notes = [{"image_id": image, "id": n, "caption": f"{n} of {image}"} for n in (0, 1) for image in images]
        write(root / "annotations" / f"captions_{part}{year}.json", {"images": named, "annotations": notes})
        for image in images:
            picture(root / "images" / f"{part}{year}" / f"{image:012d}.jpg")
    corpus = made("coco-captions", root, tmp_path / "out", val_share=0.3)
    sizes = {split: corpus.table("items", split).num_rows for split in corpus.splits}
    assert (sizes["test"], sizes["train"] + sizes["val"]) == (2, 10)
    assert corpus.table("captions", "test")["text"].to_pylist() == ["0 of 101", "1 of 101", "0 of 102", "1 of 102"]
    assert problems_of(corpus) == []


def test_karpathys_splits_are_taken_where_they_are(tmp_path: Path) -> None:
    root = tmp_path / "data"
    images = [
        {
            "cocoid": number, "split": split, "filepath": "val2014", "filename": f"COCO_val2014_{number:012d}.jpg",
            "sentences": [{"raw": f"a {split}"}],
        }
        for number, split in enumerate(("train", "restval", "val", "test"), start=1)
    ]  # fmt: skip
    write(root / "dataset_coco.json", {"images": [*images, {"split": "test"}], "dataset": "coco"})
    for image in images:
        picture(root / "val2014" / image["filename"])
    corpus = made("coco-captions", root, tmp_path / "out")
    assert corpus.table("captions", "train")["text"].to_pylist() == ["a train", "a restval"]
    assert corpus.table("captions", "test")["text"].to_pylist() == ["a test"]
    assert [row for row, _ in problems_of(corpus)] == [5]


def test_coco_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"captions_train2014\.json is missing, and dataset_coco\.json too"):
        made("coco-captions", tmp_path, tmp_path / "out")


# CIFAR-10


def batches() -> dict[str, tuple[np.ndarray, list[int]]]:
    """Return pictures ``[N, 32, 32, 3]`` and labels of each official batch."""
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return {
        name: (DRAW.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), [n % 10 for n in range(20)]) for name in names
    }


def write_official(root: Path, content: dict[str, tuple[np.ndarray, list[int]]]) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, (pixels, labels) in content.items():
        data = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(len(pixels), -1)
        value = {b"batch_label": b"batch", b"labels": labels, b"data": data, b"filenames": [b"x.png"] * len(labels)}
        (folder / name).write_bytes(pickle.dumps(value, protocol=2))
    return root


def write_sheets(root: Path, content: dict[str, tuple[np.ndarray, list[int]]]) -> Path:
    root.mkdir()
    for name, (pixels, _) in content.items():
        Image.fromarray(pixels.reshape(len(pixels), 1024, 3)).save(root / f"{name}.png")
    write(root / "test_lables.json", content["test_batch"][1])
    # Five batches of 10,000 labels follow each other; these have 20 pictures each.
    labels = [content[f"data_batch_{1 + n // 10_000}"][1][n % 10_000 % 20] for n in range(50_000)]
    write(root / "train_lables.json", labels)
    return root


def test_cifar10_reads_the_official_batches_and_the_sheets_alike(tmp_path: Path) -> None:
    content = batches()
    official = made("cifar10", write_official(tmp_path / "official", content), tmp_path / "one", val_share=0.2)
    sheets = made("cifar10", write_sheets(tmp_path / "sheets", content), tmp_path / "two", val_share=0.2)
    for table in ("items", "captions"):
        assert official.table(table).equals(sheets.table(table))
    assert official.table("items", "test").num_rows == 20
    assert official.table("items", "train").num_rows + official.table("items", "val").num_rows == 100
    assert sorted(official.table("captions", "test")["text"].to_pylist()) == sorted(CLASSES)
    for item in official.table("items").to_pylist():
        name, _, place = item["item_id"].partition("/")
        pixels, labels = content[name]
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(item["media"]["bytes"]))), pixels[int(place)])
        assert item["identity"] == f"{item['split']}/{CLASSES[labels[int(place)]]}"


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_batch_that_would_run_code_is_refused(tmp_path: Path) -> None:
    root = write_official(tmp_path / "data", batches())
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(Harmful(tmp_path / "hurt"), protocol=2))
    with pytest.raises(UserError, match="test_batch is no batch of CIFAR-10 that can be read safely"):
        made("cifar10", root, tmp_path / "out")
    assert not (tmp_path / "hurt").exists()


@pytest.mark.parametrize(
    "value", [[1], {b"data": np.zeros((2, 3072))}, {b"data": np.zeros((2, 3072), np.uint8)}, b"", None]
)
def test_a_batch_of_another_form_is_named(tmp_path: Path, value: Any) -> None:
    root = write_official(tmp_path / "data", batches())
    data = b"" if value == b"" else pickle.dumps(value, protocol=2)
    (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(data)
    with pytest.raises(UserError, match=r"data_batch_3 (holds no 'data'|is no batch)"):
        made("cifar10", root, tmp_path / "out")


def test_labels_that_do_not_fit_the_pictures_are_named(tmp_path: Path) -> None:
    root = write_sheets(tmp_path / "sheets", batches())
    write(root / "test_lables.json", [0] * 19)
    with pytest.raises(UserError, match=r"test_lables.json does not hold a label .* 20 pictures of test_batch"):
        made("cifar10", root, tmp_path / "out")
    picture(root / "test_batch.png")
    with pytest.raises(UserError, match="8 pixels wide, not 1024"):
        made("cifar10", root, tmp_path / "out")


def test_cifar10_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing: get CIFAR-10 from https"):
        made("cifar10", tmp_path, tmp_path / "out")
