"""Rough phonemes of Korean for Kokoro, which was not trained on it: the result has an accent."""

# ruff: noqa: SIM905 (phonetic letters; long lists of words read best as one string)
from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

_VOWELS: Final = "a ɛ ja jɛ ʌ e jʌ je o wa wɛ we jo u wʌ we wi ju ɯ ɨi i".split()
_INITIALS: Final = "ㄱ ㄲ ㄴ ㄷ ㄸ ㄹ ㅁ ㅂ ㅃ ㅅ ㅆ ㅇ ㅈ ㅉ ㅊ ㅋ ㅌ ㅍ ㅎ".split()
_FINALS: Final = "_ ㄱ ㄲ ㄳ ㄴ ㄵ ㄶ ㄷ ㄹ ㄺ ㄻ ㄼ ㄽ ㄾ ㄿ ㅀ ㅁ ㅂ ㅄ ㅅ ㅆ ㅇ ㅈ ㅊ ㅋ ㅌ ㅍ ㅎ".split()
"""Letters in the order of Unicode's syllable block; "_" is none."""
_INITIAL_SOUNDS: Final = dict(
    zip(_INITIALS, "k k n t t ɾ m p p s s _ ʨ ʨ ʨʰ kʰ tʰ pʰ h".split(), strict=True)
)
_VOICED: Final = {"ㄱ": "ɡ", "ㄷ": "d", "ㅂ": "b", "ㅈ": "ʥ"}
_FINAL_SOUNDS: Final = {
    letter: sound
    for sound, letters in {
        "k": "ㄱㄲㅋㄳㄺ",
        "n": "ㄴㄵㄶ",
        "t": "ㄷㅅㅆㅈㅊㅌ",
        "l": "ㄹㄼㄽㄾㅀ",
        "m": "ㅁㄻ",
        "p": "ㅂㅍㅄㄿ",
        "ŋ": "ㅇ",
        "": "ㅎ_",
    }.items()
    for letter in letters
}
_SPLIT: Final = {
    "ㄳ": ("ㄱ", "ㅅ"),
    "ㄵ": ("ㄴ", "ㅈ"),
    "ㄶ": ("_", "ㄴ"),
    "ㄺ": ("ㄹ", "ㄱ"),
    "ㄻ": ("ㄹ", "ㅁ"),
    "ㄼ": ("ㄹ", "ㅂ"),
    "ㅀ": ("_", "ㄹ"),
    "ㅄ": ("ㅂ", "ㅅ"),
}
"""Double finals before a vowel: what stays, what moves on."""
_ASPIRATED: Final = {"ㄱ": "ㅋ", "ㄷ": "ㅌ", "ㅂ": "ㅍ", "ㅈ": "ㅊ"}
_AFTER_LOSING_H: Final = {"ㅎ": "_", "ㄶ": "ㄴ", "ㅀ": "ㄹ"}
_NASALISED: Final = {"k": "ㅇ", "t": "ㄴ", "p": "ㅁ"}


@dataclass
class _Syllable:
    initial: str
    vowel: int
    """index into _VOWELS"""
    final: str


def _letters(character: str) -> _Syllable | str:
    if not "가" <= character <= "힣":
        return character
    code = ord(character) - ord("가")
    return _Syllable(_INITIALS[code // 588], code % 588 // 28, _FINALS[code % 28])


def _link(before: _Syllable, after: _Syllable) -> None:
    """Apply what the border of two syllables does to them: liaison, aspiration, nasalisation."""
    if after.initial == "ㅇ" and before.final not in ("_", "ㅇ"):
        if before.final == "ㅎ":
            before.final = "_"
        elif before.final in _SPLIT:
            before.final, after.initial = _SPLIT[before.final]
        else:
            before.final, after.initial = "_", before.final
    elif before.final in _AFTER_LOSING_H and after.initial in _ASPIRATED:
        after.initial = _ASPIRATED[after.initial]
        before.final = _AFTER_LOSING_H[before.final]
    elif after.initial == "ㅎ" and before.final in _ASPIRATED:
        after.initial = _ASPIRATED[before.final]
        before.final = "_"
    elif after.initial in "ㄴㅁ" and _FINAL_SOUNDS.get(before.final) in _NASALISED:
        before.final = _NASALISED[_FINAL_SOUNDS[before.final]]


def _word(word: str) -> str:
    syllables = [_letters(character) for character in word]
    for before, after in itertools.pairwise(syllables):
        if isinstance(before, _Syllable) and isinstance(after, _Syllable):
            _link(before, after)
    phonemes = ""
    between_voiced = False
    for syllable in syllables:
        if isinstance(syllable, str):
            phonemes += syllable
            between_voiced = False
            continue
        vowel, final = _VOWELS[syllable.vowel], _FINAL_SOUNDS[syllable.final]
        onset = _INITIAL_SOUNDS.get(syllable.initial, "")
        if between_voiced and syllable.initial in _VOICED:
            onset = _VOICED[syllable.initial]
        if syllable.initial in "ㅅㅆ" and vowel[0] in "ij":
            onset = "ɕ"
        if onset == "ɾ" and phonemes.endswith("l"):
            onset = "l"
        phonemes += ("" if onset == "_" else onset) + vowel + final
        between_voiced = final not in ("k", "t", "p")
    return phonemes


def kokoro_phonemes(text: str) -> str:
    """Phonemes of a Korean text; what is not Hangul stays as it is."""
    return " ".join(_word(word) for word in text.split(" "))
