"""Small trainings of the transceiver."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState

from sclmkb.common.precision import has_fast_bfloat16
from sclmkb.common.tasks.trained import JsccSettings
from sclmkb.train.engine import loop
from sclmkb.train.engine.devices import start_accelerator
from sclmkb.train.semantic.inputs import JsccInputs, open_inputs
from sclmkb.train.semantic.trainer import JsccTraining


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    """Let each test choose its precision: Accelerate keeps one state a process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Return what runs a training until it is killed, after a number of steps."""

    def run(steps: int, train: Callable[[], object]) -> None:
        before = itertools.count()

        def asked(*_: Any) -> bool:
            if next(before) == steps:
                raise KeyboardInterrupt
            return False

        with monkeypatch.context() as patch:
            patch.setattr(loop, "in_any_process", asked)
            with pytest.raises(KeyboardInterrupt):
                train()

    return run


@pytest.fixture
def jscc_cache(embedding_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep embeddings and decoded media in a folder that the tests of a session share."""
    monkeypatch.setenv("SCLMKB_CACHE", str(embedding_cache))


@pytest.fixture
def jscc_settings() -> Callable[..., JsccSettings]:
    """Return what makes settings of the preset tiny, with options."""

    def make(*overrides: str, **options: Any) -> JsccSettings:
        return JsccSettings.resolve(
            presets="sclmkb.train", section="jscc", preset="tiny", overrides=overrides, options=options
        )

    return make


@pytest.fixture
def jscc_inputs(tiny_artifacts: Any) -> Callable[[JsccSettings], JsccInputs]:
    """Return what finds the tiny artifacts that a run needs."""

    def make(chosen: JsccSettings) -> JsccInputs:
        return JsccInputs(
            corpus=tiny_artifacts.corpus,
            csi=tiny_artifacts.csi if chosen.link.needs_csi else None,
            sdg=tiny_artifacts.sdg if chosen.with_sdg else None,
            predicted=tiny_artifacts.predicted if chosen.csi_source == "predicted" else None,
        )

    return make


@pytest.fixture
def make_task(
    jscc_cache: None, jscc_settings: Callable[..., JsccSettings], jscc_inputs: Callable[[JsccSettings], JsccInputs]
) -> Callable[..., JsccTraining]:
    """Return what opens a training of the preset tiny, with options."""

    def make(*overrides: str, **options: Any) -> JsccTraining:
        chosen = jscc_settings(*overrides, **options)
        given = jscc_inputs(chosen)
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = start_accelerator(chosen.precision, cpu_bfloat16=has_fast_bfloat16())
        return JsccTraining.load(chosen, given, open_inputs(given), accelerator)

    return make
