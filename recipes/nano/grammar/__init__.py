"""The narrow domain of sensevoice-nano: sentences in five languages, as spoken and as written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from random import Random
from typing import Final

from recipes.nano.grammar import cantonese, english, japanese, korean, mandarin

LANGUAGES: Final = ("en", "zh", "yue", "ja", "ko")
_GRAMMARS: Final = {
    "en": english.generate,
    "zh": mandarin.generate,
    "yue": cantonese.generate,
    "ko": korean.generate,
}


@dataclass(frozen=True)
class Sentence:
    """One sentence of the domain. The field names are those of the shards' JSON lines."""

    lang: str
    """en, zh, yue, ja or ko"""
    say: str
    """what a synthesiser is given: kana for Japanese, else the spoken words"""
    woitn: str
    """the spoken words, lower case, no punctuation"""
    withitn: str
    """the written form: capitals, punctuation, Arabic numerals"""

    def record(self) -> dict[str, str]:
        """The fields as a dict, in the order in which shards hold them."""
        return asdict(self)


def generate(language: str, rng: Random) -> Sentence:
    """Draw a sentence. The same generator state gives the same sentence."""
    if language == "ja":
        say, spoken, written = japanese.generate(rng)
    else:
        spoken, written = _GRAMMARS[language](rng)
        say = spoken
    return Sentence(language, say, spoken, written)
