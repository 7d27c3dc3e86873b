"""Speak with Kokoro-82M: Japanese, and with an accent Mandarin, English, Korean and Cantonese.

Kokoro knows Mandarin and English, but these voices are Japanese; of Korean and Cantonese it knows
nothing, their phonemes are approximations.
"""

from __future__ import annotations

import re
import sys
import time
from random import Random
from typing import Final

import numpy as np

from recipes.nano import workfolder
from recipes.nano.grammar import Sentence, generate
from recipes.nano.grammar.chinese_numerals import DIGITS_AND_TEN
from recipes.nano.kokoro import HELD_OUT_VOICE, SAMPLE_RATE, TRAINING_VOICES, Kokoro
from recipes.nano.pronunciation import cantonese, english, korean
from recipes.nano.shards import ShardWriter

LANGUAGES: Final = ("ja", "zh", "en", "ko", "yue")
_NUMBER: Final = re.compile("十[一二三四五六七八九]?|[二三四五六七八九]十[一二三四五六七八九]?|.")


def phonemes(kokoro: Kokoro, sentence: Sentence, rng: Random) -> str:
    """What the network is given for a sentence; numbers sometimes get pauses between."""
    end = sentence.withitn[-1]
    counted = sentence.woitn == sentence.withitn[:-1]
    if sentence.lang == "ja":
        kana = sentence.say.replace(" ", rng.choice(["", "、"]))
        return kokoro.japanese_phonemes(kana + ("？" if end == "？" else "。"))
    if sentence.lang == "zh":
        text = sentence.woitn
        if counted and set(text) <= set(DIGITS_AND_TEN) and rng.random() < 0.5:
            text = "，".join(_NUMBER.findall(text))
        return kokoro.mandarin_phonemes(text + end)
    if sentence.lang == "ko":
        pauses = counted and rng.random() < 0.3
        return korean.kokoro_phonemes(sentence.say.replace(" ", ", ") if pauses else sentence.say) + "."
    if sentence.lang == "yue":
        return cantonese.kokoro_phonemes(sentence.say) + "."
    return english.kokoro_phonemes(sentence.say) + "."


def main(argv: list[str] | None = None) -> int:
    """Write the shard kokoroSEED (or held_kokoroSEED) for as long as the time allows."""
    parser = workfolder.parser(__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="stop after this time")
    parser.add_argument("--count", type=int, help="stop after this many utterances, if that is earlier")
    parser.add_argument(
        "--language-weights",
        nargs=5,
        type=float,
        default=[0.27, 0.27, 0.1, 0.18, 0.18],
        metavar="WEIGHT",
        help="of " + " ".join(LANGUAGES) + " (default: .27 .27 .1 .18 .18)",
    )
    parser.add_argument("--held-out", action="store_true", help="the voice that training never hears")
    args = parser.parse_args(argv)

    until = time.monotonic() + 60 * args.minutes
    kokoro = Kokoro(args.root.kokoro_cache)
    rng = Random(1000 + args.seed)
    np.random.seed(args.seed)  # noqa: NPY002 (the wheel draws from the global generator)
    name = f"{'held_kokoro' if args.held_out else 'kokoro'}{args.seed}"
    with ShardWriter(args.root.data, name) as shard:
        while time.monotonic() < until and (args.count is None or shard.utterances < args.count):
            language = rng.choices(LANGUAGES, args.language_weights)[0]
            sentence = generate(language, rng)
            text = phonemes(kokoro, sentence, rng)
            if args.held_out:
                voice, voice_name = kokoro.voice(HELD_OUT_VOICE), HELD_OUT_VOICE
            else:
                first, second = rng.sample(TRAINING_VOICES, 2)
                share = rng.choice([0, 0, 0, 0.25, 0.5])
                voice = kokoro.voice(first, second, share)
                voice_name = first if share == 0 else f"{first}+{second}"
            try:
                waveform = kokoro.speak(text, voice, rng.uniform(0.8, 1.25))
            except ValueError as error:
                print(f"left out {sentence.withitn}: {error}", file=sys.stderr)
                continue
            shard.add(waveform, SAMPLE_RATE, f"kokoro:{voice_name}", sentence)
        print(shard.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
