"""Numerals and dates that Mandarin, Cantonese and Japanese sentences share."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from recipes.nano.grammar.draws import pick

DIGITS: Final = "零一二三四五六七八九"
DIGITS_AND_TEN: Final = DIGITS + "十"


def digits_spoken(digits: Sequence[int]) -> str:
    """Digit by digit."""
    return "".join(DIGITS[digit] for digit in digits)


def cardinal(value: int, two_thousands: str = "两") -> str:
    """0 to 9999 in Chinese numerals; `two_thousands` is the two before 千."""
    if value == 0:
        return "零"
    if value < 10:
        return DIGITS[value]
    if value < 20:
        return "十" + _unit(value)
    if value < 100:
        return DIGITS[value // 10] + "十" + _unit(value)
    if value < 1000:
        hundreds, rest = divmod(value, 100)
        head = DIGITS[hundreds] + "百"
    else:
        thousands, rest = divmod(value, 1000)
        head = (two_thousands if thousands == 2 else DIGITS[thousands]) + "千"
        if rest >= 100:
            return head + cardinal(rest, two_thousands)
        if 10 <= rest < 100:
            return head + "零" + DIGITS[rest // 10] + "十" + _unit(rest)
    if rest == 0:
        return head
    if rest < 10:
        return head + "零" + DIGITS[rest]
    return head + DIGITS[rest // 10] + "十" + _unit(rest)


def _unit(value: int) -> str:
    """The last digit, unless it is zero."""
    return DIGITS[value % 10] if value % 10 else ""


def minutes_past(past: int) -> tuple[str, str]:
    """Minutes behind the hour, with a zero below ten: (spoken, written)."""
    return ("零" if past < 10 else "") + cardinal(past), f"{past:02d}"


def date(rng: Random, day_word: str) -> tuple[str, str]:
    """A date as spoken and as written, sometimes with a year or a day of the week."""
    month, day = rng.randint(1, 12), rng.randint(1, 31)
    spoken = f"{cardinal(month)}月{cardinal(day)}{day_word}"
    written = f"{month}月{day}{day_word}"
    if rng.random() < 0.25:
        year = str(rng.randint(1980, 2035))
        return digits_spoken([int(digit) for digit in year]) + "年" + spoken, f"{year}年{written}"
    if rng.random() < 0.25:
        weekday = "星期" + pick(rng, *"一二三四五六日")
        return spoken + weekday, written + weekday
    return spoken, written
