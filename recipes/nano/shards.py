"""Synthesised speech on disk, in shards.

A shard is NAME.pcm (int16, 16 kHz, all utterances joined) and NAME.jsonl (a line an utterance).
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recipes.nano.grammar import Sentence

SAMPLE_RATE: Final = 16_000
_AUDIBLE: Final = 0.004
"""Amplitude; what is quieter at either end is cut off."""
_MARGINS: Final = (800, 1200)
"""Samples kept before and behind the audible part."""
_FLUSH_EVERY: Final = 20
"""Utterances; a synthesiser that crashes the process loses no more than these."""


class Utterance(TypedDict):
    """One line of a shard."""

    voice: str
    """engine:voice"""
    lang: str
    say: str
    woitn: str
    withitn: str
    off: int
    """first sample in the shard's PCM file"""
    n: int
    """samples"""


class TestUtterance(Utterance):
    """An utterance of a test list."""

    shard: str


class ShardWriter:
    """Appends utterances to a new shard; a context manager."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.utterances = 0
        self.samples = 0
        self._pcm = (folder / f"{name}.pcm").open("wb")
        self._lines = (folder / f"{name}.jsonl").open("w", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pcm.close()
        self._lines.close()

    def add(self, waveform: ArrayLike, sample_rate: int, voice: str, sentence: Sentence) -> bool:
        """Trim, bring to half of full scale and append.

        Args:
            waveform: mono, nominally in [-1, 1], any rate.
            sample_rate: Hz.
            voice: engine:voice.
            sentence: what is said.

        Returns:
            False if it was left out: silent, or not between 0.25 and 9 seconds.
        """
        import soxr  # not needed to read shards

        samples = np.asarray(waveform, np.float32)
        if sample_rate != SAMPLE_RATE:
            samples = soxr.resample(samples, sample_rate, SAMPLE_RATE)
        audible = np.flatnonzero(np.abs(samples) > _AUDIBLE)
        if len(audible) < SAMPLE_RATE // 10:
            return False
        samples = samples[max(0, audible[0] - _MARGINS[0]) : audible[-1] + _MARGINS[1]]
        if not 0.25 < len(samples) / SAMPLE_RATE < 9:
            return False
        samples = samples / np.abs(samples).max() * 0.5
        pcm = (samples * 32767).astype(np.int16)
        self._pcm.write(pcm.tobytes())
        line = {"voice": voice, **sentence.record(), "off": self.samples, "n": len(pcm)}
        self._lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.samples += len(pcm)
        self.utterances += 1
        if self.utterances % _FLUSH_EVERY == 0:
            self._pcm.flush()
            self._lines.flush()
        return True

    def summary(self) -> str:
        """What the shard holds, for a person."""
        hours = self.samples / SAMPLE_RATE / 3600
        return f"{self.name}: {self.utterances} utterances, {hours:.3f} h"


class Shard:
    """A shard for reading."""

    def __init__(self, folder: Path, name: str) -> None:
        path = folder / f"{name}.pcm"
        self._pcm = np.memmap(path, np.int16, "r") if path.stat().st_size else np.zeros(0, np.int16)
        self.utterances = read_lines(folder, name, samples=len(self._pcm))

    def waveform(self, utterance: Utterance) -> NDArray[np.float32]:
        """The samples of one utterance, shape (n,), in [-0.5, 0.5]."""
        first = utterance["off"]
        return self._pcm[first : first + utterance["n"]].astype(np.float32) / 32768


def read_lines(folder: Path, name: str, samples: int | None = None) -> list[Utterance]:
    """The utterances of a shard; what a crash left unfinished is skipped.

    Args:
        folder: where the shard is.
        name: of the shard.
        samples: length of the PCM file; utterances that end behind it are left out.
    """
    utterances: list[Utterance] = []
    with (folder / f"{name}.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                continue
            utterance: Utterance = json.loads(line)
            if samples is None or utterance["off"] + utterance["n"] <= samples:
                utterances.append(utterance)
    return utterances
