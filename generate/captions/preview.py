"""``sclmkb-gen preview``: what a run of SDG will ask and about what it will take, without loading an engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import fmean

from sclmkb.common.models.pretrained import EMBEDDED_LM
from sclmkb.generate.captions.rows import valid_utf8
from sclmkb.generate.captions.sdg import SdgSettings, open_corpus, read_captions
from sclmkb.generate.engines.base import Message
from sclmkb.generate.engines.chat import ChatTokenizer, too_long
from sclmkb.generate.prompts import load_prompt

MAX_COUNTED = 2000
"""Most captions whose tokens are counted. Of more captions, this many are taken at equal distances."""
CHARACTERS_PER_TOKEN = 4
"""Of English, where there is no tokenizer to count with."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a run will ask.

    Attributes:
        prompts: some of the prompts, as text.
        prompt_lengths: tokens of the counted prompts.
        answer_lengths: expected tokens of their answers: those of the source captions, and the end.
        common_length: tokens that all prompts start with.
        num_rows: source captions of the run.
        num_samples: samples per row and round.
        max_attempts: rounds at most.
        refusals: why the engine would refuse some of the counted captions.
        tokenizer: what counted.
    """

    prompts: list[str]
    prompt_lengths: list[int]
    answer_lengths: list[int]
    common_length: int
    num_rows: int
    num_samples: int
    max_attempts: int
    refusals: list[str]
    tokenizer: str


def make_preview(settings: SdgSettings, corpus: Path, count: int) -> Preview:
    """Render some prompts of a run, and count the tokens of them all.

    Args:
        settings: of the run.
        corpus: folder of the corpus artifact.
        count: prompts to show.

    Raises:
        UserError: if corpus, prompt, model or chat template cannot be read, or the corpus has no captions.
    """
    captions = read_captions(open_corpus(corpus, settings.splits), settings.splits)
    texts = [valid_utf8(caption["text"]) for caption in captions.values()]
    prompt = load_prompt(settings.prompt)
    chat, name = _tokenizer(settings)
    looked_at = _spread(texts, MAX_COUNTED)
    chats = [prompt.messages(text) for text in looked_at]
    shown = [prompt.messages(text) for text in _spread(texts, count)]
    max_tokens = settings.sampling.max_tokens
    encoded: list[list[int] | str]
    if chat is None:
        rendered = ["\n".join(f"{m.role}: {m.content}" for m in messages) for messages in shown]
        lengths = [sum(len(m.content) for m in messages) // CHARACTERS_PER_TOKEN for messages in chats]
        common, refusals = sum(len(m.content) for m in chats[0][:-1]) // CHARACTERS_PER_TOKEN, []
        answers = [len(text) // CHARACTERS_PER_TOKEN for text in looked_at]
    else:
        rendered = [chat.render(messages) for messages in shown]
        encoded = chat.encode(chats)
        ids = [prompt_ids for prompt_ids in encoded if not isinstance(prompt_ids, str)]
        lengths, common = [len(prompt_ids) for prompt_ids in ids], _common_length(chat, prompt.messages("a"))
        refusals = [prompt_ids for prompt_ids in encoded if isinstance(prompt_ids, str)]
        answers = [len(tokens) for tokens in chat.tokenizer(looked_at, add_special_tokens=False)["input_ids"]]
        if (limit := _limit(settings)) is not None:
            refusals += [too_long(n, limit) for n in lengths if n > limit]
    return Preview(
        prompts=rendered,
        prompt_lengths=lengths,
        answer_lengths=[min(answer + 1, max_tokens) for answer in answers],
        common_length=common,
        num_rows=len(texts),
        num_samples=settings.num_samples,
        max_attempts=settings.max_attempts,
        refusals=refusals,
        tokenizer=name,
    )


def preview_lines(
    preview: Preview, rate: float | None = None, prompt_price: float | None = None, answer_price: float | None = None
) -> list[str]:
    """Return the preview in lines.

    Args:
        preview: what to describe.
        rate: generated tokens per second of the engine, as ``make bench-sdg`` or ``sclmkb-gen status`` says.
        prompt_price: price of a million prompt tokens.
        answer_price: price of a million generated tokens.
    """
    lines = []
    for number, prompt in enumerate(preview.prompts, 1):
        lines += [f"--- prompt {number} of {len(preview.prompts)} ---", prompt, ""]
    prompts, answers = (fmean(lengths or [0]) for lengths in (preview.prompt_lengths, preview.answer_lengths))
    share = preview.common_length / prompts if prompts else 0
    longest = max(preview.prompt_lengths, default=0)
    lines += [
        f"tokens: {prompts:.0f} per prompt on average, {longest} at most; the first {preview.common_length} are the"
        f" same for all, which a prefix cache serves (at most {share:.0%}); counted with {preview.tokenizer}",
        f"answers: about {answers:.0f} tokens, if they are as long as their captions",
    ]
    if preview.refusals:
        counted = len(preview.answer_lengths)
        lines.append(f"refused: {len(preview.refusals)} of {counted} captions looked at; first: {preview.refusals[0]}")
    first, most = preview.num_rows * preview.num_samples, preview.num_rows * preview.num_samples * preview.max_attempts
    asked = f"{preview.num_rows:,} captions x {preview.num_samples} samples"
    for label, samples in ((f"one round: {asked}", first), (f"at most: {preview.max_attempts} rounds", most)):
        parts = [
            f"{samples:,} samples",
            f"{samples * prompts:,.0f} prompt tokens",
            f"{samples * answers:,.0f} generated",
        ]
        if rate is not None:
            parts.append(f"{timedelta(seconds=round(samples * answers / rate))}")
        if prompt_price is not None or answer_price is not None:
            cost = samples * (prompts * (prompt_price or 0) + answers * (answer_price or 0)) / 1e6
            parts.append(f"cost {cost:,.2f}")
        lines.append(f"{label}: {', '.join(parts)}")
    if rate is None:
        lines.append("time: name a rate with --rate (generated tokens per second, as sclmkb-gen status prints it)")
    return lines


def _tokenizer(settings: SdgSettings) -> tuple[ChatTokenizer | None, str]:
    """Return what counts tokens, and its name; a server's model may not be here."""
    here = settings.model == EMBEDDED_LM or Path(settings.model).expanduser().is_dir()
    if settings.engine == "template" or (settings.engine == "endpoint" and not here):
        return None, f"{CHARACTERS_PER_TOKEN} characters per token, an estimate: the model's tokenizer is not here"
    return ChatTokenizer.load(settings.model, settings.chat_template), settings.model


def _spread(texts: Sequence[str], count: int) -> list[str]:
    """Return at most this many texts, at equal distances.

    Example:
        >>> _spread("abcdefgh", 4)
        ['a', 'c', 'e', 'g']
    """
    count = min(count, len(texts))
    return [texts[i * len(texts) // count] for i in range(count)]


def _common_length(chat: ChatTokenizer, messages: tuple[Message, ...]) -> int:
    """Return how many tokens do not depend on the last turn's caption."""
    other = (*messages[:-1], messages[-1]._replace(content=f"{messages[-1].content[:-1]}zz"))
    first, second = chat.encode([messages, other])
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def _limit(settings: SdgSettings) -> int | None:
    """Return how long a prompt may be; a server knows that itself."""
    engines = {"vllm": settings.vllm.max_model_len, "transformers": settings.transformers.max_model_len}
    longest = engines.get(settings.engine)
    return None if longest is None else longest - settings.sampling.max_tokens
