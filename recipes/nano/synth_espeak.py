"""Speak all five languages with espeak-ng, in process: most of the training speech comes from here.

espeak-ng crashes now and then (a segmentation fault). What was written before it counts: a shard is
complete up to its last whole line.
"""

# ruff: noqa: SIM905 (long lists of words read best as one string)
from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recipes.nano import workfolder
from recipes.nano.grammar import LANGUAGES, Sentence, english, generate
from recipes.nano.grammar.chinese_numerals import DIGITS, DIGITS_AND_TEN
from recipes.nano.pronunciation.english import spell_abbreviations
from recipes.nano.pronunciation.mandarin import pinyin
from recipes.nano.shards import ShardWriter

HELD_OUT_VARIANTS: Final = ("m7", "f5", "Michael", "linda")
"""Never used for training; the tests ask how the model does on them."""
UNUSABLE_VARIANTS: Final = frozenset(
    "whisper whisperf croak Demonic fast UniRobot anikaRobot AnxiousAndy Storm Tweaky Mr serious announcer "
    "robosoft robosoft2 robosoft3 robosoft4 robosoft5 robosoft6 robosoft7 robosoft8".split()
)
CORE_VARIANTS: Final = "m1 m2 m3 m4 m5 m6 m8 f1 f2 f3 f4 klatt klatt2 klatt3 klatt4".split()
"""Half of the utterances."""
ENGLISH_VOICES: Final = (
    "en-us",
    "en-us",
    "en-us",
    "en",
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-us-nyc",
    "en-gb-x-gbclan",
)
VOICES: Final = {"zh": "cmn-latn-pinyin", "yue": "yue", "ja": "ja", "ko": "ko"}

# From speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS: Final = 2
_BUFFER_MILLISECONDS: Final = 500
_POS_CHARACTER: Final = 1
_CHARS_UTF8: Final = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_CALLBACK: Final = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Espeak:
    """The shared library of espeak-ng; one to a process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self._chunks: list[NDArray[np.int16]] = []
        self._callback = _CALLBACK(self._receive)  # kept: the library holds only a pointer
        self.sample_rate: int = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, _BUFFER_MILLISECONDS, None, 0
        )
        if self.sample_rate <= 0:
            raise OSError("libespeak-ng.so.1 does not start; is the package espeak-ng-data there?")
        self._library.espeak_SetSynthCallback(self._callback)

    def variants(self) -> list[str]:
        """Names of all voice variants that are of use in training."""
        data = ctypes.c_char_p()
        self._library.espeak_Info(ctypes.byref(data))
        if data.value is None:
            raise OSError("libespeak-ng.so.1 does not say where its data is")
        names = (path.name for path in (Path(data.value.decode()) / "voices" / "!v").iterdir())
        left_out = UNUSABLE_VARIANTS | set(HELD_OUT_VARIANTS)
        return sorted(name for name in names if name not in left_out and " " not in name)

    def speak(self, text: str, voice: str, rate: int, pitch: int, pitch_range: int) -> NDArray[np.float32]:
        """Synthesise.

        Args:
            text: what to say.
            voice: language, or language+variant.
            rate: words a minute.
            pitch: 0 to 99.
            pitch_range: 0 to 99.

        Returns:
            Shape (n,), in [-1, 1], at `sample_rate`; empty if espeak-ng does not know the voice.
        """
        self._chunks.clear()
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            return np.zeros(0, np.float32)
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, len(data), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
        self._library.espeak_Synchronize()
        if not self._chunks:
            return np.zeros(0, np.float32)
        return np.concatenate(self._chunks).astype(np.float32) / 32768

    def _receive(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int) -> int:
        if count > 0 and samples:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0


def voice_and_text(sentence: Sentence, rng: Random) -> tuple[str, str]:
    """The espeak-ng voice for a sentence and the text to give it; numbers sometimes get pauses between."""
    text = sentence.say
    characters = set(text.replace(" ", ""))
    if sentence.lang == "en":
        voice = rng.choice(ENGLISH_VOICES)
        text = spell_abbreviations(text)
        if rng.random() < 0.2 and sentence.withitn.lower().rstrip(".") == sentence.woitn:
            words = text.split()
            if len(words) > 2 and words[0] in english.UNITS:
                text = text.replace(" ", ", ")
        return voice, text
    voice = VOICES[sentence.lang]
    if sentence.lang == "zh":
        syllables = pinyin(text, sandhi=rng.random() < 0.8)
        pauses = characters <= set(DIGITS_AND_TEN + "幺") and rng.random() < 0.3
        return voice, (", " if pauses else " ").join(syllables)
    if sentence.lang == "yue":
        if characters <= set(DIGITS) and rng.random() < 0.3:
            text = "，".join(text)
    elif sentence.lang == "ja":
        if rng.random() < 0.3:
            text = text.replace(" ", "、")
    elif sentence.woitn == sentence.withitn[:-1] and rng.random() < 0.25:
        text = text.replace(" ", ", ")
    return voice, text


def main(argv: list[str] | None = None) -> int:
    """Write one shard."""
    parser = workfolder.parser(__doc__)
    parser.add_argument("--shard", required=True, metavar="NAME", help="name of the shard to write")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True, help="utterances to synthesise")
    parser.add_argument(
        "--languages", nargs="+", default=LANGUAGES, choices=LANGUAGES, help="in turn (default: all five)"
    )
    parser.add_argument("--held-out", action="store_true", help="the voices that training never hears")
    args = parser.parse_args(argv)

    espeak = Espeak()
    training_variants = [*espeak.variants(), ""]
    rng = Random(args.seed)
    with ShardWriter(args.root.data, args.shard) as shard:
        for number in range(args.count):
            sentence = generate(args.languages[number % len(args.languages)], rng)
            voice, text = voice_and_text(sentence, rng)
            text += "?" if sentence.withitn[-1] in "?？" else "."
            if args.held_out:
                variant = rng.choice(HELD_OUT_VARIANTS)
            elif rng.random() < 0.5:
                variant = rng.choice(CORE_VARIANTS)
            else:
                variant = rng.choice(training_variants)
            full_voice = f"{voice}+{variant}" if variant else voice
            rate, pitch, pitch_range = rng.randint(115, 215), rng.randint(15, 85), rng.randint(20, 80)
            waveform = espeak.speak(text, full_voice, rate, pitch, pitch_range)
            if len(waveform) == 0:
                print(f"nothing from voice {full_voice}: {text}", file=sys.stderr)
                continue
            shard.add(waveform, espeak.sample_rate, f"espeak:{voice}+{variant}", sentence)
        print(shard.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
