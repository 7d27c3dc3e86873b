"""English sentences of the domain."""

# ruff: noqa: SIM905 (long lists of words read best as one string)
from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from recipes.nano.grammar.draws import (
    counting_run,
    digit_string,
    fill,
    joined,
    minute,
    number,
    phrases,
    pick,
    plain,
    small_quantity,
)

UNITS: Final = tuple(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen".split()
)
TENS: Final = tuple("_ _ twenty thirty forty fifty sixty seventy eighty ninety".split())
ORDINALS: Final = (
    "_ first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
MONTHS: Final = (
    "January February March April May June July August September October November December"
).split()
DAYS: Final = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

DIGIT_FRAMES: Final = (
    "%s.",
    "%s.",
    "My number is %s.",
    "The code is %s.",
    "My phone number is %s.",
    "My order number is %s.",
    "Call %s.",
    "My account number is %s.",
    "The PIN is %s.",
    "Room %s.",
    "Extension %s.",
    "Flight %s.",
)
NUMBER_FRAMES: Final = (
    "%s.",
    "%s.",
    "The number is %s.",
    "The answer is %s.",
    "I have %s.",
    "There are %s people.",
    "Page %s.",
    "Number %s.",
    "It is %s kilometers away.",
    "Chapter %s.",
)
TIME_FRAMES: Final = (
    "It's %s.",
    "It is %s.",
    "Set an alarm for %s.",
    "Wake me up at %s.",
    "The meeting is at %s.",
    "Remind me at %s.",
    "Turn on the light at %s.",
    "I'll be there at %s.",
    "The train leaves at %s.",
    "See you at %s.",
    "Call me at %s.",
    "Book a table at %s.",
    "Turn off the TV at %s.",
    "Wake me up at %s tomorrow.",
)
DATE_FRAMES: Final = (
    "Today is %s.",
    "My birthday is %s.",
    "The meeting is on %s.",
    "Book a room for %s.",
    "%s.",
    "I was born on %s.",
    "Remind me on %s.",
    "The delivery date is %s.",
    "I would like to come on %s.",
)
PRICE_FRAMES: Final = (
    "It's %s.",
    "It costs %s.",
    "The price is %s.",
    "The total is %s.",
    "That will be %s.",
    "%s.",
    "I paid %s.",
    "Transfer %s.",
    "My bill is %s.",
)
QUANTITY_FRAMES: Final = (
    "Set a timer for %s minute{}.",
    "Wait %s minute{}.",
    "I need %s ticket{}.",
    "A table for %s people.",
    "Set the temperature to %s degrees.",
    "Set the volume to %s percent.",
    "It is %s degrees today.",
    "Remind me in %s minute{}.",
    "In %s hour{}.",
    "I would like %s cup{} of coffee.",
    "Play channel %s.",
    "Go forward %s second{}.",
    "The battery is at %s percent.",
    "Stay for %s night{}.",
)


def cardinal(value: int, rng: Random | None = None) -> str:
    """0 to 999999 in words; with a generator, sometimes "and" behind hundreds and thousands."""
    if value < 20:
        return UNITS[value]
    if value < 100:
        return TENS[value // 10] + (f" {UNITS[value % 10]}" if value % 10 else "")
    if value < 1000:
        rest = value % 100
        link = " and " if rng is not None and rng.random() < 0.4 else " "
        return f"{UNITS[value // 100]} hundred" + (link + cardinal(rest) if rest else "")
    rest = value % 1000
    words = f"{cardinal(value // 1000)} thousand"
    if rest:
        words += " and " if rest < 100 and rng is not None and rng.random() < 0.5 else " "
        words += cardinal(rest, rng)
    return words


def ordinal(value: int) -> str:
    """1 to 31 as a day of the month is read: "twenty first"."""
    if value <= 20:
        return ORDINALS[value]
    if value == 30:
        return "thirtieth"
    return f"{TENS[value // 10]} {ORDINALS[value % 10]}"


def ordinal_figures(value: int) -> str:
    """1 to 31 as a day of the month is written: "21st"."""
    if 10 <= value % 100 <= 20:
        return f"{value}th"
    return f"{value}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(value % 10, 'th') }"


def digits_spoken(digits: Sequence[int], rng: Random) -> str:
    """Digit by digit; zero is sometimes "oh"."""
    zero = "oh" if rng.random() < 0.3 else UNITS[0]
    return " ".join(zero if digit == 0 else UNITS[digit] for digit in digits)


def time_of_day(rng: Random) -> tuple[str, str]:
    """A time as spoken and as written."""
    hour = rng.randint(1, 12)
    kind = rng.random()
    if kind < 0.25:
        return f"{UNITS[hour]} o'clock", f"{hour} o'clock"
    if kind < 0.45:
        spoken, written = UNITS[hour], str(hour)
    else:
        past = minute(rng, (5, 10, 15, 20, 30, 30, 45, 50, 40, 25, 35, 55))
        minutes = f"oh {UNITS[past]}" if past < 10 else cardinal(past)
        spoken, written = f"{UNITS[hour]} {minutes}", f"{hour}:{past:02d}"
    # a bare hour always gets its half of the day: "at five" alone would be a number
    if rng.random() < 0.6 or kind < 0.45:
        half = rng.choice("ap")
        return f"{spoken} {half} m", f"{written} {half}.m."
    return spoken, written


def year_spoken(year: int) -> str:
    """1980 to 2035 in words."""
    if year == 2000:
        return "two thousand"
    if 2000 < year < 2010:
        return f"two thousand {UNITS[year - 2000]}"
    century, rest = divmod(year, 100)
    return f"{cardinal(century)} {cardinal(rest)}"


def date(rng: Random) -> tuple[str, str]:
    """A date as spoken and as written, sometimes with a year or a day of the week."""
    month = rng.choice(MONTHS)
    day = rng.randint(1, 31)
    spoken, written = f"{month.lower()} {ordinal(day)}", f"{month} {ordinal_figures(day)}"
    if rng.random() < 0.25:
        year = rng.randint(1980, 2035)
        return f"{spoken} {year_spoken(year)}", f"{written}, {year}"
    if rng.random() < 0.3:
        weekday = rng.choice(DAYS)
        return f"{weekday.lower()} {spoken}", f"{weekday}, {written}"
    return spoken, written


def price(rng: Random) -> tuple[str, str]:
    """Dollars, sometimes with cents, as spoken and as written."""
    dollars = rng.choice(
        [rng.randint(1, 20), rng.randint(1, 99), rng.randint(1, 9) * 100, rng.randint(100, 999)]
    )
    spoken = cardinal(dollars, rng) + (" dollar" if dollars == 1 else " dollars")
    written = f"${dollars}"
    if rng.random() < 0.35:
        cents = rng.choice([25, 50, 75, 99, 95, 10, 20])
        spoken += pick(rng, " and ", " ") + cardinal(cents) + " cents"
        written += f".{cents:02d}"
    return spoken, written


def quantity(rng: Random) -> tuple[str, str]:
    """A sentence with a small amount of something."""
    amount = small_quantity(rng)
    frame = rng.choice(QUANTITY_FRAMES).format("" if amount == 1 else "s")
    spoken = plain(frame).replace("%s", cardinal(amount))
    return spoken, frame.replace("%s", str(amount)).replace(" percent", "%")


def generate(rng: Random) -> tuple[str, str]:
    """Draw a sentence: (spoken form, written form)."""
    kind = rng.random()
    if kind < 0.36:
        phrase = rng.choice(phrases("en"))
        return plain(phrase), phrase
    if kind < 0.44:
        words = " ".join(cardinal(value) for value in counting_run(rng))
        return words, words.capitalize() + "."
    if kind < 0.56:
        digits = digit_string(rng)
        words = digits_spoken(digits, rng)
        return fill(rng.choice(DIGIT_FRAMES), words, joined(digits))
    if kind < 0.64:
        value = number(rng)
        words = cardinal(value, rng)
        return fill(rng.choice(NUMBER_FRAMES), words, str(value))
    if kind < 0.76:
        spoken, written = time_of_day(rng)
        frame = rng.choice(TIME_FRAMES)
        # "a.m." ends a sentence by itself
        return fill(frame, spoken, written)[0], frame.replace("%s", written).replace("m..", "m.")
    if kind < 0.86:
        return _framed(date(rng), rng, DATE_FRAMES)
    if kind < 0.94:
        return _framed(price(rng), rng, PRICE_FRAMES)
    return quantity(rng)


def _framed(forms: tuple[str, str], rng: Random, frames: Sequence[str]) -> tuple[str, str]:
    """Put a value (spoken, written) into a frame drawn after it."""
    return fill(rng.choice(frames), *forms)
