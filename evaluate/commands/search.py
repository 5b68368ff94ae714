"""Commands that search over the link: ``search`` and ``serve``."""

from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.console import say
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
        list[Path] | None, typer.Option(help="Checkpoint of sclmkb-train jscc, or a folder with several; repeatable.")
    ] = None,
    corpus: CorpusOption = None,
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
    """Search on a local page: type a sentence, choose the SNR, transmit.

    Paths that you leave out are those of the preset's folder, artifacts/PRESET/..., or of the folder above the first
    checkpoint.
    """
    from sclmkb.common.console import limit_threads
    from sclmkb.evaluate.measure.systems import open_checkpoints, open_loader
    from sclmkb.evaluate.search.serve import Desk
    from sclmkb.evaluate.search.serve import serve as serve_page

    limit_threads(threads)
    chosen = open_checkpoints(checkpoint or [preset_folder(preset) / "jscc"])
    loader = open_loader(chosen, preset=preset, corpus=corpus, csi=csi, predicted=predicted)
    serve_page(Desk(loader, chosen, top), host, port)
