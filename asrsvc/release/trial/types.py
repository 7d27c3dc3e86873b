"""What passes between the steps of a trial: frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from asrsvc.release.bake import Mode
from asrsvc.release.error_rate import Errors, total

MORE_ERRORS: Final = 0.05
"""character error rate that a version may have above the serving one's"""
MAX_CER_ALONE: Final = 0.5
"""character error rate on the operator's own recordings where there is nothing to compare with"""
MAX_COST_ALONE: Final = 1.0
"""CPU seconds of a thread for a second of sound where there is nothing to compare with: real time"""


@dataclass(frozen=True, slots=True)
class TrialOptions:
    """What a trial may use, and what it demands."""

    clips: Path | None = None
    """a folder that takes the place of the store's acceptance set"""
    max_cer: float | None = None
    """character error rate, at most; None: `MORE_ERRORS` above that of the serving version. Without
    one: `MAX_CER_ALONE` on the operator's own recordings, any on the embedded clips"""
    max_slowdown: float = 5.0
    """CPU time for a second of sound against that of the serving version, at most"""
    threads: int = 1
    """intra-op threads of the engine: those of a worker, or texts cannot be compared with its own"""
    device: str = "cpu"
    """what the engine runs on: that of a worker"""
    bake: Mode = "off"
    """what twins are made and tried: those that a worker would serve"""
    memory_bytes: int = 4 * 2**30
    """anonymous memory of one process, at most"""
    load_timeout: float = 120.0
    """seconds for a model to load, at most: a worker has no more"""
    clip_timeout: float = 60.0
    """seconds for a clip, at most, beside ten times its length"""
    timeout: float = 3600.0
    """seconds for all of it, at most"""
    reference: bool = True
    """whether token ids are compared with those of funasr-onnx, where that is installed"""


@dataclass(frozen=True, slots=True)
class ClipResult:
    """What a model made of one clip."""

    name: str
    language: str
    """as in `golden.Clip`"""
    seconds: float
    """length of the recording"""
    said: str
    """the model's text"""
    truth: str
    errors: Errors


@dataclass(frozen=True, slots=True)
class Embedded:
    """What a model made of the clips that come with asrsvc, as a worker will see it again."""

    texts: Mapping[str, str]
    likeness: float
    """0 to 1"""
    cost: float
    """CPU seconds of the engine for a second of sound"""


@dataclass(slots=True)
class Measured:
    """What is known of one model so far; filled in as the trial goes on."""

    version: str
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each file that was tried"""
    engine: Mapping[str, str] = field(default_factory=dict)
    """what else its numbers may depend on, see `speech.sample.engine_key`"""
    baked: Mapping[str, Any] = field(default_factory=dict)
    """what of its twin was tried, or why none was; empty: the published file"""
    embedded: Embedded | None = None
    garbage: str | None = None
    """why its texts of the embedded clips are not to be served"""
    load_seconds: float | None = None
    clips: list[ClipResult] = field(default_factory=list)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """name of an embedded clip → CPU seconds of the request, the least of all rounds"""
    rounds: int = 0
    """how often each embedded clip has been heard for its CPU time"""
    requests: int = 0
    memory_bytes: int = 0
    """anonymous memory, at most"""
    problem: str | None = None
    """why it could not be measured to the end"""

    @property
    def errors(self) -> Errors:
        """Of all clips of the acceptance set."""
        return total(clip.errors for clip in self.clips)

    def cost(self, seconds: Mapping[str, float]) -> float | None:
        """CPU seconds for a second of sound, over the whole way of a request.

        Args:
            seconds: name of an embedded clip → its length.
        """
        if not self.cpu_seconds:
            return None
        return sum(self.cpu_seconds.values()) / sum(seconds[name] for name in self.cpu_seconds)

    def languages(self) -> dict[str, dict[str, Any]]:
        """Language → its figures."""
        found: dict[str, dict[str, Any]] = {}
        for language in sorted({clip.language for clip in self.clips}):
            clips = [clip for clip in self.clips if clip.language == language]
            found[language] = figures(clips)
        return found


def figures(clips: list[ClipResult]) -> dict[str, Any]:
    """Clips, seconds, edits, characters and the rate of errors, as JSON can say it."""
    errors = total(clip.errors for clip in clips)
    return {
        "clips": len(clips),
        "seconds": round(sum(clip.seconds for clip in clips), 2),
        "edits": errors.edits,
        "characters": errors.characters,
        "cer": round(errors.rate, 4),
    }


@dataclass(frozen=True, slots=True)
class Reference:
    """How the token ids compare with those of funasr-onnx."""

    name: str = "funasr-onnx"
    """with its version"""
    compared: int = 0
    """answers: each embedded clip with and without ITN"""
    equal: int = 0
    rounded: int = 0
    """answers that differ from sound to ids, and are equal from the same features: there rounding decided"""
    differ: tuple[str, ...] = ()
    """answers that differ from the same features too, named by their clip"""
    skipped: str | None = None
    """why nothing was compared"""


@dataclass(frozen=True, slots=True)
class Trial:
    """The end of a trial, as it is recorded."""

    version: str
    passed: bool
    reason: str
    """sentences with figures: why it failed, or what speaks for it"""
    record: Mapping[str, Any]
    """see `asrsvc.release.trial.record`"""

    def to_record(self) -> dict[str, Any]:
        """What the version's record keeps."""
        return dict(self.record)
