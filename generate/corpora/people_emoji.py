"""Emoji: one identity, several artists' drawings, several human texts; of people with skin tone, hair, job and action.

The texts are emojibase's (label, shortcodes, tags), the drawings those of the Iconify icon sets. This module only
reads what the npm packages hold; fetching and rendering are done by ``sclmkb-gen corpus``.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sclmkb.common.artifacts.schemas import SPLITS
from sclmkb.common.errors import UserError

EmojiGroup = Literal[
    "smileys-emotion", "people-body", "component", "animals-nature", "food-drink", "travel-places", "activities",
    "objects", "symbols", "flags",
]  # fmt: skip
GROUPS: Mapping[EmojiGroup, int] = {
    "smileys-emotion": 0, "people-body": 1, "component": 2, "animals-nature": 3, "food-drink": 4, "travel-places": 5,
    "activities": 6, "objects": 7, "symbols": 8, "flags": 9,
}  # fmt: skip
"""Emojibase's groups and their numbers."""

PEOPLE_GROUP: EmojiGroup = "people-body"

REQUIRED_ARTISTS = ("noto", "twemoji", "openmoji")
"""An emoji is an identity only if each of these drew it; other artists' drawings come on top."""

WORDINGS = ("label", "shortcode", "tags", "sentence")
"""How a caption is worded; training knows only the first."""

_TONE = " skin tone"
_PEOPLE = {
    "person": "people",
    "man": "men",
    "woman": "women",
    "boy": "boys",
    "girl": "girls",
    "adult": "adults",
    "child": "children",
}
_AN = ("umbrella", "up")
_NO_ARTICLE = ("people ", "men ", "women ", "hands ", "raising ", "open ", "palms ", "folded ", "clapping ", "crossed ")
_NO_ARTICLE_WHOLE = {
    "Mrs. Claus", "Mx Claus", "Santa Claus", "breast-feeding", "busts in silhouette", "eyes", "fingerprint",
    "footprints", "heart hands", "horse racing", "lungs", "nail polish", "pinched fingers", "thumbs down", "thumbs up",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One emoji, a skin tone variant counted apart.

    Attributes:
        identity: slug of the label, e.g. ``woman-climbing-light-skin-tone``.
        group: slug of the emoji without its skin tone; identities of one group stay in one split.
        label: emojibase's label, ``head: attribute, attribute``.
        tags: emojibase's tags of the emoji without its skin tone.
        shortcodes: emojibase's shortcodes, underscores and all.
        drawings: SVG source by artist.
        is_person: whether it is one of people & body.
    """

    identity: str
    group: str
    label: str
    tags: tuple[str, ...]
    shortcodes: tuple[str, ...]
    drawings: Mapping[str, str]
    is_person: bool = True


def slug(text: str) -> str:
    """Return lower case text with everything but letters and digits turned into single hyphens.

    Example:
        >>> slug("woman: light skin tone, red hair")
        'woman-light-skin-tone-red-hair'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def read_labels(emojibase: Path, groups: Sequence[EmojiGroup] = tuple(GROUPS)) -> dict[str, Identity]:
    """Read the emoji of some groups, without drawings, by emojibase's hexcode.

    Args:
        emojibase: the unpacked package ``emojibase-data``.
        groups: which of :data:`GROUPS`.

    Raises:
        UserError: if a file is missing or not in the expected form.
    """
    entries = _read(emojibase / "en" / "data.json")
    code_sets = [_read(emojibase / "en" / "shortcodes" / f"{name}.json") for name in ("emojibase", "cldr")]
    numbers = {GROUPS[group] for group in groups}
    return {
        entry["hexcode"]: Identity(
            identity=slug(entry["label"]),
            group=slug(base["label"]),
            label=entry["label"],
            tags=tuple(base.get("tags", ())),
            shortcodes=tuple(c for s in code_sets for c in _as_tuple(s.get(entry["hexcode"], ()))),
            drawings={},
            is_person=base["group"] == GROUPS[PEOPLE_GROUP],
        )
        for base in entries
        if base.get("group") in numbers
        for entry in (base, *base.get("skins", ()))
    }


def read_identities(
    emojibase: Path, icon_sets: Mapping[str, Path], groups: Sequence[EmojiGroup] = (PEOPLE_GROUP,)
) -> list[Identity]:
    """Read the emoji of some groups that every required artist drew, from the unpacked packages; icons by artist.

    Raises:
        UserError: if a file is missing or not in the expected form.
    """
    icons = {artist: _read(folder / "icons.json") for artist, folder in icon_sets.items()}
    found = []
    for item in read_labels(emojibase, groups).values():
        drawings = {artist: svg for artist, icon in icons.items() if (svg := _drawing(artist, icon, item.label))}
        if set(REQUIRED_ARTISTS) <= set(drawings):
            found.append(replace(item, drawings=drawings))
    return found


def split_groups(
    identities: Sequence[Identity], *, seed: int, val_share: float, test_share: float, max_groups: int | None = None
) -> dict[str, list[Identity]]:
    """Split identities by group: no group falls into two splits.

    The groups are put in an order that is a hash of seed and group; the first go to test until that split has its
    share of identities, the next to val, the others to train. Groups of that order beyond ``max_groups`` are left out.

    Returns:
        The identities of ``train``, ``val`` and ``test``, each in the order of ``identities``.

    Raises:
        UserError: if a split would be empty.
    """
    sizes = Counter(item.group for item in identities)
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}\x1f{group}".encode()).digest())[:max_groups]
    total = sum(sizes[group] for group in order)
    split_of: dict[str, str] = {}
    counts = {"test": 0, "val": 0, "train": 0}
    for group in order:
        if counts["test"] < test_share * total:
            name = "test"
        else:
            name = "val" if counts["val"] < val_share * total else "train"
        split_of[group] = name
        counts[name] += sizes[group]
    if empty := [name for name in SPLITS if not counts[name]]:
        raise UserError(f"{len(order)} emoji groups leave the split {empty[0]} empty: raise corpus.max_groups")
    return {name: [item for item in identities if split_of.get(item.group) == name] for name in SPLITS}


def captions(item: Identity) -> dict[str, str]:
    """Return the text of an identity in each of :data:`WORDINGS`; of a thing, none that only repeats its label."""
    others = {"shortcode": _shortcode(item), "tags": _tags(item)}
    if item.is_person:
        return {"label": _label(item), **others, "sentence": _sentence(item)}
    label = _thing(item)
    others = {wording: text for wording, text in others.items() if text.lower() != label.lower()}
    return {"label": label, **others, "sentence": _sentence_of_thing(item)}


def _thing(item: Identity) -> str:
    """``flag: Andorra`` → ``flag of Andorra``, ``keycap: 5`` → ``keycap 5``."""
    head, _, rest = item.label.partition(": ")
    return f"{head} of {rest}" if head == "flag" else f"{head} {rest}".strip()


def _sentence_of_thing(item: Identity) -> str:
    """``red apple`` → ``The picture shows a red apple.``."""
    thing = _thing(item)
    noun = re.split(" (?:with|of|in|on|and) ", thing)[0]
    is_plural = noun.endswith("s") and not noun.endswith(("ss", "us", "is"))
    return f"The picture shows {thing if is_plural else _with_article(thing)}."


def _label(item: Identity) -> str:
    """``woman: light skin tone, red hair`` → ``woman with light skin tone and red hair``."""
    head, people, tones, others = _parse(item.label)
    text = head
    if "bald" in others:
        text = f"bald {text}"
    if people:
        text += f" of {_join(people)}"
    if "facing right" in others:
        text += " facing right"
    features = [*tones, *("a beard" if o == "beard" else o for o in others if o not in ("bald", "facing right"))]
    return f"{text} with {_join(features)}" if features else text


def _sentence(item: Identity) -> str:
    """``woman: light skin tone, red hair`` → ``The picture shows a woman whose skin is light …``."""
    head, people, tones, others = _parse(item.label)
    text = f"The picture shows {_with_article(head)}"
    if people:
        text += f" between {_join(people)}" if head == "kiss" else f", {_join(people)},"
    clauses = [f"whose skin is {_join([t.removesuffix(_TONE) for t in tones])}"] if tones else []
    for other in others:
        if other.endswith(" hair"):
            clauses.append(f"whose hair is {other.removesuffix(' hair')}")
        else:
            clauses.append(
                {"beard": "who has a beard", "facing right": "who looks to the right"}.get(other, f"who is {other}")
            )
    text = f"{text} {_join(clauses)}" if clauses else text
    return text.rstrip(",") + "."


def _shortcode(item: Identity) -> str:
    """Return the first shortcode that is not the label again, as words."""
    texts = [code.replace("_", " ") for code in item.shortcodes]
    own = item.identity.replace("-", " ")
    return next((t for t in texts if t != own), texts[0] if texts else own)


def _tags(item: Identity) -> str:
    """Return the tags, which emojibase gives to the emoji without skin tone, and the tones of this one."""
    _, _, tones, _ = _parse(item.label)
    return ", ".join([*item.tags, *tones]) or item.label


def _parse(label: str) -> tuple[str, list[str], list[str], list[str]]:
    """Return head, people (with articles or counted), skin tones and other attributes of a label."""
    head, _, rest = label.partition(": ")
    attributes = rest.split(", ") if rest else []
    kinds = [a for a in attributes if a in _PEOPLE]
    people = [f"two {_PEOPLE[k]}" if kinds.count(k) == 2 else _with_article(k) for k in dict.fromkeys(kinds)]
    tones = [a for a in attributes if a.endswith(_TONE)]
    return head, people, tones, [a for a in attributes if a not in _PEOPLE and not a.endswith(_TONE)]


def _with_article(noun: str) -> str:
    if noun in _NO_ARTICLE_WHOLE or noun.startswith(_NO_ARTICLE):
        return noun
    return f"{'an' if noun[0].lower() in 'aeio' or noun.startswith(_AN) else 'a'} {noun}"


def _join(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def _drawing(artist: str, icon_set: Mapping[str, Any], label: str) -> str | None:
    """Return the SVG of a label, or ``None``; Fluent drops the words "skin tone"."""
    name = slug(label)
    if artist == "fluent-emoji-flat":
        name = name.replace("-skin-tone", "")
    icon = icon_set["icons"].get(name)
    if icon is None:
        return None
    box = {"left": 0, "top": 0, "width": 16, "height": 16}
    view = " ".join(str(icon.get(key, icon_set.get(key, default))) for key, default in box.items())
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="{view}">{icon["body"]}</svg>'


def _as_tuple(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path} is missing or no JSON: delete the folder {path.parent} and fetch it again") from None
