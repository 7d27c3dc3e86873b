"""English for synthesisers: abbreviations spelt apart, and phonemes for Kokoro."""

from __future__ import annotations

import re
import subprocess
from typing import Final

_ESPEAK_TO_KOKORO: Final = (
    ("a͡ɪ", "I"),
    ("a͡ʊ", "W"),
    ("d͡ʒ", "ʤ"),
    ("e͡ɪ", "A"),
    ("o͡ʊ", "O"),
    ("t͡ʃ", "ʧ"),
    ("ɔ͡ɪ", "Y"),
    ("ə͡l", "ᵊl"),
    ("aɪ", "I"),
    ("aʊ", "W"),
    ("dʒ", "ʤ"),
    ("eɪ", "A"),
    ("oʊ", "O"),
    ("tʃ", "ʧ"),
    ("ɔɪ", "Y"),
    ("ɚ", "əɹ"),
    ("ɜː", "ɜɹ"),
    ("ɐ", "ə"),
    ("ʔ", "t"),
    ("oː", "ɔ"),
    ("ː", ""),
    ("r", "ɹ"),
    ("ɾ", "T"),
    ("͡", ""),
)
"""Replaced in this order; the table that misaki uses for its espeak fallback."""


def spell_abbreviations(text: str) -> str:
    """A.m., p.m. and TV as letters: "at five p m" -> "at five P M"."""
    halves = re.sub(r"\b([ap]) m\b", lambda match: match.group(1).upper() + " M", text)
    return halves.replace(" tv", " T V")


def kokoro_phonemes(text: str) -> str:
    """Phonemes of American English as Kokoro was trained on, by way of the espeak-ng program."""
    command = ["espeak-ng", "-v", "en-us", "-q", "--ipa", "--tie=͡", spell_abbreviations(text)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    phonemes = done.stdout.strip().replace("\n", ", ")
    for espeak, kokoro in _ESPEAK_TO_KOKORO:
        phonemes = phonemes.replace(espeak, kokoro)
    return phonemes
