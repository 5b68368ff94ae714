"""What a study measured, read from its cells: only what is whole, and only systems that were measured alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from sclmkb.common.studies.cells import Record, Study
from sclmkb.evaluate.measure.retrieval import Measurements
from sclmkb.evaluate.predictors.samples import Measured
from sclmkb.evaluate.studies.sc_lmkb.plan import CSI_EVAL, SWEPT, TRAINED, ZERO_SHOT, csi_name, eval_name
from sclmkb.evaluate.studies.sc_lmkb.settings import MAIN, NO_LINK, SSCC, CorpusSettings, FigureTask, PaperSettings

ENVELOPES = ("sscc-best", "sscc-modern-best")
"""Systems of the cells of SSCC that stand in figures: the best scheme at each SNR."""


@dataclass
class Results:
    """The measurements of a study.

    Attributes:
        settings: of the study.
        study: its cells.
    """

    settings: PaperSettings
    study: Study
    _measured: dict[tuple[str, str, tuple[str, ...]], Measurements] = field(default_factory=dict)

    @cached_property
    def done(self) -> Mapping[str, Record]:
        """The cells whose result stands."""
        return self.study.done()

    @property
    def trained(self) -> str:
        """The CSI that all is trained on, and that Fig. 6 to 8 and 12 are measured on."""
        return csi_name(TRAINED, self.settings.feedback_bits)

    @property
    def zero_shot(self) -> str:
        """The CSI of Fig. 10."""
        return csi_name(ZERO_SHOT, self.settings.feedback_bits)

    def corpora(self, task: FigureTask, *, ablation: bool = False) -> dict[str, CorpusSettings]:
        """Return the corpora of a task that are part of the study; with ``ablation`` those with all measurements."""
        present = {name: c for name, c in self.settings.corpora.items() if name not in self.study.missing}
        return {name: c for name, c in present.items() if c.task == task and (c.ablation or not ablation)}

    def compared(self, corpus: CorpusSettings) -> list[str]:
        """Return the cells of Fig. 6 to 8: the baselines and the bounds."""
        systems = [name for name, of in self.settings.chosen(corpus).items() if of.role == "compared"]
        return [*systems, *self._sscc()]

    def swept(self, corpus: CorpusSettings) -> list[str]:
        """Return the cells of Fig. 9 and 10."""
        return [*(name for name in self.settings.chosen(corpus) if name in SWEPT), *self._sscc()]

    def ablated(self, corpus: CorpusSettings) -> list[str]:
        """Return the cells of Fig. 12."""
        others = ("csi-llm", "llm4cp", NO_LINK)
        return [name for name in self.settings.chosen(corpus) if name not in others]

    def _sscc(self) -> list[str]:
        return [SSCC] if self.settings.sscc and NO_LINK in self.settings.systems else []

    def unmeasured(self, corpus: str, condition: str, systems: Sequence[str]) -> list[str]:
        """Return the cells that are not done, by name."""
        wanted = [eval_name(corpus, condition, system) for system in systems]
        return [name for name in wanted if name not in self.done]

    def retrieval(self, corpus: str, condition: str, systems: Sequence[str]) -> Measurements:
        """Return what systems were measured at under one condition.

        Raises:
            UserError: if they were not trained and measured alike.
        """
        key = (corpus, condition, tuple(systems))
        if key not in self._measured:
            roots = [self.study.cells[eval_name(corpus, condition, system)].out for system in systems]
            self._measured[key] = Measurements(*roots)
        return self._measured[key]

    def csi(self) -> Measured | None:
        """Return what was measured of the predictors on both sectors; None if it was not."""
        return Measured(self.study.cells[CSI_EVAL].out) if CSI_EVAL in self.done else None


def drawn_systems(systems: Sequence[str]) -> list[str]:
    """Return the systems of a figure: of SSCC the envelopes alone, not each scheme; the full system first."""
    kept = [name for name in systems if not name.startswith(f"{SSCC}-") or name in ENVELOPES]
    return sorted(kept, key=lambda name: name != MAIN)
