"""``sclmkb-gen calibrate``: finds the thresholds of the hallucination filter on captions of the training split alone.

::

    training captions ─► pairs (faithful | corrupted) ─► scores, rules ─► ROC ─► thresholds of a wanted precision
                                                          (half the identities)      measured on the other half

A pair is a source caption and a text that stands for a generated one. The thresholds are those with the highest recall
at which the whole filter, rules included, has the wanted precision.

Other people's captions of the same item are scored as well, but do not count as faithful by default. People who see
the same thing mention different details of it. A filter that compares texts takes these for hallucinations.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import checked_file, write_json, write_parquet
from sclmkb.common.artifacts.texts import no_texts, texts_of
from sclmkb.common.config import Settings, fingerprint
from sclmkb.common.console import progress
from sclmkb.common.errors import UserError
from sclmkb.common.seeds import derive_seed, make_generator
from sclmkb.generate.filter.attributes import load_attributes
from sclmkb.generate.filter.curves import Bools, Doubles, ThresholdCurve, curve
from sclmkb.generate.filter.encoder import TextEncoder, load_text_encoder
from sclmkb.generate.filter.filter import CALIBRATED, FilterSettings, HallucinationFilter, Sample
from sclmkb.generate.filter.pairs import CORRUPTED, FAITHFUL, PairMaker

SPLIT = "train"
_BATCH = 2048
_MARGIN_QUANTILES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Thresholds of the margin that are tried: values that these shares of the faithful texts lie below."""


class CalibrateSettings(Settings):
    """Settings of ``sclmkb-gen calibrate``."""

    seed: int = Field(
        default=0, description="seed of which captions are taken, and of how they are reworded and corrupted"
    )
    max_sources: int = Field(
        default=2000,
        ge=10,
        description="source captions to make pairs from; the nearest other identity is searched in all training "
        "captions",
    )
    precision: float = Field(
        default=0.90, gt=0, lt=1, description="wanted share of faithful captions among those that the filter accepts"
    )
    faithful_share: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="share of faithful captions among those that the language model writes; precision depends on it",
    )
    faithful: tuple[Literal["rewording", "other caption"], ...] = Field(
        default=("rewording",),
        min_length=1,
        description="kinds of texts that count as faithful: neutral rewordings, other captions of the same identity, "
        "or both",
    )
    filter: FilterSettings = Field(
        default=FilterSettings(), description="encoder, index and rules; its thresholds are not used"
    )


@dataclass(frozen=True, kw_only=True)
class ScoredPairs:
    """Pairs with what the filter says of them, all ``[N]``."""

    source: list[str]
    text: list[str]
    kind: NDArray[np.str_]
    similarity: Doubles
    margin: Doubles
    reason: list[str]  # of the rules alone
    held_out: Bools

    @property
    def passes_rules(self) -> Bools:
        """Which texts break no rule."""
        return np.array([not reason for reason in self.reason])

    @property
    def kinds(self) -> list[str]:
        """The kinds that there are, in order."""
        return [kind for kind in (*FAITHFUL, *CORRUPTED) if kind in self.kind]

    def select(self, half: Bools, faithful: Sequence[str], corrupted: Sequence[str] = CORRUPTED) -> tuple[Bools, Bools]:
        """Return which pairs of a half are of these kinds, and which of those are faithful."""
        return half & np.isin(self.kind, [*faithful, *corrupted]), np.isin(self.kind, faithful)


def side_weights(faithful: Bools, faithful_share: float) -> Doubles:
    """Return weights ``[N]`` by which the faithful are that share of all."""
    num_faithful = max(int(faithful.sum()), 1)
    return np.where(
        faithful, faithful_share / num_faithful, (1 - faithful_share) / max(len(faithful) - num_faithful, 1)
    )


def calibrate(
    settings: CalibrateSettings,
    corpus: Path,
    out: Path,
    *,
    load_encoder: Callable[[str, str], TextEncoder] = load_text_encoder,
) -> dict[str, Any]:
    """Write ``calibration.json``, ``pairs.parquet`` and the figures of a corpus into a folder.

    Args:
        settings: what to calibrate.
        corpus: folder of the corpus artifact; only its training split is read.
        out: folder to write.
        load_encoder: builds E_α from name and dtype.

    Returns:
        What ``calibration.json`` holds.

    Raises:
        UserError: if the corpus is missing or corrupt, has too few training captions, or no threshold reaches the
            wanted precision.
    """
    captions, identities, inputs = read_training_captions(corpus)
    if len(set(identities)) < 4:
        raise UserError(f"{corpus} has {len(set(identities))} training identities: calibration needs at least 4")
    pairs = score_pairs(settings, captions, identities, load_encoder)
    out.mkdir(parents=True, exist_ok=True)
    (out / "calibration.json").unlink(missing_ok=True)  # what fails leaves no older thresholds behind
    write_parquet(out / "pairs.parquet", _pairs_table(pairs))
    found, curves = choose_thresholds(settings, pairs)
    from sclmkb.generate.filter.figures import draw_curves

    draw_curves(curves, found["held_out"], out)
    if not found["filter"]:
        raise UserError(
            f"no threshold reaches a precision of {settings.precision:g} on {corpus}: the best is"
            f" {found['best_precision']:.3f}; ask for less (--set precision=...), and see {out / 'pairs.parquet'}"
        )
    written = {
        **found,
        "settings": settings.model_dump(mode="json"),
        "inputs": {**inputs, **settings.filter.inputs()},
    }
    write_json(out / "calibration.json", written)
    return written


def read_training_captions(corpus: Path) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the texts of a corpus's training captions, their identities, and a fingerprint of what was read.

    No file of another split is opened.

    Raises:
        UserError: if the corpus is missing, corrupt or has no training captions.
    """
    artifact = Artifact.open(corpus, "corpus", verify=False)
    if SPLIT not in artifact.splits:
        raise UserError(f"{corpus} has no captions in split '{SPLIT}': calibration uses no others")
    digests = {
        name: entry["sha256"]
        for manifest in artifact.manifests
        for name, entry in manifest["files"].items()
        if manifest["split"] == SPLIT and name.startswith("captions/")
    }
    for name, sha256 in digests.items():
        checked_file(corpus / name, sha256, "make the corpus again")
    table = texts_of(artifact, SPLIT, ["text", "identity"])
    if not table.num_rows:
        raise no_texts(artifact, [SPLIT])
    texts = [text.decode("utf-8", "replace") for text in table["text"].cast(pa.binary()).to_pylist()]
    return texts, table["identity"].to_pylist(), {"captions": fingerprint(digests)}


def score_pairs(
    settings: CalibrateSettings,
    captions: Sequence[str],
    identities: Sequence[str],
    load_encoder: Callable[[str, str], TextEncoder],
) -> ScoredPairs:
    """Make pairs of some captions and let the filter score them."""
    import torch

    maker = PairMaker(captions, identities, load_attributes(settings.filter.rules.attributes), settings.seed)
    draw = make_generator(settings.seed, "sources")
    chosen = sorted(torch.randperm(len(captions), generator=draw)[: settings.max_sources].tolist())
    pairs = [pair for source in chosen for pair in maker.make(source)]
    encoder = load_encoder(settings.filter.encoder, settings.filter.encoder_dtype)
    rules_alone = settings.filter.model_copy(update={"min_similarity": -1.0, "min_margin": -2.0})
    verdicts = []
    with progress("calibrate", total=len(captions) + len(pairs)) as bar:
        judge = HallucinationFilter(rules_alone, encoder, captions, identities)
        bar.advance(len(captions), f"{len(captions)} training captions indexed")
        for start in range(0, len(pairs), _BATCH):
            batch = pairs[start : start + _BATCH]
            verdicts += judge.judge([Sample(source=p.source, text=p.text, finish_reason="stop") for p in batch])
            bar.advance(len(batch))
    halves = {identity: derive_seed(settings.seed, "half", identity) % 2 for identity in set(identities)}
    return ScoredPairs(
        source=[captions[p.source] for p in pairs],
        text=[p.text for p in pairs],
        kind=np.array([p.kind for p in pairs]),
        similarity=np.array([v.similarity for v in verdicts]),
        margin=np.array([v.margin for v in verdicts]),
        reason=[v.reason for v in verdicts],
        held_out=np.array([halves[identities[p.source]] for p in pairs], dtype=bool),
    )


def choose_thresholds(
    settings: CalibrateSettings, pairs: ScoredPairs
) -> tuple[dict[str, Any], dict[str, ThresholdCurve]]:
    """Choose thresholds on one half of the identities and measure them on the other.

    Returns:
        What goes into ``calibration.json`` (``filter`` is empty if the precision is not reached), and the curves of
        the other half by name.
    """
    (fit, faithful), (test, _) = (pairs.select(half, settings.faithful) for half in (~pairs.held_out, pairs.held_out))
    if not all((side & half).any() for side in (faithful, ~faithful) for half in (fit, test)):
        raise UserError(
            "there are too few faithful or corrupted texts to calibrate: take more captions (--set max_sources=...),"
            " or let rewordings count as faithful"
        )

    def curve_of(score: Doubles, chosen: Bools) -> ThresholdCurve:
        return curve(score[chosen], faithful[chosen], side_weights(faithful[chosen], settings.faithful_share))

    def filtered(min_margin: float) -> Doubles:
        """Return the similarities of what rules and margin leave over."""
        return np.where(pairs.passes_rules & (pairs.margin >= min_margin), pairs.similarity, -np.inf)

    margins = _round_down(np.quantile(pairs.margin[fit & faithful], _MARGIN_QUANTILES).astype(np.float64))
    tried = {margin: curve_of(filtered(margin), fit) for margin in margins}
    reaching = [
        (float(tried[margin].recall[point]), margin, point)
        for margin in tried
        if (point := tried[margin].best(settings.precision)) is not None
    ]
    # The highest recall; among equal ones the highest margin.
    _, min_margin, point = max(reaching, default=(0.0, margins[0], 0))
    scores = {"similarity": pairs.similarity, "margin": pairs.margin, "whole filter": filtered(min_margin)}
    curves = {name: curve_of(score, test) for name, score in scores.items()}
    result: dict[str, Any] = {
        "filter": {},
        "best_precision": max(float(c.precision[np.isfinite(c.threshold)].max(initial=0)) for c in tried.values()),
        "num_pairs": {kind: int((pairs.kind == kind).sum()) for kind in pairs.kinds},
        "auc": {name: curves[name].area for name in scores},
        "auc_by_kind": {},
        "held_out": {},
    }
    for kind in CORRUPTED:
        of_kind, _ = pairs.select(pairs.held_out, settings.faithful, [kind])
        if (of_kind & ~faithful).any():
            result["auc_by_kind"][kind] = {name: curve_of(score, of_kind).area for name, score in scores.items()}
    if not reaching:
        return result, curves
    (min_similarity,) = _round_down(tried[min_margin].threshold[point : point + 1])
    thresholds = {"min_similarity": min_similarity, "min_margin": min_margin}
    result["filter"] = {name: {**settings.filter.model_dump(mode="json"), **thresholds}[name] for name in CALIBRATED}
    above = (pairs.similarity >= thresholds["min_similarity"]) & (pairs.margin >= thresholds["min_margin"])
    accepted = above & pairs.passes_rules
    weight = np.zeros(len(accepted))
    weight[test] = side_weights(faithful[test], settings.faithful_share)
    right, wrong = (weight[accepted & side].sum() for side in (faithful, ~faithful))
    result["held_out"] = {
        "precision": float(right / (right + wrong)) if right + wrong else 1.0,
        "recall": float(right / settings.faithful_share),
        "fallout": float(wrong / (1 - settings.faithful_share)),
        "accepted_by_kind": _shares_by_kind(pairs, accepted),
        "accepted_by_rules_alone": _shares_by_kind(pairs, pairs.passes_rules),
        "accepted_by_scores_alone": _shares_by_kind(pairs, above),
    }
    return result, curves


def _round_down(values: Doubles) -> list[float]:
    """Return values with four decimals, rounded down, so that what was accepted is accepted."""
    return [float(value) for value in np.floor(values * 1e4) / 1e4]


def _shares_by_kind(pairs: ScoredPairs, accepted: Bools) -> dict[str, float]:
    there = {kind: pairs.held_out & (pairs.kind == kind) for kind in pairs.kinds}
    return {kind: float(accepted[mask].mean()) for kind, mask in there.items() if mask.any()}


def _pairs_table(pairs: ScoredPairs) -> pa.Table:
    return pa.table(
        {
            "source": pairs.source,
            "text": pairs.text,
            "kind": pairs.kind,
            "similarity": pairs.similarity.astype(np.float32),
            "margin": pairs.margin.astype(np.float32),
            "rule": pairs.reason,
            "held_out": pairs.held_out,
        }
    )


def calibration_lines(found: Mapping[str, Any]) -> list[str]:
    """Return what was found, as lines for a terminal."""
    held_out, chosen, areas = found["held_out"], found["filter"], found["auc"]
    shares = ("accepted_by_scores_alone", "accepted_by_rules_alone", "accepted_by_kind")
    rows = [
        f"{'':20} {'':>6}  {'area under ROC curve':^22}   {'accepted by':^23}",
        f"{'kind of text':20} {'pairs':>6}  cosine  margin  filter    scores   rules  filter",
    ]
    for kind, count in found["num_pairs"].items():
        cells = [f"{area:>7.3f}" for area in found["auc_by_kind"].get(kind, {}).values()] or [" " * 7] * 3
        accepted = [f"{held_out[name][kind]:>7.1%}" if kind in held_out[name] else f"{'-':>7}" for name in shares]
        rows.append(f"{kind:20} {count:>6} {' '.join(cells)}   {' '.join(accepted)}")
    return [
        *rows,
        f"{'all corruptions':20} {'':>6} {' '.join(f'{area:>7.3f}' for area in areas.values())}",
        f"chosen: min_similarity {chosen['min_similarity']:.4f}, min_margin {chosen['min_margin']:.4f}",
        f"on identities not used to choose: precision {held_out['precision']:.3f}, recall {held_out['recall']:.3f}",
    ]
