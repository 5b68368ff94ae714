"""Settings of ``sclmkb-gen csi``."""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    field_validator,
    model_validator,
)
from torch import Tensor

from sclmkb.common.config import Settings, speed_only
from sclmkb.generate.csi.channels.sionna import CDL, SCENARIOS, SYSTEM_LEVEL, AntennaPanel, Link

CHUNK = 25
"""Drops that are simulated together; part of what a seed means."""


def several(value: object) -> object:
    """Let one value stand for a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


def _pair(value: object) -> object:
    return (value, value) if isinstance(value, int | float) else value


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("the first value of a range must not be above the second")
    return value


Range = Annotated[tuple[float, float], BeforeValidator(_pair), AfterValidator(_ordered)]
"""(least, most), uniform between; one value stands for both."""
SpeedRange = Annotated[tuple[NonNegativeFloat, NonNegativeFloat], BeforeValidator(_pair), AfterValidator(_ordered)]


def uniform(bounds: tuple[float, float], size: int, generator: torch.Generator) -> Float[Tensor, " N"]:
    """Draw from a range."""
    low, high = bounds
    return low + (high - low) * torch.rand(size, generator=generator)


class CsiSettings(Settings):
    """Settings of ``sclmkb-gen csi``.

    Where several scenarios, delay spreads and speeds are given, drop i takes the i-th combination in turn, the
    scenario running fastest, so that every split holds all of them in equal parts.
    """

    scenario: Annotated[tuple[str, ...], BeforeValidator(several)] = Field(
        default=("umi-los",),
        description="TR 38.901 scenario with line of sight (umi-los, ...), or clustered delay line (cdl-a, ...); "
        "several: the drops take them in turn",
    )
    num_train: int = Field(default=1500, ge=1, description="drops in the training split")
    num_val: int = Field(default=150, ge=1, description="drops in the validation split")
    num_test: int = Field(default=300, ge=1, description="drops in the test split")
    users: int = Field(
        default=0,
        ge=0,
        description="number of terminals in one sector, all in the test split, without other drops; 0: one terminal "
        "per drop",
    )
    num_history: int = Field(default=16, ge=1, description="noisy samples T that a predictor sees")
    num_future: int = Field(default=4, ge=1, description="clean samples P to predict")
    sample_period_s: float = Field(default=0.5e-3, gt=0, description="time between samples [s]")
    carrier_hz: float = Field(default=3.5e9, gt=0, description="carrier frequency [Hz]")
    num_subcarriers: int = Field(
        default=1, ge=1, description="subcarriers around the carrier; 1: narrowband, only the carrier"
    )
    subcarrier_spacing_hz: float = Field(default=30e3, gt=0, description="spacing between subcarriers [Hz]")
    delay_spread_ns: Annotated[tuple[PositiveFloat, ...], BeforeValidator(several)] = Field(
        default=(100.0,), min_length=1, description="root mean square delay spread of CDL drops [ns]; several: in turn"
    )
    array_rows: int = Field(default=2, ge=1, description="rows of cross-polarised element pairs, at both ends")
    array_columns: int = Field(default=4, ge=1, description="columns of such pairs; 2 · rows · columns antennas")
    bs_rows: int | None = Field(default=None, ge=1, description="rows at the base station; default: `array_rows`")
    bs_columns: int | None = Field(
        default=None, ge=1, description="columns at the base station; default: `array_columns`"
    )
    bs_polarised: bool = Field(
        default=True, description="whether the base station has cross-polarised pairs; false: single elements"
    )
    ut_rows: int | None = Field(default=None, ge=1, description="rows at the terminal; default: `array_rows`")
    ut_columns: int | None = Field(default=None, ge=1, description="columns at the terminal; default: `array_columns`")
    ut_polarised: bool = Field(
        default=True, description="whether the terminal has cross-polarised pairs; false: single elements"
    )
    speed_kmh: SpeedRange = Field(
        default=(30.0, 30.0), description="range (least, most) of the terminal speed [km/h], drawn uniformly"
    )
    speed_grid_kmh: tuple[NonNegativeFloat, ...] = Field(
        default=(), description="speeds [km/h] that the drops take in turn instead; empty: `speed_kmh`"
    )
    pilot_snr_db: Range = Field(
        default=(8.0, 22.0), description="range (least, most) of the pilot SNR [dB], drawn uniformly"
    )
    test_pilot_snr_db: tuple[float, ...] = Field(
        default=(), description="pilot SNRs [dB] that the test drops take in turn; empty: as the other splits"
    )
    pilot_pattern: Literal["full", "comb"] = Field(
        default="full",
        description="full: each sample sounds all transmit antennas; comb: each sample sounds every `comb_period`-th "
        "antenna, shifted by one per sample, and the others keep their last value",
    )
    comb_period: int = Field(default=4, ge=2, description="samples between two soundings of an antenna")
    seed: int = Field(default=0, description="seed of everything random")
    shard_size: int = Field(default=100, ge=1, multiple_of=CHUNK, description="drops per shard, a multiple of 25")
    workers: int = speed_only(0, ge=0, description="processes that simulate; 0: one per core")

    @field_validator("scenario")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("name at least one, and none twice")
        if unknown := [name for name in value if name not in SCENARIOS]:
            raise ValueError(f"'{unknown[0]}' is unknown, there are {', '.join(SCENARIOS)}")
        return value

    @model_validator(mode="after")
    def _sector_of_one_scenario(self) -> "CsiSettings":
        if self.users and (len(self.scenario) > 1 or self.scenario[0] not in SYSTEM_LEVEL):
            raise ValueError("users stand in a sector of one scenario, umi or uma: others have no places")
        return self

    def link(self) -> Link:
        """Return arrays, carrier and sampling; a comb needs earlier samples, to have sounded every antenna."""
        rows, columns = self.array_rows, self.array_columns
        return Link(
            base=AntennaPanel(
                rows=self.bs_rows or rows, columns=self.bs_columns or columns, polarised=self.bs_polarised
            ),
            terminal=AntennaPanel(
                rows=self.ut_rows or rows, columns=self.ut_columns or columns, polarised=self.ut_polarised
            ),
            carrier_hz=self.carrier_hz,
            num_samples=self.num_lead + self.num_history + self.num_future,
            sample_period_s=self.sample_period_s,
            num_subcarriers=self.num_subcarriers,
            subcarrier_spacing_hz=self.subcarrier_spacing_hz,
        )

    @property
    def num_lead(self) -> int:
        """Samples simulated before the history."""
        return self.comb_period - 1 if self.pilot_pattern == "comb" else 0

    @property
    def name(self) -> str:
        """The scenarios in one word; part of what a seed means."""
        return "+".join(self.scenario)

    def cell(self, index: int) -> tuple[str, float, float | None]:
        """Return scenario, delay spread [ns] and, if they are in turn, speed [km/h] of the index-th drop of a split."""
        index, scenario = divmod(index, len(self.scenario))
        index, spread = divmod(index, len(self.delay_spread_ns))
        speeds = self.speed_grid_kmh
        return self.scenario[scenario], self.delay_spread_ns[spread], speeds[index % len(speeds)] if speeds else None

    def label(self, index: int) -> str:
        """Return what the column ``scenario`` says of a drop: a CDL with its delay spread."""
        scenario, spread, _ = self.cell(index)
        return f"{scenario}-{spread:g}ns" if scenario in CDL else scenario
