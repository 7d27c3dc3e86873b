"""Strangers' files and JSON texts: read at a bounded cost, or refused with what is wrong."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.system.documents import (
    MOST_DEPTH,
    DocumentError,
    check_file,
    parse_json,
    read_bytes,
    read_head,
)

MOST = 100_000


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    check_file(path, 5)
    assert read_bytes(path, 5) == read_head(path, 9) == b"12345"
    assert read_head(path, 3) == b"123"
    for read in (check_file, read_bytes):
        with pytest.raises(DocumentError, match="4"):
            read(path, 4)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "link to a device"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.symlink_to("/dev/zero")
    for read in (check_file, read_bytes, read_head):
        with pytest.raises(DocumentError, match="is no plain file"):
            read(path, 10)


def test_a_file_that_is_not_there_is_the_callers_affair(tmp_path: Path) -> None:
    for read in (check_file, read_bytes, read_head):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none", 10)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    # half a character is no text
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_json_says_what_was_written(value: Any, ascii_alone: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_alone).encode(), most_values=MOST) == value


@given(st.binary(max_size=200) | st.text('[]{},:"\\0123456789.eE+-aufn ', max_size=200).map(str.encode))
def test_any_bytes_are_json_or_refused(content: bytes) -> None:
    try:
        found = parse_json(content, most_values=MOST)
    except DocumentError as error:
        said = str(error)
    else:
        said = "is the same"
        assert found == json.loads(content)
    assert said.startswith(("is ", "has "))


def nested(levels: int, opened: bytes = b"[", closed: bytes = b"]") -> bytes:
    return opened * levels + b"1" + closed * levels


BOMBS: dict[str, tuple[bytes, str]] = {
    "levels": (nested(MOST_DEPTH + 1), "more than 32 levels"),
    "levels of objects": (nested(MOST_DEPTH + 1, b'{"a":', b"}"), "more than 32 levels"),
    "many levels": (nested(49_000), "more than 32 levels"),
    "levels without end": (b"[" * 90_000, "more than 32 levels"),
    "levels behind a text": (b'["' + b"\\\\" * 9 + b'",' + nested(40) + b"]", "more than 32 levels"),
    "values": (b"[" + b"1," * MOST + b"1]", "more than 100000 values"),
    "lists": (b"[" + b"[]," * MOST + b"1]", "more than 100000 values"),
    "a name twice": (b'{"a": 1, "a": 2}', "has 'a' twice"),
    "a name twice deep down": (b'[{"x": {"a": 1, "a": [2]}}]', "has 'a' twice"),
    "digits": (b"1" * 5000, "a number of 5000 digits; 20 is the limit"),
    "a huge float": (b"1e999", "which no float holds"),
    "nan": (b"[NaN]", "NaN, which is no JSON"),
    "infinity": (b"-Infinity", "-Infinity, which is no JSON"),
    "not utf-8": (b'"\xff"', r"is not UTF-8 \(byte 1\)"),
    "utf-16": ('"a"'.encode("utf-16"), "is not UTF-8"),
    "nothing": (b"", "is no JSON"),
    "half": (b'{"a": [1', "is no JSON"),
    "more": (b"1 2", "is no JSON"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_json_text_that_costs_too_much_or_is_wrong_is_refused_at_little_cost(name: str) -> None:
    content, says = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(DocumentError, match=says):
            parse_json(content, most_values=MOST)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_brackets_in_texts_are_no_levels() -> None:
    texts = ["[" * 50, "{" * 50, '"[' * 20, "\\" * 9 + "["]
    assert parse_json(json.dumps(texts).encode(), most_values=MOST) == texts


@pytest.mark.parametrize("piece", [b'"', b'\\"', b'["', b'"\\', b"[", b"\\"])
def test_the_time_grows_with_the_bytes_and_no_faster(piece: bytes) -> None:
    """Of what has no end: a look at each rest of it would take hours for the larger one."""
    began = time.process_time()
    for lead in (b"", b'"'):
        with pytest.raises(DocumentError):
            parse_json(b"[" * 40 + lead + piece * 2**20, most_values=2**22)
    assert time.process_time() - began < 30
