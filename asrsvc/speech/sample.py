"""The clips that come with the service, heard by a model: a trial records it, a worker compares."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import soundfile

from asrsvc.errors import InferenceFailed, ModelError
from asrsvc.speech.cpu import cpu_features
from asrsvc.speech.frames import Frames
from asrsvc.speech.model import Model
from asrsvc.speech.runtime import onnxruntime
from asrsvc.speech.text import read
from asrsvc.speech.types import FloatArray

CLIPS: Final = Path(__file__).resolve().parent.parent / "clips"
"""clips that come with the service, and manifest.json with what is said in them"""

MIN_LIKENESS: Final = 0.5
"""of the texts to the known ones, 0 to 1: below it they are garbage. A model that says other things than it
hears has about 0; one that understands three of the five languages has 0.6"""

_PAUSE_SECONDS: Final = 0.03


@dataclass(frozen=True, slots=True)
class Heard:
    """What a model made of the clips."""

    texts: Mapping[str, str]
    """file name of each clip → what the model says is said in it"""
    likeness: float
    """mean likeness of the texts to the known ones, 0 to 1 (difflib's ratio), however each writes numbers"""
    cost: float
    """CPU seconds of the engine for a second of sound: of the shortest clip, the least of all its runs"""
    runs: int = 1
    """of the shortest clip"""


class Runs:
    """Runs of one clip for its cost: what they took, and whether more are needed."""

    def __init__(self, sound_seconds: float) -> None:
        """None yet.

        Args:
            sound_seconds: length of the clip.
        """
        self.number = 0
        self.cpu_seconds = 0.0
        """of all runs"""
        self.cost = math.inf
        """as in `Heard`"""
        self._sound_seconds = sound_seconds

    def add(self, cpu_seconds: float) -> None:
        """Count a run that took so much CPU time."""
        self.number += 1
        self.cpu_seconds += cpu_seconds
        self.cost = min(self.cost, cpu_seconds / self._sound_seconds)

    @property
    def few(self) -> bool:
        """Whether they are too few to tell the cost."""
        # Runs of milliseconds tell little, and the first one meets memory that is not there yet.
        return self.number < 2 or (self.number < 10 and self.cpu_seconds < 0.06)

    @property
    def few_for_no(self) -> bool:
        """Whether they are too few to refuse a version by its cost, after as many as tell it."""
        return self.number < 3 or (self.number < 15 and self.cpu_seconds < 1.5)


def hear(model: Model, *, briefly: bool = False) -> Heard:
    """Run the clips: each once for its text, the shortest one some more times for its cost.

    Args:
        model: that is to hear them.
        briefly: the shortest clip alone, for a model that is known and somebody waits for.

    Raises:
        ModelError: a clip cannot be read.
        InferenceFailed: the network does not run, or its numbers are not finite.
    """
    texts: dict[str, str] = {}
    likeness: list[float] = []
    timed = Timed(model)
    for clip in [timed.clip] if briefly else _clips():
        file = clip["file"]
        frames = timed.run() if file == timed.clip["file"] else _run(model, _features(model, clip))
        if not frames.finite:
            raise InferenceFailed(f"the engine gives numbers that are not finite for the clip {file}")
        text = read(frames, model.vocabulary).text
        texts[file] = text
        likeness.append(max(_likeness(text, clip[known]) for known in ("withitn", "woitn")))
    while timed.runs.few:
        timed.run()
    return Heard(texts, sum(likeness) / len(likeness), timed.runs.cost, timed.runs.number)


def hear_again(model: Model, heard: Heard, in_doubt: Callable[[float], bool]) -> Heard:
    """Measure a cost that is in doubt again, until it is in doubt no more or there were many runs.

    Args:
        model: as for `hear`.
        heard: what it heard.
        in_doubt: whether this cost, the least so far, is too high.
    """
    if not in_doubt(heard.cost):
        return heard
    timed = Timed(model)
    cost = heard.cost
    while in_doubt(cost) and timed.runs.few_for_no:
        time.sleep(_PAUSE_SECONDS)  # what disturbs one run for a moment is gone by the next one
        timed.run()
        cost = min(cost, timed.runs.cost)
    return replace(heard, cost=cost, runs=heard.runs + timed.runs.number)


class Timed:
    """The shortest clip, run for its cost as often as is asked for."""

    def __init__(self, model: Model) -> None:
        """Prepare.

        Raises:
            ModelError: the clip cannot be read.
        """
        self.clip: Final = min(_clips(), key=lambda clip: float(clip["seconds"]))
        self.runs: Final = Runs(float(self.clip["seconds"]))
        self._model = model
        self._features = _features(model, self.clip)

    def run(self) -> Frames:
        """Once more; what the model makes of it.

        Raises:
            InferenceFailed: the network does not run.
        """
        # Of this thread: others of this process import modules meanwhile, or read files.
        started = time.thread_time()
        frames = _run(self._model, self._features)
        self.runs.add(time.thread_time() - started)
        return frames


def _features(model: Model, clip: Mapping[str, Any]) -> FloatArray:
    samples, _rate = soundfile.read(CLIPS / clip["file"], dtype="float32")
    return model.extractor.features(samples)


def _run(model: Model, features: FloatArray) -> Frames:
    (frames,) = model.engine.run([features], ["auto"], [True])
    return frames


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
