"""The closing summary of a run of ``sclmkb-gen sdg``."""

from collections import Counter

from sclmkb.common.artifacts import Artifact


def summarise(artifact: Artifact) -> list[str]:
    """Return a few lines: row states, acceptance, reasons for rejecting, and speed."""
    counts = artifact.counts()
    attempts = artifact.table("attempts", columns=["row_id", "accepted", "reason", "attempt"]).to_pylist()
    num_rows, num_samples = sum(counts.values()), len(attempts)
    kept = sum(a["accepted"] for a in attempts)
    reasons = Counter(a["reason"].partition(":")[0] for a in attempts if not a["accepted"])
    seconds = sum(m["seconds"] or 0 for m in artifact.manifests)
    rounds = Counter(a["attempt"] for a in attempts if a["accepted"])
    return [
        f"{num_rows} rows: {counts.get('ok', 0)} ok ({_share(counts.get('ok', 0), num_rows)} have a kept caption),"
        f" {counts.get('rejected', 0)} rejected, {counts.get('error', 0)} error",
        f"{num_samples} samples: {kept} kept ({_share(kept, num_samples)});"
        f" by round: {', '.join(str(rounds[i]) for i in sorted(rounds)) or 'none'}",
        "rejected for: " + (", ".join(f"{name} {count}" for name, count in reasons.most_common()) or "nothing"),
        f"{num_samples / seconds:.1f} captions/s in the session that ended the run" if seconds else "no work was left",
        f"written to {artifact.root}",
    ]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "0 %"
