"""Corpora of sounds and videos with captions, in small files of their official layouts."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from layout_files import DATA, made, problems_of, write
from media_files import animation
from PIL import Image

from sclmkb.common.artifacts.texts import questions_of
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.video import VideoForm
from sclmkb.common.tasks.retrieval_corpus import load_retrieval_split
from sclmkb.generate.corpora.embedded import TEXTS


def test_audiocaps_joins_the_captions_of_a_sound(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split in ("train", "val", "test"):
        rows = [f"1,{split}-id,30,A dog barks", f"2,{split}-id,30,A dog", f'3,gone-{split},0,"Rain, wind"', "4,x"]
        write(root / f"{split}.csv", "audiocap_id,youtube_id,start_time,caption\n" + "\n".join(rows))
    for path in ("train/train-id.wav", "val/Yval-id.flac", "test/test-id_30.wav"):
        (root / "audio" / path).parent.mkdir(parents=True)
        soundfile.write(root / "audio" / path, np.zeros(800), 16000)
    corpus = made("audiocaps", root, tmp_path / "out")
    for split, name in (("train", "train-id.wav"), ("val", "Yval-id.flac"), ("test", "test-id_30.wav")):
        (item,) = corpus.table("items", split).to_pylist()
        assert (item["media"]["path"], item["modality"]) == (f"audio/{split}/{name}", "audio")
        captions = corpus.table("captions", split).to_pylist()
        assert [(c["identity"], c["text"]) for c in captions] == [
            (item["identity"], "A dog barks"), (item["identity"], "A dog"),
        ]  # fmt: skip
    assert set(problems_of(corpus)) == {(4, "has no column 'start_time'")} | {
        (3, f"audio/{split}/gone-{split}.wav: No such file or directory") for split in ("train", "val", "test")
    }
    write(root / "train.csv", "id,text\n1,a dog\n")
    with pytest.raises(UserError, match=r"train\.csv has no column 'youtube_id'"):
        made("audiocaps", root, tmp_path / "other")


def write_exercises(root: Path) -> None:
    rows = []
    for split in ("train", "test"):
        frames = [f"images/{split}_{n}.jpg" for n in (0, 1)]
        for name, color in zip(frames, ("red", "blue"), strict=True):
            (root / "images").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 8), color).save(root / name)
        rows.append(
            {
                "frames": frames, "name": f"Lift {split}", "equipment": "dumbbell" if split == "test" else None,
                "muscles": ["biceps", "forearms"], "instructions": ["Stand.", "Lift."], "split": split,
            }
        )  # fmt: skip
    rows += [{"frames": ["images/a.jpg"], "name": "One"}, {**rows[1], "frames": ["../a_0.jpg", "images/b.jpg"]}]
    write(root / "exercises.jsonl", "\n".join(map(json.dumps, rows)))


def test_exercises_are_clips_of_two_frames_with_captions_and_questions(tmp_path: Path) -> None:
    write_exercises(tmp_path / "data")
    corpus = made("exercises", tmp_path / "data", tmp_path / "out")
    test = load_retrieval_split(corpus, "test", VideoForm(num_frames=4, size=8))
    values, length = test.media.take(test.media_identity)
    assert (test.media.form.kind, length.tolist()) == ("video", [2])
    assert values[0, :2].float().mean((1, 2)).argmax(1).tolist() == [0, 2], "red, then blue"
    assert not values[0, 2:].any()
    assert (test.texts, test.wordings) == (["Lift test", "Stand. Lift."], ["label", "instructions"])
    assert [(a.question, a.answers) for a in questions_of(corpus, "test")] == [
        ("what equipment is used", ("dumbbell",)), ("which muscles are trained", ("biceps", "forearms")),
    ]  # fmt: skip
    assert len(list(questions_of(corpus, "train"))) == 1
    assert corpus.table("captions", "train")["text"].to_pylist()[:2] == ["Lift train", "which muscles are trained"]
    assert problems_of(corpus) == [
        (3, "has no 'name' and two 'frames'"),
        (4, "a.webp: cannot be made of its photos (../a_0.jpg lies outside the data's folder)"),
    ]


@pytest.mark.skipif(not (DATA / "exercises").is_dir(), reason=f"no exercises in {DATA}")
def test_real_exercises(tmp_path: Path) -> None:
    corpus = made("exercises", DATA / "exercises", tmp_path / "out", max_items=20)
    assert corpus.counts() == {"ok": 60, "quarantined": 0}
    media = corpus.table("items", "val").to_pylist()[0]["media"]
    assert Image.open(io.BytesIO(media["bytes"])).n_frames == 2


def test_msrvtt(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name, splits in (("train_val", ("train", "validate")), ("test", ("test",))):
        videos = [{"video_id": split, "split": split} for split in splits]
        told = [{"video_id": split, "caption": f"{n} {split}"} for n in (1, 2) for split in splits]
        write(root / f"{name}_videodatainfo.json", {"info": {}, "videos": [*videos, {}], "sentences": [*told, {}]})
    for folder, split in (("TrainValVideo", "train"), ("TrainValVideo", "validate"), ("TestVideo", "test")):
        (root / folder).mkdir(exist_ok=True)
        write_film(root / folder / f"{split}.mp4")
    corpus = made("msrvtt", root, tmp_path / "out")
    assert corpus.table("items")["media"].to_pylist()[2]["path"] == "TestVideo/test.mp4"
    assert corpus.table("captions", "val")["text"].to_pylist() == ["1 validate", "2 validate"]
    assert corpus.counts() == {"ok": 3, "quarantined": 0}
    assert problems_of(corpus) == [
        (5, "a sentence has no 'video_id'"), (3, "a video has no 'video_id'"),
        (3, "a sentence has no 'video_id'"), (2, "a video has no 'video_id'"),
    ]  # fmt: skip


def write_film(path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (16, 16))
    for shade in range(0, 200, 20):
        film.write(np.full((16, 16, 3), shade, np.uint8))
    film.release()


def test_emoji_animations_have_the_texts_of_emojibase(tmp_path: Path) -> None:
    frames = np.arange(4 * 192, dtype=np.uint32).reshape(4, 8, 8, 3).astype(np.uint8)
    entries = []
    for number in range(12):
        skins = [{"label": f"hand {number}: dark skin tone", "hexcode": f"A{number}-1F3FF", "group": 1}]
        entries.append({"label": f"hand {number}", "hexcode": f"A{number}-FE0F", "group": 1, "skins": skins})
    entries.append({"label": "flag: Oman", "hexcode": "B0", "group": 9})
    texts = tmp_path / "cache" / "npm" / TEXTS.archive.removesuffix(".tgz") / "en"
    write(texts / "data.json", entries)
    for name in ("emojibase", "cldr"):
        write(texts / "shortcodes" / f"{name}.json", {})
    root = tmp_path / "data"
    (root / "assets").mkdir(parents=True)
    for code in [*(f"a{n}" for n in range(12)), *(f"a{n}-1f3ff" for n in range(12)), "b0", "ffff"]:
        (root / "assets" / f"{code}.webp").write_bytes(animation(frames, "WEBP"))
    (root / "assets" / "a0-1f3fb.webp").write_bytes(animation(frames[:1], "WEBP"))
    corpus = made("emoji-animations", root, tmp_path / "out", val_share=0.2, test_share=0.2)
    items = corpus.table("items").to_pylist()
    assert len(items) == 25
    assert {item["modality"] for item in items} == {"video"}
    groups = {split: set(corpus.table("items", split)["group"].to_pylist()) for split in corpus.splits}
    assert not groups["train"] & groups["test"]
    assert set(corpus.table("captions", "train")["wording"].to_pylist()) == {"label"}
    assert "sentence" in corpus.table("captions", "test")["wording"].to_pylist()
    assert problems_of(corpus) == [(26, "emojibase has no label of it")]
    for path in (root / "assets").glob("*.webp"):
        path.write_bytes(animation(frames[:1], "WEBP"))
    with pytest.raises(UserError, match="holds no animated WebP"):
        made("emoji-animations", root, tmp_path / "other")
