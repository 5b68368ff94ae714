"""The hallucination filter of Algorithm 1.

::

    source ────► E_α ─► F_s ─┐
                             ├─► cosine (24) ≥ min_similarity ─┐
    generated ─► E_α ─► F_g ─┤                                 ├─► accept, or reject with the reason
                             └─► margin ≥ min_margin ──────────┤
    generated ─► rules (form, echo, copy, words, attributes) ──┘

Among the accepted captions of an identity, near copies are dropped when a shard is done (:mod:`.duplicates`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from sclmkb.common.artifacts.files import read_json, sha256_file
from sclmkb.common.config import Settings, fingerprint
from sclmkb.common.errors import UserError
from sclmkb.common.models.pretrained import EMBEDDED_ENCODER, model_fingerprint, resolve_encoder
from sclmkb.generate.filter.rules import Rules, RuleSettings

if TYPE_CHECKING:
    from sclmkb.generate.filter.encoder import TextEncoder
    from sclmkb.generate.filter.index import Embed, Floats

EmbedSources = Callable[["Embed", Sequence[str]], Sequence["Floats"]]
"""Returns the features of the source captions, in parts, from an encoder or from where they lie."""

JSCC_PREFIX = "jscc:"
"""Begins the name of an encoder that is a trained checkpoint."""
CALIBRATED = ("encoder", "encoder_dtype", "min_similarity", "min_margin")
"""The fields of :class:`FilterSettings` that a calibration sets: thresholds are worth nothing with another encoder."""


class FilterSettings(Settings):
    """What a generated caption must pass.

    The default thresholds come from a study on labelled faithful and corrupted pairs, none of them test captions:
    there, .80 and -.02 had a balanced accuracy of .87 with MiniLM. ``sclmkb-gen calibrate`` finds those of a corpus.
    """

    calibration: Path | None = Field(
        default=None,
        description="file of `sclmkb-gen calibrate` that gives encoder and thresholds, unless they are given here",
    )
    encoder: str = Field(
        default=EMBEDDED_ENCODER,
        description="encoder E_α: minilm, a folder or a hub name of a sentence encoder, or `jscc:FOLDER`, a trained "
        "JSCC checkpoint",
    )
    encoder_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="float32",
        description="type of the encoder's matrix products; auto: bfloat16 if the processor has it, which is faster "
        "only there",
    )
    index: Literal["flat", "ivf", "hnsw"] = Field(
        default="flat",
        description="search for the nearest other identity; flat: exact; ivf and hnsw: for more than some 20,000 "
        "source captions",
    )
    min_similarity: float = Field(
        default=0.80, ge=-1, le=1, description="least cosine to the source caption, equation (24)"
    )
    min_margin: float = Field(
        default=-0.02,
        ge=-2,
        le=2,
        description="least difference between the similarity to the source and to the nearest caption of another "
        "identity",
    )
    rules: RuleSettings = Field(default=RuleSettings(), description="rules on the form and the words of a caption")

    @model_validator(mode="before")
    @classmethod
    def _calibrate(cls, values: Any) -> Any:
        """Fill what is not given from the calibration; a resolved form is left as it is."""
        if not isinstance(values, Mapping) or not values.get("calibration") or set(CALIBRATED) <= values.keys():
            return values
        path = Path(values["calibration"])
        if not path.is_file():
            raise UserError(f"no calibration at {path}: make it with sclmkb-gen calibrate")
        found = read_json(path).get("filter")
        if not isinstance(found, dict) or not set(CALIBRATED) <= found.keys():
            raise UserError(f"{path} is no calibration: make it with sclmkb-gen calibrate")
        if (given := values.get("encoder", found["encoder"])) != found["encoder"]:
            raise UserError(f"{path} was made with encoder '{found['encoder']}', not '{given}': calibrate that one")
        return {**{name: found[name] for name in CALIBRATED}, **values}

    def inputs(self) -> dict[str, str]:
        """Return the fingerprints of everything that is read: encoder and files of one's own, for the plan of a run.

        Raises:
            UserError: if something is missing.
        """
        files = {"attributes": self.rules.attributes, "word_list": self.rules.word_list}
        if missing := [path for path in files.values() if path is not None and not path.is_file()]:
            raise UserError(f"there is no file {missing[0]}")
        own = {name: sha256_file(path)[:16] for name, path in files.items() if path is not None}
        return {"encoder": encoder_fingerprint(self.encoder), **own}


def encoder_fingerprint(name: str) -> str:
    """Return a hash of an encoder's files, for the plan of a run; the usual ones are found without PyTorch.

    Raises:
        UserError: if there is no such encoder.
    """
    if not name.startswith(JSCC_PREFIX):
        return model_fingerprint(resolve_encoder(name))
    from sclmkb.common.tasks.trained import TrainedSystem

    folder = Path(name.removeprefix(JSCC_PREFIX))
    text = TrainedSystem.load(folder).settings.text
    sentences = model_fingerprint(resolve_encoder(text.name))
    return fingerprint([sentences, sha256_file(folder / "model.safetensors")])


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A generated caption and the position of its source caption."""

    source: int
    text: str
    finish_reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the filter says: similarity (24), margin, and why it rejects (empty: it accepts)."""

    similarity: float
    margin: float
    reason: str


class Decision:
    """Decides from a caption's scores and by the rules; needs no encoder."""

    def __init__(self, settings: FilterSettings, own_texts: Sequence[str]) -> None:
        """Take thresholds and rules from the settings; ``own_texts`` are those of the prompt."""
        self.settings, self._rules = settings, Rules(settings.rules, own_texts)

    def judge(self, text: str, source: str, finish_reason: str, similarity: float, margin: float) -> Verdict:
        """Return the verdict on a caption."""
        reason = self._rules.reason(text, source, finish_reason)
        if not reason and similarity < self.settings.min_similarity:
            reason = "low similarity"
        elif not reason and margin < self.settings.min_margin:
            reason = "nearer to another"
        return Verdict(similarity=similarity, margin=margin, reason=reason)


class HallucinationFilter:
    """Judges generated captions against their source captions."""

    def __init__(
        self,
        settings: FilterSettings,
        encoder: "TextEncoder",
        sources: Sequence[str],
        identities: Sequence[str],
        own_texts: Sequence[str] = (),
        embed_sources: EmbedSources | None = None,
    ) -> None:
        """Embed the source captions, equation (22), and build the index over them.

        Args:
            settings: thresholds and bounds.
            encoder: E_α.
            sources: the source captions.
            identities: identity of each source caption.
            own_texts: texts of the prompt, which an answer must not repeat.
            embed_sources: has the features from elsewhere, by default all are made; see
                :mod:`sclmkb.generate.captions.source_features`.
        """
        # Loads PyTorch, which settings need not.
        from sclmkb.generate.filter.index import CaptionIndex, embed_in_parts

        self.settings, self._encoder, self._sources = settings, encoder, sources
        features = (embed_sources or embed_in_parts)(encoder.encode, sources)
        self._index = CaptionIndex(features, identities, settings.index)
        self._decision = Decision(settings, own_texts)

    def judge(self, samples: Sequence[Sample]) -> list[Verdict]:
        """Judge each sample by itself; every one gets its scores, also those that break a rule."""
        if not samples:
            return []
        features = self._encoder.encode([c.text for c in samples])
        scores = self._index.score(features, [c.source for c in samples])
        return [
            self._decision.judge(c.text, self._sources[c.source], c.finish_reason, s, m)
            for c, s, m in zip(samples, *(values.tolist() for values in scores), strict=True)
        ]
