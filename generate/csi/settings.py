"""Settings of ``sclmkb-gen csi``."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from sclmkb.common.config import Settings, speed_only
from sclmkb.generate.csi.channels.sionna import CDL, SCENARIOS, Link, Panel

CHUNK = 25
"""Drops that are simulated together; part of what a seed means."""


def _pair(value: object) -> object:
    return (value, value) if isinstance(value, int | float) else value


def several(value: object) -> object:
    """Let one value stand for a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("the first value of a range must not be above the second")
    return value


Range = Annotated[tuple[float, float], BeforeValidator(_pair), AfterValidator(_ordered)]
"""(least, most), uniform between; one value stands for both."""


class CsiSettings(Settings):
    """Settings of ``sclmkb-gen csi``.

    Where several scenarios, delay spreads and speeds are given, drop i takes the i-th combination in turn, the
    scenario running fastest, so that every split holds all of them in equal parts.

    Attributes:
        scenario: TR 38.901 scenario and line of sight (umi-los, ...), or clustered delay line (cdl-a, ...); several:
            the drops take them in turn.
        num_train: drops in the training split.
        num_val: drops in the validation split.
        num_test: drops in the test split.
        users: if not 0, so many terminals that stand in one sector together, all in the test split, and no other drops.
        num_history: noisy samples T that a predictor sees.
        num_future: clean samples P to predict.
        sample_period_s: time between samples [s].
        carrier_hz: carrier frequency [Hz].
        num_subcarriers: subcarriers around the carrier; 1: narrowband, the carrier alone.
        subcarrier_spacing_hz: spacing between subcarriers [Hz].
        delay_spread_ns: root mean square delay spread [ns] of CDL drops; several: in turn.
        array_rows: rows of cross-polarised element pairs, at both ends.
        array_columns: columns of them: 2 · rows · columns antennas.
        bs_rows: rows at the base station, if not as ``array_rows``.
        bs_columns: columns at the base station, if not as ``array_columns``.
        bs_polarised: cross-polarised pairs at the base station; otherwise single elements.
        ut_rows: rows at the terminal, if not as ``array_rows``.
        ut_columns: columns at the terminal, if not as ``array_columns``.
        ut_polarised: cross-polarised pairs at the terminal; otherwise single elements.
        speed_kmh: terminal speed [km/h], (least, most), uniform between.
        speed_grid_kmh: speeds [km/h] that the drops take in turn instead; empty: ``speed_kmh``.
        pilot_snr_db: pilot SNR [dB], (least, most), uniform between.
        test_pilot_snr_db: pilot SNRs [dB] that the test drops take in turn; empty: as the other splits.
        pilot_pattern: ``full``: every sample sounds all transmit antennas; ``comb``: each sample sounds every
            ``comb_period``-th, shifted by one from sample to sample, and the others are held from their last sounding.
        comb_period: samples between two soundings of an antenna.
        seed: everything random follows from it.
        shard_size: drops in a file.
        workers: processes that simulate; 0 means one for each core.
    """

    scenario: Annotated[tuple[str, ...], BeforeValidator(several)] = ("umi-los",)
    num_train: int = Field(default=1500, ge=1)
    num_val: int = Field(default=150, ge=1)
    num_test: int = Field(default=300, ge=1)
    users: int = Field(default=0, ge=0)
    num_history: int = Field(default=16, ge=1)
    num_future: int = Field(default=4, ge=1)
    sample_period_s: float = Field(default=0.5e-3, gt=0)
    carrier_hz: float = Field(default=3.5e9, gt=0)
    num_subcarriers: int = Field(default=1, ge=1)
    subcarrier_spacing_hz: float = Field(default=30e3, gt=0)
    delay_spread_ns: Annotated[tuple[float, ...], BeforeValidator(several)] = (100.0,)
    array_rows: int = Field(default=2, ge=1)
    array_columns: int = Field(default=4, ge=1)
    bs_rows: int | None = Field(default=None, ge=1)
    bs_columns: int | None = Field(default=None, ge=1)
    bs_polarised: bool = True
    ut_rows: int | None = Field(default=None, ge=1)
    ut_columns: int | None = Field(default=None, ge=1)
    ut_polarised: bool = True
    speed_kmh: Range = (30.0, 30.0)
    speed_grid_kmh: tuple[float, ...] = ()
    pilot_snr_db: Range = (8.0, 22.0)
    test_pilot_snr_db: tuple[float, ...] = ()
    pilot_pattern: Literal["full", "comb"] = "full"
    comb_period: int = Field(default=4, ge=2)
    seed: int = 0
    shard_size: int = 100
    workers: int = speed_only(0, ge=0)

    @field_validator("scenario")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("name at least one, and none twice")
        if unknown := [name for name in value if name not in SCENARIOS]:
            raise ValueError(f"'{unknown[0]}' is unknown, there are {', '.join(SCENARIOS)}")
        return value

    @field_validator("delay_spread_ns")
    @classmethod
    def _above_zero(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or min(value) <= 0:
            raise ValueError("must be above 0")
        return value

    @field_validator("shard_size")
    @classmethod
    def _whole_chunks(cls, value: int) -> int:
        if value < 1 or value % CHUNK:
            raise ValueError(f"must be a multiple of {CHUNK}")
        return value

    @field_validator("speed_kmh", "speed_grid_kmh")
    @classmethod
    def _not_negative(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(speed < 0 for speed in value):
            raise ValueError("a speed must not be negative")
        return value

    @model_validator(mode="after")
    def _sector_of_one_scenario(self) -> "CsiSettings":
        if self.users and (len(self.scenario) > 1 or self.scenario[0] in CDL):
            raise ValueError("users stand in a sector of one scenario, umi or uma: a CDL has no places")
        return self

    def link(self) -> Link:
        """Return arrays, carrier and sampling; a comb needs earlier samples, to have sounded every antenna."""
        rows, columns = self.array_rows, self.array_columns
        return Link(
            base=Panel(rows=self.bs_rows or rows, columns=self.bs_columns or columns, polarised=self.bs_polarised),
            terminal=Panel(rows=self.ut_rows or rows, columns=self.ut_columns or columns, polarised=self.ut_polarised),
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
