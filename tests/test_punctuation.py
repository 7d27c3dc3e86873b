"""A text without punctuation keeps its letters, its digits and its tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.speech.punctuation import without_punctuation
from asrsvc.speech.text import Reading
from asrsvc.speech.types import Token


def reading(text: str) -> Reading:
    """A reading with one token a character; spaces go with the next, as SentencePiece has them."""
    tokens, begin = [], 0
    for index, character in enumerate(text):
        if character != " ":
            tokens.append(Token(7, 0.0, 0.06, 0.5, begin, index + 1))
            begin = index + 1
    return Reading(text, "en", "unknown", (), tuple(tokens))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Book a table at 1:25 a.m.", "Book a table at 1:25 am"),
        ("My bill is $268.", "My bill is $268"),
        ("Is it 3.5% of 10,000?", "Is it 3.5% of 10,000"),
        ("It is -5, or .5; I don't know.", "It is -5 or .5 I don't know"),
        ("Hello,world!Yes...no", "Hello world Yes no"),
        ("Rooms 1,2,3.", "Rooms 1 2 3"),
        ("The well-known AT&T, in the U.S.", "The well-known AT&T in the US"),
        ("Ask asr.example.com. Then go.", "Ask asr.example.com Then go"),
        ('He said: "stop" -- (twice)', "He said stop twice"),
        ("¿Qué? «Sí», …", "Qué Sí"),
        ("晚上11点半，提醒我。", "晚上11点半提醒我"),
        ("「你好」，她说：10：30。", "你好她说10：30"),
        ("号码是1，2，3。", "号码是1 2 3"),
        ("ケーキ、コーヒー・パン。", "ケーキコーヒーパン"),
        ("안녕,세상! 5월 5일입니다.", "안녕 세상 5월 5일입니다"),
        ("?!…", ""),
        ("", ""),
    ],
)
def test_marks_go_and_what_is_read_stays(text: str, expected: str) -> None:
    assert without_punctuation(reading(text)).text == expected


@given(st.text("ab A1,.:;-'’$%&。，「」点半가나 ", max_size=40).map(lambda t: " ".join(t.split())))
def test_letters_digits_and_tokens_stay(text: str) -> None:
    found = without_punctuation(reading(text))
    assert [c for c in found.text if c.isalnum()] == [c for c in text if c.isalnum()]
    assert "".join(found.text[t.begin : t.stop] for t in found.tokens) == found.text
    assert found.text == found.text.strip()
    assert "  " not in found.text
    for separate in (",.", "。，"):
        assert not found.text.endswith(tuple(separate))


@given(st.text("ab A1,.:;-'’$%&。，「」点半가나 ", max_size=40).map(lambda t: " ".join(t.split())))
def test_words_that_were_apart_stay_apart(text: str) -> None:
    found = without_punctuation(reading(text))
    marks_to_spaces = "".join(c if c.isalnum() else " " for c in found.text)
    for word in marks_to_spaces.split():
        assert word in text.replace(".", "") or any(not c.isascii() for c in word)
