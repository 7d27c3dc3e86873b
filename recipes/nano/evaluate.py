"""Run all held-out tests through funasr_onnx's SenseVoiceSmall, unchanged, and write the figures as JSON."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recipes.nano import workfolder
from recipes.nano.shards import SAMPLE_RATE, Shard, TestUtterance
from recipes.nano.workfolder import WorkFolder

SILENCE: Final = np.zeros(3200, np.float32)
"""0.2 s, put before and behind every test utterance."""
SILENT_CLIPS: Final = (0.5, 1, 2, 4)
"""Seconds."""
EVENTS: Final = {
    "noise": "Event_UNK",
    "music": "BGM",
    "applause": "Applause",
    "silence": "Event_UNK",
    "babble": None,
}
"""What should come out of clips without speech; of babble nothing particular is asked."""
OUTSIDE_LANGUAGES: Final = ("en", "zh", "ja")
_TAG: Final = re.compile(r"<\|([^|]*)\|>")
_PUNCTUATION: Final = re.compile(r"[.,?!;:，。？！、；：]")


@dataclass(frozen=True)
class Heard:
    """One answer of the recogniser."""

    tags: list[str]
    """language, emotion, event, textnorm"""
    text: str

    @property
    def language(self) -> str:
        """Of the first tag."""
        return self.tags[0]

    @property
    def event(self) -> str:
        """Of the third tag."""
        return self.tags[2]


class Recogniser:
    """funasr_onnx's SenseVoiceSmall with dither 0, so that the same sound gives the same answer."""

    def __init__(self, model: Path, *, quantised: bool, threads: int) -> None:
        from funasr_onnx import SenseVoiceSmall

        self.session = SenseVoiceSmall(str(model), quantize=quantised, intra_op_num_threads=threads)
        self.set_dither(0.0)

    def set_dither(self, steps: float) -> None:
        """Of the frontend, in 16-bit steps; funasr_onnx's default is 1."""
        self.session.frontend.opts.frame_opts.dither = steps

    def raw(self, waveform: NDArray[np.float32], language: str, textnorm: str) -> str:
        """The answer with its tags. The waveform has shape (n,), 16 kHz."""
        return self.session(waveform, language=language, textnorm=textnorm)[0]

    def __call__(self, waveform: NDArray[np.float32], language: str, textnorm: str) -> Heard:
        """The answer taken apart."""
        raw = self.raw(waveform, language, textnorm)
        return Heard([*_TAG.findall(raw), "", "", "", ""][:4], _TAG.sub("", raw).strip())


def percent(part: float, whole: float, digits: int = 2) -> float:
    """100 * part / whole."""
    return round(100 * part / max(1, whole), digits)


def distance(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Edits from one sequence to the other."""
    import rapidfuzz.distance.Levenshtein as levenshtein

    return levenshtein.distance(one, other)


def without_blanks(text: str) -> str:
    """For error rates that ignore blanks."""
    return text.replace(" ", "")


def normalised(text: str) -> str:
    """Without punctuation, case and blanks."""
    return re.sub(r"\s+", "", _PUNCTUATION.sub(" ", text).lower())


@dataclass
class Errors:
    """Edits and lengths of one comparison."""

    edits: int = 0
    length: int = 0

    def add(self, heard: Sequence[Any], reference: Sequence[Any]) -> None:
        """Count one text."""
        self.edits += distance(heard, reference)
        self.length += len(reference)

    @property
    def rate(self) -> float:
        """Percent."""
        return percent(self.edits, self.length)


@dataclass
class Result:
    """Of one test."""

    characters_withitn: Errors = field(default_factory=Errors)
    characters_woitn: Errors = field(default_factory=Errors)
    words_woitn: Errors = field(default_factory=Errors)
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[list[str]] = field(default_factory=list)

    def add(self, utterance: TestUtterance, withitn: Heard, woitn: Heard) -> None:
        """Count one utterance."""
        wanted, wanted_words = utterance["withitn"], utterance["woitn"]
        self.characters_withitn.add(withitn.text, wanted)
        self.characters_woitn.add(without_blanks(woitn.text), without_blanks(wanted_words))
        self.words_woitn.add(woitn.text.split(), wanted_words.split())
        self.counts["n"] += 1
        self.counts["language"] += withitn.language == utterance["lang"]
        self.counts["speech"] += withitn.event == "Speech"
        self.counts["withitn"] += withitn.text == wanted
        self.counts["woitn"] += woitn.text == wanted_words
        if withitn.text != wanted and len(self.examples) < 6:
            self.examples.append([wanted, f"<|{withitn.language}|>{withitn.text}"])

    def record(self) -> dict[str, Any]:
        """Figures in percent, as make_card reads them."""
        count = self.counts["n"]
        return {
            "n": count,
            "cer_withitn": self.characters_withitn.rate,
            "cer_woitn": self.characters_woitn.rate,
            "wer_woitn": self.words_woitn.rate,
            "exact_withitn": percent(self.counts["withitn"], count, 1),
            "exact_woitn": percent(self.counts["woitn"], count, 1),
            "lid_auto": percent(self.counts["language"], count, 1),
            "event_speech": percent(self.counts["speech"], count, 1),
            "errors": self.examples,
        }


class TestSet:
    """The test lists with their sound."""

    def __init__(self, folder: WorkFolder, limit: int | None) -> None:
        tests: dict[str, list[TestUtterance]] = json.loads(folder.tests.read_text(encoding="utf-8"))
        self.tests = {name: utterances[:limit] for name, utterances in tests.items()}
        self._folder = folder
        self._shards: dict[str, Shard] = {}

    def waveform(self, utterance: TestUtterance) -> NDArray[np.float32]:
        """Shape (n,), 16 kHz."""
        name = utterance["shard"]
        if name not in self._shards:
            self._shards[name] = Shard(self._folder.data, name)
        return self._shards[name].waveform(utterance)


def run_tests(recogniser: Recogniser, tests: TestSet) -> dict[str, Any]:
    """Figures of all test lists, by name."""
    results = {}
    for name, utterances in tests.tests.items():
        result = Result()
        for utterance in utterances:
            waveform = np.concatenate([SILENCE, tests.waveform(utterance), SILENCE])
            withitn = recogniser(waveform, "auto", "withitn")
            result.add(utterance, withitn, recogniser(waveform, "auto", "woitn"))
        results[name] = result.record()
    return results


def run_outside_clips(recogniser: Recogniser, folder: Path | None) -> dict[str, Any]:
    """Figures of clips that nobody here made: LANGUAGE/*.wav with a .txt beside each."""
    import soundfile
    import soxr

    results: dict[str, Any] = {}
    for path in sorted(folder.glob("*/*.wav")) if folder else []:
        language = path.parent.name
        if language not in OUTSIDE_LANGUAGES:
            continue
        waveform, sample_rate = soundfile.read(path, dtype="float32")
        if sample_rate != SAMPLE_RATE:
            waveform = soxr.resample(waveform, sample_rate, SAMPLE_RATE)
        reference = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
        wanted = normalised(reference)
        auto = recogniser(waveform, "auto", "withitn")
        words = recogniser(waveform, "auto", "woitn")
        given = recogniser(waveform, language, "withitn")
        results[f"{language}/{path.name}"] = {
            "ref": reference,
            "tags": auto.tags,
            "withitn": auto.text,
            "woitn": words.text,
            "withitn_lang_given": given.text,
            "cer_auto_woitn": percent(distance(normalised(words.text), wanted), len(wanted), 1),
            "cer_lang_withitn": percent(distance(normalised(given.text), wanted), len(wanted), 1),
        }
    return results


def nonspeech_clips(folder: WorkFolder, kind: str, rng: Generator) -> Iterator[NDArray[np.float32]]:
    """Test clips of one kind, cut to 1.5 to 6 seconds at most and turned down by up to 26 dB."""
    if kind == "silence":
        clips: Any = [np.zeros(int(SAMPLE_RATE * seconds), np.float32) for seconds in SILENT_CLIPS]
    else:
        clips = np.load(folder.nonspeech_clips(kind))
    for clip in clips:
        cut = clip[: int(rng.uniform(1.5, 6) * SAMPLE_RATE)]
        yield (cut * 10 ** rng.uniform(-1.3, 0)).astype(np.float32)


def run_events(recogniser: Recogniser, folder: WorkFolder, tests: TestSet) -> dict[str, Any]:
    """Figures of clips without speech, and of speech under music 8 dB below it."""
    rng = np.random.default_rng(9)
    results: dict[str, Any] = {}
    for kind, wanted in EVENTS.items():
        heard = [recogniser(clip, "auto", "withitn") for clip in nonspeech_clips(folder, kind, rng)]
        results[kind] = {
            "n": len(heard),
            "event_ok": sum(answer.event == wanted for answer in heard),
            "nospeech": sum(answer.language == "nospeech" for answer in heard),
            "empty_text": sum(answer.text == "" for answer in heard),
            "got": dict(Counter(answer.event for answer in heard)),
        }
    music = np.load(folder.nonspeech_clips("music"))
    errors, found, count = Errors(), 0, 0
    for name, utterances in tests.tests.items():
        if not name.startswith("c_"):
            continue
        for utterance in utterances[:8]:
            speech = tests.waveform(utterance)
            under = music[rng.integers(0, len(music))][: len(speech)]
            under = under * np.sqrt((speech**2).mean() / (under**2).mean() / 10**0.8)
            answer = recogniser(speech + under, "auto", "withitn")
            count += 1
            found += answer.event == "BGM"
            errors.add(answer.text, utterance["withitn"])
    results["speech+music 8 dB"] = {"n": count, "event_bgm": found, "cer_withitn": round(errors.rate, 1)}
    return results


def main(argv: list[str] | None = None) -> int:
    """Write the figures of one model folder."""
    parser = workfolder.parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="below the work folder")
    parser.add_argument("--to", type=Path, required=True, metavar="JSON", help="below the work folder")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "int8"), default=["fp32", "int8"])
    parser.add_argument("--outside-clips", type=Path, metavar="DIR", help="LANGUAGE/*.wav and .txt")
    parser.add_argument("--limit", type=int, help="utterances of every test (default: all)")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    tests = TestSet(args.root, args.limit)
    results = {}
    for precision in args.precision:
        model = args.root.root / args.model
        recogniser = Recogniser(model, quantised=precision == "int8", threads=args.threads)
        figures = run_tests(recogniser, tests)
        for name, record in figures.items():
            shown = {key: value for key, value in record.items() if key != "errors"}
            print(f"{precision} {name} {json.dumps(shown)}")
        figures["a_pytest_audioeval"] = run_outside_clips(recogniser, args.outside_clips)
        figures["events"] = run_events(recogniser, args.root, tests)
        print(f"{precision} events {json.dumps(figures['events'])}")
        results[precision] = figures
    text = json.dumps(results, ensure_ascii=False, indent=1)
    (args.root.root / args.to).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
