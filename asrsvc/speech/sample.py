"""The clips that come with the service, heard by a model: a trial records it, a worker compares."""

from __future__ import annotations

import hashlib
import json
import platform
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import soundfile

from asrsvc.errors import InferenceFailed, ModelError
from asrsvc.speech.cpu import cpu_features
from asrsvc.speech.model import Model
from asrsvc.speech.runtime import onnxruntime
from asrsvc.speech.text import read

CLIPS: Final = Path(__file__).resolve().parent.parent / "clips"
"""clips that come with the service, and manifest.json with what is said in them"""

MIN_LIKENESS: Final = 0.5
"""of the texts to the known ones, 0 to 1: below it they are garbage. A model that says other things than it
hears has about 0; one that understands three of the five languages has 0.6"""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a model made of the clips."""

    texts: Mapping[str, str]
    """file name of each clip → what the model says is said in it"""
    likeness: float
    """mean likeness of the texts to the known ones, 0 to 1 (difflib's ratio), however each writes numbers"""
    cost: float
    """CPU seconds of the engine for a second of sound; the least of all runs, of the cheapest clip"""


def hear(model: Model, *, briefly: bool = False) -> Heard:
    """Run the clips, each twice: the least of two is a fairer cost.

    Args:
        model: that is to hear them.
        briefly: the shortest clip alone and once, for a model that is known and somebody waits for.

    Raises:
        ModelError: a clip cannot be read.
        InferenceFailed: the network does not run, or its numbers are not finite.
    """
    texts: dict[str, str] = {}
    likeness: list[float] = []
    costs: list[float] = []
    clips = _clips()
    if briefly:
        clips = [min(clips, key=lambda clip: float(clip["seconds"]))]
    for clip in clips:
        samples, _rate = soundfile.read(CLIPS / clip["file"], dtype="float32")
        features = model.extractor.features(samples)
        runs = []
        for _ in range(1 if briefly else 2):
            started = time.process_time()
            (frames,) = model.engine.run([features], ["auto"], [True])
            runs.append(time.process_time() - started)
        if not frames.finite:
            raise InferenceFailed(f"the engine gives numbers that are not finite for the clip {clip['file']}")
        text = read(frames, model.vocabulary).text
        texts[clip["file"]] = text
        likeness.append(max(_likeness(text, clip[known]) for known in ("withitn", "woitn")))
        costs.append(min(runs) / clip["seconds"])
    return Heard(texts, sum(likeness) / len(likeness), min(costs))


def garbage(likeness: float) -> str | None:
    """Why texts of so little likeness are not to be served; None if they may be."""
    if likeness >= MIN_LIKENESS:
        return None
    return (
        f"the model says wrong things: its texts of the clips that come with asrsvc are {likeness:.0%} like "
        f"the known ones; {MIN_LIKENESS:.0%} is the least"
    )


def _likeness(text: str, known: str) -> float:
    """How much two texts have in common, 0 to 1; forms, capitals, spaces and punctuation do not count."""
    one, other = (
        "".join(c for c in unicodedata.normalize("NFKC", found).casefold() if c.isalnum())
        for found in (text, known)
    )
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def engine_key(*, threads: int, device: str) -> dict[str, str]:
    """All that the same files and the same clips may give other numbers by.

    Where two keys are equal, texts are too: the engine adds up in the same order, dither is 0.
    """
    return {
        "onnxruntime": onnxruntime.__version__,
        "asrfront": version("asrfront"),
        "machine": platform.machine(),
        "cpu": cpu_features(),
        "device": device,
        "threads": str(threads),
        "clips": hashlib.sha256((CLIPS / "manifest.json").read_bytes()).hexdigest()[:16],
    }


def _clips() -> list[dict[str, Any]]:
    try:
        clips: list[dict[str, Any]] = json.loads((CLIPS / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{CLIPS / 'manifest.json'} cannot be read: {error}") from error
    return clips
