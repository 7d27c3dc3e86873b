"""Tokens to words: the words of a text joined give the text, whatever the language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.speech.text import Reading
from asrsvc.speech.types import Token
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
    st.lists(st.floats(0, 5), max_size=8),
)
def test_words_cover_the_text_in_order_and_in_time(
    language: str, text: str, offset: float, edges_of_silence: list[float]
) -> None:
    read = reading(text, language)
    limit = offset + len(read.tokens) * 2 * FRAME
    pairs = sorted(edge for edge in edges_of_silence if edge <= limit - offset)
    found = words(read, offset, limit, list(zip(pairs[::2], pairs[1::2], strict=False)))
    assert "".join(w.word for w in found).replace(" ", "") == text.replace(" ", "")
    times = [time for word in found for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(offset - 0.001 <= time <= limit + 0.001 for time in times)


def test_words_beside_a_silence_begin_and_end_with_the_sound() -> None:
    # one frame a character, 120 ms apart; sound from 0.2 s to 0.5 s and from 1.0 s to 1.3 s
    text = "ab cd"
    tokens = tuple(
        Token(7, start, start + FRAME, 0.5, n, n + 1)
        for n, start in ((0, 0.15), (1, 0.3), (3, 1.1), (4, 1.2))
    )
    read = Reading(text, "en", "unknown", (), tokens)
    silent = [(0.0, 0.2), (0.5, 1.0), (1.3, 2.0)]
    assert [(w.start, w.end) for w in words(read, 10.0, 12.0, silent)] == [(10.2, 10.5), (11.0, 11.3)]


def test_a_silence_far_from_a_word_says_nothing_of_it() -> None:
    tokens = (Token(1, 2.0, 2.06, 0.9, 0, 2),)
    (word,) = words(Reading("Hi", "en", "unknown", (), tokens), 0.0, 3.0, [(0.0, 0.5)])
    assert (word.start, word.end) == (2.0, 2.36)


def test_a_silence_inside_a_word_does_not_end_it() -> None:
    tokens = (Token(1, 1.0, 1.06, 0.9, 0, 1), Token(2, 1.4, 1.46, 0.9, 1, 2))
    (word,) = words(Reading("25", "en", "unknown", (), tokens), 0.0, 3.0, [(1.15, 1.3), (1.7, 3.0)])
    assert (word.start, word.end) == (1.0, 1.7)


def test_what_is_heard_long_after_the_last_word_is_no_part_of_it() -> None:
    tokens = (Token(1, 0.2, 0.26, 0.9, 0, 2),)
    silent = [(0.4, 0.55), (0.7, 1.9), (2.0, 3.0)]
    (word,) = words(Reading("Hi", "en", "unknown", (), tokens), 0.0, 3.0, silent)
    assert word.end == 0.7


def test_punctuation_has_no_sound() -> None:
    text = "Hi."
    tokens = (Token(1, 0.0, 0.12, 0.9, 0, 2), Token(2, 4.0, 4.06, 0.9, 2, 3))
    read = Reading(text, "en", "unknown", (), tokens)
    (word,) = words(read, 10.0, 20.0)
    assert (word.word, word.start) == ("Hi.", 10.0)
    assert word.end == pytest.approx(10.42)
    assert edges(read, 10.0, 20.0) == (10.0, pytest.approx(10.42))
