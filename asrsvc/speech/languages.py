"""The names that clients give to languages, and the code of SenseVoice that each stands for.

Clients send BCP 47 tags (RFC 5646: `zh-Hant-HK`), codes of ISO 639-1, -2 and -3 (`zh`, `chi`, `zho`, `cmn`),
locales of POSIX (`en_GB.UTF-8`) and the names of Whisper's tokenizer (`english`), in any case.
"""

from __future__ import annotations

import re
from typing import Final

from asrsvc.speech.types import Language

_CODES: Final[dict[str, Language]] = {
    "auto": "auto",
    "zh": "zh",
    "zho": "zh",
    "chi": "zh",
    "cmn": "zh",
    "en": "en",
    "eng": "en",
    "yue": "yue",
    "ja": "ja",
    "jpn": "ja",
    "ko": "ko",
    "kor": "ko",
}
"""by the first subtag: ISO 639"""
_NAMES: Final[dict[str, Language]] = {
    "chinese": "zh",
    "mandarin": "zh",
    "english": "en",
    "cantonese": "yue",
    "japanese": "ja",
    "korean": "ko",
}
"""Whisper's (`whisper.tokenizer.TO_LANGUAGE_CODE`)"""
_CHINESE: Final = frozenset({"zh", "zho", "chi"})
"""what may be any Chinese language: the next subtags say which"""
_EXTENDED: Final[dict[str, Language]] = {"cmn": "zh", "yue": "yue", "guoyu": "zh"}
"""of them, by what stands behind it (RFC 5646, sections 2.2.2 and 2.2.8)"""
_CANTONESE_REGIONS: Final = frozenset({"hk", "mo"})
"""where Chinese that is spoken is Cantonese, if nothing else is said"""
_OTHER_CHINESE: Final = frozenset({"hakka", "min", "xiang"})
"""Chinese languages with a tag of the old kind that SenseVoice does not know"""
_SUBTAG: Final = re.compile(r"[a-z0-9]{1,8}")
_LONGEST: Final = 64  # characters; the longest tag in use has half of that


def language_of(name: str) -> Language | None:
    """The code that a client's name for a language stands for; None: it is none of the five, nor `auto`.

    What a tag says beyond the language (script, region, variant) is dropped, but `zh` in Hong Kong and Macau
    is Cantonese. A tag of another Chinese language (`nan`, `zh-hakka`) is none of the five.
    """
    text = name.strip().lower()
    if text in _NAMES:
        return _NAMES[text]
    if len(text) > _LONGEST:
        return None
    locale = re.split(r"[.@]", text, maxsplit=1)[0]
    first, *rest = locale.replace("_", "-").split("-")
    if first not in _CODES or not all(_SUBTAG.fullmatch(subtag) for subtag in rest):
        return None
    if first == "auto" and text != "auto":
        return None
    return _chinese(rest) if first in _CHINESE else _CODES[first]


def _chinese(rest: list[str]) -> Language | None:
    """Which Chinese language the subtags behind `zh` name."""
    own = rest[: next((at for at, subtag in enumerate(rest) if len(subtag) == 1), len(rest))]
    if own and own[0] in _EXTENDED:
        return _EXTENDED[own[0]]
    if own and (own[0] in _OTHER_CHINESE or re.fullmatch("[a-z]{3}", own[0])):
        return None
    return "yue" if _CANTONESE_REGIONS & set(own) else "zh"
