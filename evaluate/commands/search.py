"""Commands to try trained systems by hand: ``search``, and ``serve`` with its local pages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.options import PresetOption, preset_folder
from sclmkb.evaluate.commands.options import CorpusOption, CsiOption, PredictedOption


def search(
    query: Annotated[str, typer.Argument(help="The sentence to send.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint of sclmkb-train jscc, or a folder: its main system is taken.")
    ] = None,
    corpus: CorpusOption = None,
    csi: CsiOption = None,
    predicted: PredictedOption = None,
    snr: Annotated[float, typer.Option(help="SNR in dB.")] = 10.0,
    receiver: Annotated[str, typer.Option(help="literal or dmrs.")] = "literal",
    seed: Annotated[int, typer.Option(help="Seed of the noise, and of which drop of the test split is used.")] = 0,
    top: Annotated[int, typer.Option(min=1, max=50, help="Number of items to show.")] = 10,
    out: Annotated[
        Path | None, typer.Option(help="PNG file of the ranking; default: search.png in that folder.")
    ] = None,
    preset: PresetOption = None,
) -> None:
    """Send one sentence over the simulated link and rank the items of the test split by what arrives.

    Paths that you leave out are those of the preset's folder, artifacts/PRESET/..., or of the folder above the
    checkpoint.
    """
    from sclmkb.evaluate.measure.systems import home_of, main_checkpoint, open_checkpoints, open_loader
    from sclmkb.evaluate.search.figure import draw_found
    from sclmkb.evaluate.search.search import check_receiver, format_found
    from sclmkb.evaluate.search.search import search as search_gallery

    chosen = main_checkpoint(open_checkpoints([checkpoint or preset_folder(preset) / "jscc"]))
    receiver = check_receiver(receiver)
    loader = open_loader([chosen], preset=preset, corpus=corpus, csi=csi, predicted=predicted)
    system = loader.open(chosen)
    found = search_gallery(system, query, snr_db=snr, receiver=receiver, seed=seed, top=top)
    typer.echo(format_found(found))
    picture = out or home_of(chosen, preset) / "search.png"
    draw_found(found, system.items, picture)
    say(f"search: wrote {picture}")


def serve(
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoint of sclmkb-train jscc or mtsc, or a folder with several; repeatable."),
    ] = None,
    corpus: Annotated[
        list[Path] | None, typer.Option(help="Corpus artifact; for mtsc repeatable, or a folder of them.")
    ] = None,
    csi: CsiOption = None,
    predicted: PredictedOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; by default only this machine can connect.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free port.")] = 8765,
    top: Annotated[int, typer.Option(min=1, max=50, help="Number of items to show.")] = 10,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all cores.")] = None,
    preset: PresetOption = None,
) -> None:
    """Try trained systems on a local page: search by a sentence, or send a picture, sound or animation.

    Checkpoints of jscc are searched with; those of mtsc answer, describe and reconstruct. Paths that you leave out are
    those of the preset's folder, artifacts/PRESET/..., or of the folder above the first checkpoint.
    """
    from sclmkb.common.console import limit_threads
    from sclmkb.common.tasks.media.trained import KIND
    from sclmkb.evaluate.measure.systems import kinds_below, open_checkpoints, open_loader
    from sclmkb.evaluate.search.serve import Desk
    from sclmkb.evaluate.search.serve import serve as serve_search

    limit_threads(threads)
    folder = preset_folder(preset)
    chosen = checkpoint or [next((f for f in (folder / "jscc", folder / KIND) if f.exists()), folder / "jscc")]
    kinds = kinds_below(chosen)
    if KIND in kinds:
        if "jscc" in kinds:
            raise UserError("there are checkpoints of jscc and of mtsc, which have pages of their own: name one folder")
        _serve_media(chosen, corpus, preset, host, port)
        return
    if corpus and len(corpus) > 1:
        raise UserError("checkpoints of jscc are searched with in one corpus: name one with --corpus")
    found = open_checkpoints(chosen)
    loader = open_loader(found, preset=preset, corpus=corpus[0] if corpus else None, csi=csi, predicted=predicted)
    serve_search(Desk(loader, found, top), host, port)


def _serve_media(
    checkpoints: Sequence[Path], corpora: Sequence[Path] | None, preset: str | None, host: str, port: int
) -> None:
    from sclmkb.common.artifacts.artifact import open_all
    from sclmkb.evaluate.multitask.page.desk import MediaDesk, open_mtsc
    from sclmkb.evaluate.multitask.page.page import serve_media

    found = open_mtsc(checkpoints)
    above = () if preset else checkpoints[0].resolve().parents
    home = next((folder for folder in above if (folder / "corpora").is_dir()), preset_folder(preset))
    sources = open_all(corpora or [home / "corpora"], "corpus")
    serve_media(MediaDesk(found, sources), host, port)
