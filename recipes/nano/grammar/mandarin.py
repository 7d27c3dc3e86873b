"""Mandarin sentences of the domain, in simplified characters."""

from __future__ import annotations

from random import Random
from typing import Final

from recipes.nano.grammar.chinese_numerals import DIGITS, cardinal, date, minutes_past
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
from recipes.nano.grammar.draws import fill as fill_with_blanks

DIGIT_FRAMES: Final = (
    "%s。",
    "%s。",
    "我的电话号码是%s。",
    "验证码是%s。",
    "我的订单号是%s。",
    "我的账号是%s。",
    "请拨打%s。",
    "房间号是%s。",
    "密码是%s。",
    "我的手机号是%s。",
)
NUMBER_FRAMES: Final = (
    "%s。",
    "%s。",
    "数字是%s。",
    "答案是%s。",
    "一共有%s人。",
    "第%s页。",
    "我有%s个。",
    "第%s号。",
    "距离是%s公里。",
)
COUNTED: Final = ("%s人", "%s个", "%s公里")
"""Before these, two is 两."""
TIME_FRAMES: Final = (
    "现在是%s。",
    "%s叫醒我。",
    "设置%s的闹钟。",
    "会议在%s开始。",
    "%s提醒我。",
    "%s打开灯。",
    "我们%s见。",
    "火车%s出发。",
    "%s关闭空调。",
    "%s给我打电话。",
    "我%s到。",
)
DATE_FRAMES: Final = (
    "今天是%s。",
    "我的生日是%s。",
    "会议在%s。",
    "我想订%s的房间。",
    "%s。",
    "%s提醒我。",
    "我是%s出生的。",
    "送货日期是%s。",
)
PRICE_FRAMES: Final = (
    "一共%s。",
    "这个%s。",
    "价格是%s。",
    "%s。",
    "转账%s。",
    "我付了%s。",
    "请付%s。",
    "话费是%s。",
)
QUANTITY_FRAMES: Final = (
    "设置%s分钟的计时器。",
    "%s分钟后提醒我。",
    "等%s分钟。",
    "我要%s张票。",
    "温度调到%s度。",
    "今天%s度。",
    "%s个小时以后。",
    "我要%s杯咖啡。",
    "快进%s秒。",
    "住%s个晚上。",
    "音量调到百分之%s。",
)


def fill(frame: str, spoken: str, written: str) -> tuple[str, str]:
    """Put a value into a frame; the spoken form has no blanks."""
    filled, text = fill_with_blanks(frame, spoken, written)
    return filled.replace(" ", ""), text


def counted(value: int) -> str:
    """A number before a measure word."""
    return "两" if value == 2 else cardinal(value)


def time_of_day(rng: Random) -> tuple[str, str]:
    """A time as spoken and as written."""
    hour = rng.randint(1, 12)
    kind = rng.random()
    part = pick(rng, "", "", "早上", "上午", "下午", "晚上", "明天早上", "今天下午", "中午")
    spoken, written = f"{part}{counted(hour)}点", f"{part}{hour}点"
    if kind < 0.35:
        return spoken, written
    if kind < 0.55:
        return spoken + "半", written + "半"
    past_spoken, past_written = minutes_past(minute(rng))
    return f"{spoken}{past_spoken}分", f"{written}{past_written}分"


def digits(rng: Random) -> tuple[str, str]:
    """A sentence with a digit string, sometimes a mobile number; one is 幺 half of the time."""
    values = digit_string(rng, 3, 8)
    if rng.random() < 0.2:
        values = [1, rng.choice([3, 5, 8])] + [rng.randint(0, 9) for _ in range(9)]
    one = "幺" if rng.random() < 0.5 else "一"
    spoken = "".join(one if value == 1 else DIGITS[value] for value in values)
    return fill(rng.choice(DIGIT_FRAMES), spoken, joined(values))


def price(rng: Random) -> tuple[str, str]:
    """A sentence with an amount of money, sometimes with a decimal."""
    amount = rng.choice(
        [rng.randint(1, 20), rng.randint(1, 99), rng.randint(1, 9) * 100, rng.randint(100, 9999)]
    )
    unit = pick(rng, "元", "块", "块钱")
    spoken, written = counted(amount) + unit, f"{amount}{unit}"
    if rng.random() < 0.2:
        tenth = rng.randint(1, 9)
        spoken, written = f"{cardinal(amount)}点{DIGITS[tenth]}元", f"{amount}.{tenth}元"
    return fill(rng.choice(PRICE_FRAMES), spoken, written)


def quantity(rng: Random) -> tuple[str, str]:
    """A sentence with a small amount of something."""
    amount = small_quantity(rng)
    frame = rng.choice(QUANTITY_FRAMES)
    percent = "百分之" in frame
    spoken = cardinal(amount) if percent or "%s度" in frame else counted(amount)
    filled, written = fill(frame, spoken, str(amount))
    return filled, frame.replace("百分之%s", f"{amount}%") if percent else written


def generate(rng: Random) -> tuple[str, str]:
    """Draw a sentence: (spoken form, written form)."""
    kind = rng.random()
    if kind < 0.36:
        phrase = rng.choice(phrases("zh"))
        return plain(phrase).replace(" ", ""), phrase
    if kind < 0.45:
        words = "".join(cardinal(value) for value in counting_run(rng))
        return words, words + "。"
    if kind < 0.58:
        return digits(rng)
    if kind < 0.66:
        value = number(rng)
        frame = rng.choice(NUMBER_FRAMES)
        before_measure = any(word in frame for word in COUNTED)
        return fill(frame, counted(value) if before_measure else cardinal(value), str(value))
    if kind < 0.78:
        spoken, written = time_of_day(rng)
        return fill(rng.choice(TIME_FRAMES), spoken, written)
    if kind < 0.87:
        spoken, written = date(rng, pick(rng, "号", "号", "日"))
        return fill(rng.choice(DATE_FRAMES), spoken, written)
    if kind < 0.94:
        return price(rng)
    return quantity(rng)
