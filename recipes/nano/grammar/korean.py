"""Korean sentences of the domain."""

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

DIGITS: Final = "영일이삼사오육칠팔구"
NATIVE_UNITS: Final = ("", "하나", "둘", "셋", "넷", "다섯", "여섯", "일곱", "여덟", "아홉")
NATIVE_TENS: Final = ("", "열", "스물", "서른", "마흔", "쉰")
BEFORE_NOUN: Final = {"하나": "한", "둘": "두", "셋": "세", "넷": "네"}
MONTHS: Final = {6: "유", 10: "시"}
"""The two months whose number loses its last consonant."""

DIGIT_FRAMES: Final = (
    "%s.",
    "%s.",
    "전화번호는 %s입니다.",
    "인증 번호는 %s입니다.",
    "주문 번호는 %s입니다.",
    "방 번호는 %s입니다.",
    "비밀번호는 %s입니다.",
    "번호는 %s입니다.",
)
NUMBER_FRAMES: Final = (
    "%s.",
    "%s.",
    "답은 %s입니다.",
    "숫자는 %s입니다.",
    "%s 페이지.",
    "%s 번입니다.",
    "거리는 %s 킬로미터입니다.",
)
TIME_FRAMES: Final = (
    "지금은 %s입니다.",
    "%s에 깨워 줘.",
    "%s에 알람 맞춰 줘.",
    "회의는 %s에 시작합니다.",
    "%s에 알려 줘.",
    "%s에 불 켜 줘.",
    "%s에 만나요.",
    "기차는 %s에 출발합니다.",
    "%s에 전화해 주세요.",
    "%s에 에어컨 꺼 줘.",
)
DATE_FRAMES: Final = (
    "오늘은 %s입니다.",
    "제 생일은 %s입니다.",
    "%s.",
    "회의는 %s입니다.",
    "%s에 예약하고 싶어요.",
    "배송일은 %s입니다.",
)
PRICE_FRAMES: Final = (
    "%s 원입니다.",
    "모두 %s 원입니다.",
    "이거 %s 원이에요.",
    "%s 원.",
    "요금은 %s 원입니다.",
    "가격은 %s 원입니다.",
)
QUANTITY_FRAMES: Final = (
    "%s 분 후에 알려 줘.",
    "%s 분 기다려 줘.",
    "타이머 %s 분 맞춰 줘.",
    "온도를 %s 도로 해 줘.",
    "오늘은 %s 도입니다.",
    "볼륨을 %s 퍼센트로 해 줘.",
)


def cardinal(value: int) -> str:
    """0 to 9999 in Sino-Korean numerals."""
    if value == 0:
        return DIGITS[0]
    words = ""
    for place, name in ((1000, "천"), (100, "백"), (10, "십")):
        count, value = divmod(value, place)
        if count:
            words += ("" if count == 1 else DIGITS[count]) + name
    return words + (DIGITS[value] if value else "")


def native(value: int, *, before_noun: bool = False) -> str:
    """1 to 59 in native numerals; hours and counting use them."""
    if before_noun and value == 20:
        return "스무"
    unit = NATIVE_UNITS[value % 10]
    return NATIVE_TENS[value // 10] + (BEFORE_NOUN.get(unit, unit) if before_noun else unit)


def time_of_day(rng: Random) -> tuple[str, str]:
    """A time as spoken and as written."""
    hour = rng.randint(1, 12)
    kind = rng.random()
    part = pick(rng, "", "", "오전 ", "오후 ", "아침 ", "저녁 ", "내일 ")
    spoken, written = f"{part}{native(hour, before_noun=True)} 시", f"{part}{hour}시"
    if kind < 0.4:
        return spoken, written
    if kind < 0.6:
        return spoken + " 반", written + " 반"
    past = minute(rng)
    return f"{spoken} {cardinal(past)} 분", f"{written} {past}분"


def date(rng: Random) -> tuple[str, str]:
    """A date as spoken and as written, sometimes with a year."""
    month, day = rng.randint(1, 12), rng.randint(1, 31)
    spoken = f"{MONTHS.get(month, cardinal(month))}월 {cardinal(day)}일"
    written = f"{month}월 {day}일"
    if rng.random() < 0.2:
        year = rng.randint(1980, 2035)
        return f"{cardinal(year)}년 {spoken}", f"{year}년 {written}"
    return spoken, written


def counting(rng: Random) -> tuple[str, str]:
    """A counting run, in native numerals half of the time (they have no zero)."""
    values = counting_run(rng)
    use_native = rng.random() < 0.5 and 0 not in values
    words = " ".join(native(value) if use_native else cardinal(value) for value in values)
    return words, words + "."


def price(rng: Random) -> tuple[str, str]:
    """A sentence with an amount of money."""
    amount = rng.choice(
        [
            rng.randint(1, 99) * 10,
            rng.randint(1, 9) * 100,
            rng.randint(1, 9) * 1000,
            rng.randint(10, 99) * 100,
            rng.randint(100, 9999),
        ]
    )
    frame = rng.choice(PRICE_FRAMES)
    return plain(frame).replace("%s", cardinal(amount)), frame.replace("%s 원", f"{amount}원")


def quantity(rng: Random) -> tuple[str, str]:
    """A sentence with a small amount of something."""
    amount = small_quantity(rng, (10, 15, 20, 30, 45))
    frame = rng.choice(QUANTITY_FRAMES)
    written = frame
    for unit, sign in (("분", "분"), ("도", "도"), ("퍼센트", "%")):
        written = written.replace(f"%s {unit}", f"{amount}{sign}")
    return plain(frame).replace("%s", cardinal(amount)), written


def generate(rng: Random) -> tuple[str, str]:
    """Draw a sentence: (spoken form, written form)."""
    kind = rng.random()
    if kind < 0.37:
        phrase = rng.choice(phrases("ko"))
        return plain(phrase), phrase
    if kind < 0.47:
        return counting(rng)
    if kind < 0.60:
        values = digit_string(rng)
        zero = pick(rng, "공", "공", "영")
        words = " ".join(DIGITS[value] if value else zero for value in values)
        return fill(rng.choice(DIGIT_FRAMES), words, joined(values))
    if kind < 0.68:
        value = number(rng)
        return fill(rng.choice(NUMBER_FRAMES), cardinal(value), str(value))
    if kind < 0.79:
        return _framed(time_of_day(rng), rng, TIME_FRAMES)
    if kind < 0.88:
        return _framed(date(rng), rng, DATE_FRAMES)
    if kind < 0.95:
        return price(rng)
    return quantity(rng)


def _framed(forms: tuple[str, str], rng: Random, frames: Sequence[str]) -> tuple[str, str]:
    """Put a value (spoken, written) into a frame drawn after it."""
    return fill(rng.choice(frames), *forms)
