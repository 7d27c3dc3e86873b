"""What controls a terminal, or hides, is shown; letters of all languages stay."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.system.printable import printable, printable_json, printable_lines

CONTROLS = {
    **dict.fromkeys(map(chr, range(0x20)), "C0"),
    **dict.fromkeys(map(chr, range(0x7F, 0xA0)), "C1"),
    **dict.fromkeys("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", "bidi"),
    **dict.fromkeys("\u2028\u2029", "end of a line"),
    **dict.fromkeys("\ufeff\ufff9\ufffa\ufffb\U000e0001\U000e0041", "hidden"),
    **dict.fromkeys("\ud800\udfff", "half a character"),
}
WORDS = "晚上十一点半　提醒我 でんしゃ 열두 시 é 😀 👩‍👩‍👧 مرحبا שלום \\"


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_a_control_is_shown(control: str) -> None:
    shown = printable(f"a{control}b")
    assert shown.isascii()
    assert (shown[0], shown[1], shown[-1]) == ("a", "\\", "b")
    text = printable_json({control: [control]})
    assert text.isascii()
    assert json.loads(text) == {control: [control]}
    lines = printable_lines(f"a{control}b")
    assert lines == ("a\nb" if control == "\n" else shown)


def test_words_stay_as_they_are() -> None:
    assert printable(WORDS) == printable_lines(WORDS) == WORDS
    assert WORDS.removesuffix("\\") in printable_json([WORDS])


@given(st.text())
def test_nothing_that_is_shown_controls_anything(text: str) -> None:
    for shown in (printable(text), printable_json(text)):
        assert not set(shown) & CONTROLS.keys()
        assert not {"Cc", "Zl", "Zp", "Cs"} & set(map(unicodedata.category, shown))
        assert len(shown.splitlines()) <= 1


@given(st.recursive(st.text() | st.integers() | st.none(), st.lists, max_leaves=9))
def test_json_says_what_it_said(value: Any) -> None:
    assert json.loads(printable_json(value)) == value


@pytest.mark.parametrize("value", [float("nan"), [float("-inf")], object()])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        printable_json(value)
    assert printable_json({"a": object}, default=lambda _: "x\x1b") == '{"a": "x\\u001b"}'
