"""``sclmkb-train``: fits the semantic transceiver (jscc, also without a subcommand) to a knowledge base."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sclmkb.common.console import LogFormat, run_app, say
from sclmkb.common.options import ConfigOption, LogFormatOption, NewRunOption, PresetOption, SetOption, preset_folder


class _JsccByDefault(TyperGroup):
    """Reads ``sclmkb-train --corpus …`` as ``sclmkb-train jscc --corpus …``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = 0 if not args else {"--log-format": 2}.get(args[0], int(args[0].startswith("--log-format=")))
        rest = args[first:]
        if not rest or (rest[0].startswith("-") and rest[0] not in ctx.help_option_names):
            args = [*args[:first], "jscc", *rest]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_JsccByDefault, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def root(log_format: LogFormatOption = LogFormat.TEXT) -> None:
    """Train on artifacts: the semantic transceiver (jscc, also without a subcommand) and CSI prediction (cdg)."""


@app.command()
def jscc(
    corpus: Annotated[Path | None, typer.Option(help="Corpus artifact.")] = None,
    csi: Annotated[Path | None, typer.Option(help="CSI artifact.")] = None,
    sdg: Annotated[
        Path | None, typer.Option(help="Generated captions; default: those of the preset, if the system uses any.")
    ] = None,
    predicted: Annotated[Path | None, typer.Option(help="Predicted CSI, for CSI source predicted.")] = None,
    media_from: Annotated[
        Path | None,
        typer.Option(help="Checkpoint whose media encoder is kept as it is; default: train one."),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(
            help="Name of the system: sc-lmkb, without-sdg, without-cdg, without-both, perfect-csi, or a new name"
            " with its --csi-source. The name decides which knowledge is used, unless options do."
        ),
    ] = None,
    csi_source: Annotated[
        str | None, typer.Option(help="CSI at the transmitter: perfect, stale, feedback or predicted.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run and its checkpoint.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
) -> None:
    """Fit encoder, decoder and media encoder over the MIMO channel, with fusion of generated captions.

    Pictures, motion or sound: --set model.media.kind=cnn, clip-vision, motion-transformer, audio-cnn or
    spectrogram-transformer. Paths that you leave out are those of the preset's folder, artifacts/PRESET/... The run
    resumes where it was interrupted. For several processes: torchrun --nproc-per-node N -m sclmkb.train.cli jscc ...,
    or accelerate launch on GPUs. The content of a step stays the same.
    """
    from sclmkb.common.tasks.trained import JsccSettings
    from sclmkb.train.semantic.fit import settings_for_system, train_jscc
    from sclmkb.train.semantic.inputs import JsccInputs

    folder = preset_folder(preset)
    name = system or "sc-lmkb"
    implied = settings_for_system(name, csi_source, with_sdg=sdg is not None or None)
    settings = JsccSettings.resolve(
        presets="sclmkb.train",
        section="jscc",
        preset=preset,
        config=config,
        overrides=overrides or (),
        options={**implied, "seed": seed},
    )
    needs_predicted = settings.link.needs_csi and settings.csi_source == "predicted"
    inputs = JsccInputs(
        corpus=corpus or folder / "corpus",
        csi=(csi or folder / "csi") if settings.link.needs_csi else None,
        sdg=(sdg or folder / "sdg") if settings.with_sdg else None,
        predicted=(predicted or folder / "predicted") if needs_predicted else None,
        media_from=media_from,
    )
    done = train_jscc(settings, inputs, out or folder / "jscc" / name / f"seed-{settings.seed}", new_run=new_run)
    say(f"jscc: checkpoint in {done}")


@app.command()
def cdg(
    csi: Annotated[
        list[Path] | None, typer.Option(help="CSI artifact (sclmkb-gen csi); repeatable, to train on several together.")
    ] = None,
    predictor: Annotated[
        str | None,
        typer.Option(help="cdg (the default), global_lmmse, lmmse, gru, transformer, llm4cp or csi_llm."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Language model to embed, frozen: smollm2-135m-instruct, a local folder or a hub name."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run and its checkpoint.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
) -> None:
    """Fit a CSI predictor: CDG around a frozen language model, or another.

    Set options of the predictor with --set model.NAME=VALUE. For cdg these are the controls backbone=random and
    backbone=none, and the paper's head, ce_weight, num_prototypes and num_layers. The run resumes where it was
    interrupted. For several processes: torchrun --nproc-per-node N -m sclmkb.train.cli cdg ..., or accelerate launch on
    GPUs.
    """
    from sclmkb.train.predictor.fit import CsiTrainSettings, train_predictor

    folder = preset_folder(preset)
    kind = [f"model.kind={predictor}"] if predictor else []
    embedded = [f"model.language_model={json.dumps(model)}"] if model else []
    settings = CsiTrainSettings.resolve(
        presets="sclmkb.train",
        section="cdg",
        preset=preset,
        config=config,
        overrides=[*kind, *embedded, *(overrides or ())],
        options={"seed": seed},
    )
    done = train_predictor(settings, csi or [folder / "csi"], out or folder / "cdg", new_run=new_run)
    say(f"cdg: checkpoint in {done}")


@app.command()
def mtsc(
    corpus: Annotated[
        list[Path] | None,
        typer.Option(
            help="Corpus artifact, or a folder of them; repeatable. Each task takes the first one with its texts."
        ),
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks to train, with commas: answer,reconstruct.")] = None,
    system: Annotated[str | None, typer.Option(help="Name of the system, a column of each result.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Encoder-decoder language model: flan-t5-small, a local folder, or scratch."),
    ] = None,
    csi: Annotated[Path | None, typer.Option(help="CSI artifact, for channel.kind=mimo.")] = None,
    predicted: Annotated[Path | None, typer.Option(help="Predicted CSI, for channel.csi_source=predicted.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run and its checkpoint.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
) -> None:
    """Fit the multi-task transceiver around an encoder-decoder language model, over AWGN, Rician fading or MIMO.

    Paths that you leave out are those of the preset's folder, artifacts/PRESET/... The run resumes where it was
    interrupted. For several processes: torchrun --nproc-per-node N -m sclmkb.train.cli mtsc ...
    """
    from sclmkb.common.tasks.media.trained import MtscSettings
    from sclmkb.train.multitask.fit import train_mtsc

    folder = preset_folder(preset)
    embedded = [f"model.language_model.name={json.dumps(model)}"] if model else []
    settings = MtscSettings.resolve(
        presets="sclmkb.train",
        section="mtsc",
        preset=preset,
        config=config,
        overrides=[*embedded, *(overrides or ())],
        options={"seed": seed, "system": system, "tasks": tasks.split(",") if tasks else None},
    )
    run = out or folder / "mtsc" / settings.system / f"seed-{settings.seed}"
    done = train_mtsc(settings, corpus or [folder / "corpora"], run, csi=csi, predicted=predicted, new_run=new_run)
    say(f"mtsc: checkpoint in {done}")


def main() -> None:
    """Entry point of the console script."""
    run_app(app)


if __name__ == "__main__":
    main()
