"""What can be set of measurements, and where what is measured lies."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.config import Settings, speed_only
from sclmkb.common.errors import UserError
from sclmkb.common.link.link import RECEIVERS, Receiver
from sclmkb.common.link.sources import LinkCsi, LinkSettings


class SweepSettings(Settings):
    """What decides which channels, noise and receivers the queries meet: equal ones are needed for a comparison."""

    snrs_db: tuple[float, ...] = Field(
        default=tuple(range(-15, 30, 5)), min_length=1, description="SNRs to measure at [dB]"
    )
    receivers: tuple[Receiver, ...] = Field(
        default=RECEIVERS, min_length=1, description="receivers to measure with: literal, dmrs"
    )
    steps: tuple[NonNegativeInt, ...] | None = Field(
        default=None, description="future steps, counted from 0, that queries take in turn; default: all"
    )
    seed: int = Field(default=0, description="seed of drops, noise and shown captions")
    seeds: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="training seeds whose checkpoints are measured; default: all"
    )

    def steps_of(self, link: LinkCsi) -> list[int]:
        """Return the future steps of a link that queries take in turn.

        Raises:
            UserError: if the link lacks one.
        """
        if link.bypass:
            return [0]
        steps = list(self.steps if self.steps is not None else range(link.num_steps))
        if max(steps) >= link.num_steps:
            raise UserError(f"setting 'steps' = {steps}: the CSI has steps 0 to {link.num_steps - 1}")
        return steps


class RunSettings(SweepSettings):
    """Settings of ``sclmkb-eval run``."""

    link: LinkSettings | None = Field(
        default=None,
        description="channel, power and feedback to measure on; default: those of each checkpoint's training",
    )
    num_shown: PositiveInt = Field(default=8, description="captions whose retrievals are kept")
    num_ranked: PositiveInt = Field(default=5, description="retrieved media per caption that are kept")
    shown_snrs_db: tuple[float, ...] = Field(
        default=(-10.0, 0.0, 15.0), min_length=1, description="SNRs of the kept retrievals [dB]; may be one number"
    )
    shown_receiver: Receiver = Field(default="literal", description="receiver of the kept retrievals")
    table_snr_db: float = speed_only(
        15.0, description="SNR of the printed tables [dB]; the nearest measured one is taken"
    )
    threads: int | None = speed_only(None, description="CPU threads; default: all cores")

    @field_validator("shown_snrs_db", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, int | float) else value


@dataclass(frozen=True, kw_only=True)
class RunInputs:
    """Folders of what is measured, and of what it is measured on."""

    checkpoints: Path
    corpus: Path
    csi: Path | None = None
    predicted: Path | None = None

    def open(self, *, csi: bool, predicted: bool) -> dict[str, Artifact]:
        """Return the corpus, and of CSI and predicted CSI what is needed, by kind.

        Raises:
            UserError: if one is named that is missing or corrupt.
        """
        needed = {"corpus": self.corpus, "csi": self.csi if csi else None}
        needed["predicted"] = self.predicted if predicted else None
        return {kind: Artifact.open(path, kind) for kind, path in needed.items() if path is not None}

    @classmethod
    def below(
        cls, folder: Path, *, checkpoints: Path | None, corpus: Path | None, csi: Path | None, predicted: Path | None
    ) -> "RunInputs":
        """Return what is named, and for the rest the places in a preset's folder."""
        return cls(
            checkpoints=checkpoints or folder / "jscc",
            corpus=corpus or folder / "corpus",
            csi=csi or folder / "csi",
            predicted=predicted or folder / "predicted",
        )
