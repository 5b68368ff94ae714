"""``sclmkb-train jscc``: fits the semantic transceiver to a knowledge base of captions, pictures and CSI."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sclmkb.common.artifacts.checkpoints import save_checkpoint
from sclmkb.common.console import limit_threads, say
from sclmkb.common.errors import UserError
from sclmkb.common.link.sources import CsiSource
from sclmkb.common.models.encoders.base import media_fingerprint
from sclmkb.common.models.encoders.text import text_fingerprint
from sclmkb.common.precision import has_fast_bfloat16
from sclmkb.common.tasks.trained import JsccSettings, TrainedSystem
from sclmkb.train.engine.checkpoint import TrainingRun
from sclmkb.train.engine.devices import start_accelerator
from sclmkb.train.engine.loop import fit, in_second_half
from sclmkb.train.semantic.inputs import JsccInputs, open_inputs
from sclmkb.train.semantic.trainer import JsccTraining

KNOWN_SYSTEMS: Mapping[str, tuple[bool, CsiSource]] = {
    "sc-lmkb": (True, "predicted"),
    "without-sdg": (False, "predicted"),
    "without-cdg": (True, "stale"),
    "without-both": (False, "stale"),
    "perfect-csi": (True, "perfect"),
}
"""The systems of the comparison: with generated captions or not, CSI source. Other names need their source said."""


def train_jscc(settings: JsccSettings, inputs: JsccInputs, out: Path, *, new_run: bool = False) -> Path:
    """Train a transceiver, or go on with the run in ``out``, and return the checkpoint's folder.

    Raises:
        UserError: if an artifact is missing, corrupt or does not fit, or ``out`` holds another run.
    """
    accelerator = start_accelerator(settings.precision, cpu_bfloat16=has_fast_bfloat16())
    limit_threads(settings.threads)
    sources = open_inputs(inputs)
    fingerprints = {name: artifact.fingerprint for name, artifact in sources.items()}
    fingerprints["encoder"] = text_fingerprint(settings.text)
    if media := media_fingerprint(settings.model.media):
        fingerprints["media"] = media
    kept = TrainedSystem.load(inputs.media_from) if inputs.media_from is not None else None
    if kept is not None:
        fingerprints["media_from"] = kept.checkpoint.fingerprint("media.")
    with accelerator.main_process_first():
        run = TrainingRun.open(
            out,
            kind="jscc",
            settings=settings.fingerprint_fields(),
            inputs=fingerprints,
            new_run=new_run,
            writes=accelerator.is_main_process,
        )
    if run.finished:
        say(f"jscc: {out} is finished")
        return out
    task = JsccTraining.load(settings, inputs, sources, accelerator, kept)
    best = fit(
        run,
        task.state,
        accelerator,
        num_steps=settings.num_steps,
        train_step=task.train_step,
        validate=task.validate,
        select=settings.task_object.selects,
        validate_at=in_second_half(settings.num_steps, settings.num_validations),
        save_every=settings.save_every,
        description=f"jscc {settings.system} seed {settings.seed}",
        patience=settings.patience,
    )
    notes, kind = task.state.notes, settings.task_object
    measured = {kind.selects: notes["best"], "step": notes["best_step"], "seconds": round(notes["seconds"], 1)}
    if run.writes:
        save_checkpoint(
            out,
            kind="jscc",
            settings=settings.model_dump(mode="json"),
            tensors=best | (kept.checkpoint.part("media.") if kept is not None else {}),
            info={"inputs": fingerprints, "measured": measured},
        )
        run.state_path.unlink(missing_ok=True)
    found = f"validation {kind.measures[kind.main]} {notes['best']:.3f} at step {notes['best_step']}"
    say(f"jscc: {out} {found}, {notes['seconds']:.0f} s")
    accelerator.wait_for_everyone()
    return out


def settings_for_system(name: str, csi_source: str | None, with_sdg: bool | None) -> dict[str, Any]:
    """Return the settings that a system's name implies; what is said (not ``None``) goes before it.

    Raises:
        UserError: if the name is unknown and the CSI source is not said.
    """
    known_sdg, known_source = KNOWN_SYSTEMS.get(name, (False, None))
    if known_source is None and csi_source is None:
        raise UserError(f"system '{name}' is none of {', '.join(KNOWN_SYSTEMS)}: say its --csi-source as well")
    return {
        "system": name,
        "csi_source": csi_source or known_source,
        "with_sdg": known_sdg if with_sdg is None else with_sdg,
    }
