import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import must_run
from sdg_fakes import NOUNS, FakeEncoder, Job, write_captions

from sclmkb.common.errors import UserError
from sclmkb.generate.filter.calibrate import CalibrateSettings, calibrate, calibration_lines
from sclmkb.generate.filter.filter import FilterSettings

COLOURS = ("red", "green", "blue", "yellow", "black", "white")


def write_corpus(root: Path, *, count: int = 120, test_word: str = "hidden") -> Path:
    """Write a corpus with training and test captions, two an identity."""
    training = [
        f"a {COLOURS[i % 6]} {NOUNS[i % 10]} beside two {NOUNS[i // 10 % 10]}s with mark{i // 2} on its left"
        for i in range(count)
    ]
    texts = {"train": training, "test": [f"{test_word} thing{i} stands" for i in range(count)]}
    captions = [(split, f"{split}-{i // 2}", text) for split, own in texts.items() for i, text in enumerate(own)]
    return write_captions(root, captions, 50)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


def work(corpus: Path, out: Path, **values: Any) -> dict[str, Any]:
    settings = CalibrateSettings.model_validate({"precision": 0.7, **values})
    return calibrate(settings, corpus, out, load_encoder=lambda name, dtype: FakeEncoder())


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_thresholds_are_chosen_written_and_read_by_the_filter(corpus: Path, tmp_path: Path) -> None:
    found = work(corpus, tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {
        "calibration.json", "pairs.parquet", "precision-recall.png", "precision-recall.svg", "roc.png", "roc.svg",
    }  # fmt: skip
    chosen = FilterSettings(calibration=tmp_path / "out" / "calibration.json")
    assert chosen.min_similarity == found["filter"]["min_similarity"] != FilterSettings().min_similarity
    assert chosen.min_margin == found["filter"]["min_margin"]
    assert any(f"{chosen.min_similarity:.4f}" in line for line in calibration_lines(found))
    rare = {**found, "num_pairs": {**found["num_pairs"], "a kind of one half alone": 1}}
    (line,) = (line for line in calibration_lines(rare) if line.startswith("a kind of one half"))
    assert line.split()[-4:] == ["1", "-", "-", "-"]
    assert found["auc"]["whole filter"] > 0.8 > 0.5 > 1 - found["auc"]["similarity"]


def test_what_is_reported_follows_from_the_pairs(corpus: Path, tmp_path: Path) -> None:
    found = work(corpus, tmp_path / "out", faithful_share=0.4)
    pairs = pq.read_table(tmp_path / "out" / "pairs.parquet").to_pylist()
    assert {k: sum(p["kind"] == k for p in pairs) for k in found["num_pairs"]} == found["num_pairs"]
    accepted: dict[bool, list[bool]] = {True: [], False: []}
    for p in pairs:
        assert p["rule"] or p["kind"] not in ("changed attribute", "dropped attribute")
        if p["held_out"] and p["kind"] != "other caption":
            above = (
                p["similarity"] >= found["filter"]["min_similarity"] and p["margin"] >= found["filter"]["min_margin"]
            )
            accepted[p["kind"] == "rewording"].append(above and not p["rule"])
    recall, fallout = (float(np.mean(accepted[side])) for side in (True, False))
    assert found["held_out"]["recall"] == pytest.approx(recall)
    assert found["held_out"]["fallout"] == pytest.approx(fallout)
    assert found["held_out"]["precision"] == pytest.approx(0.4 * recall / (0.4 * recall + 0.6 * fallout))


def test_the_two_halves_share_no_identity_and_runs_repeat(corpus: Path, tmp_path: Path) -> None:
    work(corpus, tmp_path / "one")
    work(corpus, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    pairs = pq.read_table(tmp_path / "one" / "pairs.parquet").to_pylist()
    marks = [{p["source"].split("mark")[1] for p in pairs if p["held_out"] == half} for half in (True, False)]
    assert all(marks)
    assert marks[0].isdisjoint(marks[1])


def test_more_precision_costs_recall_and_too_much_is_refused(corpus: Path, tmp_path: Path) -> None:
    low, high = (work(corpus, tmp_path / str(p), precision=p) for p in (0.6, 0.8))
    assert low["held_out"]["recall"] >= high["held_out"]["recall"]
    assert (tmp_path / "0.8" / "calibration.json").exists()
    with pytest.raises(UserError, match=r"no threshold reaches a precision of 0.9999.*the best is"):
        work(corpus, tmp_path / "0.8", precision=0.9999, faithful_share=0.001)
    assert not (tmp_path / "0.8" / "calibration.json").exists()


def test_no_file_of_another_split_is_read(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by calibration nor by generation and filter: with other test captions, or none, all is the same."""
    work(corpus, tmp_path / "before")
    other = write_corpus(tmp_path / "other", test_word="different")
    made = [Job(tmp_path, c)(f"sdg-{c.name}") for c in (corpus, other)]
    for name in ("rows", "attempts"):
        one, two = (artifact.table(name) for artifact in made)
        assert one == two
        assert set(one["split"].to_pylist()) == {"train"}
    spoilt = list(corpus.glob("*/test-*.parquet"))
    assert len(spoilt) == 6
    for path in spoilt:
        path.write_bytes(b"nothing that could be read")
    opened, real = list[str](), Path.open

    def watched(self: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(self.name)
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", watched)
    work(corpus, tmp_path / "after")
    assert contents(tmp_path / "after") == contents(tmp_path / "before")
    assert any(name.startswith("train-") and name.endswith(".parquet") for name in opened)
    assert not any(name.startswith("test-") and name.endswith(".parquet") for name in opened)


def test_bad_corpora_are_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sclmkb-gen corpus"):
        work(tmp_path / "nothing", tmp_path / "out")
    small = write_corpus(tmp_path / "small", count=4)
    with pytest.raises(UserError, match="at least 4"):
        work(small, tmp_path / "out")
    path = next((corpus / "captions").glob("train-*.parquet"))
    path.write_bytes(path.read_bytes()[:-9] + b"not whole")
    with pytest.raises(UserError, match="corrupt shard file"):
        work(corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_a_table_and_where_to_use_it(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(calibrate.__kwdefaults__, "load_encoder", lambda name, dtype: FakeEncoder())
    shown = must_run(f"sclmkb-gen calibrate --corpus {corpus} --out {tmp_path / 'out'} --precision 0.7").out
    assert "changed attribute" in shown
    assert "min_similarity" in shown
    written = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert written["settings"]["precision"] == 0.7
