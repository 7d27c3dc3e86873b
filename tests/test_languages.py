"""Names of languages, as clients send them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.speech.languages import language_of
from asrsvc.speech.types import LANGUAGES

KNOWN = {
    "auto": "auto AUTO",
    "zh": (
        "zh ZH zho chi cmn zh-CN zh-cn zh_CN zh-TW zh-SG zh-Hans zh-Hant zh-Hans-CN zh-Hant-TW cmn-Hans-CN"
        " cmn-HK zh-cmn zh-cmn-Hans-CN zh-guoyu zh_CN.UTF-8 zho-CN Chinese chinese Mandarin zh-x-hk"
        " zh-u-rg-hkzzzz"
    ),
    "en": "en EN eng en-US en_GB en-us en-GB-oxendict en-u-ca-gregory en_US.UTF-8 en_GB@euro English english",
    "yue": (
        "yue yue-HK yue-Hant-HK yue-CN zh-HK zh-hk zh_HK zh-Hant-HK zh-Hans-HK zh-MO zh-yue zh-yue-HK"
        " Cantonese"
    ),
    "ja": "ja jpn ja-JP ja_JP.utf8 Japanese",
    "ko": "ko kor ko-KR ko_KR ko-Kore-KR Korean",
}


@pytest.mark.parametrize(
    ("name", "code"), [(name, code) for code, names in KNOWN.items() for name in names.split()]
)
def test_a_name_stands_for_a_code(name: str, code: str) -> None:
    assert language_of(name) == code
    assert language_of(f"  {name}\t") == code


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "fr", "fr-FR", "de", "yu", "jp", "cn", "French", "chinese (simplified)", "en us", "en,zh"),
        *("en-", "-en", "en--US", "en-toolongsubtag", "auto-x", "auto_CN", "nan", "wuu", "zh-nan", "zh-wuu"),
        *("zh-hakka", "zh-min-nan", "zh-xiang", "\N{FULLWIDTH LATIN SMALL LETTER E}n", "en\0", "enUS"),
        "en-" + "x-a" * 40,
    ],
)
def test_what_is_none_of_them_stands_for_nothing(name: str) -> None:
    assert language_of(name) is None


@given(st.text(max_size=80) | st.from_regex(r"(zh|en|yue|cmn)([-_.@][A-Za-z0-9]{0,9}){0,5}", fullmatch=True))
def test_any_text_is_a_code_or_nothing(text: str) -> None:
    assert language_of(text) in {*LANGUAGES, None}
