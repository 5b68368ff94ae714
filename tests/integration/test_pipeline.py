"""The whole path through the commands, on tiny settings: real vLLM, real language model, real FAISS and Sionna."""

import hashlib
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import must_run

pytestmark = [pytest.mark.long, pytest.mark.vllm]


def run_demo(folder: Path) -> str:
    return must_run(["sclmkb-eval", "study", "demo", "--preset", "tiny", "--out", folder]).err


def contents(folder: Path) -> dict[str, str]:
    """Hash of every artifact and checkpoint file; logs and the page may be written again."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".parquet", ".safetensors", ".json")
    }


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.links += [value for name, value in attrs if name in ("src", "href") and value]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, run_demo(folder)


def test_every_stage_writes_what_the_readme_says(finished: tuple[Path, str]) -> None:
    folder, output = finished
    for table in ("corpus/items", "corpus/captions", "sdg/rows", "sdg/attempts", "csi/csi", "predicted/predicted"):
        assert sum(pq.read_metadata(p).num_rows for p in (folder / table).glob("*.parquet")) > 0, table
    for system in ("sc-lmkb", "without-sdg", "without-cdg", "without-both", "perfect-csi"):
        for seed in (0, 1):
            assert (folder / "jscc" / system / f"seed-{seed}" / "model.safetensors").exists()
    kept = {seed: (folder / "backbone" / f"seed-{seed}" / "plan.json").exists() for seed in (0, 1)}
    assert kept == {0: True, 1: True}, "systems of a seed keep the encoder of its backbone"
    assert (folder / "cdg" / "model.safetensors").exists()
    assert output.count("$ sclmkb-") == 19, "the demo prints every command that it runs"


def test_the_report_stands_alone(finished: tuple[Path, str]) -> None:
    page = Page()
    text = (finished[0] / "report.html").read_text("utf-8")
    page.feed(text)
    assert page.tags["svg"] >= 6
    assert page.tags["img"] > 0
    assert all(link.startswith(("data:", "#")) for link in page.links), "nothing is loaded from elsewhere"
    assert "script" not in page.tags


def test_running_it_again_changes_nothing(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    before = contents(folder)
    run_demo(folder)
    assert contents(folder) == before
