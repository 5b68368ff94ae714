"""Chats to token ids: the tokenizer of a model with its chat template, its own or one of those shipped here.

The templates are Jinja files in ``chat_templates/``, in the form of Hugging Face tokenizers. A template writes the
BOS itself, so that its text is tokenised without adding special tokens: one BOS, where the format has it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self

from sclmkb.common.errors import UserError, first_line
from sclmkb.common.models.pretrained import quiet_loading, resolve_language_model
from sclmkb.generate.engines.base import Message


def shipped_templates() -> dict[str, str]:
    """Return the chat templates that come with the program, by name."""
    folder = resources.files(__package__) / "chat_templates"
    found = [p for p in folder.iterdir() if p.name.endswith(".jinja")]
    return {p.name.removesuffix(".jinja"): p.read_text("utf-8") for p in sorted(found, key=lambda p: p.name)}


class ChatTokenizer:
    """A tokenizer that has a chat template."""

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a tokenizer of transformers that has a ``chat_template``; see :meth:`load`."""
        self.tokenizer = tokenizer
        added: Mapping[str, int] = tokenizer.get_added_vocab()
        self._control = sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True)

    @classmethod
    def load(cls, model: str, chat_template: str | None = None) -> Self:
        """Load the tokenizer of a model.

        Args:
            model: the embedded model's name, a folder or a hub name.
            chat_template: name of a shipped template, or a Jinja file, to use instead of the model's own.

        Raises:
            UserError: if it cannot be loaded, or there is no chat template.
        """
        from transformers import AutoTokenizer

        template = None if chat_template is None else read_template(chat_template)
        resolved = resolve_language_model(model)
        try:
            with quiet_loading():
                tokenizer = AutoTokenizer.from_pretrained(resolved)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot load the tokenizer of '{model}': {first_line(error)}") from None
        if template is not None:
            tokenizer.chat_template = template
        if not tokenizer.chat_template:
            names = ", ".join(shipped_templates())
            raise UserError(
                f"the model '{model}' has no chat template: name the one it was trained with by"
                f" --set chat_template=NAME ({names}, or a Jinja file), or choose an instruct model"
            )
        made = cls(tokenizer)
        made.render([Message("user", "x")])  # a template with a mistake in it is found now, not in a week's run
        return made

    def fingerprint(self) -> str:
        """Return a hash of the chat template."""
        return hashlib.sha256(str(self.tokenizer.chat_template).encode()).hexdigest()[:16]

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text of a chat in the model's format, ready for the answer.

        Raises:
            UserError: if the template cannot write it.
        """
        chat = [message._asdict() for message in messages]
        try:
            return str(self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
        except Exception as error:  # whatever Jinja or the template raises
            raise UserError(f"the chat template cannot write the prompt: {first_line(error)}") from None

    def encode(self, chats: Sequence[Sequence[Message]], limit: int | None = None) -> list[list[int] | str]:
        """Return the token ids of each chat, or, where there are none or more than ``limit``, why it is refused.

        A text that spells a control token of the model ("</s>", "<|eot_id|>") would end its turn and speak as
        somebody else, so such a chat is refused. Equal chats, the samples of one caption, are tokenised once.
        """
        distinct: dict[tuple[Message, ...], list[int] | str] = {}
        for chat in map(tuple, chats):
            if chat not in distinct:
                distinct[chat] = self._refusal(chat)
        fine = [chat for chat, refusal in distinct.items() if not refusal]
        if fine:
            ids = self.tokenizer([self.render(chat) for chat in fine], add_special_tokens=False)["input_ids"]
            distinct.update(
                (chat, too_long(len(found), limit) if limit is not None and len(found) > limit else found)
                for chat, found in zip(fine, ids, strict=True)
            )
        return [distinct[tuple(chat)] for chat in chats]

    def _refusal(self, chat: Sequence[Message]) -> str:
        for message in chat:
            for token in self._control:
                if token in message.content and token.strip():
                    return f"the text holds the control token {token!r} of the model"
        return ""


def too_long(num_tokens: int, limit: int) -> str:
    """Return why a prompt with this number of tokens is refused."""
    return f"the prompt has {num_tokens} tokens, more than the {limit} that fit"


def read_template(name: str) -> str:
    """Return a chat template: one that is shipped, by its name, or the text of a file.

    Raises:
        UserError: if there is neither.
    """
    shipped = shipped_templates()
    if name in shipped:
        return shipped[name]
    try:
        return Path(name).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise UserError(
            f"cannot read the chat template '{name}': {reason}; shipped ones are {', '.join(shipped)}"
        ) from None
