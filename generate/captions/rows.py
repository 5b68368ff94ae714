"""What the attempts of a run say about its rows; nothing here asks an engine or an encoder."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from sclmkb.common.artifacts.plan import Shard
from sclmkb.common.artifacts.schemas import ROW_STATES, SDG_ATTEMPTS, SDG_ROWS
from sclmkb.common.executors.stage import Made
from sclmkb.generate.filter.duplicates import find_near_copies

Row = dict[str, Any]

DUPLICATE = "duplicate"
"""Why a caption is rejected that passed the filter but nearly repeats another one of its identity."""


def clean(text: str) -> str:
    """Return a generated text without surrounding white space and quotes, and valid as UTF-8.

    Example:
        >>> clean(' "A boat." ')
        'A boat.'
    """
    return valid_utf8(text).strip().strip("\"'“”").strip()


def valid_utf8(text: str) -> str:
    """Return a text with ``?`` for what no UTF-8 can hold (halves of surrogate pairs)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def last_tries(attempts: Iterable[Row]) -> list[Row]:
    """Return the attempts that count: of every sample the last try, in the order of their first ones."""
    last: dict[tuple[str, int, int], Row] = {}
    for attempt in attempts:
        key = attempt["row_id"], attempt["attempt"], attempt["sample"]
        if key not in last or attempt["retry"] >= last[key]["retry"]:
            last[key] = attempt
    return list(last.values())


def passed(attempt: Row) -> bool:
    """Return whether the filter passed an attempt, be it a near copy of another one or not."""
    return bool(attempt["accepted"] or attempt["reason"] == DUPLICATE)


def failed(attempt: Row) -> bool:
    """Return whether the engine failed to write the attempt."""
    return bool(attempt["finish_reason"] == "error")


@dataclass(kw_only=True)
class RowProgress:
    """How far a row is.

    Attributes:
        num_attempts: rounds so far.
        has_passed: whether the filter passed anything.
        failures: attempt and sample of those that the engine failed to write, with the number of the last try.
        again: which of these to try again now.
    """

    num_attempts: int = 0
    has_passed: bool = False
    failures: dict[tuple[int, int], int] = field(default_factory=dict)
    again: tuple[tuple[int, int], ...] = ()

    def add(self, attempts: Iterable[Row]) -> None:
        """Take in attempts in the order in which they were made."""
        for attempt in attempts:
            key = attempt["attempt"], attempt["sample"]
            self.num_attempts = max(self.num_attempts, attempt["attempt"] + 1)
            self.has_passed = self.has_passed or passed(attempt)
            if failed(attempt):
                self.failures[key] = attempt["retry"]
            else:
                self.failures.pop(key, None)

    def after(self, attempts: Iterable[Row]) -> "RowProgress":
        """Return how far the row is after a wave."""
        new = replace(self, failures=dict(self.failures), again=())
        new.add(attempts)
        return new

    def state(self, max_attempts: int) -> str:
        """Return how the row ends as things stand, empty if it goes on."""
        if self.again:
            return ""
        if self.has_passed:
            return "ok"
        if self.failures:
            return "error"
        return "rejected" if self.num_attempts >= max_attempts else ""

    def jobs(self, num_samples: int) -> list[tuple[int, int, int]]:
        """Return attempt, sample and retry of what to ask for next."""
        if self.again:
            return [(*key, self.failures[key] + 1) for key in self.again]
        return [(self.num_attempts, sample, 0) for sample in range(num_samples)]


def settle(shard: Shard, captions: Sequence[Row], attempts: Sequence[Row], max_overlap: float) -> Made:
    """Return what a shard comes to: near copies marked, rows computed, both counted.

    Args:
        shard: the shard.
        captions: its source captions.
        attempts: its attempts in final order: by row, attempt, sample and retry.
        max_overlap: two kept captions of one identity share at most this part of their words.
    """
    identities = {caption["row_id"]: caption["identity"] for caption in captions}
    attempts = _mark_near_copies(attempts, identities, max_overlap)
    rows = make_rows(captions, attempts)
    states = Counter(row["state"] for row in rows)
    return Made(
        shard=shard,
        tables={
            "rows": pa.Table.from_pylist(rows, schema=SDG_ROWS),
            "attempts": pa.Table.from_pylist(attempts, schema=SDG_ATTEMPTS),
        },
        counts={state: states[state] for state in ROW_STATES},
        figures=count_samples(attempts),
    )


def count_samples(attempts: Sequence[Row]) -> dict[str, Any]:
    """Return a few numbers of attempts for those who watch the run."""
    return {
        "samples": len(attempts),
        "kept": sum(a["accepted"] for a in attempts),
        "failed": sum(failed(a) for a in last_tries(attempts)),
        "tokens": sum(a["num_tokens"] for a in attempts),
    }


def _mark_near_copies(attempts: Sequence[Row], identities: Mapping[str, str], max_overlap: float) -> list[Row]:
    """Decide which of the attempts that passed the filter are kept, and which are near copies of an earlier one."""
    candidates = [a for a in last_tries(attempts) if passed(a)]
    copies = find_near_copies(
        [identities[a["row_id"]] for a in candidates], [a["text"] for a in candidates], max_overlap
    )
    settled = {
        id(a): {**a, "accepted": not copy, "reason": DUPLICATE if copy else ""}
        for a, copy in zip(candidates, copies, strict=True)
    }
    return [settled.get(id(a), a) for a in attempts]


def make_rows(captions: Sequence[Row], attempts: Sequence[Row]) -> list[Row]:
    """Return one row of the table ``rows`` per source caption, computed from its attempts.

    A row is ``ok`` if anything was kept, else ``error`` if the engine failed, else ``rejected``. Of a sample that was
    asked for again only the last try counts.
    """
    tried, rows = by_row(last_tries(attempts)), []
    for caption in captions:
        own = tried.get(caption["row_id"], [])
        kept = sorted((a for a in own if a["accepted"]), key=lambda a: (-a["similarity"], a["attempt"], a["sample"]))
        errors = [a["reason"].removeprefix("error: ") for a in own if failed(a)]
        state = "ok" if kept else "error" if errors else "rejected"
        rows.append(
            {
                "row_id": caption["row_id"],
                "identity": caption["identity"],
                "split": caption["split"],
                "source_text": caption["text"],
                "state": state,
                "num_attempts": 1 + max((a["attempt"] for a in own), default=-1),
                "num_samples": len(own),
                "captions": [a["text"] for a in kept],
                "similarities": [a["similarity"] for a in kept],
                "error": errors[0] if state == "error" else "",
            }
        )
    return rows


def by_row(attempts: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the attempts of each row, in order."""
    found: dict[str, list[Row]] = {}
    for attempt in attempts:
        found.setdefault(attempt["row_id"], []).append(attempt)
    return found
