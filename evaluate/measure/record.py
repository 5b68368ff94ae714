"""What ``config.json`` of a measurement says: what was measured, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sclmkb.common.artifacts.files import read_json
from sclmkb.common.errors import UserError
from sclmkb.common.link.sources import CsiSource, LinkSettings
from sclmkb.common.tasks.trained import Trained
from sclmkb.evaluate.measure.settings import SweepSettings

SHARED = tuple(name for name in SweepSettings.model_fields if name != "seeds")
"""Settings of a measurement that systems to be compared have in common."""

_MADE_BY = {"eval": "sclmkb-eval run", "sscc": "sclmkb-eval sscc"}
_LINK: TypeAdapter[LinkSettings | None] = TypeAdapter(LinkSettings | None)
_SOURCE: TypeAdapter[CsiSource | None] = TypeAdapter(CsiSource | None)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A measurement, as it was recorded.

    Attributes:
        folder: where it lies.
        kind: ``eval`` or ``sscc``.
        settings: all of them, as they were saved.
        sweep: those that all measurements have.
        link: that everything was measured on; None: each system on its own.
        csi_source: of everything that was measured; None: each system's own.
        inputs: fingerprints by name.
        systems: what was measured; of SSCC, what retrieves.
    """

    folder: Path
    kind: str
    settings: Mapping[str, Any]
    sweep: SweepSettings
    link: LinkSettings | None
    csi_source: CsiSource | None
    inputs: Mapping[str, str]
    systems: Sequence[Trained]

    @property
    def links(self) -> list[LinkSettings]:
        """The links that systems were measured on, without those that have none."""
        if self.link is not None:
            return [self.link]
        return [one.settings.link for one in self.systems if one.settings.link.channel != "none"]


def read_measurement(folder: Path, kinds: Sequence[str] = ("eval", "sscc")) -> Measurement:
    """Return what was recorded of a measurement.

    Raises:
        UserError: if there is none of these kinds, or it is one of another version.
    """
    path = folder / "config.json"
    config = read_json(path) if path.exists() else {}
    kind = str(config.get("kind"))
    if kind not in kinds:
        raise UserError(f"{folder} holds no measurement of {' or '.join(_MADE_BY[kind] for kind in kinds)}")
    settings = config.get("settings", {})
    try:
        return Measurement(
            folder=folder,
            kind=kind,
            settings=settings,
            sweep=SweepSettings.model_validate({name: settings[name] for name in SHARED if name in settings}),
            link=_LINK.validate_python(settings.get("link")),
            csi_source=_SOURCE.validate_python(settings.get("csi_source")),
            inputs=config.get("inputs", {}),
            systems=[Trained.read(record) for record in config["checkpoints"]],
        )
    except (KeyError, ValidationError):
        raise UserError(f"{folder} was measured by another version: measure again with --new-run") from None
