import hashlib
import json
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sclmkb.common.config import Settings, fingerprint, load_preset, speed_only
from sclmkb.common.errors import UserError


class Inner(Settings):
    width: int = 4
    threads: int = speed_only(1)


class Example(Settings):
    rate: float = 1.0
    inner: Inner = Inner()
    batch_size: int = speed_only(8)


def resolve(**kwargs: object) -> Example:
    return Example.resolve(presets="sclmkb.train", section="example", **kwargs)  # type: ignore[arg-type]


def test_later_sources_win_in_the_documented_order(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("example: {rate: 2.0, inner: {width: 5}}\nother: {unknown: 1}\n")
    assert resolve(config=file).rate == 2.0
    settings = resolve(config=file, overrides=["rate=3", "inner.width=6"])
    assert (settings.rate, settings.inner.width) == (3.0, 6)
    assert resolve(config=file, overrides=["rate=3"], options={"rate": 4.0, "batch_size": None}).rate == 4.0


def test_speed_only_fields_stay_out_of_the_fingerprint() -> None:
    assert resolve(overrides=["batch_size=9", "inner.threads=2"]).fingerprint() == resolve().fingerprint()
    assert resolve(overrides=["inner.width=5"]).fingerprint() != resolve().fingerprint()
    assert resolve(overrides=["rate=9"]).fingerprint() != resolve().fingerprint()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["rat=1"], "'example.rat' does not exist"),
        (["rate=fast"], "'example.rate' = 'fast'"),
        (["inner.width=x"], "'example.inner.width' = 'x'"),
        (["rate"], "--set takes key=value"),
        (["rate=[1"], "not valid YAML"),
        (["rate.x=1", "rate=1", "rate.x=2"], "no group of settings"),
    ],
)
def test_a_bad_override_is_named(overrides: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=r".+") as caught:
        resolve(overrides=overrides)
    assert expected in str(caught.value)


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown preset 'nope': choose one of .*tiny"):
        resolve(preset="nope")


def test_every_preset_loads_as_a_mapping_of_sections() -> None:
    for package in ("sclmkb.generate", "sclmkb.train", "sclmkb.evaluate"):
        for name in ("demo", "tiny"):
            assert all(isinstance(section, dict) for section in load_preset(package, name).values())


def test_unreadable_and_malformed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the configuration"):
        resolve(config=tmp_path / "missing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("example: {rate: [1")
    with pytest.raises(UserError, match="not valid YAML"):
        resolve(config=broken)
    broken.write_text("- a list")
    with pytest.raises(UserError, match="mapping"):
        resolve(config=broken)


@hypothesis.settings(deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_fingerprint_is_that_of_the_canonical_json_as_a_whole(value: object) -> None:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    except UnicodeEncodeError:  # half a character
        return
    assert fingerprint(value) == expected


def test_fingerprint_of_what_is_hashed_in_several_pieces() -> None:
    ids = [f"row-{i}" for i in range(100_000)]
    text = json.dumps(ids, separators=(",", ":"))
    assert fingerprint(ids) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_fingerprint_ignores_key_order() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 2, "b": 1})


class Nested(Settings):
    width: int = 4
    depth: int = 2
    inner: Inner = Inner()


class Outer(Settings):
    nested: Nested = Nested()


def test_nested_settings_are_merged_field_by_field(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("outer: {nested: {depth: 7}}\n")
    defaults = {"nested": {"width": 5, "depth": 6, "inner": {"width": 8}}}
    settings = Outer.resolve(
        presets="sclmkb.train", section="outer", config=file, overrides=["nested.inner.width=9"], defaults=defaults
    )
    assert settings == Outer(nested=Nested(width=5, depth=7, inner=Inner(width=9)))
    assert defaults["nested"]["inner"] == {"width": 8}
