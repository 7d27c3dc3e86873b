"""Rough phonemes of Cantonese for Kokoro, which was not trained on it: the result has an accent."""

from __future__ import annotations

from typing import Final

_ONSETS: Final = (
    ("gw", "kw"),
    ("kw", "kʰw"),
    ("ng", "ŋ"),
    ("b", "p"),
    ("p", "pʰ"),
    ("d", "t"),
    ("t", "tʰ"),
    ("g", "k"),
    ("k", "kʰ"),
    ("z", "ʦ"),
    ("c", "ʦʰ"),
    ("s", "s"),
    ("f", "f"),
    ("h", "h"),
    ("l", "l"),
    ("m", "m"),
    ("n", "n"),
    ("j", "j"),
    ("w", "w"),
)
_VOWELS: Final = (
    ("aa", "aː"),
    ("oe", "œ"),
    ("eo", "ø"),
    ("yu", "y"),
    ("a", "ɐ"),
    ("e", "ɛ"),
    ("i", "i"),
    ("o", "ɔ"),
    ("u", "u"),
)
"""Jyutping and sound; the first that fits is taken."""
_TONES: Final = {"1": "→", "2": "↗", "3": "→", "4": "↓", "5": "↗", "6": "↓"}
"""Kokoro's tone marks are those of Mandarin; six tones fall into three."""


def _take(syllable: str, table: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    """The sound of the syllable's beginning, and the rest."""
    for jyutping, sound in table:
        if syllable.startswith(jyutping):
            return sound, syllable[len(jyutping) :]
    return "", syllable


def syllable_phonemes(jyutping: str) -> str:
    """One syllable of jyutping, with its tone digit."""
    syllable, tone = jyutping[:-1], _TONES[jyutping[-1]]
    if syllable in ("m", "ng"):
        return {"m": "m", "ng": "ŋ"}[syllable] + tone
    onset, rest = _take(syllable, _ONSETS)
    vowel, coda = _take(rest, _VOWELS)
    vowel = {("ɛ", "i"): "e", ("ɔ", "u"): "o"}.get((vowel, coda), vowel)
    nasal = {"ng": "ŋ", "n": "n", "m": "m"}.get(coda)
    return onset + vowel + (tone + nasal if nasal else coda + tone)


def kokoro_phonemes(text: str) -> str:
    """Phonemes of a Cantonese text; a character without a known reading stays as it is."""
    import ToJyutping

    return " ".join(
        syllable_phonemes(readings.split(" ")[0]) if readings else character
        for character, readings in ToJyutping.get_jyutping_list(text)
    )
