"""vLLM's offline engine, on GPU or CPU. The only module that imports vLLM.

vLLM runs inside the process that makes :class:`VllmEngine`; a run puts that into a watched process of its own, see
:mod:`sclmkb.generate.engines.watched`. Prompts are templated and tokenised here and passed as token ids: vLLM would
put a second BOS before a prompt that is templated already. Prompts that start alike share their prefill through the
prefix cache, block by block (128 tokens on a CPU, 16 on a GPU). Above all, these are the samples of one caption.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from sclmkb.common.config import Settings, speed_only
from sclmkb.common.console import say, waiting_environment
from sclmkb.common.errors import UserError, first_line
from sclmkb.common.models.pretrained import resolve_language_model
from sclmkb.common.precision import fast_cpu_dtype
from sclmkb.generate.engines.base import Completion, Hear, Request, SamplingSettings, refused, unheard
from sclmkb.generate.engines.chat import ChatTokenizer


class VllmSettings(Settings):
    """Settings of the engine. Nearly all can change the last bit of a logit, so they count as part of a run."""

    dtype: str = Field(
        default="auto",
        pattern="^(auto|bfloat16|float16|float32)$",
        description="type of weights and activations. auto: the model's own on a GPU; on a CPU bfloat16 if the "
        "processor has it, else float32. Name one if the nodes of a run differ",
    )
    max_model_len: int = Field(default=512, ge=64, description="most tokens of prompt and text together")
    max_num_seqs: int = Field(default=128, ge=1, description="sequences that are decoded together")
    max_num_batched_tokens: int = Field(
        default=8192,
        ge=512,
        description="tokens per step; must hold a whole prompt, since the CPU engine fails on a seeded prompt that "
        "is split",
    )
    kv_cache_gib: int = Field(default=1, ge=1, description="memory for keys and values on a CPU [GiB]")
    enforce_eager: bool = Field(
        default=False, description="whether compilation is skipped: starts sooner, decodes slower"
    )
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs per copy of the model")
    data_parallel_size: int = Field(
        default=1, ge=1, description="copies of the model, each in its own process; a wave is divided among them"
    )
    gpu_memory_utilization: float = speed_only(0.9, gt=0, le=1, description="share of the GPU's memory that vLLM takes")


def worker_environments(settings: VllmSettings, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the variables that each copy of the model starts with: its own GPUs, or its share of the cores.

    On a CPU its threads wait for work in a short busy loop: while one of them prepares a step, the filter has the
    cores of the others. The engine is as fast (measured on two cores).

    Args:
        settings: how many copies there are, and how many GPUs each has.
        environment: of this process; its CUDA_VISIBLE_DEVICES is divided.

    Raises:
        UserError: if there are fewer GPUs than the copies need.
    """
    import torch

    copies, each = settings.data_parallel_size, settings.tensor_parallel_size
    if not (count := torch.cuda.device_count()):
        waiting = waiting_environment(environment)
        if copies == 1:
            return [waiting]
        threads = environment.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // copies))
        return [{"OMP_NUM_THREADS": threads, **waiting} for _ in range(copies)]
    if copies == 1:
        return [{}]
    visible = environment.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    devices = visible.split(",")
    if len(devices) < copies * each:
        raise UserError(
            f"vllm.data_parallel_size={copies} with vllm.tensor_parallel_size={each} needs {copies * each} GPUs, and"
            f" {len(devices)} are visible"
        )
    return [{"CUDA_VISIBLE_DEVICES": ",".join(devices[i * each : (i + 1) * each])} for i in range(copies)]


class VllmEngine:
    """Satisfies :class:`sclmkb.generate.engines.base.Engine`."""

    def __init__(
        self, model: str, chat_template: str | None, settings: VllmSettings, sampling: SamplingSettings
    ) -> None:
        """Start the engine (half a minute on a CPU).

        Raises:
            UserError: if vLLM is missing or cannot load the model.
        """
        self.chat = ChatTokenizer.load(model, chat_template)
        self.settings, self.sampling = settings, sampling
        self.prompt_tokens = self.cached_tokens = 0
        """Prompt tokens so far, and how many of them the prefix cache served."""
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
            raise UserError(
                "SDG needs vLLM: pip install 'sclmkb[cpu]', or 'sclmkb[gpu]' beside a GPU; or take --set"
                " engine=transformers, which is slow, or engine=endpoint"
            ) from None
        resolved = resolve_language_model(model)
        dtype = chosen_dtype(settings)
        say(f"sdg: starting vLLM with {model} ({dtype}), up to half a minute")
        with _quiet():
            try:
                self.llm = LLM(
                    model=resolved,
                    dtype=dtype,
                    max_model_len=settings.max_model_len,
                    max_num_seqs=settings.max_num_seqs,
                    max_num_batched_tokens=settings.max_num_batched_tokens,
                    enable_chunked_prefill=False,
                    enable_prefix_caching=True,
                    enforce_eager=settings.enforce_eager,
                    tensor_parallel_size=settings.tensor_parallel_size,
                    gpu_memory_utilization=settings.gpu_memory_utilization,
                    disable_log_stats=True,
                    use_tqdm_on_load=False,
                    seed=0,
                )
            except Exception as error:  # vLLM raises whatever its loaders raise
                raise UserError(
                    f"vLLM cannot load the model '{model}': {first_line(error)}; VLLM_LOGGING_LEVEL=INFO says more"
                ) from error

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        """Return one completion per request; what is refused comes back as an error, the rest goes on."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine, results = self.llm.llm_engine, dict[int, Completion]()

        def found(place: int, completion: Completion) -> None:
            results[place] = completion
            hear(place, completion)

        limit = self.settings.max_model_len - self.sampling.max_tokens
        common = {**self.sampling.model_dump(), "stop": list(self.sampling.stop)}
        for i, prompt in enumerate(self.chat.encode([request.messages for request in requests], limit)):
            if isinstance(prompt, str):
                found(i, refused(prompt))
                continue
            params = SamplingParams(seed=requests[i].seed, output_kind=RequestOutputKind.FINAL_ONLY, **common)
            try:
                engine.add_request(str(i), {"prompt_token_ids": prompt}, params)
            except (ValueError, TypeError) as error:
                found(i, refused(first_line(error)))
                continue
            self.prompt_tokens += len(prompt)
        while engine.has_unfinished_requests():
            for output in engine.step():
                self.cached_tokens += output.num_cached_tokens or 0
                w = output.outputs[0]
                found(
                    int(output.request_id),
                    Completion(text=w.text, finish_reason=str(w.finish_reason), num_tokens=len(w.token_ids)),
                )
        return [results[i] for i in range(len(requests))]


def chosen_dtype(settings: VllmSettings) -> str:
    """Return the dtype that vLLM is started with; ``auto`` is for a GPU, where vLLM knows best."""
    import torch

    if settings.dtype != "auto" or torch.cuda.device_count():
        return settings.dtype
    return fast_cpu_dtype()


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
