"""Speak with the other classical engines: English with flite and festival, Japanese with Open JTalk."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recipes.nano import workfolder
from recipes.nano.grammar import Sentence, english, generate
from recipes.nano.pronunciation.english import spell_abbreviations
from recipes.nano.shards import ShardWriter

FLITE_VOICES: Final = ("awb", "slt", "kal16", "slt", "awb")
FLITE_HELD_OUT: Final = ("rms",)
FESTIVAL_VOICES: Final = ("voice_ked_diphone", "voice_cmu_us_slt_arctic_hts")
_KANJI_NUMBERS: Final = re.compile("[零〇一二三四五六七八九十百千ゼ]")

Spoken = tuple[NDArray[np.float32], int, str, Sentence]
"""Samples of shape (n,) in [-1, 1]; Hz; engine:voice; what is said."""


def english_text(sentence: Sentence, rng: Random) -> str:
    """A sentence as an English engine is given it; numbers sometimes get pauses between."""
    text = spell_abbreviations(sentence.say)
    words = text.split()
    if rng.random() < 0.35 and len(words) > 2 and all(word in (*english.UNITS, "oh") for word in words):
        text = text.replace(" ", ", ")
    return text[0].upper() + text[1:] + ("?" if sentence.withitn[-1] == "?" else ".")


def _read(path: Path) -> tuple[NDArray[np.float32], int]:
    import soundfile

    return soundfile.read(path, dtype="float32")


def speak_flite(count: int, rng: Random, held_out: bool, folder: Path) -> Iterator[Spoken]:
    """English, one run of the flite program an utterance."""
    path = folder / "utterance.wav"
    for _ in range(count):
        sentence = generate("en", rng)
        voice = rng.choice(FLITE_HELD_OUT if held_out else FLITE_VOICES)
        stretch = f"duration_stretch={rng.uniform(0.85, 1.3):.2f}"
        text = english_text(sentence, rng)
        command = ["flite", "-voice", voice, "--setf", stretch, "-t", text, "-o", str(path)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode or not path.exists():
            print(f"flite {voice} failed: {done.stderr.decode(errors='replace')}", file=sys.stderr)
            continue
        waveform, sample_rate = _read(path)
        path.unlink()
        yield waveform, sample_rate, f"flite:{voice}", sentence


def speak_festival(count: int, rng: Random, _held_out: bool, folder: Path) -> Iterator[Spoken]:
    """English, one run of the festival program a voice."""
    for voice in FESTIVAL_VOICES:
        sentences = [generate("en", rng) for _ in range(count // 2)]
        lines = [f"({voice})"]
        for number, sentence in enumerate(sentences):
            lines.append(f"(Parameter.set 'Duration_Stretch {rng.uniform(0.85, 1.25):.2f})")
            text = english_text(sentence, rng).replace('"', "")
            lines.append(
                f'(utt.save.wave (utt.synth (Utterance Text "{text}")) "{folder}/{number}.wav" \'riff)'
            )
        script = folder / "speak.scm"
        script.write_text("\n".join(lines) + "\n", encoding="utf-8")
        subprocess.run(["festival", "-b", str(script)], capture_output=True, check=False)
        for number, sentence in enumerate(sentences):
            path = folder / f"{number}.wav"
            if path.exists():
                waveform, sample_rate = _read(path)
                path.unlink()
                yield waveform, sample_rate, f"festival:{voice}", sentence


def speak_openjtalk(count: int, rng: Random, _held_out: bool, _folder: Path) -> Iterator[Spoken]:
    """Japanese, the HTS voice "mei" that comes with pyopenjtalk-plus."""
    import pyopenjtalk

    for _ in range(count):
        sentence = generate("ja", rng)
        kana = sentence.say.replace(" ", rng.choice(["", "、"]))
        # numbers in kanji would be read Open JTalk's way, not the grammar's
        text = kana if _KANJI_NUMBERS.search(sentence.woitn) or rng.random() < 0.3 else sentence.withitn
        speed, half_tone = rng.uniform(0.8, 1.35), rng.uniform(-5, 4)
        waveform, sample_rate = pyopenjtalk.tts(
            text, speed=speed, half_tone=half_tone, use_sudachi_kanji_yomi=False
        )
        yield np.asarray(waveform / 32768, np.float32), sample_rate, "openjtalk:mei", sentence


ENGINES: Final = {"flite": speak_flite, "festival": speak_festival, "mei": speak_openjtalk}


def main(argv: list[str] | None = None) -> int:
    """Write the shard ENGINE SEED, with held_ in front if its voices are held out."""
    parser = workfolder.parser(__doc__)
    parser.add_argument("--engine", required=True, choices=sorted(ENGINES))
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True, help="utterances to synthesise")
    parser.add_argument("--held-out", action="store_true", help="flite: the voice that training never hears")
    args = parser.parse_args(argv)
    if args.held_out and args.engine != "flite":
        parser.error(f"--held-out: {args.engine} has no voice that is held out")

    rng = Random(7000 + args.seed)
    name = f"{'held_' if args.held_out else ''}{args.engine}{args.seed}"
    with (
        tempfile.TemporaryDirectory() as folder,
        ShardWriter(args.root.data, name) as shard,
    ):
        for spoken in ENGINES[args.engine](args.count, rng, args.held_out, Path(folder)):
            shard.add(*spoken)
        print(shard.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
