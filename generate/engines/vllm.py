"""vLLM's offline engine, on GPU or CPU. The only module that imports vLLM.

vLLM runs inside this process (no engine process is left behind when it is killed). Prompts are templated and
tokenised here and passed as token ids: vLLM would put a second BOS before a prompt that is templated already.
"""

import contextlib
import hashlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from sclmkb.common.cli import say
from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.models.pretrained import resolve_language_model
from sclmkb.generate.engines.base import Completion, Message, Request, SamplingSettings


class VllmSettings(Settings):
    """Settings of the engine. All can change the last bit of a logit, so all count as part of a run."""

    dtype: str = Field(default="bfloat16", pattern="^(bfloat16|float16|float32)$")
    max_model_len: int = Field(default=512, ge=64)
    """Longest prompt and completion together, in tokens."""
    max_num_seqs: int = Field(default=128, ge=1)
    """Sequences that are decoded together."""
    max_num_batched_tokens: int = Field(default=8192, ge=512)
    """Tokens of one step; a prompt must never be split over two (the CPU engine dies of a seeded one)."""
    kv_cache_gib: int = Field(default=1, ge=1)
    """Memory for keys and values on a CPU [GiB]."""
    enforce_eager: bool = False
    """Do not compile the model: starts sooner, decodes slower."""


def load_tokenizer(model: str, chat_template: Path | None = None) -> Any:
    """Load a tokenizer that has a chat template.

    Args:
        model: the embedded model's name, a folder or a hub name.
        chat_template: a Jinja file to use instead of the model's own template.

    Raises:
        UserError: if it cannot be loaded, or there is no chat template.
    """
    from transformers import AutoTokenizer

    resolved = resolve_language_model(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolved)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the tokenizer of '{model}': {_first_line(error)}") from None
    if chat_template is not None:
        try:
            tokenizer.chat_template = chat_template.read_text("utf-8")
        except OSError as error:
            raise UserError(f"cannot read the chat template {chat_template}: {error.strerror}") from None
    if not tokenizer.chat_template:
        raise UserError(
            f"the model '{model}' has no chat template: name an instruct model, or a Jinja file with"
            " --set chat_template=FILE"
        )
    return tokenizer


def chat_template_fingerprint(tokenizer: Any) -> str:
    """Return a hash of the tokenizer's chat template."""
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:16]


class VllmEngine:
    """Satisfies :class:`sclmkb.generate.engines.base.Engine`."""

    def __init__(self, model: str, tokenizer: Any, settings: VllmSettings, sampling: SamplingSettings) -> None:
        """Start the engine (half a minute on a CPU).

        Raises:
            UserError: if vLLM is missing or cannot load the model.
        """
        self.tokenizer, self.settings, self.sampling = tokenizer, settings, sampling
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(settings.kv_cache_gib))
        # Threads pinned to cores wait for each other as soon as anything else runs there.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        try:
            with _quiet():
                from vllm import LLM
        except ModuleNotFoundError:
            raise UserError("SDG needs vLLM: pip install 'sclmkb[cpu]', or 'sclmkb[gpu]' beside a GPU") from None
        resolved = resolve_language_model(model)
        say(f"sdg: starting vLLM with {model}, about half a minute")
        with _quiet():
            try:
                self.llm = LLM(
                    model=resolved,
                    dtype=settings.dtype,
                    max_model_len=settings.max_model_len,
                    max_num_seqs=settings.max_num_seqs,
                    max_num_batched_tokens=settings.max_num_batched_tokens,
                    enable_chunked_prefill=False,
                    enable_prefix_caching=True,
                    enforce_eager=settings.enforce_eager,
                    disable_log_stats=True,
                    use_tqdm_on_load=False,
                    seed=0,
                )
            except Exception as error:  # vLLM raises whatever its loaders raise
                raise UserError(
                    f"vLLM cannot load the model '{model}': {_first_line(error)}; VLLM_LOGGING_LEVEL=INFO says more"
                ) from error

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Return one completion a request; what is refused comes back as an error, the rest goes on."""
        prompts = [self.encode(request.messages) for request in requests]
        limit = self.settings.max_model_len - self.sampling.max_tokens
        fits = [i for i, prompt in enumerate(prompts) if len(prompt) <= limit]
        written = self._generate([prompts[i] for i in fits], [requests[i].seed for i in fits])
        results = dict(zip(fits, written, strict=True))
        for i in set(range(len(requests))) - set(fits):
            results[i] = _refused(f"the prompt has {len(prompts[i])} tokens, more than the {limit} that fit")
        return [results[i] for i in range(len(requests))]

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a chat in the model's template, ready for the answer."""
        chat = [message._asdict() for message in messages]
        text = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _generate(self, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Completion]:
        if not prompts:
            return []
        from vllm import SamplingParams

        common = {**self.sampling.model_dump(), "stop": list(self.sampling.stop)}
        params = [SamplingParams(seed=seed, **common) for seed in seeds]
        try:
            outputs = self.llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
        except (ValueError, TypeError) as error:  # one request was refused, and with it the whole call
            if len(prompts) == 1:
                return [_refused(_first_line(error))]
            half = len(prompts) // 2
            return [*self._generate(prompts[:half], seeds[:half]), *self._generate(prompts[half:], seeds[half:])]
        written = [output.outputs[0] for output in outputs]
        return [
            Completion(text=w.text, finish_reason=str(w.finish_reason), num_tokens=len(w.token_ids)) for w in written
        ]


def _refused(error: str) -> Completion:
    return Completion(text="", finish_reason="error", num_tokens=0, error=error)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("Value error, ")]  # as pydantic writes it
    return (telling or lines or [type(error).__name__])[0].removeprefix("Value error, ")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings about optional libraries while the engine starts."""
    logger = logging.getLogger("vllm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
