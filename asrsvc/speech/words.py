"""Tokens to words with times and confidence, by the customs of each language."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
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
    sounding = _sounding(reading, reading.tokens)
    start = _onset(sounding[0].start, 0.0, silences)
    end = _offset(start, sounding[-1].end, limit - offset, silences, is_last=True)
    return min(offset + start, limit), min(offset + end, limit)


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
    pieces = _word_ranges(reading.text, reading.language)
    heard: list[tuple[str, float, float, float]] = []
    for begin, stop in pieces:
        tokens = [t for t in reading.tokens if t.begin < stop and t.stop > begin]
        if not tokens:
            continue
        confidence = sum(t.confidence for t in tokens) / len(tokens)
        sounding = _sounding(reading, tokens)
        heard.append((reading.text[begin:stop].strip(), sounding[0].start, sounding[-1].end, confidence))
    starts = [
        _onset(start, heard[index - 1][2] if index else 0.0, silences)
        for index, (_word, start, _end, _confidence) in enumerate(heard)
    ]
    result = []
    for index, (word, _start, end, confidence) in enumerate(heard):
        start = starts[index]
        follower = starts[index + 1] if index + 1 < len(heard) else limit - offset
        last = _offset(start, end, follower, silences, is_last=index + 1 == len(heard))
        result.append(
            Word(
                word,
                round(min(offset + start, limit), 3),
                round(min(offset + last, limit), 3),
                round(confidence, 4),
            )
        )
    return tuple(result)


def _onset(start: float, before: float, silences: Sequence[Silence]) -> float:
    """Where a word begins whose first token is emitted at `start`, and the one before it at `before`."""
    ends = [end for _, end in silences if before <= end <= start + _EARLY]
    return ends[-1] if ends and ends[-1] >= start - _LATE else start


def _offset(
    start: float, end: float, follower: float, silences: Sequence[Silence], *, is_last: bool
) -> float:
    """Where a word ends whose last token is emitted up to `end`; the next one begins at `follower`."""
    begins = [begin for begin, _ in silences if max(start, end - _LATE) < begin <= follower]
    if begins:
        # Behind the last word nothing is said: what comes after a short silence is still that word.
        return max(start, begins[-1] if is_last else begins[0])
    if follower < end:
        return max(start, follower)
    return max(start, end, min(follower, end + _MAX_TAIL))


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
