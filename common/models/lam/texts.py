"""Texts as numbers: a vocabulary cut to the tokens that training writes, so that the output layer is small.

::

    texts of training ─► tokenizer ─► tokens that occur ─► 0 padding, 1 end, 2 … the rest
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

PAD, END, UNKNOWN = 0, 1, 2
"""Numbers in every vocabulary; a text begins with padding, as in T5."""

_WORD = re.compile(r"\w+|[^\w\s]")


class Vocabulary(ABC):
    """What reads prompts and writes answers.

    Attributes:
        entries: the tokens that can be written, as JSON values, by their number.
    """

    entries: Sequence[Any]

    def __len__(self) -> int:
        return len(self.entries)

    @abstractmethod
    def read(self, texts: Sequence[str], most: int) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """Return what the encoder reads of prompts, cut to ``most`` tokens, and which places are real."""

    @abstractmethod
    def pieces(self, text: str) -> list[Any]:
        """Return the tokens of a text to be written, as entries."""

    @abstractmethod
    def join(self, entries: Sequence[Any]) -> str:
        """Return the text of entries."""

    def numbers(self, texts: Sequence[str], most: int) -> Int[Tensor, "B L"]:
        """Return the numbers of texts to be written, each with its end, padded with :data:`PAD`."""
        known = {entry: number for number, entry in enumerate(self.entries)}
        rows = [[known.get(p, UNKNOWN) for p in self.pieces(text)[: most - 1]] + [END] for text in texts]
        return _padded(rows)[0]

    def write(self, numbers: Int[Tensor, "B L"]) -> list[str]:
        """Return the texts of numbers, each up to its end."""
        texts = []
        for row in numbers.tolist():
            kept = row[: row.index(END)] if END in row else row
            texts.append(self.join([self.entries[n] for n in kept if n > UNKNOWN]))
        return texts


class Words(Vocabulary):
    """Whole words in lower case, for a model without a tokenizer of its own; unknown ones are all the same.

    Args:
        entries: see :meth:`of`.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self.entries = list(entries)

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Words":
        """Return the vocabulary of all words of texts."""
        words = {word for text in texts for word in _WORD.findall(text.lower())}
        return cls(["<pad>", "</s>", "<unk>", *sorted(words)])

    def read(self, texts: Sequence[str], most: int) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """See :meth:`Vocabulary.read`."""
        known = {word: number for number, word in enumerate(self.entries)}
        return _padded([[known.get(word, UNKNOWN) for word in self.pieces(text)[:most]] for text in texts])

    def pieces(self, text: str) -> list[str]:
        """Return words and marks."""
        return _WORD.findall(text.lower())

    def join(self, entries: Sequence[str]) -> str:
        """Return words with spaces between them, marks without."""
        return re.sub(r" ([^\w\s])", r"\1", " ".join(entries))


class CutVocabulary(Vocabulary):
    """The tokens of a pre-trained tokenizer that training writes; prompts are read with all of them.

    Args:
        tokenizer: of transformers.
        entries: token ids by number; padding, end and unknown first.
    """

    def __init__(self, tokenizer: Any, entries: Sequence[int]) -> None:
        self.tokenizer, self.entries = tokenizer, list(entries)

    @classmethod
    def of(cls, tokenizer: Any, texts: Iterable[str]) -> "CutVocabulary":
        """Return the vocabulary of all tokens of texts."""
        special = [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
        used = {token for text in texts for token in tokenizer(text, add_special_tokens=False).input_ids}
        return cls(tokenizer, [*special, *sorted(used - set(special))])

    def read(self, texts: Sequence[str], most: int) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """See :meth:`Vocabulary.read`."""
        return _padded([self.tokenizer(text, truncation=True, max_length=most).input_ids for text in texts])

    def pieces(self, text: str) -> list[int]:
        """Return token ids."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return found

    def join(self, entries: Sequence[int]) -> str:
        """Return the text of token ids."""
        text: str = self.tokenizer.decode(list(entries), skip_special_tokens=True)
        return text.strip()


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    longest = max((len(row) for row in rows), default=0)
    values = torch.full((len(rows), max(longest, 1)), PAD, dtype=torch.long)
    real = torch.zeros(values.shape, dtype=torch.bool)
    for i, row in enumerate(rows):
        values[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        real[i, : len(row)] = True
    return values, real
