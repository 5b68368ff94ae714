"""What systems must have in common to stand in one figure: read from their measurements, refused where it differs.

The measurement is compared (link, corpus, CSI, SNRs, receivers, steps, seed of drops and noise), and the training. The
settings of the training say what tells one system from another; all other settings are compared.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sclmkb.common.config import flatten
from sclmkb.common.errors import UserError
from sclmkb.common.link.sources import LinkSettings
from sclmkb.common.tasks.trained import JsccSettings, Trained
from sclmkb.evaluate.measure.record import SHARED, Measurement
from sclmkb.evaluate.tables import Table

_WORDS = {"snrs_db": "SNRs [dB]", "receivers": "receivers", "steps": "future steps", "seed": "seed of drops and noise"}
_UNKNOWN = "not recorded"
_TRAINED = "training: "
_MEDIA_OF_SEED = f"{_TRAINED}media encoder of seed"


def conditions_table(conditions: Mapping[str, str], of: str) -> Table:
    """Return what all systems of a corpus have in common; settings that belong together are in one row."""
    rows: dict[str, list[str]] = {}
    for name, value in conditions.items():
        group, dot, rest = name.partition(".")
        rows.setdefault(group, []).append(f"{rest} {value}" if dot else value)
    return Table(
        title=f"What all systems have in common: {of}",
        columns=["condition", "value"],
        rows=[[name, ", ".join(values)] for name, values in rows.items()],
        note="Corpus, CSI and encoder are named by the first digits of the hash of their contents.",
    )


def shared_conditions(records: Sequence[Measurement]) -> dict[str, str]:
    """Return what all systems in measurements have in common: conditions and their values, for people to read.

    Raises:
        UserError: if systems differ in more than what makes them other systems.
    """
    found = [(where, values) for record in records for where, values in _conditions_in(record)]
    names = list(dict.fromkeys(name for _, values in found for name in values))
    shared, problems = {}, []
    for name in names:
        absent = None if name.startswith(_MEDIA_OF_SEED) else _UNKNOWN
        all_values = [(where, values.get(name, absent)) for where, values in found]
        of = [(where, value) for where, value in all_values if value is not None]
        if not of:
            continue
        usual = Counter(value for _, value in of).most_common(1)[0][0]
        shared[name] = usual
        if odd := next(((where, value) for where, value in of if value != usual), None):
            like = next(where for where, value in of if value == usual)
            problems.append((name, f"{name} is {odd[1]} in {odd[0]} and {usual} in {like}", odd[0]))
    if problems:
        name, problem, where = problems[0]
        others = f" (also other: {', '.join(other for other, *_ in problems[1:])})" if problems[1:] else ""
        raise UserError(f"unequal systems cannot stand in one figure: {problem}{others}; {_mend(name, where)}")
    return {**shared, "seeds of training": as_text(_shared_seeds(records))}


def channel_of(link: LinkSettings) -> tuple[Any, ...]:
    """Return what of a link systems must have in common; feedback is of a system's own CSI."""
    return (link.channel, link.power, None if link.needs_csi else link.fading)


def _conditions_in(measured: Measurement) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Yield where a system was measured, and all its conditions; None for one that does not concern it."""
    for trained in measured.systems:
        of, model = trained.settings, trained.settings.model
        link, source = measured.link or of.link, measured.csi_source or of.csi_source
        symbols = model.num_streams * model.num_uses
        shared = {key: getattr(measured.sweep, key) for key in SHARED}
        values = {
            "complex symbols per caption": f"{model.num_streams} streams × {model.num_uses} channel uses = {symbols}",
            **_link_values(link, source),
            "pilots of receiver dmrs": f"{model.dmrs_pilot_boost_db:+g} dB over the SNR",
            "corpus": measured.inputs.get("corpus", _UNKNOWN),
            "CSI artifact": measured.inputs.get("csi", _UNKNOWN) if link.needs_csi else None,
            **{_WORDS[key]: "all" if value is None else as_text(value) for key, value in shared.items()},
            **_training_values(trained),
            f"{_MEDIA_OF_SEED} {of.seed}": trained.inputs.get("media_from", "the system's own"),
        }
        yield f"{measured.folder} ({trained.name})", values


def _link_values(link: LinkSettings, source: str, prefix: str = "") -> dict[str, str | None]:
    """Return the conditions of a link, None where there is none; feedback only where the CSI is fed back."""
    fading = "" if link.needs_csi else f" ({as_text(link.fading.model_dump(mode='json'))})"
    fed_back = source == "feedback" and link.channel not in ("awgn", "none")
    power = f"total 1 per channel use, {link.power.replace('_', ' ')} over streams"
    feedback = f"{link.feedback_bits} bits per report, {link.feedback_delay} steps old"
    return {
        f"{prefix}channel": f"{link.channel}{fading}" if link.channel != "none" else None,
        f"{prefix}power": power if link.channel != "none" else None,
        f"{prefix}CSI that is fed back": feedback if fed_back else None,
    }


def _training_values(trained: Trained) -> dict[str, str | None]:
    left_out = {*JsccSettings.marked("of_a_system"), *JsccSettings.marked("speed_only"), "link"}
    link = trained.settings.link
    settings = trained.settings.model_dump(mode="json", exclude=left_out, exclude_unset=True)
    found: dict[str, str | None] = {
        f"{_TRAINED}{name}": as_text(value)
        for name, value in flatten(settings).items()
        if name not in ("model.num_streams", "model.num_uses", "model.dmrs_pilot_boost_db")
    }
    found |= _link_values(link, trained.settings.csi_source, f"{_TRAINED}link, ")
    read = {name: trained.inputs.get(name, _UNKNOWN) for name in ("corpus", "csi", "encoder")}
    return found | {f"{_TRAINED}{n}": v if n != "csi" or link.needs_csi else None for n, v in read.items()}


def as_text(value: Any) -> str:
    """Return a setting for people to read; values that differ read differently."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {as_text(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return " ".join(as_text(each) for each in value)
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)


def _shared_seeds(records: Sequence[Measurement]) -> tuple[int, ...]:
    """Return the seeds of training that every system has; a system with others than most is refused."""
    seeds: dict[str, set[int]] = {}
    for measured in records:
        for trained in measured.systems:
            name = f"SSCC in {measured.folder}" if measured.kind == "sscc" else trained.settings.system
            seeds.setdefault(name, set()).add(trained.settings.seed)
    usual = Counter(tuple(sorted(of)) for of in seeds.values()).most_common(1)[0][0]
    for name, of in seeds.items():
        if tuple(sorted(of)) != usual:
            like = next(other for other, its in seeds.items() if tuple(sorted(its)) == usual)
            raise UserError(
                f"unequal systems cannot stand in one figure: {name} has seeds {as_text(sorted(of))} and {like} has"
                f" {as_text(usual)}; train and measure the same seeds of each"
            )
    return usual


def _mend(name: str, where: str) -> str:
    if name.startswith(_TRAINED) or name in ("complex symbols per caption", "pilots of receiver dmrs"):
        return f"train both with the same settings, or leave {where} out"
    return f"measure both with the same settings, or leave {where} out"
