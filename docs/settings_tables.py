"""Write docs/settings.md: tables of all settings, from their descriptions. ``python docs/settings_tables.py``."""

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sclmkb.common.config import Settings

PAGE = Path(__file__).parent / "settings.md"

COMMANDS = {  # heading: package and name of the class
    "`sclmkb-gen corpus people-emoji`, section `corpus`": "generate.PeopleEmojiSettings",
    "`sclmkb-gen corpus emoji`, section `emoji`": "EmojiSettings",
    "`sclmkb-gen corpus cuhk-pedes`, `icfg-pedes`, `rstpreid` and `clotho`, section of that name": "ReaderSettings",
    "`sclmkb-gen corpus audiocaps`, `daquar`, `flickr8k` and `msrvtt`, section of that name": "ReaderSettings",
    "`sclmkb-gen corpus vqav2` and `coco-captions`, section of that name": "CutSettings",
    "`sclmkb-gen corpus easy-vqa`, section `easy-vqa`": "EasyVqaSettings",
    "`sclmkb-gen corpus cifar10`, section `cifar10`": "Cifar10Settings",
    "`sclmkb-gen corpus emoji-animations`, section `emoji-animations`": "EmojiAnimationSettings",
    "`sclmkb-gen corpus exercises`, section `exercises`": "ExercisesSettings",
    "`sclmkb-gen corpus kit-ml`, section `kit-ml`": "KitMlSettings",
    "`sclmkb-gen corpus bandai-motion`, section `bandai-motion`": "BandaiMotionSettings",
    "`sclmkb-gen corpus esc10`, section `esc10`": "Esc10Settings",
    "`sclmkb-gen corpus table`, section `table`": "TableSettings",
    "`sclmkb-gen sdg` and `preview`, section `sdg`": "SdgSettings",
    "`sclmkb-gen filter`, section `refilter`": "RefilterSettings",
    "`sclmkb-gen calibrate`, section `calibrate`": "CalibrateSettings",
    "`sclmkb-gen csi`, section `csi`": "CsiSettings",
    "`sclmkb-gen import-csi`, section `import-csi`": "ImportSettings",
    "`sclmkb-gen csi-feedback`, section `csi-feedback`": "FeedbackSettings",
    "`sclmkb-gen cdg`, section `cdg`": "PredictSettings",
    "`sclmkb-train cdg`, section `cdg`": "CsiTrainSettings",
    "`sclmkb-train jscc`, section `jscc`": "JsccSettings",
    "`sclmkb-train mtsc`, section `mtsc`": "MtscSettings",
    "`sclmkb-eval run`, section `run`": "RunSettings",
    "`sclmkb-eval sscc`, section `sscc`": "SsccSettings",
    "`sclmkb-eval csi`, section `csi`": "CsiEvalSettings",
    "`sclmkb-eval mtsc`, section `mtsc`": "MtscEvalSettings",
    "`sclmkb-eval report`, section `report`": "ReportSettings",
    "`sclmkb-eval study demo`, section `demo-study`": "DemoSettings",
    "`sclmkb-eval study csi`, section `csi-study`": "CsiStudySettings",
    "`sclmkb-eval study retrieval`, section `retrieval-study`": "RetrievalStudySettings",
    "`sclmkb-eval study paper`, section `paper`": "PaperSettings",
    "`sclmkb-eval study mtsc`, section `mtsc-study`": "MtscStudySettings",
    "Slurm, section `slurm`": "SlurmSettings",
    "Ray, section `ray`": "RaySettings",
}

IN_CODE = {"DigitalChannelSettings", "MediaForm", "SystemSettings"}
"""No command takes these, or those derived from them; other settings decide them."""

HEAD = """# Settings

This page is made from the descriptions in the code: `python docs/settings_tables.py`. Do not edit it.

A command takes its settings from a preset (`--preset NAME`), a YAML file (`--config FILE`) and `--set KEY=VALUE`.
The later source wins. A YAML file and a preset have one section per command. A setting may be a group of settings. A
dot reaches into a group: `--set filter.min_margin=0.1`. Some groups have a `kind`, which decides what else they hold.

A setting marked † changes the speed only, never the result. All others are part of a run's fingerprint.
"""


def settings_classes(base: type[Settings] = Settings) -> Iterator[type[Settings]]:
    """Yield every settings class of the project that is imported."""
    for found in base.__subclasses__():
        if found.__module__.startswith("sclmkb."):
            yield found
        yield from settings_classes(found)


def import_everything() -> None:
    """Import all modules of the project, so that all settings are known."""
    for name in ("common", "generate", "train", "evaluate"):
        package = importlib.import_module(f"sclmkb.{name}")
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)


def page() -> str:
    """Return the text of docs/settings.md."""
    import_everything()
    classes = {f"{c.__module__.split('.')[1]}.{c.__name__}": c for c in settings_classes()}
    by_name = {c.__name__: c for c in classes.values()} | classes
    parts, headings, queue = [HEAD], list(COMMANDS), [by_name[name] for name in COMMANDS.values()]
    for number, settings in enumerate(queue):
        heading = headings[number] if number < len(headings) else _title(settings)
        parts += [f"## {heading}", "\n".join(_rows(settings))]
        queue += [g for f in settings.model_fields.values() for g in _groups(f) if g not in queue]
    shown = (*queue, *(c for c in classes.values() if any(base.__name__ in IN_CODE for base in c.__mro__)))
    left = [n for n, c in classes.items() if not any(issubclass(s, c) for s in shown)]
    if left:
        raise SystemExit(f"no table shows {', '.join(left)}: add the command's class to COMMANDS in {__file__}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _rows(settings: type[Settings]) -> Iterator[str]:
    yield "| setting | value | default | description |"
    yield "|---|---|---|---|"
    for name, field in settings.model_fields.items():
        mark = " †" if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("speed_only") else ""
        text = (field.description or "").replace("|", "\\|")
        links = " or ".join(f"[{_title(t)}](#{_title(t).lower().replace(' ', '-')})" for t in _groups(field))
        default = _default(field.get_default(call_default_factory=True))
        yield f"| `{name}`{mark} | {links or _value(field)} | {default} | {text} |"


def _groups(field: FieldInfo) -> list[type[Settings]]:
    found = [t for t in _types(field.annotation) if inspect.isclass(t) and issubclass(t, Settings)]
    open_to_kinds = [t for t in found if "kind" in t.model_fields and t.model_fields["kind"].is_required()]
    kinds = [k for t in open_to_kinds for k in settings_classes(t) if not k.model_fields["kind"].is_required()]
    return [t for t in found if t not in open_to_kinds] + sorted(
        kinds, key=lambda k: str(k.model_fields["kind"].default)
    )


def _types(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, UnionType, tuple, dict, Annotated):
        for part in get_args(annotation):
            yield from _types(part)
    else:
        yield annotation


def _title(settings: type[Settings]) -> str:
    kind = settings.model_fields.get("kind")
    if kind is not None and isinstance(kind.default, str):
        return f"Kind {kind.default}"
    return "Group " + re.sub(r"(?<!^)(?=[A-Z])", " ", settings.__name__.removesuffix("Settings")).lower()


def _value(field: FieldInfo) -> str:
    bounds = {type(m).__name__.lower(): m for m in field.metadata}
    signs = {"gt": "> {}", "ge": "≥ {}", "lt": "< {}", "le": "≤ {}"}  # annotated-types' names are its fields' names
    limits = [signs[k].format(getattr(m, k)) for k, m in bounds.items() if k in signs]
    return " ".join([_type(field.annotation), ", ".join(limits)]).strip()


def _type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return ", ".join(f"`{p}`" for p in parts)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(p) for p in parts if p is not NoneType))
    if origin is tuple:
        return f"list of {_type(parts[0])}" if parts[1:] == (...,) else f"{len(parts)} numbers"
    names = {int: "integer", float: "number", str: "text", bool: "true, false", Path: "path"}
    return names.get(annotation, "mapping")


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Settings):
        return f"`{kind}`" if (kind := getattr(value, "kind", None)) else ""
    if value is None or value in ((), {}):
        return ""
    text = value if isinstance(value, str) else json.dumps(value, default=_plain, ensure_ascii=False)
    return f"`{text.replace(chr(34), '')}`"


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Settings) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
