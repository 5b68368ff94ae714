"""Settings: frozen, typed, built from a preset, a YAML file and overrides, and fingerprinted.

A stage declares its settings beside its code as a subclass of :class:`Settings`. The resolved form is saved
with every artifact. Fields that cannot change the output (batch size, device, log level) are declared with
:func:`speed_only` and stay out of the fingerprint.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sclmkb.common.errors import UserError

_SPEED_ONLY: dict[str, Any] = {"speed_only": True}


def speed_only(default: Any, **kwargs: Any) -> Any:
    """Declare a field that changes how fast a result comes, never the result."""
    return Field(default=default, json_schema_extra=_SPEED_ONLY, **kwargs)


class Settings(BaseModel):
    """Base of every stage's settings: frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return the fields that can change the output, also those of nested settings, as plain JSON values."""
        fields: dict[str, Any] = self.model_dump(mode="json", exclude=set(self.marked("speed_only")))
        for name in fields:
            if isinstance(value := getattr(self, name), Settings):
                fields[name] = value.fingerprint_fields()
        return fields

    @classmethod
    def marked(cls, mark: str) -> tuple[str, ...]:
        """Return the names of the fields that were declared with a mark, such as ``speed_only``."""
        marks = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        return tuple(name for name, of in marks.items() if isinstance(of, dict) and of.get(mark))

    def fingerprint(self) -> str:
        """Return a short hash of :meth:`fingerprint_fields`."""
        return fingerprint(self.fingerprint_fields())

    @classmethod
    def resolve(
        cls,
        *,
        presets: str,
        section: str,
        preset: str | None = None,
        config: Path | None = None,
        overrides: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> Self:
        """Build the settings: defaults, then preset, then YAML file, then ``key=value``, then options.

        Each goes over what came before, field by field, also in nested settings. Where a field ``kind`` tells apart
        which settings are nested, naming another kind drops what was said of the former one.

        Args:
            presets: package that holds the presets as ``presets/NAME.yaml``, e.g. ``sclmkb.train``.
            section: the section of the preset and of the YAML file that belongs to this command.
            preset: name of a preset.
            config: a YAML file in the same form as a preset.
            overrides: ``key=value`` strings; values are read as YAML, dots reach into nested settings.
            options: explicit command line options; ``None`` values are ignored.
            defaults: what to start from instead of the defaults of the class.

        Raises:
            UserError: on an unknown preset, an unreadable file, an unknown field or a bad value.
        """
        values = _merge({}, defaults or {})
        if preset is not None:
            values = _merge(values, _section(load_preset(presets, preset), section, f"preset '{preset}'"))
        if config is not None:
            values = _merge(values, _section(_load_yaml(config), section, str(config)))
        for item in overrides:
            _assign(values, item)
        values.update({k: v for k, v in (options or {}).items() if v is not None})
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(_explain(error, section)) from None


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name.

    Example:
        >>> flatten({"a": 1, "model": {"kind": "cdg", "width": [1, 2]}})
        {'a': 1, 'model.kind': 'cdg', 'model.width': [1, 2]}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def fingerprint(value: Any) -> str:
    """Return the first 16 hex digits of the sha256 of a JSON-serialisable value."""
    digest = hashlib.sha256()
    pieces = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).iterencode(value)
    while piece := "".join(itertools.islice(pieces, 65536)):  # a plan may be larger than what is left of the memory
        digest.update(piece.encode())
    return digest.hexdigest()[:16]


def load_preset(package: str, name: str) -> dict[str, Any]:
    """Load ``presets/NAME.yaml`` of a package.

    Raises:
        UserError: if there is no such preset; the message lists those there are.
    """
    folder = resources.files(package) / "presets"
    known = sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))
    if name not in known:
        raise UserError(f"unknown preset '{name}': choose one of {', '.join(known)}")
    loaded = yaml.safe_load((folder / f"{name}.yaml").read_text("utf-8"))
    return dict(loaded or {})


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        where = str(getattr(error, "problem_mark", "")).strip()
        raise UserError(f"{path} is not valid YAML {where}".strip()) from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path} must hold a mapping of sections, e.g. 'sdg: {{temperature: 0.8}}'")
    return loaded


def _section(values: Mapping[str, Any], section: str, where: str) -> dict[str, Any]:
    found = values.get(section, {})
    if not isinstance(found, Mapping):
        raise UserError(f"section '{section}' of {where} must be a mapping")
    return dict(found)


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a new mapping of both, nested ones merged as well; another ``kind`` starts afresh."""
    merged = dict(under) if over.get("kind", under.get("kind")) == under.get("kind") else {}
    for key, value in over.items():
        known = merged.get(key)
        if isinstance(value, Mapping):
            merged[key] = _merge(known if isinstance(known, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def _assign(values: dict[str, Any], item: str) -> None:
    key, separator, text = item.partition("=")
    if not separator or not key:
        raise UserError(f"--set takes key=value, not '{item}'")
    *parents, last = key.split(".")
    target = values
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise UserError(f"--set {item}: '{parent}' is no group of settings")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {item}: the value is not valid YAML") from None
    if last == "kind" and parents and target.get("kind") != value:
        target.clear()
    target[last] = value


def _explain(error: ValidationError, section: str) -> str:
    parts = []
    for problem in error.errors():
        name = ".".join(str(p) for p in problem["loc"])
        prefix = f"setting '{section}.{name}'" if name else f"settings '{section}'"
        if problem["type"] == "extra_forbidden":
            parts.append(f"{prefix} does not exist")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            parts.append(f"{prefix} = {problem['input']!r}: {message}" if name else f"{prefix}: {message}")
    return "; ".join(parts)
