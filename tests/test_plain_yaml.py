"""YAML with values alone: what it says, and what is refused before it can cost anything."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.system.documents import DocumentError
from asrsvc.system.plain_yaml import MOST_DEPTH, parse_yaml

MOST = 5_000
PUBLISHED = Path(__file__).resolve().parent / "data" / "published" / "config.yaml"


def parse(text: str) -> Any:
    return parse_yaml(text, most_values=MOST)


@pytest.mark.parametrize("name", ["published", "embedded"])
def test_real_files_say_what_they_said(name: str, embedded_model: Path) -> None:
    path = PUBLISHED if name == "published" else embedded_model / "config.yaml"
    text = path.read_text("utf-8")
    found = parse(text)
    assert found == yaml.safe_load(text)
    assert found["frontend_conf"]["fs"] == 16000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing", None),
        ("a", "a"),
        ("'8'", "8"),
        ('"\\u4e2d"', "中"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("[1, -2, 0.5, .5, 1e3, 1.]", [1, -2, 0.5, 0.5, 1000.0, 1.0]),
        ("[~, null, true, False]", [None, None, True, False]),
        ("a:\n- 1\n- b: c\n", {"a": [1, {"b": "c"}]}),
        ("a:", {"a": None}),
        ("{1: 2, null: 3}", {"1": 2, "null": 3}),
        # of YAML 1.1 alone
        (
            "[2026-13-45, 16:00, 0x10, yes, 1_000, .nan, =]",
            ["2026-13-45", "16:00", "0x10", "yes", "1_000", ".nan", "="],
        ),
        ("9" * 19, "9" * 19),
        ("%YAML 1.1\n---\na: 1\n...\n", {"a": 1}),
    ],
)
def test_a_value_is_what_is_written(text: str, value: object) -> None:
    found = parse(text)
    assert found == value
    assert type(found) is type(value)


def aliases(depth: int) -> str:
    """A few hundred bytes that mean 9 to the power of the depth values."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, depth)]
    return "\n".join([*lines, f"license: *a{depth - 1}", ""])


def merges(depth: int) -> str:
    lines = ["m0: &m0 {k: v}"]
    lines += [f"m{n}: &m{n} {{<<: [{','.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, depth)]
    return "\n".join([*lines, f"license: {{<<: *m{depth - 1}}}", ""])


BOMBS: dict[str, tuple[str, str]] = {
    "aliases": (aliases(9), "an anchor .&.; values alone are right in line 1"),
    "merges": (merges(9), "an anchor"),
    "an anchor that nobody names": ("x: 1\na: &a 1", "an anchor .&.; values alone are right in line 2"),
    "an anchor of a name": ("&a a: 1", "an anchor"),
    "an anchor of a mapping": ("a: &a {b: 1}", "an anchor"),
    "an anchor of itself": ("a: &a [*a]", "an anchor"),
    "an alias of nothing": ("a: *b", "an alias"),
    "an alias as a name": ("*b : 1", "an alias"),
    "a merge key": ("a: {<<: {b: 1}}", "a merge key"),
    "a tag of Python": ("a: !!python/object/apply:os.system [id]", "a tag"),
    "a tag of its own": ("a: !mine 1", "a tag"),
    "a tag that says nothing": ("a: ! 1", "a tag"),
    "a tag of a list": ("!!set {a, b}", "a tag"),
    "a handle of tags": ("%TAG ! tag:example.org,2026:\n---\na: 1", "a tag"),
    "a name twice": ("a: 1\nb: 2\na: 3", "the name 'a' a second time in line 3"),
    "a name twice deep down": ("x: [{a: 1, 'a': 2}]", "the name 'a' a second time"),
    "a name that is a list": ("? [a]\n: 1", "a name in a mapping that is no text"),
    "a name that is a mapping": ("? {a: 1}\n: 2", "a name in a mapping that is no text"),
    "two documents": ("a: 1\n---\nb: 2", "a second document"),
    "levels": ("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1), "more than 20 levels"),
    "many levels": ("[" * 60_000, "more than 20 levels"),
    "levels of mappings": ("{a: " * 10_000, "more than 20 levels"),
    "levels of lines": ("- " * 10_000, "more than 20 levels"),
    "values": ("[" + "a," * MOST + "]", "more than 5000 values"),
    "names": ("".join(f"a{n}:\n" for n in range(MOST)), "more than 5000 values"),
    "a control": ("a: \x00", "is no YAML"),
    "half": ("a: [1, 2", "is no YAML: line 1"),
    "a tab": ("\ta: 1", "is no YAML: line 1"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_stands_for_more_than_is_written_is_refused_at_little_cost(name: str) -> None:
    text, says = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(DocumentError, match=says):
            parse(text)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


@given(st.text(max_size=200) | st.text("[]{},:&*!|>'\"%-? \n\tab0<.~#", max_size=200))
def test_any_text_says_something_or_is_refused(text: str) -> None:
    try:
        said = f"is {parse(text)!r}"
    except DocumentError as error:
        said = str(error)
    assert said.startswith(("is ", "has "))
    assert "\n" not in said


@pytest.mark.parametrize(
    "piece",
    [
        *("a", "a ", "a\n", "'", '"', "''", "\\", '"\\', "[", "{", "- ", "? ", ": ", "a: ", "#", "!", "&a "),
        *("|\n ", "\n", "a:\n ", "a\n\n", "? a\n", "%", "--- ", "a, ", "[a", "{a,", "'a\n", "\t", "-\n"),
    ],
    ids=repr,
)
def test_64_kib_of_anything_end_soon(piece: str) -> None:
    began = time.process_time()
    for lead in ("", "a: ", "'", '"', "|\n "):
        text = (lead + piece * 2**16)[: 2**16]
        try:
            parse(text)
        except DocumentError:
            pass
    assert time.process_time() - began < 60
