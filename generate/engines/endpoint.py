"""Any server that speaks OpenAI's chat completions: ``vllm serve``, llama.cpp, a hosted one.

The server applies its own chat template. Some failures are worth another try: no connection, a time-out, 429, 5xx, an
answer that is no answer. These requests are repeated after longer and longer pauses, or after the pause that the
server asks for. Any other failure, or one that lasts, comes back as an error of that request alone. Only a server that
is useless for all of them raises.
"""

import asyncio
import email.utils
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from sclmkb.common.config import Settings, speed_only
from sclmkb.common.errors import UserError, first_line
from sclmkb.generate.engines.base import Completion, Hear, Request, SamplingSettings, refused, unheard

if TYPE_CHECKING:
    import httpx

_RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_USELESS_STATUS = {
    401: "does not accept the key: put a valid one into {key}",
    403: "forbids it: does the key in {key} reach this model?",
    404: "does not know the address or the model: check endpoint.base_url and --model",
}


class EndpointSettings(Settings):
    """Where the server is, and how hard to ask it. The model and the sampling say what it writes."""

    base_url: str = speed_only(
        "http://127.0.0.1:8000/v1", description="address of the server, without `/chat/completions`"
    )
    api_key_variable: str = speed_only(
        "OPENAI_API_KEY", description="environment variable that holds the key; keys are never written anywhere"
    )
    concurrency: int = speed_only(64, ge=1, description="requests under way at the same time")
    requests_per_minute: float | None = speed_only(
        None, gt=0, description="most requests per minute, retries included; null: no limit"
    )
    timeout_s: float = speed_only(120.0, gt=0, description="longest wait for one answer [s]")
    max_retries: int = speed_only(6, ge=0, description="retries per request")
    backoff_s: float = speed_only(
        0.5, gt=0, description="longest wait before the first retry [s]; it doubles with each further one"
    )
    max_backoff_s: float = speed_only(
        60.0, gt=0, description="longest wait before any retry [s], even if the server asks for more"
    )
    seed_bits: int = Field(default=63, ge=31, le=63, description="bits of a seed that the server accepts")

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return url.rstrip("/")


@dataclass
class _RetryError(Exception):
    """A try failed, and another one may succeed."""

    reason: str
    wait_s: float | None = None


class _Pace:
    """Limits the rate of requests, and holds them while the server has asked for a pause."""

    def __init__(self, requests_per_minute: float | None) -> None:
        self._interval_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for the next turn."""
        now = time.monotonic()
        mine = max(self._next, now)
        self._next = mine + self._interval_s
        if mine > now:
            await asyncio.sleep(mine - now)

    def quiet(self, seconds: float) -> None:
        """Give no turn for this long."""
        self._next = max(self._next, time.monotonic() + seconds)


class EndpointEngine:
    """Satisfies :class:`sclmkb.generate.engines.base.Engine`."""

    def __init__(self, model: str, settings: EndpointSettings, sampling: SamplingSettings) -> None:
        """Ask the server for its models.

        Raises:
            UserError: if httpx is missing, the server cannot be reached, or it does not serve the model.
        """
        try:
            import httpx
        except ModuleNotFoundError:
            raise UserError("an endpoint needs httpx: pip install httpx") from None
        self._httpx = httpx
        self.model, self.settings, self.sampling = model, settings, sampling
        self._pace = _Pace(settings.requests_per_minute)
        self._check_server()

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        """Return one completion per request; one that fails for good comes back as an error.

        Raises:
            UserError: if the server refuses every request (key, address, model).
        """
        return asyncio.run(self._generate(requests, hear))

    async def _generate(self, requests: Sequence[Request], hear: Hear) -> list[Completion]:
        limit = asyncio.Semaphore(self.settings.concurrency)
        connections = self._httpx.Limits(max_connections=self.settings.concurrency)
        async with self._httpx.AsyncClient(
            timeout=self.settings.timeout_s, limits=connections, headers=self._headers()
        ) as client:

            async def write(place: int, request: Request) -> Completion:
                async with limit:
                    completion = await self._write(client, request)
                hear(place, completion)
                return completion

            tasks = [asyncio.ensure_future(write(place, request)) for place, request in enumerate(requests)]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()

    async def _write(self, client: "httpx.AsyncClient", request: Request) -> Completion:
        """Try until there is an answer, or the tries are used up."""
        jitter = random.Random(request.seed)
        for attempt in range(self.settings.max_retries + 1):
            await self._pace.turn()
            try:
                return await self._ask(client, request)
            except _RetryError as failure:
                reason, asked_s = failure.reason, failure.wait_s
            if attempt == self.settings.max_retries:
                break
            longest = self.settings.max_backoff_s
            if asked_s is not None:
                self._pace.quiet(min(asked_s, longest))
            else:
                await asyncio.sleep(jitter.uniform(0.5, 1) * min(self.settings.backoff_s * 2**attempt, longest))
        return refused(f"{reason}, {self.settings.max_retries + 1} tries")

    async def _ask(self, client: "httpx.AsyncClient", request: Request) -> Completion:
        body = {
            "model": self.model,
            "messages": [message._asdict() for message in request.messages],
            "seed": request.seed & ((1 << self.settings.seed_bits) - 1),
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "max_tokens": self.sampling.max_tokens,
            "stop": list(self.sampling.stop),
        }
        try:
            async with asyncio.timeout(self.settings.timeout_s):  # httpx bounds only each read by itself
                response = await client.post(f"{self.settings.base_url}/chat/completions", json=body)
        except (TimeoutError, self._httpx.TimeoutException):
            raise _RetryError(f"no answer in {self.settings.timeout_s:g} s") from None
        except self._httpx.TransportError as error:
            raise _RetryError(f"no connection: {first_line(error)}") from None
        status = response.status_code
        if status in _RETRIED_STATUS:
            raise _RetryError(f"the server answered {status}", _retry_after(response.headers.get("retry-after")))
        if status in _USELESS_STATUS:
            raise self._useless(status, response.text)
        if status != 200:
            return refused(f"the server answered {status}: {_message(response.text)}")
        return _read_answer(response.text)

    def _check_server(self) -> None:
        url = f"{self.settings.base_url}/models"
        try:
            response = self._httpx.get(url, timeout=min(self.settings.timeout_s, 30.0), headers=self._headers())
        except self._httpx.HTTPError as error:
            raise UserError(
                f"cannot reach {url} ({first_line(error)}): start the server, or name another with"
                " --set endpoint.base_url=URL"
            ) from None
        if response.status_code in (401, 403):
            raise self._useless(response.status_code, response.text)
        try:
            served = [str(model["id"]) for model in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            return  # not every server lists its models
        if response.status_code == 200 and served and self.model not in served:
            shown = ", ".join(served[:5]) + (", …" if len(served) > 5 else "")
            raise UserError(f"{self.settings.base_url} does not serve '{self.model}' but {shown}: name it with --model")

    def _useless(self, status: int, text: str) -> UserError:
        meaning = _USELESS_STATUS[status].format(key=self.settings.api_key_variable)
        return UserError(f"{self.settings.base_url} answers {status} and {meaning} ({_message(text)})")

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self.settings.api_key_variable)
        return {"Authorization": f"Bearer {key}"} if key else {}


def _read_answer(text: str) -> Completion:
    """Return the completion that an answer holds; a malformed one is worth another try."""
    try:
        answer = json.loads(text)
        choice = answer["choices"][0]
        content, reason = choice["message"]["content"], choice["finish_reason"]
        num_tokens = int((answer.get("usage") or {}).get("completion_tokens") or 0)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _RetryError(f"malformed answer {text[:60]!r}") from None
    if reason == "content_filter":
        return refused("the server's content filter")
    if not isinstance(content, str) or reason not in ("stop", "length"):
        raise _RetryError(f"malformed answer {text[:60]!r}")
    return Completion(text=content, finish_reason=reason, num_tokens=num_tokens)


def _message(text: str) -> str:
    """Return what an error's body says, in one line."""
    found: Any = text
    try:
        found = json.loads(text)
        found = found.get("error", found)
        found = found.get("message", found)
    except (ValueError, AttributeError):
        pass
    return " ".join(str(found).split())[:200] or "no message"


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number of them, or a date.

    Example:
        >>> _retry_after("2.5"), _retry_after("soon"), _retry_after(None)
        (2.5, None, None)
    """
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
