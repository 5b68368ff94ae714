"""``sclmkb-gen corpus``: writes pictures and captions of a corpus as an artifact.

::

    npm packages ─► identities ─► split by base emoji ─► render 64×64 ─► tables items, captions
"""

import io
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from sclmkb.common.artifacts.files import read_json, replacing
from sclmkb.common.artifacts.plan import Plan, Shard, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import CAPTIONS, ITEMS
from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.executors.stage import Made, Session, Work
from sclmkb.common.models.pretrained import cache_dir
from sclmkb.generate.corpora.npm import NpmPackage, fetch_package
from sclmkb.generate.corpora.on_disk import Row, caption_rows
from sclmkb.generate.corpora.people_emoji import (
    GROUPS,
    PEOPLE_GROUP,
    REQUIRED_ARTISTS,
    WORDINGS,
    EmojiGroup,
    Identity,
    captions,
    read_identities,
    split_groups,
)
from sclmkb.generate.corpora.reader import Entry

TEXTS = NpmPackage(
    name="emojibase-data",
    version="17.0.0",
    integrity="sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
)
_DRAWING_PINS = {
    "noto": ("1.2.9", "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw=="),
    "twemoji": ("1.2.5", "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw=="),
    "openmoji": ("1.2.29", "vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ=="),
    "fluent-emoji-flat": (
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    ),
    "emojione": ("1.2.3", "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg=="),
}
DRAWINGS: Mapping[str, NpmPackage] = {
    name: NpmPackage(name=f"@iconify-json/{name}", version=version, integrity=f"sha512-{sha512}")
    for name, (version, sha512) in _DRAWING_PINS.items()
}
"""The icon set of each artist, pinned."""


class PeopleEmojiSettings(Settings):
    """Settings of ``sclmkb-gen corpus people-emoji``.

    With the defaults: 1,651 identities for training, 234 for validation, 443 for test, the latter with 1,691 pictures,
    1,329 of them by the three artists who drew all.
    """

    dataset: ClassVar[str] = "people-emoji"
    title: ClassVar[str] = "People emoji"

    seed: int = Field(default=0, description="seed of the split")
    val_share: float = Field(default=0.10, gt=0, lt=1, description="share of the base emoji for validation")
    test_share: float = Field(default=0.19, gt=0, lt=1, description="share of the base emoji for test")
    image_size: int = Field(default=64, ge=8, le=1024, description="height and width of a picture in pixels")
    artists: tuple[str, ...] = Field(
        default=tuple(DRAWINGS),
        description="artists whose drawings are used; noto, twemoji and openmoji are always needed",
    )
    max_groups: int | None = Field(default=None, ge=3, description="number of base emoji to use; default: all")
    shard_size: int = Field(default=256, ge=1, description="identities per shard")

    @field_validator("artists")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [a for a in value if a not in DRAWINGS]:
            raise ValueError(f"'{unknown[0]}' is none of {', '.join(DRAWINGS)}")
        if missing := [a for a in REQUIRED_ARTISTS if a not in value]:
            raise ValueError(f"'{missing[0]}' is needed")
        return value

    @model_validator(mode="after")
    def _some_training(self) -> "PeopleEmojiSettings":
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share + test_share must leave something for training")
        return self


class EmojiSettings(PeopleEmojiSettings):
    """Settings of ``sclmkb-gen corpus emoji``: people and everything else."""

    dataset: ClassVar[str] = "emoji"
    title: ClassVar[str] = "Emoji"

    groups: tuple[EmojiGroup, ...] = Field(
        default=tuple(GROUPS), min_length=1, description="emojibase's groups that are used"
    )


EMOJI: Mapping[str, tuple[str, type[PeopleEmojiSettings]]] = {
    "people-emoji": ("corpus", PeopleEmojiSettings),
    "emoji": ("emoji", EmojiSettings),
}
"""The embedded corpora by name: the section of their settings, and these."""


def plan_emoji(settings: PeopleEmojiSettings, out: Path, *, new_run: bool = False, join: bool = False) -> Work:
    """Freeze the plan of an embedded corpus with the tables ``items`` and ``captions``; see :meth:`Run.open`.

    Raises:
        UserError: if the packages cannot be fetched or read, or ``out`` holds another run, or none to join.
    """
    cache = cache_dir() / "npm"
    packages = {"emojibase-data": TEXTS, **{artist: DRAWINGS[artist] for artist in settings.artists}}
    folders = {name: fetch_package(package, cache) for name, package in packages.items()}
    groups = settings.groups if isinstance(settings, EmojiSettings) else (PEOPLE_GROUP,)
    splits = split_groups(
        read_identities(folders["emojibase-data"], {artist: folders[artist] for artist in settings.artists}, groups),
        seed=settings.seed,
        val_share=settings.val_share,
        test_share=settings.test_share,
        max_groups=settings.max_groups,
    )
    members = {item.identity: item for items in splits.values() for item in items}
    shards = [
        shard
        for split, items in splits.items()
        for shard in make_shards(split, [item.identity for item in items], settings.shard_size)
    ]
    plan = Plan(
        kind="corpus",
        tables={"items": ITEMS, "captions": CAPTIONS},
        settings={"dataset": settings.dataset, **settings.fingerprint_fields()},
        shards=shards,
        inputs={p.name: f"{p.version} {p.integrity}" for p in packages.values()},
        versions=("resvg-py", "pillow"),
        notes={"Licences and attribution": "ATTRIBUTION.md"},
    )
    run = Run.open(out, plan, new_run=new_run, join=join)
    with replacing(out / "ATTRIBUTION.md") as temporary:
        temporary.write_text(attribution(packages, folders), "utf-8")

    def produce(pending: Sequence[Shard], session: Session) -> Generator[Made, None, None]:
        for shard in pending:
            chosen = [members[identity] for identity in shard.row_ids]
            captions = _caption_table(chosen, shard.split, settings.dataset)
            tables = {"items": _item_table(chosen, shard, settings), "captions": captions}
            yield Made(shard=shard, tables=tables)

    card = (
        settings.title,
        f"Pictures of {settings.title.lower()} by several artists, with captions. One row of `items` is a picture, one"
        " row of `captions` a text; a text and a picture of the same `identity` match. Splits are by base emoji"
        " (`group`). Wording `label` is the wording of the training captions; `shortcode`, `tags` and `sentence` differ"
        " from it. The pictures keep their artists' licences, see ATTRIBUTION.md.",
    )
    return Work(name="corpus", run=run, produce=produce, finish=lambda: run.finish(*card), unit="identities")


def _caption_table(identities: Sequence[Identity], split: str, dataset: str) -> pa.Table:
    """Return the captions of identities: one in training, one per wording elsewhere."""
    wordings = WORDINGS[:1] if split == "train" else WORDINGS
    rows: list[Row] = []
    for item in identities:
        texts = captions(item)
        entry = Entry(
            item_id=item.identity,
            identity=item.identity,
            group=item.group,
            split=split,
            captions=tuple((index, texts[wording]) for index, wording in enumerate(wordings) if wording in texts),
            wording=dict(enumerate(wordings)),
        )
        rows += caption_rows(dataset, entry)
    return pa.Table.from_pylist(rows, schema=CAPTIONS)


def _item_table(identities: Sequence[Identity], shard: Shard, settings: PeopleEmojiSettings) -> pa.Table:
    rows = [
        {
            "item_id": f"{item.identity}/{artist}",
            "identity": item.identity,
            "group": item.group,
            "split": shard.split,
            "source": artist,
            "modality": "pictures",
            "media": {"bytes": render(svg, settings.image_size), "path": f"{item.identity}-{artist}.png"},
        }
        for item in identities
        for artist, svg in item.drawings.items()
    ]
    return pa.Table.from_pylist(rows, schema=ITEMS)


def render(svg: str, size: int) -> bytes:
    """Render a drawing on white and return it as PNG, RGB, ``size`` by ``size`` pixels.

    Raises:
        UserError: if the renderer is not installed.
    """
    from PIL import Image

    try:
        import resvg_py
    except ModuleNotFoundError:
        raise UserError("rendering the corpus needs resvg-py: pip install 'sclmkb[cpu]'") from None
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="#ffffff", skip_system_fonts=True)
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()


def attribution(packages: Mapping[str, NpmPackage], folders: Mapping[str, Path]) -> str:
    """Return the text of ATTRIBUTION.md: who made what, under which licence, from which package."""
    lines = [
        "# Attribution",
        "",
        "The pictures are renderings, scaled and put on a white ground, of these authors' drawings; the column",
        "`source` of the table `items` names the set. Whoever passes pictures on keeps to the licence of their set.",
        "",
        "| set | author | licence | package |",
        "|---|---|---|---|",
    ]
    for name, package in packages.items():
        pinned = f"`{package.name}@{package.version}`"
        if name == TEXTS.name:
            licence = "[MIT](https://github.com/milesj/emojibase/blob/master/LICENSE)"
            lines.append(f"| texts | [Miles Johnson, emojibase](https://emojibase.dev) | {licence} | {pinned} |")
            continue
        info: dict[str, Any] = read_json(folders[name] / "info.json")
        author, licence_of = info["author"], info["license"]
        who = f"[{author['name']}]({author.get('url', '')})"
        licence = f"[{licence_of.get('spdx', licence_of['title'])}]({licence_of.get('url', '')})"
        lines.append(f"| {name} ({info['name']}) | {who} | {licence} | {pinned} |")
    return "\n".join(lines) + "\n"
