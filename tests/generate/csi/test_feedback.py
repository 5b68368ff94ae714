from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sclmkb.common.artifacts.files import sha256_file
from sclmkb.common.csi.sets import load_csi
from sclmkb.common.errors import UserError
from sclmkb.common.metrics import nmse
from sclmkb.generate.csi.feedback import FeedbackSettings, plan_feedback


@pytest.fixture(scope="module")
def csi(write_path_csi: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_path_csi(tmp_path_factory.mktemp("feedback") / "csi")


def files(root: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted((root / "csi").glob("*.parquet"))}


def test_more_bits_leave_less_distortion_and_nothing_else_changes(csi: Path, tmp_path: Path) -> None:
    before = float("inf")
    source = load_csi(csi, "test")
    for bits in (8, 32, 96):
        plan_feedback(FeedbackSettings(feedback_bits=bits, threads=1), csi, tmp_path / f"{bits}").run_here()
        drops = load_csi(tmp_path / f"{bits}", "test")
        error = float(nmse(source.history, drops.history).mean())
        assert error < before
        before = error
        assert torch.equal(drops.future, source.future)
        assert torch.equal(drops.clean_history, source.clean_history)
        assert drops.drop_ids == source.drop_ids
    assert before < 0.1


def test_the_code_book_knows_training_drops_alone(
    csi: Path, write_path_csi: Callable[..., Path], tmp_path: Path
) -> None:
    settings = FeedbackSettings(feedback_bits=32, threads=1)
    plan_feedback(settings, csi, tmp_path / "a").run_here()
    other = write_path_csi(tmp_path / "other", sizes=(48, 30, 30))
    plan_feedback(settings, other, tmp_path / "b").run_here()
    trained = {name: digest for name, digest in files(tmp_path / "a").items() if name.startswith("train")}
    assert trained
    assert trained.items() <= files(tmp_path / "b").items(), "other validation and test drops, the same code book"
    plan_feedback(settings, other, tmp_path / "c", fit=csi).run_here()
    assert files(tmp_path / "c") == files(tmp_path / "b")
    shorter = write_path_csi(tmp_path / "shorter", sizes=(20, 12, 12))
    plan_feedback(settings, shorter, tmp_path / "d").run_here()
    assert not torch.equal(load_csi(tmp_path / "d", "test").history, load_csi(tmp_path / "a", "test").history)


def test_what_does_not_fit_is_said_in_one_line(csi: Path, write_path_csi: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="300 are more than the 16 entries"):
        plan_feedback(FeedbackSettings(feedback_bits=300), csi, tmp_path / "out")
    small = write_path_csi(tmp_path / "small", antennas=2)
    with pytest.raises(UserError, match="another matrix"):
        plan_feedback(FeedbackSettings(feedback_bits=8), csi, tmp_path / "out", fit=small)
    assert not (tmp_path / "out").exists()
