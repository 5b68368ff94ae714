"""What cells ask Slurm for: section ``slurm``, and over it that of a command, such as ``slurm-gen-sdg``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sclmkb.common.executors.slurm_script import SlurmSettings
from sclmkb.common.options import split_overrides
from sclmkb.evaluate.studies.sc_lmkb.cells import Cell


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of Slurm, cell by cell.

    Attributes:
        preset: that may have section ``slurm``, and those of commands.
        config: YAML file that may have them.
        overrides: ``--set`` items of the section, without its name; they count for every cell.
    """

    preset: str | None = None
    config: Path | None = None
    overrides: Sequence[str] = ()

    def of_cell(self, cell: Cell) -> SlurmSettings:
        """Return what a cell asks for.

        Raises:
            UserError: if a setting is wrong.
        """
        program, command, *_ = cell.command
        under = self._resolve("slurm", {}, ())
        own = f"slurm-{program.removeprefix('sclmkb-')}-{command}"
        return self._resolve(own, under.model_dump(), self.overrides)

    def of_all(self) -> SlurmSettings:
        """Return what everything asks for that is no cell.

        Raises:
            UserError: if a setting is wrong.
        """
        return self._resolve("slurm", {}, self.overrides)

    def _resolve(self, section: str, under: Mapping[str, Any], overrides: Sequence[str]) -> SlurmSettings:
        return SlurmSettings.resolve(
            presets="sclmkb.evaluate",
            section=section,
            preset=self.preset,
            config=self.config,
            overrides=overrides,
            defaults=under,
        )


def split_options(preset: str | None, config: Path | None, overrides: Sequence[str]) -> tuple[list[str], Options]:
    """Return the ``--set`` items that are the study's own, and what cells ask Slurm for."""
    own, said = split_overrides(overrides, ["slurm"])
    return own, Options(preset=preset, config=config, overrides=said["slurm"])
