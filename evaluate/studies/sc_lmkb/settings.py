"""What ``sclmkb-eval paper`` makes and measures: corpora, channels, systems, and how long each is trained."""

from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator

from sclmkb.common.config import Settings, speed_only
from sclmkb.common.link.sources import CsiSource
from sclmkb.evaluate.studies.base import check_systems

MAIN = "sc-lmkb"
SSCC = "sscc"
"""Name of the cells of the classical baseline, which is measured with the checkpoints of :data:`NO_LINK`."""
NO_LINK = "no-link"

FigureTask = Literal["person", "motion", "sound"]


class SystemSettings(Settings):
    """A trained system: what of the knowledge base it uses."""

    csi_source: CsiSource = Field(default="predicted", description="CSI at the transmitter")
    predictor: str | None = Field(default=None, description="name of the predictor, for CSI source `predicted`")
    sdg: bool = Field(default=True, description="whether it trains on generated captions")
    sets: tuple[str, ...] = Field(default=(), description="more settings of `sclmkb-train jscc`, as `key=value`")
    role: Literal["compared", "ablation"] = Field(
        default="compared", description="compared: one of the paper's systems (Fig. 6 to 10); ablation: only in Fig. 12"
    )
    what: str = Field(description="description in words")


SYSTEMS: dict[str, SystemSettings] = {
    MAIN: SystemSettings(predictor="cdg", what="generated captions and CSI predicted by CDG"),
    "deepsc-mimo": SystemSettings(
        csi_source="stale", sdg=False, what="the last fed-back CSI, source captions alone; also: without SDG and CDG"
    ),
    "csi-llm": SystemSettings(predictor="csi_llm", what="generated captions and CSI predicted by Csi-LLM"),
    "llm4cp": SystemSettings(predictor="llm4cp", what="generated captions and CSI predicted by LLM4CP"),
    NO_LINK: SystemSettings(
        csi_source="perfect", sets=("link.channel=none",), what="nothing between encoder and decoder: the ceiling"
    ),
    "without-cdg": SystemSettings(csi_source="stale", what="generated captions, the last fed-back CSI"),
    "perfect-csi": SystemSettings(csi_source="perfect", what="generated captions, the true future channel: a bound"),
    "without-sdg": SystemSettings(predictor="cdg", sdg=False, role="ablation", what="source captions alone, CDG"),
    "unfiltered": SystemSettings(
        predictor="cdg", sets=("captions=all",), role="ablation", what="SC-LMKB with every caption that was written"
    ),
    "average": SystemSettings(
        predictor="cdg", sets=("fusion=average",), role="ablation", what="SC-LMKB with plain averages instead of CDFC"
    ),
    "random-backbone": SystemSettings(
        predictor="cdg-random", role="ablation", what="SC-LMKB, its CDG around a model of random weights"
    ),
}
"""Every system; all are trained through the CSI errors that they are measured with."""

PREDICTOR_OPTIONS: dict[str, tuple[str, ...]] = {
    "llm4cp": ("--predictor", "llm4cp"),
    "csi_llm": ("--predictor", "csi_llm"),
    "cdg": ("--predictor", "cdg"),
    "cdg-random": ("--predictor", "cdg", "--set", "model.backbone=random"),
}
"""Options of ``sclmkb-train cdg`` for each, the slowest first."""


class CorpusSettings(Settings):
    """A corpus, and how it is trained on."""

    title: str = Field(description="name in figures")
    task: FigureTask = Field(description="the figure it belongs to: person (Fig. 6), motion (Fig. 7) or sound (Fig. 8)")
    reader: str = Field(description="name of the reader in `sclmkb-gen corpus`")
    root: str | None = Field(default=None, description="folder below `--data`; default: the reader needs none")
    preset: str = Field(description="preset of `sclmkb-train jscc`")
    sdg: tuple[str, ...] = Field(default=(), description="settings of `sclmkb-gen sdg`, as `key=value`")
    train: tuple[str, ...] = Field(default=(), description="settings of `sclmkb-train jscc`, as `key=value`")
    backbone: tuple[str, ...] | None = Field(
        default=None,
        description="more settings of the retrieval backbone of a seed, which is trained without a link on source "
        "captions. All systems of the seed keep its media encoder. Default: each system trains its own",
    )
    ablation: bool = Field(
        default=False, description="whether the systems of Fig. 12 are trained, and Fig. 9 and 10 measured"
    )


class PaperSettings(Settings):
    """Settings of ``sclmkb-eval paper``."""

    corpora: dict[str, CorpusSettings] = Field(min_length=1, description="corpora, by the name of their folder")
    systems: tuple[str, ...] = Field(default=tuple(SYSTEMS), description=f"systems to train, from {', '.join(SYSTEMS)}")
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1, description="seeds of training the transceiver")
    snrs_db: tuple[float, ...] = Field(
        default=(-10, -5, 0, 5, 10, 15, 20, 25, 30), min_length=1, description="SNRs that are measured [dB]"
    )
    sscc: bool = Field(default=True, description="whether separate source and channel coding is measured")
    sscc_settings: tuple[str, ...] = Field(
        default=("modern_schemes=[[4, 0.75], [16, 0.5], [16, 0.75], [64, 0.5], [64, 0.75]]",),
        description="settings of `sclmkb-eval sscc`, as `key=value`",
    )
    gen_preset: str | None = Field(default=None, description="preset of `sclmkb-gen sdg`")
    csi: tuple[str, ...] = Field(default=(), description="settings of `sclmkb-gen csi`, as `key=value`")
    speed_kmh: float = Field(default=30.0, description="terminal speed [km/h]")
    map_users: PositiveInt = Field(default=100, description="terminals in the sector of Fig. 11")
    feedback_bits: PositiveInt = Field(default=512, description="bits per report; each history passes through it")
    swept_bits: tuple[PositiveInt, ...] = Field(
        default=(16, 32, 64, 128, 256, 512), description="bits per report in Fig. 9"
    )
    swept_snr_db: float = Field(default=15.0, description="SNR of Fig. 9 [dB]")
    predictor: tuple[str, ...] = Field(default=(), description="settings of `sclmkb-train cdg`, as `key=value`")
    predictor_seed: int = Field(default=0, description="seed of training the predictors")
    threads: PositiveInt = speed_only(1, description="CPU threads of each command; `sdg` takes all cores")

    @field_validator("systems")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_systems(value, SYSTEMS, MAIN)

    @field_validator("seeds", "snrs_db", "swept_bits")
    @classmethod
    def _once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) < len(value):
            raise ValueError("names one twice")
        return value

    def chosen(self, corpus: CorpusSettings) -> dict[str, SystemSettings]:
        """Return the systems that are trained on a corpus."""
        wanted = {name: SYSTEMS[name] for name in self.systems}
        return {name: system for name, system in wanted.items() if corpus.ablation or system.role == "compared"}
