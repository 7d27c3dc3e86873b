"""What the grammars of all five languages draw alike: integers, digit strings, counting runs, phrases.

Every function takes the caller's generator and draws from it in a fixed order: the training
texts follow from the seeds only as long as that order stays.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Final, TypeVar

PHRASES: Final = Path(__file__).parent / "phrases"
_PUNCTUATION: Final = re.compile(r"[.,?!;:，。？！、；：…·]")
_Choice = TypeVar("_Choice")


def pick(rng: Random, *choices: _Choice) -> _Choice:
    """One of the choices; name one twice to have it twice as often."""
    return rng.choice(choices)


@cache
def phrases(language: str) -> tuple[str, ...]:
    """The fixed phrases of a language, in the order of the file (the order matters to the seeds)."""
    return tuple((PHRASES / f"{language}.txt").read_text(encoding="utf-8").splitlines())


def plain(text: str) -> str:
    """`text` as it is spoken: lower case, without punctuation, single blanks."""
    text = _PUNCTUATION.sub(" ", text.replace("’", "'"))
    return re.sub(r"\s+", " ", text).strip().lower()


def fill(frame: str, spoken: str, written: str) -> tuple[str, str]:
    """Put a value into a frame such as "Page %s.": (spoken form, written form)."""
    return plain(frame).replace("%s", spoken), frame.replace("%s", written)


def joined(digits: Sequence[int]) -> str:
    """Digits as they are written: "7294"."""
    return "".join(map(str, digits))


def number(rng: Random) -> int:
    """0 to 9999, small ones more often."""
    kind = rng.random()
    if kind < 0.3:
        return rng.randint(0, 20)
    if kind < 0.6:
        return rng.randint(0, 99)
    if kind < 0.8:
        return rng.randint(100, 999)
    if kind < 0.9:
        return rng.randint(1, 99) * 100
    return rng.randint(1000, 9999)


def digit_string(rng: Random, shortest: int = 3, longest: int = 8) -> list[int]:
    """Digits that are not a counting run, so that they are to be written as digits."""
    length = rng.randint(shortest, longest)
    while True:
        digits = [rng.randint(0, 9) for _ in range(length)]
        steps = {after - before for before, after in itertools.pairwise(digits)}
        if steps not in ({1}, {-1}):
            return digits


def counting_run(rng: Random, top: int = 20) -> list[int]:
    """Consecutive numbers, up or down; they stay words in the written form too."""
    kind = rng.random()
    if kind < 0.35:
        return list(range(1, rng.choice([3, 4, 5, 5, 6, 7, 8, 10, 10, 10]) + 1))
    if kind < 0.45:
        down = list(range(rng.choice([10, 5, 3, 9]), 0, -1))
        return [*down, 0] if rng.random() < 0.4 else down
    if kind < 0.55:
        return list(range(rng.choice([3, 5, 9, 10]) + 1))
    first = rng.randint(1, top - 3)
    return list(range(first, min(top, first + rng.randint(2, 5)) + 1))


def small_quantity(rng: Random, usual: Sequence[int] = (10, 15, 20, 30, 45, 60)) -> int:
    """Minutes, degrees, tickets: 1 to 60."""
    return rng.choice([rng.randint(1, 12), rng.randint(2, 59), rng.choice(usual)])


def minute(rng: Random, usual: Sequence[int] = (5, 10, 15, 20, 30, 40, 45, 50)) -> int:
    """A minute past the hour, mostly a round one."""
    return rng.choice([*usual, rng.randint(1, 59)])
