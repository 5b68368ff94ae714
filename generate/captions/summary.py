"""What a run of ``sclmkb-gen sdg`` came to: for its closing lines and for its dataset card."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sclmkb.common.artifacts.artifact import Artifact

BINS = np.linspace(-1.0, 1.0, 41)
"""Edges of the histogram of cosine similarities."""


@dataclass(kw_only=True)
class Statistics:
    """Sums over all attempts.

    Attributes:
        rows: number of rows by state.
        samples: how many samples were asked for.
        kept: how many captions were kept, by round (0 is the first).
        reasons: why the others were not, with their number.
        kept_histogram: kept captions by similarity, one count per bin of :data:`BINS`, ``[40]``.
        rejected_histogram: the same of captions that were not kept, ``[40]``.
        tokens: generated tokens.
        seconds: time of engine and filter [s].
    """

    rows: dict[str, int]
    samples: int = 0
    kept: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    kept_histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(BINS) - 1, np.int64))
    rejected_histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(BINS) - 1, np.int64))
    tokens: int = 0
    seconds: float = 0.0


def collect(artifact: Artifact) -> Statistics:
    """Go through the attempts, one shard after the other."""
    found = Statistics(rows=artifact.counts(), seconds=sum(m["seconds"] or 0.0 for m in artifact.manifests))
    columns = ["accepted", "reason", "attempt", "similarity", "finish_reason", "num_tokens"]
    for shard in artifact.plan.shards:
        table = artifact.shard_table("attempts", shard.name, columns)
        accepted = table.column("accepted").to_numpy()
        similarity = np.clip(table.column("similarity").to_numpy(), -1.0, 1.0)
        written = table.column("finish_reason").to_numpy() != "error"
        found.samples += table.num_rows
        found.tokens += int(table.column("num_tokens").to_numpy().sum())
        found.kept.update(table.column("attempt").to_numpy()[accepted].tolist())
        found.reasons.update(r.partition(":")[0] for r in table.column("reason").to_numpy()[~accepted])
        found.kept_histogram += np.histogram(similarity[accepted], BINS)[0]
        found.rejected_histogram += np.histogram(similarity[~accepted & written], BINS)[0]
    return found


def summarise(artifact: Artifact) -> list[str]:
    """Return a few lines: row states, acceptance, reasons for rejecting, and speed."""
    found = collect(artifact)
    num_rows, num_ok, kept = sum(found.rows.values()), found.rows.get("ok", 0), found.kept.total()
    lines = [
        f"{num_rows} rows: {num_ok} ok ({percent(num_ok, num_rows)} have a kept caption),"
        f" {found.rows.get('rejected', 0)} rejected, {found.rows.get('error', 0)} error",
        f"{found.samples} samples: {kept} kept ({percent(kept, found.samples)});"
        f" by round: {', '.join(str(found.kept[i]) for i in sorted(found.kept)) or 'none'}",
        "rejected for: " + (", ".join(f"{name} {count}" for name, count in found.reasons.most_common()) or "nothing"),
    ]
    if found.seconds:
        lines.append(
            f"{found.samples / found.seconds:.1f} captions/s, {found.tokens / found.seconds:.0f} tokens/s"
            f" in {found.seconds:.0f} s of engine and filter"
        )
    if any(manifest["figures"].get("failed") for manifest in artifact.manifests):
        lines.append(f"the same command with --retry {artifact.root} --out NEW asks again for the samples that failed")
    return [*lines, f"written to {artifact.root}"]


def percent(part: int, whole: int) -> str:
    """Return a share in percent."""
    return f"{100 * part / whole:.0f} %" if whole else "0 %"
