"""Versioned prompts: data files beside this loader, one per version, never changed once used.

Each is laid out for the prefix cache of an engine. The instruction and the examples are the same for all captions.
They come first and fill at least one block of the cache (128 tokens on a CPU). The caption is the last turn.
"""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sclmkb.common.config import fingerprint
from sclmkb.common.errors import UserError
from sclmkb.generate.engines.base import Message


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A task instruction and few-shot examples, p = [instruction, s].

    Attributes:
        name: name and version, e.g. ``rewrite-1``.
        system: the task instruction.
        user: how a caption is put to the model; ``{caption}`` stands for it.
        examples: pairs of a caption and its answer, from another domain than the corpus.
    """

    name: str
    system: str
    user: str
    examples: tuple[tuple[str, str], ...]

    def messages(self, caption: str) -> tuple[Message, ...]:
        """Return the chat for one source caption; everything before the last turn is the same for all."""
        turns = [Message("system", self.system)]
        for example, answer in self.examples:
            turns += [Message("user", self.user.replace("{caption}", example)), Message("assistant", answer)]
        return (*turns, Message("user", self.user.replace("{caption}", caption)))

    def own_texts(self) -> list[str]:
        """Return what an answer must not repeat: the instruction and the examples."""
        return [self.system, *(text for pair in self.examples for text in pair)]

    def fingerprint(self) -> str:
        """Return a hash of the contents."""
        return fingerprint([self.system, self.user, self.examples])


def shipped_prompts() -> list[str]:
    """Return the names of the prompts that come with the program."""
    folder = resources.files(__name__)
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def load_prompt(name: str) -> Prompt:
    """Load a prompt by its name, or from a YAML file in the same form.

    Raises:
        UserError: if there is no such prompt, or the file is not in that form.
    """
    known = shipped_prompts()
    if name in known:
        text = (resources.files(__name__) / f"{name}.yaml").read_text("utf-8")
    else:
        try:
            text = Path(name).read_text("utf-8")
        except OSError:
            raise UserError(f"unknown prompt '{name}': choose one of {', '.join(known)}, or name a YAML file") from None
    try:
        values: Any = yaml.safe_load(text)
        prompt = Prompt(
            name=Path(name).stem,
            system=" ".join(values["system"].split()),
            user=values["user"],
            examples=tuple((e["caption"], e["answer"]) for e in values["examples"]),
        )
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        raise UserError(f"prompt '{name}' is not in the form of the shipped ones: system, user, examples") from None
    if "{caption}" not in prompt.user:
        raise UserError(f"prompt '{name}': 'user' must hold {{caption}}")
    return prompt
