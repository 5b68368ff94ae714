"""What ``sclmkb-eval study mtsc`` makes and measures: corpora, systems, and how long each is trained."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field, PositiveInt, field_validator

from sclmkb.common.config import Settings
from sclmkb.evaluate.studies.base import check_systems

MAIN = "mtsc"
UNTRAINED = "baselines"
"""Stands for all systems without training where a system is named."""
SINGLE = {"answer": "single-answer", "caption": "single-caption", "reconstruct": "single-reconstruct"}
"""The system that is trained for one task alone, by task."""


@dataclass(frozen=True, kw_only=True)
class MtscSystem:
    """A system that ``sclmkb-train mtsc`` fits.

    Attributes:
        what: it is, in words.
        tasks: that it is trained for; none: all that have a corpus.
        train: its settings, as ``key=value``.
        steps: of its training, as a multiple of the others'.
        measure: settings of its measurement, as ``key=value``.
        equal: what a system without a pre-trained model has in common with the main one: samples or time.
    """

    what: str
    tasks: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    steps: float = 1.0
    measure: tuple[str, ...] = ()
    equal: str = ""


_SCRATCH = ("model.language_model.name=scratch", "language_model_rate=3e-4")
"""A small transformer with random weights, and the rates that were best of several for it on validation questions."""

SYSTEMS: Mapping[str, MtscSystem] = {
    MAIN: MtscSystem(what="one model for all tasks around the pre-trained language model"),
    "random-lam": MtscSystem(
        what="the same language model with weights drawn anew",
        train=("model.language_model.random_weights=true", "language_model_rate=3e-4"),
        equal="samples and time",
    ),
    "no-lam": MtscSystem(
        what="a small transformer with random weights and a vocabulary of its own in the middle",
        train=_SCRATCH,
        equal="samples",
    ),
    "no-lam-longer": MtscSystem(
        what="no-lam, trained for as long as the main model takes",
        train=_SCRATCH,
        steps=2.0,
        equal="time",
    ),
    "u-deepsc": MtscSystem(
        what="the baseline without a language model: each modality is sent apart, one decoder for all tasks, and "
        "pictures as patches",
        train=(*_SCRATCH, "model.architecture=u-deepsc", "model.codec.kind=transformer"),
    ),
    "deepjscc": MtscSystem(
        what="pictures alone, by a plain convolutional codec that does not know the SNR",
        tasks=("reconstruct",),
        train=("model.codec.kind=deepjscc",),
    ),
    "adjscc": MtscSystem(
        what="pictures alone, by the same codec with attention to the SNR",
        tasks=("reconstruct",),
        train=("model.codec.kind=adjscc",),
    ),
    "question-only": MtscSystem(
        what="the main model, trained on questions whose pictures it never sees",
        tasks=("answer",),
        train=("model.sees_media=false",),
    ),
    "nested": MtscSystem(
        what="the main model, trained to send any number of its first uses, measured at variable rates",
        train=("model.rate=nested",),
        measure=(
            "rates=[fixed, random, norm, snr, learned]",
            "rate_snrs_db=[-12, -6, 0, 6, 10, 12, 18]",
            "shares=[0.5, 0.7]",
        ),
    ),
    **{
        name: MtscSystem(what=f"the main model, trained for the task {task} alone", tasks=(task,))
        for task, name in SINGLE.items()
    },
}
"""Every trained system; all but what their settings say is equal."""


class MtscStudySettings(Settings):
    """Settings of ``sclmkb-eval study mtsc``."""

    base: str = Field(default="mtsc", description="preset of `sclmkb-train mtsc` and `sclmkb-eval mtsc`")
    corpora: dict[str, tuple[str, ...]] = Field(
        default={"easy-vqa": (), "emoji": (), "cifar10": ()},
        min_length=1,
        description="corpora by the name of their reader, each with settings of `sclmkb-gen corpus` as `key=value`. "
        "Each task takes the first one that has what it needs. One that lies in a folder of its name below `--data` is "
        "read from there",
    )
    systems: tuple[str, ...] = Field(
        default=(MAIN, "u-deepsc", "random-lam"), description=f"systems to train, from {', '.join(SYSTEMS)}"
    )
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1, description="seeds of training")
    steps: PositiveInt = Field(default=2000, description="optimiser steps of a training")
    train: tuple[str, ...] = Field(default=(), description="settings of every training, as `key=value`")
    measure: tuple[str, ...] = Field(default=(), description="settings of every measurement, as `key=value`")

    @field_validator("systems")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_systems(value, SYSTEMS, MAIN)
