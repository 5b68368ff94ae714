"""What every text engine offers: a batch of requests in, as many completions out.

vLLM's offline engine is the default; one that asks an OpenAI-compatible server, one that runs transformers and the
control without language model follow the same protocol. Every request has its own seed, so a completion belongs to
its request and not to the batch it came in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pydantic import Field

from sclmkb.common.config import Settings


class Message(NamedTuple):
    """One turn of a chat."""

    role: str
    """``system``, ``user`` or ``assistant``."""
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One sample to write: the chat so far, and the seed of this sample."""

    messages: tuple[Message, ...]
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What an engine wrote for one request.

    Attributes:
        text: the text, empty if the engine refused.
        finish_reason: ``stop``, ``length`` (cut off at the token limit) or ``error``.
        num_tokens: how many tokens were generated.
        error: why the engine refused the request, empty if it did not.
    """

    text: str
    finish_reason: str
    num_tokens: int
    error: str = ""


class SamplingSettings(Settings):
    """How tokens are drawn: softmax(z / τ), cut to the most probable mass ``top_p``, up to ``max_tokens``."""

    temperature: float = Field(default=0.8, gt=0, le=2, description="temperature τ of the softmax")
    top_p: float = Field(default=0.9, gt=0, le=1, description="probability mass of the tokens that may be drawn")
    max_tokens: int = Field(default=40, ge=1, description="most tokens per text")
    stop: tuple[str, ...] = Field(
        default=("\n", ". "), description="strings that end a text; a caption is one sentence"
    )


Hear = Callable[[int, Completion], None]
"""Is told the place of a request and its completion."""


def unheard(place: int, completion: Completion) -> None:
    """Do nothing with a completion: for who waits until all of them are there."""


def tell(written: Sequence[Completion], hear: Hear) -> list[Completion]:
    """Return the completions of an engine that has them all at once, after telling each."""
    for place, completion in enumerate(written):
        hear(place, completion)
    return list(written)


class Engine(Protocol):
    """Writes text."""

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        """Return one completion per request, in order.

        Each is also told to ``hear``, once and as soon as it is there, in whatever order.

        A request that the engine refuses (over-long, say) comes back with ``error`` set; the others are not
        touched by it. Only what makes the engine itself useless raises.
        """
        ...


def refused(error: str) -> Completion:
    """Return the completion of a request that failed."""
    return Completion(text="", finish_reason="error", num_tokens=0, error=error)
