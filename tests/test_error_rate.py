from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.release.error_rate import Errors, compare, distance, normalise, total


def plain_distance(one: str, other: str) -> int:
    """Levenshtein's distance by his table."""
    row = list(range(len(other) + 1))
    for i, x in enumerate(one, 1):
        before, row = row, [i]
        for j, y in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


@given(st.text("abcé中"), st.text("abcé中"))
def test_the_distance_is_that_of_the_table(one: str, other: str) -> None:
    assert distance(one, other) == plain_distance(one, other) == distance(other, one)


@pytest.mark.parametrize("length", [63, 64, 65, 200])
def test_the_distance_of_long_texts_too(length: int) -> None:
    one, other = "ab" * length, "ba" * length
    assert distance(one, other) == plain_distance(one, other)


@pytest.mark.parametrize(
    ("said", "truth"),
    [
        ("Book a table at 1:25 a.m.", "book a table, at １：２５ AM"),
        ("電車は明日の3時30分に出ます。", "電車は 明日の３時３０分に出ます"),
        ("배송일은 5월 5일입니다.", "배송일은 5월5일 입니다"),
        ("「你好」！", "你好"),
        ("Straße", "STRASSE"),
        ("ｶﾞｲﾄﾞ", "ガイド"),
        ("1,234", "1234"),
        ("1.5％", "1.5%"),
    ],
)
def test_what_only_looks_different_is_no_error(said: str, truth: str) -> None:
    assert normalise(said) == normalise(truth)


@pytest.mark.parametrize(
    ("said", "truth"), [("$268", "268"), ("1.5", "15"), ("5%", "5"), ("がいと", "がいど"), ("話", "话")]
)
def test_what_is_spoken_counts(said: str, truth: str) -> None:
    assert compare(said, truth).edits == 1


def test_the_rate_is_that_of_all_characters_together() -> None:
    found = total([compare("1点", "11点"), compare("好", "好"), compare("", "你们")])
    assert found == Errors(3, 6)
    assert found.rate == 0.5
    assert compare("abcdef", "x").rate == 6
    assert Errors().rate == 0
