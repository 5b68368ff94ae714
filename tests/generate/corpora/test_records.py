import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.reader import Problem
from sclmkb.generate.corpora.records import csv_rows, json_entries, json_lines, read_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(entries=st.lists(VALUES, max_size=6), indent=st.sampled_from([None, 1]))
def test_a_whole_list_is_read_as_json_reads_it(entries: list[object], indent: int | None) -> None:
    text = json.dumps(entries, indent=indent)
    assert [(row, value) for row, _, value in json_entries(text)] == list(enumerate(entries, start=1))


@given(entries=st.dictionaries(st.text(), VALUES, max_size=6))
def test_a_whole_object_is_read_as_json_reads_it(entries: dict[str, object]) -> None:
    assert {name: value for _, name, value in json_entries(json.dumps(entries))} == entries


@given(entries=st.lists(VALUES, min_size=1, max_size=6), data=st.data())
def test_a_truncated_list_gives_a_prefix_and_says_where_it_breaks(entries: list[object], data: st.DataObject) -> None:
    text = json.dumps(entries, ensure_ascii=False)
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    *read, last = [value for _, _, value in json_entries(cut)]
    assert isinstance(last, Problem)
    # A number cut short is a number still: the entry before the break may be one.
    assert read[:-1] == entries[: len(read[:-1])]
    assert len(read) <= len(entries)


def test_names_that_come_twice_are_both_seen() -> None:
    assert [(name, value) for _, name, value in json_entries('{"a": 1, "a": 2}')] == [("a", 1), ("a", 2)]


@pytest.mark.parametrize("text", ["", "7", "no json", "[1] trailing", "[" * 100_000])
def test_what_is_no_list_is_broken_and_nothing_worse(text: str) -> None:
    assert any(isinstance(value, Problem) for _, _, value in json_entries(text))


def test_a_broken_line_costs_no_other() -> None:
    found = list(json_lines('{"a": 1}\n\n{"a": \n{"a": 2}\n'))
    assert [row for row, _ in found] == [1, 3, 4]
    assert found[0][1] == {"a": 1}
    assert isinstance(found[1][1], Problem)
    assert found[2][1] == {"a": 2}


def test_csv_records_with_too_few_or_too_many_columns_are_broken() -> None:
    found = dict(csv_rows('a,b\n1,"x, y"\n2\n3,4,5\n6,7\n'))
    assert found[1] == {"a": "1", "b": "x, y"}
    assert found[2] == Problem(reason="has no column 'b'")
    assert isinstance(found[3], Problem)
    assert found[4] == {"a": "6", "b": "7"}


def test_encodings(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("café".encode("latin-1"))
    assert read_text(path, None) == "caf\udce9"
    assert read_text(path, None, fallback="latin-1") == read_text(path, "latin-1") == "café"
    path.write_bytes(b"\xef\xbb\xbf" + "café".encode())
    assert read_text(path, None) == read_text(path, None, fallback="latin-1") == "café"
    with pytest.raises(UserError, match="unknown encoding 'klingon'"):
        read_text(path, "klingon")
