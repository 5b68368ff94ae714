"""Options that commands of ``sclmkb-eval`` share."""

from pathlib import Path
from typing import Annotated

import typer

CorpusOption = Annotated[Path | None, typer.Option(help="Corpus artifact.")]
CsiOption = Annotated[Path | None, typer.Option(help="CSI artifact.")]
PredictedOption = Annotated[Path | None, typer.Option(help="Predicted CSI, for systems that use it.")]


def if_there(folder: Path) -> Path | None:
    """Return a folder, or None if it does not exist."""
    return folder if folder.exists() else None
