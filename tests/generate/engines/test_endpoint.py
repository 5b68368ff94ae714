"""The endpoint engine against a server on loopback that misbehaves on demand, and against a real ``vllm serve``."""

import email.utils
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from endpoint_server import SAMPLING, Answer, Server, completion, text_of
from real_ray import free_ports
from waiting import wait_for

from sclmkb.common.errors import UserError
from sclmkb.common.models.pretrained import EMBEDDED_LM, resolve_language_model
from sclmkb.generate.engines.base import Message, Request
from sclmkb.generate.engines.endpoint import EndpointEngine, EndpointSettings
from sclmkb.generate.prompts import load_prompt


@pytest.fixture
def server() -> Iterator[Server]:
    with closing(Server()) as made:
        yield made


def request(text: str, seed: int = 0) -> Request:
    return Request(messages=(Message("system", "Rewrite."), Message("user", text)), seed=seed)


def requests(count: int) -> list[Request]:
    return [request(f"boat {i}", 2**62 + i) for i in range(count)]


def test_each_request_is_asked_with_its_own_seed_and_answered_in_order(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    written = server.engine(api_key_variable="MY_KEY", concurrency=4).generate(requests(20))
    assert [c.text for c in written] == [f"BOAT {i}" for i in range(20)]
    assert {(c.finish_reason, c.num_tokens, c.error) for c in written} == {("stop", 5, "")}
    assert {(text_of(b), b["seed"]) for b in server.bodies} == {(f"boat {i}", 2**62 + i) for i in range(20)}
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("tiny", 0.8, 0.9, 12)
    assert (body["stop"], body["messages"][0]["role"]) == (["\n"], "system")
    assert server.keys == {"Bearer secret"}
    assert server.engine().generate([]) == []


def test_seeds_are_cut_for_a_server_that_takes_fewer_bits(server: Server) -> None:
    server.engine(seed_bits=31).generate(requests(3))
    assert {b["seed"] for b in server.bodies} == {0, 1, 2}


def test_a_server_that_fails_a_fifth_of_the_requests_changes_nothing(server: Server) -> None:
    calm = server.engine().generate(requests(40))
    failures = [(500, {}, "oops"), (503, {}, ""), (0, {}, ""), (200, {}, '{"choices": ['), completion(None)]

    def flaky(body: dict[str, Any], tries: int) -> Answer:
        number = int(text_of(body).split()[1])
        fails = number % 5 == 0 and tries % 3 != 0
        return failures[number // 5 % len(failures)] if fails else completion(text_of(body).upper())

    server.answer = flaky
    server.bodies.clear()
    assert server.engine().generate(requests(40)) == calm
    assert len(server.bodies) == 40 + 8 * 2


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((500, {}, ""), "answered 500, 3 tries"),
        ((200, {}, "<html>"), "malformed answer '<html>', 3 tries"),
        ((200, {}, "[]"), "malformed answer"),
        ((200, {}, '{"choices": []}'), "malformed answer"),
        (completion(["parts"]), "malformed answer"),
        (completion("text", "tool_calls"), "malformed answer"),
        ((0, {}, ""), "no connection"),
        ((400, {}, '{"error": {"message": "the prompt is\\ntoo long"}}'), "answered 400: the prompt is too long"),
        (completion("", "content_filter"), "content filter"),
    ],
)
def test_one_that_fails_for_good_is_an_error_and_the_rest_goes_on(server: Server, answer: Answer, told: str) -> None:
    server.answer = lambda body, _: answer if text_of(body) == "boat 1" else completion("fine")
    written = server.engine(max_retries=2).generate(requests(3))
    assert [c.text for c in written] == ["fine", "", "fine"]
    assert written[1].finish_reason == "error"
    assert told in written[1].error
    lasting = "400" in told or "filter" in told
    assert Counter(text_of(b) for b in server.bodies)["boat 1"] == (1 if lasting else 3)


def test_a_server_that_hangs_or_dawdles_is_left_alone(server: Server) -> None:
    def hang(body: dict[str, Any], tries: int) -> Answer:
        if text_of(body) == "boat 0" and tries == 1:
            time.sleep(1)
        return completion("late")

    server.answer = hang
    assert [c.text for c in server.engine(timeout_s=0.3).generate(requests(2))] == ["late", "late"]
    server.bodies.clear()
    hung = server.engine(timeout_s=0.2, max_retries=0).generate(requests(2))
    assert [c.error for c in hung] == ["no answer in 0.2 s, 1 tries", ""]


def test_everybody_waits_as_long_as_the_server_asks(server: Server) -> None:
    started = time.monotonic()

    def busy(body: dict[str, Any], tries: int) -> Answer:
        early = time.monotonic() - started < 0.6
        return (429, {"retry-after": "0.7"}, "slow down") if early else completion("fine")

    server.answer = busy
    engine = server.engine(concurrency=1)
    started = time.monotonic()
    server.times.clear()
    assert [c.text for c in engine.generate(requests(2))] == ["fine"] * 2
    assert server.times[1] - server.times[0] >= 0.65
    assert len(server.times) == 3


@pytest.mark.parametrize(
    "after", ["3600", email.utils.formatdate(time.time() + 3600, usegmt=True)], ids=["seconds", "date"]
)
def test_waits_are_cut_at_the_longest(server: Server, after: str) -> None:
    server.answer = lambda _, tries: (429, {"retry-after": after}, "") if tries == 1 else completion("fine")
    assert server.engine(max_backoff_s=0.2).generate(requests(1))[0].text == "fine"
    assert server.times[1] - server.times[0] >= 0.2


def test_no_more_requests_than_agreed_are_sent(server: Server) -> None:
    server.engine(requests_per_minute=600).generate(requests(6))
    assert server.times[-1] - server.times[0] >= 0.3, "five gaps of 0.1 s, the first of which may have come late"
    server.answer = lambda body, _: (time.sleep(0.05), completion("fine"))[1]
    server.engine(concurrency=3).generate(requests(12))
    assert server.most_under_way <= 3


def test_a_server_of_no_use_is_named(server: Server) -> None:
    engine = server.engine()
    for status, told in ((401, "OPENAI_API_KEY"), (403, "forbids"), (404, "check endpoint.base_url and --model")):
        server.answer = lambda body, tries, status=status: (status, {}, '{"message": "no"}')  # type: ignore[misc]
        with pytest.raises(UserError, match=told):
            engine.generate(requests(3))
    server.models = 401, {}, ""
    with pytest.raises(UserError, match="does not accept the key"):
        server.engine()
    server.models = 200, {}, json.dumps({"data": [{"id": "other"}]})
    with pytest.raises(UserError, match="does not serve 'tiny' but other"):
        server.engine()
    server.models = 404, {}, "no list here"
    server.engine()
    with pytest.raises(UserError, match=r"cannot reach .* start the server"):
        server.engine(base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ValueError, match="http://"):
        EndpointSettings(base_url="localhost:8000")


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real ``vllm serve`` with the embedded model."""
    pytest.importorskip("vllm")
    try:
        model = resolve_language_model(EMBEDDED_LM)
    except UserError as error:
        pytest.skip(str(error))
    (port,) = free_ports(1)
    log = (tmp_path_factory.mktemp("serve") / "log").open("w")
    options = ["--host=127.0.0.1", f"--port={port}", f"--served-model-name={EMBEDDED_LM}", "--dtype=bfloat16",
               "--enforce-eager", "--max-model-len=256", "--max-num-seqs=16", "--max-num-batched-tokens=8192",
               "--no-enable-chunked-prefill"]  # fmt: skip
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                   "VLLM_NO_USAGE_STATS": "1"}  # fmt: skip
    # What `vllm serve` runs; that itself asks for the version of a package that the CPU build does not have.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, *options]
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    url = f"http://127.0.0.1:{port}/v1"
    import httpx

    def answers() -> bool:
        assert process.poll() is None, Path(log.name).read_text()[-3000:]
        with suppress(httpx.HTTPError):
            return httpx.get(f"{url}/models", timeout=2).status_code == 200
        return False

    try:
        wait_for(answers, 500)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.mark.long
@pytest.mark.vllm
def test_a_real_vllm_server_writes_and_refuses(vllm_server: str) -> None:
    engine = EndpointEngine(EMBEDDED_LM, EndpointSettings(base_url=vllm_server), SAMPLING)
    prompt = load_prompt("rewrite-1")
    asked = [
        Request(messages=prompt.messages(f"wooden boat with {n} sails"), seed=2**62 + i)
        for i, n in enumerate(("two", "three", "four", "five"))
    ]
    first = engine.generate(asked)
    assert all(c.text and c.num_tokens and not c.error for c in first)
    assert engine.generate(asked[::-1])[::-1] == first
    over_long = Request(messages=prompt.messages("very " * 300 + "long boat"), seed=1)
    good, bad = engine.generate([asked[0], over_long])
    assert good == first[0]
    assert bad.finish_reason == "error"
    assert "answered 400" in bad.error
    with pytest.raises(UserError, match=f"does not serve 'another' but {EMBEDDED_LM}"):
        EndpointEngine("another", EndpointSettings(base_url=vllm_server), SAMPLING)
