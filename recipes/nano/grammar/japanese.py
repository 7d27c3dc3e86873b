"""Japanese sentences of the domain; these also carry kana as pronounced, for the synthesisers."""

# ruff: noqa: SIM905 (long lists of words read best as one string)
from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final, TypeAlias

from recipes.nano.grammar.chinese_numerals import DIGITS
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

Forms: TypeAlias = tuple[str, str, str]
"""Kana to be said, spoken form, written form."""

KANA_DIGITS: Final = ("れい", "いち", "に", "さん", "よん", "ご", "ろく", "なな", "はち", "きゅう")
KANA_THOUSANDS: Final = "_ せん にせん さんぜん よんせん ごせん ろくせん ななせん はっせん きゅうせん".split()
KANA_HUNDREDS: Final = (
    "_ ひゃく にひゃく さんびゃく よんひゃく ごひゃく ろっぴゃく ななひゃく はっぴゃく きゅうひゃく"
).split()
KANA_HOURS: Final = "_ いち に さん よ ご ろく しち はち く じゅう じゅういち じゅうに".split()
KANA_MINUTES: Final = (
    "_ いっぷん にふん さんぷん よんぷん ごふん ろっぷん ななふん はっぷん きゅうふん".split()
)
KANA_DAYS: Final = {
    1: "ついたち",
    2: "ふつか",
    3: "みっか",
    4: "よっか",
    5: "いつか",
    6: "むいか",
    7: "なのか",
    8: "ようか",
    9: "ここのか",
    10: "とおか",
    14: "じゅうよっか",
    17: "じゅうしちにち",
    19: "じゅうくにち",
    20: "はつか",
    24: "にじゅうよっか",
    27: "にじゅうしちにち",
    29: "にじゅうくにち",
}
KANA_MONTHS: Final = {4: "し", 7: "しち", 9: "く"}
DAY_PARTS: Final = (
    ("", ""),
    ("", ""),
    ("ごぜん", "午前"),
    ("ごご", "午後"),
    ("あしたの", "明日の"),
    ("あさ", "朝"),
)

# Frames: written form, kana.
DIGIT_FRAMES: Final = (
    ("%s。", "%s"),
    ("%s。", "%s"),
    ("電話番号は%sです。", "でんわばんごうわ %s です"),
    ("番号は%sです。", "ばんごうわ %s です"),
    ("注文番号は%sです。", "ちゅうもんばんごうわ %s です"),
    ("暗証番号は%sです。", "あんしょうばんごうわ %s です"),
    ("部屋番号は%sです。", "へやばんごうわ %s です"),
)
NUMBER_FRAMES: Final = (
    ("%s。", "%s"),
    ("%s。", "%s"),
    ("答えは%sです。", "こたえわ %s です"),
    ("数は%sです。", "かずわ %s です"),
    ("%sページ。", "%s ぺーじ"),
    ("%s番です。", "%s ばんです"),
)
TIME_FRAMES: Final = (
    ("今%sです。", "いま %s です"),
    ("%sに起こして。", "%sに おこして"),
    ("%sにアラームをセットして。", "%sに あらーむおせっとして"),
    ("会議は%sからです。", "かいぎわ %sからです"),
    ("%sに教えて。", "%sに おしえて"),
    ("%sに電気をつけて。", "%sに でんきおつけて"),
    ("%sに会いましょう。", "%sに あいましょう"),
    ("電車は%sに出ます。", "でんしゃわ %sに でます"),
    ("%sに電話してください。", "%sに でんわしてください"),
)
DATE_FRAMES: Final = (
    ("今日は%sです。", "きょうわ %s です"),
    ("誕生日は%sです。", "たんじょうびわ %s です"),
    ("%s。", "%s"),
    ("会議は%sです。", "かいぎわ %s です"),
    ("%sに予約したいです。", "%sに よやくしたいです"),
    ("配達日は%sです。", "はいたつびわ %s です"),
)
PRICE_FRAMES: Final = (
    ("%s円です。", "%sえんです"),
    ("合計%s円です。", "ごうけい %sえんです"),
    ("これは%s円です。", "これわ %sえんです"),
    ("%s円。", "%sえん"),
    ("料金は%s円です。", "りょうきんわ %sえんです"),
    ("%s円払いました。", "%sえん はらいました"),
)
QUANTITY_FRAMES: Final = (
    ("%s分後に教えて。", "%sごに おしえて"),
    ("%s分待って。", "%s まって"),
    ("タイマーを%s分にセットして。", "たいまーお %sに せっとして"),
    ("温度を%s度にして。", "おんどお %sどに して"),
    ("今日は%s度です。", "きょうわ %sどです"),
    ("音量を%sにして。", "おんりょうお %sに して"),
)


def cardinal_kana(value: int) -> str:
    """0 to 9999 as pronounced."""
    if value == 0:
        return "ぜろ"
    thousands, hundreds, tens, unit = (int(digit) for digit in f"{value:04d}")
    kana = KANA_THOUSANDS[thousands] if thousands else ""
    kana += KANA_HUNDREDS[hundreds] if hundreds else ""
    kana += ("" if tens == 1 else KANA_DIGITS[tens]) + "じゅう" if tens else ""
    return kana + (KANA_DIGITS[unit] if unit else "")


def cardinal(value: int) -> str:
    """0 to 9999 in kanji."""
    if value == 0:
        return "ゼロ"
    kanji = ""
    for place, name in ((1000, "千"), (100, "百"), (10, "十")):
        count, value = divmod(value, place)
        if count:
            kanji += ("" if count == 1 else DIGITS[count]) + name
    return kanji + (DIGITS[value] if value else "")


def minutes_kana(past: int) -> str:
    """1 to 59 minutes as pronounced."""
    tens, unit = divmod(past, 10)
    leading = KANA_DIGITS[tens] if tens > 1 else ""
    if unit == 0:
        return leading + "じゅっぷん"
    return leading + ("じゅう" if tens else "") + KANA_MINUTES[unit]


def time_of_day(rng: Random) -> Forms:
    """A time."""
    hour = rng.randint(1, 12)
    kind = rng.random()
    part_kana, part = rng.choice(DAY_PARTS)
    kana = f"{part_kana}{KANA_HOURS[hour]}じ"
    spoken, written = f"{part}{cardinal(hour)}時", f"{part}{hour}時"
    if kind < 0.4:
        return kana, spoken, written
    if kind < 0.6:
        return kana + "はん", spoken + "半", written + "半"
    past = minute(rng)
    return kana + minutes_kana(past), f"{spoken}{cardinal(past)}分", f"{written}{past}分"


def date(rng: Random) -> Forms:
    """A date, sometimes with a year."""
    month, day = rng.randint(1, 12), rng.randint(1, 31)
    day_kana = KANA_DAYS.get(day) or cardinal_kana(day) + "にち"
    kana = f"{KANA_MONTHS.get(month) or cardinal_kana(month)}がつ{day_kana}"
    spoken, written = f"{cardinal(month)}月{cardinal(day)}日", f"{month}月{day}日"
    if rng.random() < 0.2:
        year = rng.randint(1980, 2035)
        year_kana = cardinal_kana(year)
        if year % 10 == 4:
            year_kana = year_kana[:-2] + "よ"
        return f"{year_kana}ねん {kana}", f"{cardinal(year)}年{spoken}", f"{year}年{written}"
    return kana, spoken, written


def fill(frame: tuple[str, str], forms: Forms) -> Forms:
    """Put a value into a frame; the spoken form has no blanks."""
    written_frame, kana_frame = frame
    kana, spoken, written = forms
    return (
        kana_frame.replace("%s", kana),
        plain(written_frame).replace("%s", spoken).replace(" ", ""),
        written_frame.replace("%s", written),
    )


def counting(rng: Random) -> Forms:
    """A counting run; four, seven and nine are sometimes read し, しち and く."""
    values = counting_run(rng)
    readings = {}
    for value, reading, share in ((4, "し", 0.5), (7, "しち", 0.5), (9, "く", 0.1)):
        if rng.random() < share:
            readings[value] = reading
    kana = " ".join(readings.get(value) or cardinal_kana(value) for value in values)
    spoken = "".join(cardinal(value) for value in values)
    return kana, spoken, spoken + "。"


def digits(rng: Random) -> Forms:
    """A sentence with a digit string."""
    values = digit_string(rng)
    zero_kana, zero = pick(rng, ("ぜろ", "ゼロ"), ("ぜろ", "ゼロ"), ("れい", "零"))
    kana = " ".join(KANA_DIGITS[value] if value else zero_kana for value in values)
    spoken = "".join(DIGITS[value] if value else zero for value in values)
    return fill(rng.choice(DIGIT_FRAMES), (kana, spoken, joined(values)))


def price(rng: Random) -> Forms:
    """A sentence with an amount of money."""
    amount = rng.choice(
        [
            rng.randint(1, 20) * 10,
            rng.randint(1, 99),
            rng.randint(1, 9) * 100,
            rng.randint(1, 9) * 1000,
            rng.randint(100, 9999),
        ]
    )
    kana = cardinal_kana(amount)
    if amount % 10 == 4 and kana.endswith("よん"):
        kana = kana[:-1]  # よえん
    return fill(rng.choice(PRICE_FRAMES), (kana, cardinal(amount), str(amount)))


def generate(rng: Random) -> Forms:
    """Draw a sentence: (kana, spoken form, written form)."""
    kind = rng.random()
    if kind < 0.38:
        written, kana = rng.choice(phrases("ja")).split("|")
        return kana, plain(written).replace(" ", ""), written
    if kind < 0.48:
        return counting(rng)
    if kind < 0.60:
        return digits(rng)
    if kind < 0.68:
        value = number(rng)
        return _framed((cardinal_kana(value), cardinal(value), str(value)), rng, NUMBER_FRAMES)
    if kind < 0.79:
        return _framed(time_of_day(rng), rng, TIME_FRAMES)
    if kind < 0.88:
        return _framed(date(rng), rng, DATE_FRAMES)
    if kind < 0.95:
        return price(rng)
    amount = small_quantity(rng, (10, 15, 20, 30, 45))
    frame = rng.choice(QUANTITY_FRAMES)
    kana = minutes_kana(amount) if "分" in frame[0] else cardinal_kana(amount)
    return fill(frame, (kana, cardinal(amount), str(amount)))


def _framed(forms: Forms, rng: Random, frames: Sequence[tuple[str, str]]) -> Forms:
    """Put a value into a frame drawn after it."""
    return fill(rng.choice(frames), forms)
