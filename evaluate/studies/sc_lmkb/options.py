"""What cells ask an executor for: its section, and over it that of a command, such as ``slurm-gen-sdg``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sclmkb.common.config import Settings
from sclmkb.common.executors.base import split_overrides
from sclmkb.common.executors.ray import RaySettings
from sclmkb.common.executors.slurm_script import SlurmSettings
from sclmkb.evaluate.studies.sc_lmkb.cells import Cell

Asked = TypeVar("Asked", bound=Settings)


@dataclass(frozen=True, kw_only=True)
class Options(Generic[Asked]):
    """Settings of an executor, cell by cell.

    Attributes:
        kind: class of the settings.
        section: where they stand, ``ray`` or ``slurm``.
        preset: that may have this section, and those of commands.
        config: YAML file that may have them.
        overrides: ``--set`` items of the section, without its name; they count for every cell.
    """

    kind: type[Asked]
    section: str
    preset: str | None = None
    config: Path | None = None
    overrides: Sequence[str] = ()

    def of_cell(self, cell: Cell) -> Asked:
        """Return what a cell asks for.

        Raises:
            UserError: if a setting is wrong.
        """
        program, command, *_ = cell.command
        under = self._resolve(self.section, {}, ())
        own = f"{self.section}-{program.removeprefix('sclmkb-')}-{command}"
        return self._resolve(own, under.model_dump(), self.overrides)

    def of_all(self) -> Asked:
        """Return what everything asks for that is no cell.

        Raises:
            UserError: if a setting is wrong.
        """
        return self._resolve(self.section, {}, self.overrides)

    def _resolve(self, section: str, under: Mapping[str, Any], overrides: Sequence[str]) -> Asked:
        return self.kind.resolve(
            presets="sclmkb.evaluate",
            section=section,
            preset=self.preset,
            config=self.config,
            overrides=overrides,
            defaults=under,
        )


def split_options(
    preset: str | None, config: Path | None, overrides: Sequence[str]
) -> tuple[list[str], Options[RaySettings], Options[SlurmSettings]]:
    """Return the ``--set`` items that are the study's own, and what cells ask Ray and Slurm for."""
    own, said = split_overrides(overrides, ["ray", "slurm"])
    ray = Options(kind=RaySettings, section="ray", preset=preset, config=config, overrides=said["ray"])
    return own, ray, Options(kind=SlurmSettings, section="slurm", preset=preset, config=config, overrides=said["slurm"])
