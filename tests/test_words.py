"""Tokens to words: the words of a text joined give the text, whatever the language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.speech.text import Reading, Token
from asrsvc.speech.words import edges, words

FRAME = 0.06


def reading(text: str, language: str) -> Reading:
    """A reading with one token a character, a frame each, one frame apart; spaces go with the next."""
    tokens = []
    begin = 0
    for index, character in enumerate(text):
        if character == " ":
            continue
        start = len(tokens) * 2 * FRAME
        tokens.append(Token(7, start, start + FRAME, 0.5, begin, index + 1))
        begin = index + 1
    return Reading(text, language, "unknown", (), tuple(tokens))


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Book a table at 1:25 a.m.", "en", ["Book", "a", "table", "at", "1:25", "a.m."]),
        ("Hello , world !", "en", ["Hello", ",", "world", "!"]),
        ("晚上11点半提醒我。", "zh", ["晚上", "11", "点半", "提醒", "我。"]),
        ("我爱北京，天安门。", "zh", ["我", "爱", "北京，", "天安门。"]),
        ("「你好」她说。", "zh", ["「你好」", "她", "说。"]),
        ("電車は3時30分に出ます。", "ja", [*"電車は", "3", "時", "30", *"分に出ま", "す。"]),
        ("열두 시 삼십 분에 만나요.", "ko", ["열두", "시", "삼십", "분에", "만나요."]),
        ("", "en", []),
    ],
)
def test_words_follow_the_customs_of_the_language(text: str, language: str, expected: list[str]) -> None:
    found = words(reading(text, language), 0.0, 100.0)
    assert [word.word for word in found] == expected


@given(
    st.sampled_from(["zh", "yue", "ja", "en", "ko"]),
    st.text("abc 12。，,.!?「」晚上点半は가나", max_size=40).map(lambda t: " ".join(t.split())),
    st.floats(0, 1000),
)
def test_words_cover_the_text_in_order_and_in_time(language: str, text: str, offset: float) -> None:
    read = reading(text, language)
    limit = offset + len(read.tokens) * 2 * FRAME
    found = words(read, offset, limit)
    assert "".join(w.word for w in found).replace(" ", "") == text.replace(" ", "")
    times = [time for word in found for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(offset - 0.001 <= time <= limit + 0.001 for time in times)


def test_punctuation_has_no_sound() -> None:
    text = "Hi."
    tokens = (Token(1, 0.0, 0.12, 0.9, 0, 2), Token(2, 4.0, 4.06, 0.9, 2, 3))
    read = Reading(text, "en", "unknown", (), tokens)
    (word,) = words(read, 10.0, 20.0)
    assert (word.word, word.start) == ("Hi.", 10.0)
    assert word.end == pytest.approx(10.42)
    assert edges(read, 10.0, 20.0) == (10.0, pytest.approx(10.42))
