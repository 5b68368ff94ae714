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
    depth: int = 2
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


def test_nested_settings_are_merged_field_by_field(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("example: {inner: {depth: 7}}\n")
    defaults = {"inner": {"width": 5, "depth": 6, "threads": 8}}
    settings = resolve(config=file, overrides=["inner.threads=9"], defaults=defaults)
    assert settings.inner == Inner(width=5, depth=7, threads=9)
    assert defaults["inner"] == {"width": 5, "depth": 6, "threads": 8}


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


def test_every_preset_loads_as_a_mapping_of_sections() -> None:
    for package in ("sclmkb.generate", "sclmkb.train", "sclmkb.evaluate"):
        for name in ("demo", "tiny"):
            assert all(isinstance(section, dict) for section in load_preset(package, name).values())


def test_an_unknown_preset_and_unreadable_and_malformed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown preset 'nope': choose one of .*tiny"):
        resolve(preset="nope")
    file = tmp_path / "settings.yaml"
    with pytest.raises(UserError, match="cannot read the configuration"):
        resolve(config=file)
    for text, message in (("example: {rate: [1", "not valid YAML"), ("- a list", "mapping"), ("example: 1", "mapping")):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            resolve(config=file)


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
