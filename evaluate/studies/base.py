"""What a study is to the command line: its settings, its cells, and what is drawn of them."""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.studies.cells import Study

STUDIES = {
    "demo": "sclmkb.evaluate.studies.demo",
    "csi": "sclmkb.evaluate.studies.csi",
    "retrieval": "sclmkb.evaluate.studies.retrieval",
    "paper": "sclmkb.evaluate.studies.sc_lmkb.study",
    "mtsc": "sclmkb.evaluate.studies.mtsc.study",
}
"""Module of each study; it has a :class:`StudyKind` named ``STUDY``."""

OFFLINE = {"HF_HUB_OFFLINE": "1"}
"""Environment of studies that need nothing from a hub."""

Asked = TypeVar("Asked", bound=Settings)


@dataclass(frozen=True, kw_only=True)
class Where:
    """Folder of a study, that of the corpora which are not embedded, and the preset of the study's commands."""

    out: Path
    data: Path | None = None
    preset: str | None = None


@dataclass(frozen=True, kw_only=True)
class StudyKind(Generic[Asked]):
    """A study that ``sclmkb-eval study`` offers.

    Attributes:
        settings: class of its settings.
        section: where they stand in a preset or YAML file.
        folder: of the study, by the preset, unless another one is named.
        plan: returns its cells.
        draw: draws what is done, and returns tables as Markdown, empty if there was nothing; None: nothing is drawn.
        preset: of its settings unless one is named.
        ending: what is said in the end; ``{out}`` stands for the folder.
    """

    settings: type[Asked]
    section: str
    folder: Callable[[str | None], Path]
    plan: Callable[[Asked, Where], Study]
    draw: Callable[[Asked, Study], str] | None = None
    preset: str | None = None
    ending: str


def check_systems(value: tuple[str, ...], known: Iterable[str], main: str) -> tuple[str, ...]:
    """Return the systems of a study.

    Raises:
        ValueError: if one is unknown or named twice, or the main one, which the others are compared with, is missing.
    """
    if unknown := [name for name in value if name not in known]:
        raise ValueError(f"'{unknown[0]}' is unknown, there are {', '.join(known)}")
    if main not in value or len(set(value)) < len(value):
        raise ValueError(f"name {main}, which the others are compared with, and none twice")
    return value


def open_study(name: str) -> StudyKind[Any]:
    """Return a study by its name.

    Raises:
        UserError: if there is none.
    """
    if name not in STUDIES:
        raise UserError(f"there is no study '{name}': {', '.join(STUDIES)}")
    kind: StudyKind[Any] = importlib.import_module(STUDIES[name]).STUDY
    return kind
