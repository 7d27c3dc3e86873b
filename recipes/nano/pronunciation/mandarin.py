"""Pinyin for espeak-ng, whose own dictionary of Mandarin is too small."""

from __future__ import annotations

from functools import cache
from typing import Final

_READINGS: Final = {
    "调到": ("tiáo", "dào"),
    "调大": ("tiáo", "dà"),
    "调小": ("tiáo", "xiǎo"),
    "重置": ("chóng", "zhì"),
    "重置密码": ("chóng", "zhì", "mì", "mǎ"),
    "话费": ("huà", "fèi"),
}
"""Words of the domain that pypinyin reads wrongly by itself."""


def pinyin(text: str, *, sandhi: bool = True) -> list[str]:
    """Syllables with tone digits ("ni3"); the neutral tone is 5."""
    from pypinyin import Style, lazy_pinyin

    _teach_readings()
    return lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True, tone_sandhi=sandhi)


@cache
def _teach_readings() -> None:
    from pypinyin import load_phrases_dict

    load_phrases_dict({word: [[syllable] for syllable in syllables] for word, syllables in _READINGS.items()})
