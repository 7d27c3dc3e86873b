"""Tokens to words with times and confidence, by the customs of each language."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from asrsvc.speech.silences import Silence
from asrsvc.speech.text import Reading
from asrsvc.speech.types import Token, Word

# CTC emits a token where it is sure of it and blanks until the next: within this many seconds
# the sound of the token is taken to last until the next word.
_MAX_TAIL: Final = 0.3
# A token may be emitted before its sound has begun, and some time after.
_EARLY: Final = 0.15
_LATE: Final = 0.5


def edges(
    reading: Reading, offset: float, limit: float, silences: Sequence[Silence] = ()
) -> tuple[float, float]:
    """Where the speech of a span begins and ends in the recording, in seconds, by its tokens.

    Args:
        reading: of one span, with tokens.
        offset: where the span begins in the recording, in seconds.
        limit: where the span ends in the recording, in seconds.
        silences: of the span.
    """
    spoken = _heard(reading, reading.text, reading.tokens)
    start = _onset(spoken, 0.0, silences)
    end = _offset(spoken, start, limit - offset, silences, is_last=True)
    return min(offset + start, limit), min(offset + end, limit)


@dataclass(frozen=True, slots=True)
class _Heard:
    """A word as its tokens tell it; seconds from the start of the span."""

    word: str
    first: float
    """where the first token is emitted"""
    last: float
    """where the last token is emitted"""
    end: float
    """where its emission ends"""
    confidence: float


def _heard(reading: Reading, word: str, tokens: Sequence[Token]) -> _Heard:
    sounding = _sounding(reading, tokens)
    confidence = sum(t.confidence for t in tokens) / len(tokens)
    return _Heard(word, sounding[0].start, sounding[-1].start, sounding[-1].end, confidence)


def _sounding(reading: Reading, tokens: Sequence[Token]) -> Sequence[Token]:
    """Those of the tokens that stand for sound: a full stop is emitted in the silence behind it."""
    return [t for t in tokens if any(c.isalnum() for c in reading.text[t.begin : t.stop])] or tokens


def words(
    reading: Reading, offset: float, limit: float, silences: Sequence[Silence] = ()
) -> tuple[Word, ...]:
    """Group the tokens of a reading to words.

    Punctuation stays with the word before it, so that the words joined (with spaces in English and
    Korean) give the text. Chinese and Cantonese are cut by jieba, Japanese by characters.

    Args:
        reading: of one span.
        offset: where the span begins in the recording, in seconds.
        limit: where the span ends in the recording, in seconds; no word ends later.
        silences: of the span. A word beside one begins or ends with the sound; others where the tokens
            say, which know it to 60 ms.
    """
    heard = [
        _heard(reading, reading.text[begin:stop].strip(), tokens)
        for begin, stop in _word_ranges(reading.text, reading.language)
        if (tokens := [t for t in reading.tokens if t.begin < stop and t.stop > begin])
    ]
    starts = [
        _onset(word, heard[index - 1].end if index else 0.0, silences) for index, word in enumerate(heard)
    ]
    result = []
    for index, word in enumerate(heard):
        is_last = index + 1 == len(heard)
        follower = limit - offset if is_last else starts[index + 1]
        end = _offset(word, starts[index], follower, silences, is_last=is_last)
        result.append(
            Word(
                word.word,
                round(min(offset + starts[index], limit), 3),
                round(min(offset + end, limit), 3),
                round(word.confidence, 4),
            )
        )
    return tuple(result)


def _onset(word: _Heard, before: float, silences: Sequence[Silence]) -> float:
    """Where a word begins; the one before it is emitted up to `before`."""
    ends = [end for _, end in silences if before <= end <= word.first + _EARLY]
    return ends[-1] if ends and ends[-1] >= word.first - _LATE else word.first


def _offset(
    word: _Heard, start: float, follower: float, silences: Sequence[Silence], *, is_last: bool
) -> float:
    """Where a word ends that begins at `start`; the next one begins at `follower`."""
    # A silence that has ended before the last token is emitted lies inside the word.
    behind = [
        silence
        for silence in silences
        if silence[1] > word.last and max(start, word.end - _LATE) < silence[0] <= follower
    ]
    if behind:
        # Nothing is said behind the last word: what comes after a short silence is still that word.
        rest = behind[1:] if is_last else []
        place, until = behind[0]
        for begin, end in rest:
            if until - place > _MAX_TAIL:
                break
            place, until = begin, end
        return place
    if follower < word.end:
        return max(start, follower)
    return max(start, word.end, min(follower, word.end + _MAX_TAIL))


def _word_ranges(text: str, language: str) -> list[tuple[int, int]]:
    """Ranges of characters that are words; neighbours touch, except for spaces between them."""
    cut = {"zh": _cut_chinese, "yue": _cut_chinese, "ja": _cut_characters}.get(language, _cut_spaces)
    ranges: list[tuple[int, int]] = []
    for begin, stop in cut(text):
        word = text[begin:stop]
        if word.isspace():
            continue
        spoken = any(c.isalnum() for c in word)
        glued = bool(ranges) and ranges[-1][1] == begin
        opening = not any(c.isalnum() for c in text[slice(*ranges[-1])]) if ranges else False
        if glued and (not spoken or opening):
            ranges[-1] = (ranges[-1][0], stop)
        else:
            ranges.append((begin, stop))
    return ranges


def _cut_spaces(text: str) -> Iterable[tuple[int, int]]:
    return (m.span() for m in re.finditer(r"\S+", text))


def _cut_characters(text: str) -> Iterable[tuple[int, int]]:
    # A run of Latin letters or digits is one word also where the script has no spaces.
    return (m.span() for m in re.finditer(r"[A-Za-z0-9'.:,]*[A-Za-z0-9]|\S", text))


def _cut_chinese(text: str) -> Iterable[tuple[int, int]]:
    return [(begin, stop) for _word, begin, stop in _jieba()(text)]


def _jieba() -> Callable[[str], list[tuple[str, int, int]]]:
    # Loads a dictionary of 30 MB: only a worker that is asked for Chinese words pays for it.
    import rjieba  # noqa: PLC0415 - see above

    tokenize: Callable[[str], list[tuple[str, int, int]]] = rjieba.tokenize
    return tokenize
