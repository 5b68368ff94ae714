"""``sclmkb-train mtsc``: Phase I, multi-task training of the transceiver on public data."""

from collections.abc import Sequence
from pathlib import Path

from sclmkb.common.artifacts.artifact import Artifact, open_all
from sclmkb.common.artifacts.checkpoints import save_checkpoint
from sclmkb.common.console import limit_threads, say
from sclmkb.common.errors import UserError
from sclmkb.common.models.lam.language_model import cut_config
from sclmkb.common.models.lam.settings import SCRATCH
from sclmkb.common.models.pretrained import content_fingerprint, resolve_encoder_decoder
from sclmkb.common.precision import has_fast_bfloat16
from sclmkb.common.tasks.media.data import corpus_for
from sclmkb.common.tasks.media.trained import KIND, MtscSettings
from sclmkb.train.engine.checkpoint import TrainingRun
from sclmkb.train.engine.devices import start_accelerator
from sclmkb.train.engine.loop import fit, in_second_half
from sclmkb.train.multitask.data import load_splits
from sclmkb.train.multitask.trainer import MtscTraining


def train_mtsc(
    settings: MtscSettings,
    corpora: Sequence[Path],
    out: Path,
    *,
    csi: Path | None = None,
    predicted: Path | None = None,
    new_run: bool = False,
) -> Path:
    """Train a multi-task transceiver, or go on with the run in ``out``, and return the checkpoint's folder.

    Args:
        settings: of the run.
        corpora: corpus artifacts, or folders of them; each task takes the first one that has its texts or pictures, and
            is left out if there is none.
        out: folder of the run.
        csi: CSI artifact, for channel ``mimo``.
        predicted: predictions for its drops, for the CSI source ``predicted``.
        new_run: set a run with other settings aside.

    Raises:
        UserError: if no task has a corpus, a model is missing or does not fit, or ``out`` holds another run.
    """
    accelerator = start_accelerator(settings.precision, cpu_bfloat16=has_fast_bfloat16())
    limit_threads(settings.threads)
    sources = open_all(corpora, "corpus")
    settings = _served(settings, sources)
    inputs = {f"corpus{i or ''}": source.fingerprint for i, source in enumerate(sources)}
    inputs |= {
        name: Artifact.open(root, name).fingerprint for name, root in (("csi", csi), ("predicted", predicted)) if root
    }
    language_model = settings.used_model.language_model
    if language_model.name != SCRATCH:
        cut_config(language_model)
        inputs["language_model"] = content_fingerprint(resolve_encoder_decoder(language_model.name))
    main = bool(accelerator.is_main_process)
    with accelerator.main_process_first():
        fields = settings.fingerprint_fields()
        run = TrainingRun.open(out, kind=KIND, settings=fields, inputs=inputs, new_run=new_run and main, writes=main)
    if run.finished:
        say(f"mtsc: {out} is finished")
        return out
    with accelerator.main_process_first():  # features are computed once, by the first process
        data = load_splits(settings, sources, csi, predicted)
    training = MtscTraining(settings, data, accelerator)
    best = fit(
        run,
        training.state,
        accelerator,
        num_steps=settings.num_steps,
        train_step=training.train_step,
        validate=training.validate,
        select="val_score",
        validate_at=in_second_half(settings.num_steps, settings.num_validations),
        save_every=settings.save_every,
        description=f"mtsc {settings.system} seed {settings.seed}",
    )
    notes = training.state.notes
    if run.writes:
        save_checkpoint(
            out,
            kind=KIND,
            settings=settings.model_dump(mode="json"),
            tensors=best,
            info={
                "inputs": inputs,
                "vocabulary": training.vocabulary,
                "sizes": training.sizes,
                "measured": {
                    "val_score": notes["best"],
                    "step": notes["best_step"],
                    "seconds": round(notes["seconds"], 1),
                },
            },
        )
        run.state_path.unlink(missing_ok=True)
    say(f"mtsc: {out} validation score {notes['best']:.3f} at step {notes['best_step']}, {notes['seconds']:.0f} s")
    accelerator.wait_for_everyone()
    return out


def _served(settings: MtscSettings, sources: Sequence[Artifact]) -> MtscSettings:
    """Return the settings with the tasks that have a corpus; says which have none.

    Raises:
        UserError: if none has one.
    """
    lacking: dict[str, UserError] = {}
    for name in settings.tasks:
        try:
            corpus_for(name, sources)
        except UserError as error:
            lacking[name] = error
    kept = tuple(name for name in settings.tasks if name not in lacking)
    if not kept:
        raise lacking[settings.tasks[0]]
    for left_out, why in lacking.items():
        say(f"mtsc: {left_out} is left out: {why}")
    return settings.model_copy(update={"tasks": kept})
