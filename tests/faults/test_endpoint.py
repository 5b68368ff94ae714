"""A run whose endpoint fails a fifth of the requests, each in another way."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from endpoint_server import Answer, Server, completion, text_of
from sdg_fakes import Job

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.generate.runs.verify import find_problems

TIMEOUT_S = 1.5


def rewrite(body: dict[str, Any], tries: int) -> Answer:
    caption = text_of(body).removeprefix("Caption: ")
    return completion(f"there stands {caption}")


def rewrite_if_asked_again(body: dict[str, Any], tries: int) -> Answer:
    """Fail a fifth of the requests the first time that they come."""
    status, headers, text = rewrite(body, tries)
    digit = hashlib.sha256(str(body["seed"]).encode()).digest()[0] % 20
    if tries > 1 or digit > 3:
        return status, headers, text
    if digit == 0:
        return 500, {}, "oops"
    if digit == 1:
        time.sleep(2 * TIMEOUT_S)
    return 200, {}, text[: len(text) // 2] if digit == 2 else '{"choices": []}'


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("httpx")
    with closing(Server()) as made:
        yield made


def test_the_rows_are_those_of_a_calm_endpoint(corpus: Path, server: Server, tmp_path: Path) -> None:
    def run(name: str, max_retries: int = 0, retry: str | None = None) -> list[dict[str, Any]]:
        engine = server.engine(timeout_s=TIMEOUT_S, max_retries=max_retries, concurrency=32)
        artifact = Job(tmp_path, corpus)(name, engine, retry=retry, shard_size=60, wave_size=200)
        return artifact.table("rows").to_pylist()

    server.answer = rewrite
    calm = run("calm", max_retries=5)
    server.answer = rewrite_if_asked_again
    server.bodies.clear()
    flaky = run("flaky")
    errors = {row["error"].partition(",")[0] for row in flaky if row["state"] == "error"}
    attempts = Artifact.open(tmp_path / "flaky", "sdg").table("attempts").to_pylist()
    failures = [a["reason"] for a in attempts if a["finish_reason"] == "error"]
    assert len(failures) > 0.1 * len(attempts)
    assert any("500" in reason for reason in failures)
    assert any("no answer in" in reason for reason in failures)
    assert errors
    again = run("again", max_retries=5, retry="flaky")
    assert again == calm
    assert list(find_problems(tmp_path / "again")) == []
