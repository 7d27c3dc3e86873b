"""Long recordings with known truth: clips and silences, joined."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 16_000
CLIPS = Path(__file__).resolve().parent / "data" / "clips"


@dataclass(frozen=True)
class Said:
    """One clip's place in a recording: seconds where its speech begins and ends, and its text."""

    start: float
    end: float
    text: str
    language: str


def speech_edges(samples: np.ndarray) -> tuple[int, int]:
    """First and last sample of a clean clip whose 10 ms frame is within 35 dB of the loudest one."""
    frame = RATE // 100
    energy = np.array([np.square(samples[i : i + frame]).mean() for i in range(0, len(samples), frame)])
    loud = np.flatnonzero(energy > energy.max() * 10**-3.5)
    return int(loud[0]) * frame, int(loud[-1] + 1) * frame


def write_recording(path: Path, minutes: float, seed: int) -> list[Said]:
    """Join clips in random order with 0.5 to 3 s of near silence, as FLAC; the truth."""
    chance = random.Random(seed)
    noise = np.random.default_rng(seed)
    clips: list[dict[str, Any]] = [
        clip for clip in json.loads((CLIPS / "manifest.json").read_text()) if clip["language"] != "nospeech"
    ]
    sounds = {clip["file"]: soundfile.read(CLIPS / clip["file"], dtype="float32")[0] for clip in clips}
    said: list[Said] = []
    position = 0
    with soundfile.SoundFile(path, "w", RATE, 1, format="FLAC", subtype="PCM_16") as out:
        while position < minutes * 60 * RATE:
            silence = round(chance.uniform(0.5, 3.0) * RATE)
            out.write(noise.normal(0, 1e-4, silence).astype(np.float32))
            position += silence
            clip = chance.choice(clips)
            samples = sounds[clip["file"]]
            start, end = speech_edges(samples)
            said.append(
                Said((position + start) / RATE, (position + end) / RATE, clip["withitn"], clip["language"])
            )
            out.write(samples)
            position += len(samples)
    return said
