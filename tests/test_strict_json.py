"""JSON of strangers: what every program reads alike is taken, all else is told why not."""

from __future__ import annotations

import json
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.web.strict_json import JsonError, decode

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(PLAIN, st.booleans())
def test_what_json_can_say_is_taken(value: object, ascii_alone: bool) -> None:
    assert decode(json.dumps(value, ensure_ascii=ascii_alone)) == value


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ('{"version": "\\ud800"}', "version", "holds half of a character"),
        ('{"version": "x\\udc00y"}', "version", "holds half of a character"),
        ('{"version": ["a", {"b": "\\udfff"}]}', "version", "holds half of a character"),
        ('{"a": {"\\ud800": 1}}', "a", "holds half of a character"),
        ('{"\\ud800": 1}', "\\ud800", "holds half of a character"),
        ('"\\ud800"', None, "holds half of a character"),
        ('["\\ud800"]', None, "holds half of a character"),
        ('{"a": 1, "a": 2}', "a", "is given twice"),
        ('{"a": 1, "\\u0061": 2}', "a", "is given twice"),
        ('{"a": {"b": 1, "b": 1}}', "a", "has 'b' twice in it"),
        ('{"a": NaN}', None, "NaN is no number of JSON"),
        ('{"a": -Infinity}', None, "-Infinity is no number of JSON"),
        ('{"a": ' + "[" * 40 + "]" * 40 + "}", "a", "is nested more than 32 deep"),
        ("[" * 40 + "]" * 40, None, "is nested more than 32 deep"),
        ("[" * 100_000, None, "is no JSON"),
        ('{"a":' * 100_000, None, "is no JSON"),
        ("", None, "is no JSON"),
        ("{} {}", None, "is no JSON"),
        ("\ufeff{}", None, "is no JSON"),
        ('{"a": "\0"}', None, "is no JSON"),
        ("{'a': 1}", None, "is no JSON"),
    ],
)
def test_what_is_not_taken_is_named(text: str, key: str | None, reason: str) -> None:
    with pytest.raises(JsonError) as caught:
        decode(text)
    assert caught.value.key == key
    assert reason in caught.value.reason
    f"{caught.value.key}{caught.value.reason}".encode()


def test_a_character_in_two_halves_is_one() -> None:
    assert decode('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


@pytest.mark.parametrize("digits", ["9" * 21, "9" * 5000, "9" * 1_000_000, "-" + "9" * 5000])
def test_a_number_that_nobody_keeps_exactly_is_a_float(digits: str) -> None:
    found = decode(digits)
    assert isinstance(found, float)
    assert abs(found) >= 1e20
    assert decode("1e999") == math.inf
    assert decode("18446744073709551615") == 2**64 - 1


@given(st.text(max_size=60) | st.text('{}[]",:0123456789eE+-.\\\\ud8tfn\0 ', max_size=60))
def test_whatever_is_sent_is_taken_or_named(text: str) -> None:
    with suppress(JsonError):
        json.dumps(decode(text), ensure_ascii=False).encode()
