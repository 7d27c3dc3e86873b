"""Character error rate: how far texts are from what was said.

Edits (characters put in, left out or replaced: Levenshtein's distance) over the characters of the
truth, summed over all clips first, as word error rates are (Morris, Maier, Green 2004, Interspeech).
Both sides are normalised, so that only words count: the steps of Whisper's basic normaliser (Radford
et al. 2022, appendix C), except that marks which are spoken stay.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_SPOKEN: Final = frozenset("%‰°")
_KEPT: Final = frozenset({"L", "M", "N"})
"""first letters of Unicode's general categories: letters, marks, numbers"""


@dataclass(frozen=True, slots=True)
class Errors:
    """Edits over characters; may be added up."""

    edits: int = 0
    characters: int = 0
    """of the truth, normalised"""

    def __add__(self, other: Errors) -> Errors:
        return Errors(self.edits + other.edits, self.characters + other.characters)

    @property
    def rate(self) -> float:
        """0 is perfect; above 1 if more is put in than there is."""
        return self.edits / max(1, self.characters)


def compare(said: str, truth: str) -> Errors:
    """Errors of one text."""
    wanted = normalise(truth)
    return Errors(distance(normalise(said), wanted), len(wanted))


def total(errors: Iterable[Errors]) -> Errors:
    """Errors of all together."""
    return sum(errors, Errors())


def normalise(text: str) -> str:
    """What of a text counts.

    Full-width forms become plain ones (NFKC), capitals small letters (case folding); white space and
    punctuation go, since Chinese, Cantonese and Japanese are written without spaces and Korean with
    them as one likes. Currency signs, %, ° and a decimal point between digits are spoken, and stay.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(c for i, c in enumerate(plain) if _counts(c) or _decimal(plain, i))


def _counts(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in _KEPT or category == "Sc" or character in _SPOKEN


def _decimal(text: str, place: int) -> bool:
    around = text[place - 1 : place] + text[place + 1 : place + 2]
    return text[place] == "." and len(around) == 2 and around.isdecimal()


def distance(one: str, other: str) -> int:
    """Levenshtein's distance, a column of his table at a time in the bits of a number.

    The algorithm of Myers (1999, J. ACM 46:3) as Hyyrö (2003) simplified it: an hour of speech
    against another takes less than a second.
    """
    if not one or not other:
        return len(one) + len(other)
    places: dict[str, int] = {}
    for i, character in enumerate(one):
        places[character] = places.get(character, 0) | 1 << i
    every, last = (1 << len(one)) - 1, 1 << (len(one) - 1)
    more, fewer = every, 0  # where the column's value grows, or shrinks, by one downwards
    result = len(one)
    for character in other:
        equal = places.get(character, 0)
        diagonal = (((equal & more) + more) ^ more) | equal | fewer
        right_more = fewer | (every & ~(diagonal | more))
        right_fewer = more & diagonal
        result += bool(right_more & last) - bool(right_fewer & last)
        right_more = right_more << 1 | 1
        right_fewer <<= 1
        more = every & (right_fewer | ~(diagonal | right_more))
        fewer = every & right_more & diagonal
    return result
