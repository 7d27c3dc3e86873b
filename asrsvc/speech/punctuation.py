"""A text without its punctuation, for search, comparison and subtitles; digits and capitals stay.

Punctuation is what Unicode counts as such (general category P: The Unicode Standard, §4.5), but for marks
that are read aloud or are part of a number or a word: 50%, 1:25, 3.5, 10,000, -5, don't, well-known.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from typing import Final

from asrsvc.speech.text import Reading

_READ_ALOUD: Final = frozenset("%‰&@#/\\*_§％＆＠＃／＼＊＿")
_IN_NUMBERS: Final = frozenset(".:/'’-–．：－")
_IN_WORDS: Final = frozenset("'’-‐‑")
_BEFORE_NUMBERS: Final = frozenset(".-－")
_THOUSANDS: Final = re.compile(r"\d{3}(?!\d)")
# Scripts that are written without spaces: what stood on both sides of a mark may touch.
_WITHOUT_SPACES: Final = ("CJK", "HIRAGANA", "KATAKANA")


def without_punctuation(reading: Reading) -> Reading:
    """The same reading without punctuation.

    Tokens that stood for nothing else are left out; the others, joined, are the text, as before.

    Args:
        reading: of one span.
    """
    text = reading.text
    kept = ""
    places = [0]  # where each character of the text begins in what is kept of it
    parted = False  # whether a mark was left out that stood between two words without a space
    for index, character in enumerate(text):
        if _is_mark(text, index):
            parted = parted or not _in_abbreviation(text, index)
        elif character.isspace():
            kept += "" if not kept or kept.endswith(" ") else " "
            parted = False
        else:
            if parted and kept and _need_space(kept[-1], character):
                kept += " "
            kept += character
            parted = False
        places.append(len(kept))
    kept = kept.rstrip()
    tokens = (
        replace(token, begin=places[token.begin], stop=min(places[token.stop], len(kept)))
        for token in reading.tokens
    )
    return replace(reading, text=kept, tokens=tuple(t for t in tokens if t.begin < t.stop))


def _is_mark(text: str, index: int) -> bool:
    """Whether the character at this place is punctuation that is left out."""
    mark = text[index]
    if not unicodedata.category(mark).startswith("P") or mark in _READ_ALOUD:
        return False
    before, after = _around(text, index)
    if mark in _IN_NUMBERS and before.isdigit() and after.isdigit():
        return False
    if mark == "," and before.isdigit() and _THOUSANDS.match(text, index + 1):
        return False
    if mark in _BEFORE_NUMBERS and after.isdigit() and not before.isalnum():
        return False
    if mark in _IN_WORDS and before.isalnum() and after.isalnum():
        return False
    return not _in_name(text, index)


def _around(text: str, index: int) -> tuple[str, str]:
    """The characters before and behind a place; spaces beyond the ends."""
    return text[index - 1] if index else " ", text[index + 1] if index + 1 < len(text) else " "


def _in_name(text: str, index: int) -> bool:
    """Whether it is a full stop as in asr.example: inside a word of small letters, no abbreviation."""
    before, after = _around(text, index)
    small = before.isascii() and before.isalnum() and after.isascii() and after.islower()
    return text[index] == "." and small and not _in_abbreviation(text, index)


def _in_abbreviation(text: str, index: int) -> bool:
    """Whether it is a full stop behind a letter that stands alone, as in a.m. and U.S."""
    before, _after = _around(text, index)
    return text[index] == "." and before.isalpha() and (index < 2 or not text[index - 2].isalnum())


def _need_space(before: str, after: str) -> bool:
    """Whether two characters that come together would make one word of two."""
    return before.isalnum() and after.isalnum() and not (_unspaced(before) or _unspaced(after))


def _unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_WITHOUT_SPACES)
