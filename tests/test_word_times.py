"""When words begin and end, against the edges of their sound, in clips joined to long recordings.

The truth is taken from the sound alone: of the clips of sentences, the first and the last sample that
is heard; of those that are spoken with pauses, where each word begins and ends.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_transcribe import CLIPS, RATE, SPOKEN, make, transcribe

from asrsvc.speech.transcribe import Options
from asrsvc.speech.types import Word

PAUSES = Path(__file__).resolve().parent / "data" / "pauses"
SPOKEN_WITH_PAUSES = json.loads((PAUSES / "manifest.json").read_text("utf-8"))
NEAR = 0.15
"""seconds that a word's start or end may be off"""
SHARE = 0.95
"""of words that must be so near"""


def heard(samples: np.ndarray, gap: float) -> list[tuple[float, float]]:
    """Where there is sound, in seconds: samples above 1 % of the peak, no more than `gap` apart."""
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    breaks = np.flatnonzero(np.diff(loud) > gap * RATE)
    starts = np.concatenate([loud[:1], loud[breaks + 1]])
    ends = np.concatenate([loud[breaks], loud[-1:]]) + 1
    return [(start / RATE, end / RATE) for start, end in zip(starts, ends, strict=True)]


@dataclass(frozen=True)
class Truth:
    """Where a word is known to begin or to end, or both."""

    word: str | None
    """None: the first or last one of a sentence"""
    start: float | None
    end: float | None

    def error(self, words: list[Word]) -> list[float]:
        """How far off the word is that was found there, at each edge that is known, in seconds."""
        if self.start is not None and self.end is not None:
            middle = (self.start + self.end) / 2
            found = next((w for w in words if w.start <= middle <= w.end), None)
            if found is None or found.word != self.word:
                return [math.inf, math.inf]
            return [abs(found.start - self.start), abs(found.end - self.end)]
        if self.start is not None:
            return [abs(next(w.start for w in words if w.end > self.start) - self.start)]
        assert self.end is not None
        return [abs(next(w.end for w in reversed(words) if w.start < self.end) - self.end)]


@pytest.mark.parametrize("noise", [1e-4, 2e-3], ids=["quiet", "hiss"])
@pytest.mark.parametrize("pause", [0.8, 1.5])
def test_nearly_all_words_begin_and_end_with_their_sound(pause: float, noise: float, tmp_path: Path) -> None:
    parts: list[np.ndarray] = []
    truth: list[Truth] = []
    at = 0.0
    recordings = [(CLIPS / name, None) for name in SPOKEN]
    recordings += [(PAUSES / clip["file"], clip["words"]) for clip in SPOKEN_WITH_PAUSES]
    for path, spoken in recordings:
        samples, _ = soundfile.read(path, dtype="float32")
        sounds = [(at + start, at + end) for start, end in heard(samples, 0.12 if spoken else 10.0)]
        if spoken is None:
            ((start, end),) = sounds
            truth += [Truth(None, start, None), Truth(None, None, end)]
        else:
            truth += [Truth(word, *edges) for word, edges in zip(spoken, sounds, strict=True)]
        parts += [samples, np.zeros(round(pause * RATE), np.float32)]
        at += len(samples) / RATE + pause
    sound = np.concatenate(parts)
    sound += np.random.default_rng(1).normal(0, noise, len(sound)).astype(np.float32)
    soundfile.write(tmp_path / "joined.wav", sound, RATE)
    transcriber = make()
    said = transcribe(transcriber, tmp_path / "joined.wav", Options(words=True, use_itn=False))
    transcriber._helpers.close()
    words = [word for segment in said.segments for word in segment.words]
    errors = np.array([error for row in truth for error in row.error(words)])
    good = float((errors <= NEAR).mean())
    sys.stdout.write(f"{len(errors)} edges: {good:.1%} within {NEAR} s, the worst {errors.max():.3f} s off\n")
    assert good >= SHARE, [row for row in truth if max(row.error(words)) > NEAR]
