"""Cantonese sentences of the domain, in traditional characters with colloquial forms."""

from __future__ import annotations

from random import Random
from typing import Final

from recipes.nano.grammar import chinese_numerals
from recipes.nano.grammar.chinese_numerals import date, digits_spoken, minutes_past
from recipes.nano.grammar.draws import (
    counting_run,
    digit_string,
    joined,
    minute,
    number,
    phrases,
    pick,
    plain,
    small_quantity,
)
from recipes.nano.grammar.mandarin import fill

DIGIT_FRAMES: Final = (
    "%s。",
    "%s。",
    "我嘅電話號碼係%s。",
    "驗證碼係%s。",
    "我嘅訂單號碼係%s。",
    "打電話去%s。",
    "房間號碼係%s。",
    "密碼係%s。",
)
NUMBER_FRAMES: Final = (
    "%s。",
    "%s。",
    "個數係%s。",
    "答案係%s。",
    "一共有%s人。",
    "第%s頁。",
    "我有%s個。",
    "第%s號。",
)
COUNTED: Final = ("%s人", "%s個")
"""Before these, two is 兩."""
TIME_FRAMES: Final = (
    "而家係%s。",
    "%s叫醒我。",
    "較%s嘅鬧鐘。",
    "會議%s開始。",
    "%s提我。",
    "%s開燈。",
    "我哋%s見。",
    "架車%s開。",
    "%s熄冷氣。",
    "%s打電話俾我。",
    "我%s到。",
)
DATE_FRAMES: Final = (
    "今日係%s。",
    "我嘅生日係%s。",
    "會議喺%s。",
    "我想訂%s嘅房。",
    "%s。",
    "%s提我。",
    "我係%s出世。",
    "送貨日期係%s。",
)
PRICE_FRAMES: Final = (
    "一共%s。",
    "呢個%s。",
    "價錢係%s。",
    "%s。",
    "過數%s。",
    "我俾咗%s。",
    "電話費係%s。",
)
QUANTITY_FRAMES: Final = (
    "%s分鐘之後提我。",
    "等%s分鐘。",
    "我要%s張飛。",
    "溫度較到%s度。",
    "今日%s度。",
    "%s個鐘頭之後。",
    "我要%s杯咖啡。",
    "快進%s秒。",
    "住%s晚。",
    "計時%s分鐘。",
)


def cardinal(value: int) -> str:
    """0 to 9999 in Chinese numerals; two thousand is 二千."""
    return chinese_numerals.cardinal(value, "二")


def counted(value: int) -> str:
    """A number before a measure word."""
    return "兩" if value == 2 else cardinal(value)


def time_of_day(rng: Random) -> tuple[str, str]:
    """A time as spoken and as written."""
    hour = rng.randint(1, 12)
    kind = rng.random()
    part = pick(rng, "", "", "朝早", "上晝", "下晝", "夜晚", "聽日朝早", "今日下晝")
    spoken, written = f"{part}{counted(hour)}點", f"{part}{hour}點"
    if kind < 0.4:
        return spoken, written
    if kind < 0.6:
        return spoken + "半", written + "半"
    past_spoken, past_written = minutes_past(minute(rng))
    return f"{spoken}{past_spoken}分", f"{written}{past_written}分"


def price(rng: Random) -> tuple[str, str]:
    """A sentence with an amount of money."""
    amount = rng.choice(
        [rng.randint(1, 20), rng.randint(1, 99), rng.randint(1, 9) * 100, rng.randint(100, 9999)]
    )
    return fill(rng.choice(PRICE_FRAMES), counted(amount) + "蚊", f"{amount}蚊")


def generate(rng: Random) -> tuple[str, str]:
    """Draw a sentence: (spoken form, written form)."""
    kind = rng.random()
    if kind < 0.36:
        phrase = rng.choice(phrases("yue"))
        return plain(phrase).replace(" ", ""), phrase
    if kind < 0.45:
        words = "".join(cardinal(value) for value in counting_run(rng))
        return words, words + "。"
    if kind < 0.58:
        values = digit_string(rng, 3, 8)
        return fill(rng.choice(DIGIT_FRAMES), digits_spoken(values), joined(values))
    if kind < 0.66:
        value = number(rng)
        frame = rng.choice(NUMBER_FRAMES)
        before_measure = any(word in frame for word in COUNTED)
        return fill(frame, counted(value) if before_measure else cardinal(value), str(value))
    if kind < 0.78:
        spoken, written = time_of_day(rng)
        return fill(rng.choice(TIME_FRAMES), spoken, written)
    if kind < 0.87:
        spoken, written = date(rng, "號")
        return fill(rng.choice(DATE_FRAMES), spoken, written)
    if kind < 0.94:
        return price(rng)
    amount = small_quantity(rng)
    frame = rng.choice(QUANTITY_FRAMES)
    return fill(frame, cardinal(amount) if "%s度" in frame else counted(amount), str(amount))
