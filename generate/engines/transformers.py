"""The language model through transformers: where there is no vLLM, on macOS for one.

Slower than vLLM by far. Tokens are drawn with one generator per request. So a completion depends on its request and
not on its batch, up to the rounding of a batched matrix product.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sclmkb.common.errors import UserError, first_line
from sclmkb.common.models.pretrained import quiet_loading, resolve_language_model
from sclmkb.common.seeds import make_generator
from sclmkb.generate.engines.base import Completion, Hear, Request, SamplingSettings, refused, unheard
from sclmkb.generate.engines.chat import ChatTokenizer
from sclmkb.generate.engines.transformers_settings import TransformersSettings


class TransformersEngine:
    """Satisfies :class:`sclmkb.generate.engines.base.Engine`."""

    def __init__(
        self, model: str, chat_template: str | None, settings: TransformersSettings, sampling: SamplingSettings
    ) -> None:
        """Load the model.

        Raises:
            UserError: if the model cannot be loaded, or the device is not there.
        """
        from transformers import AutoModelForCausalLM

        self.chat = ChatTokenizer.load(model, chat_template)
        self.settings, self.sampling = settings, sampling
        device = _best_device() if settings.device == "auto" else settings.device
        try:
            with quiet_loading():
                loaded = AutoModelForCausalLM.from_pretrained(
                    resolve_language_model(model), dtype=getattr(torch, settings.dtype)
                )
            self.model: Any = loaded.eval().to(device)
        except Exception as error:  # whatever its loaders raise
            raise UserError(f"transformers cannot load the model '{model}': {first_line(error)}") from error
        eos = self.model.generation_config.eos_token_id
        self._eos = {eos} if isinstance(eos, int) else set(eos or ())

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        """Return one completion per request; what is refused comes back as an error, the rest goes on."""
        limit = self.settings.max_model_len - self.sampling.max_tokens
        prompts = self.chat.encode([request.messages for request in requests], limit)
        results = {i: refused(prompt) for i, prompt in enumerate(prompts) if isinstance(prompt, str)}
        for i, completion in results.items():
            hear(i, completion)
        fits = [(i, prompt) for i, prompt in enumerate(prompts) if not isinstance(prompt, str)]
        fits.sort(key=lambda fit: len(fit[1]))  # little padding
        size = self.settings.batch_size
        for batch in (fits[i : i + size] for i in range(0, len(fits), size)):
            written = self._generate([prompt for _, prompt in batch], [requests[i].seed for i, _ in batch])
            for (i, _), completion in zip(batch, written, strict=True):
                results[i] = completion
                hear(i, completion)
        return [results[i] for i in range(len(requests))]

    def _generate(self, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Completion]:
        from transformers import LogitsProcessorList, StoppingCriteriaList

        longest = max(map(len, prompts))
        pad = min(self._eos, default=0)
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        watch = _Watch(self.chat.tokenizer, longest, self._eos, self.sampling)
        with torch.inference_mode():
            self.model.generate(
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=self.sampling.max_tokens,
                do_sample=False,  # the processor draws, and leaves one token to choose
                temperature=None,
                top_p=None,
                top_k=None,
                logits_processor=LogitsProcessorList([SeededDraw(seeds, self.sampling)]),
                stopping_criteria=StoppingCriteriaList([watch]),
                pad_token_id=pad,
            )
        return watch.completions(len(prompts))


class SeededDraw:
    """A logits processor that draws each row's token with the row's own generator.

    softmax(z / τ), cut to the most probable tokens whose mass reaches ``top_p``; one uniform number picks.
    """

    def __init__(self, seeds: Sequence[int], sampling: SamplingSettings) -> None:
        """Make one generator per row."""
        self._generators = [make_generator("transformers", seed) for seed in seeds]
        self._sampling = sampling

    def __call__(self, input_ids: Int[Tensor, "B T"], scores: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        """Return scores ``[B, V]`` that leave the drawn token alone."""
        mass, order = torch.softmax(scores.float() / self._sampling.temperature, dim=-1).sort(dim=-1, descending=True)
        before = mass.cumsum(dim=-1) - mass
        cumulative = torch.where(before < self._sampling.top_p, mass, 0.0).cumsum(dim=-1)
        uniform = torch.cat([torch.rand(1, generator=generator) for generator in self._generators])
        threshold = uniform.to(cumulative.device)[:, None] * cumulative[:, -1:]
        place = torch.searchsorted(cumulative, threshold, right=True).clamp(max=cumulative.shape[-1] - 1)
        drawn = order.gather(-1, place)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)


class _Watch:
    """A stopping criterion that notes where and why each row ended."""

    def __init__(self, tokenizer: Any, prompt_length: int, eos: set[int], sampling: SamplingSettings) -> None:
        self._tokenizer, self._prompt_length, self._eos, self._sampling = tokenizer, prompt_length, eos, sampling
        self._ended: dict[int, Completion] = {}
        self._last: list[list[int]] = []

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self._last = input_ids[:, self._prompt_length :].tolist()
        for row, ids in enumerate(self._last):
            if row in self._ended:
                continue
            text = self._tokenizer.decode(ids, skip_special_tokens=True)
            places = [place for stop in self._sampling.stop if (place := text.find(stop)) >= 0]
            if places or ids[-1] in self._eos:
                end = min(places, default=len(text))
                self._ended[row] = Completion(text=text[:end], finish_reason="stop", num_tokens=len(ids))
        return torch.tensor([row in self._ended for row in range(len(self._last))], device=input_ids.device)

    def completions(self, count: int) -> list[Completion]:
        """Return the completions, those that were cut off at the token limit too."""
        return [
            self._ended.get(row)
            or Completion(
                text=self._tokenizer.decode(self._last[row], skip_special_tokens=True),
                finish_reason="length",
                num_tokens=len(self._last[row]),
            )
            for row in range(count)
        ]


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
