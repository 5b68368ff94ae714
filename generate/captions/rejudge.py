"""Attempts judged anew: scores from the attempts or made again, then rules and thresholds."""

from collections.abc import Callable, Mapping, Sequence

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.generate.captions.rows import Row, failed
from sclmkb.generate.filter.encoder import TextEncoder
from sclmkb.generate.filter.filter import Decision, EmbedSources, FilterSettings, HallucinationFilter, Sample, Verdict

Judge = Callable[[Sequence[Row], Mapping[str, str]], list[Verdict]]
"""Judges attempts; the mapping has the source captions by row id."""


def cached_scores(settings: FilterSettings, own_texts: Sequence[str]) -> Judge:
    """Return a judge that takes similarity and margin from the attempts."""
    decision = Decision(settings, own_texts)

    def judge(attempts: Sequence[Row], sources: Mapping[str, str]) -> list[Verdict]:
        return [
            decision.judge(a["text"], sources[a["row_id"]], a["finish_reason"], a["similarity"], a["margin"])
            for a in attempts
        ]

    return judge


def new_scores(
    settings: FilterSettings,
    own_texts: Sequence[str],
    source: Artifact,
    load_encoder: Callable[[str, str], TextEncoder],
    embed_sources: EmbedSources,
) -> Judge:
    """Return a judge that embeds sources and attempts again."""
    rows = source.table("rows", columns=["row_id", "source_text", "identity"]).to_pydict()
    position = {row_id: i for i, row_id in enumerate(rows["row_id"])}
    encoder = load_encoder(settings.encoder, settings.encoder_dtype)
    whole = HallucinationFilter(settings, encoder, rows["source_text"], rows["identity"], own_texts, embed_sources)

    def judge(attempts: Sequence[Row], sources: Mapping[str, str]) -> list[Verdict]:
        return whole.judge(
            [Sample(source=position[a["row_id"]], text=a["text"], finish_reason=a["finish_reason"]) for a in attempts]
        )

    return judge


def rejudge(rows: Sequence[Row], attempts: Sequence[Row], judge: Judge) -> list[Row]:
    """Return those attempts of a shard that ``sdg`` would have made: none in a round after one with a keeper."""
    verdicts = judge(attempts, {row["row_id"]: row["source_text"] for row in rows})
    judged, last_round = [], dict[str, int]()
    for attempt, verdict in zip(attempts, verdicts, strict=True):
        reason = attempt["reason"] if failed(attempt) else verdict.reason
        scores = {"similarity": verdict.similarity, "margin": verdict.margin}
        judged.append({**attempt, **scores, "accepted": not reason, "reason": reason})
        if not reason:
            row_id, number = attempt["row_id"], attempt["attempt"]
            last_round[row_id] = min(number, last_round.get(row_id, number))
    return [a for a in judged if a["attempt"] <= last_round.get(a["row_id"], a["attempt"])]
