"""What the workers of a version have answered, and whether one version falls behind another by it.

The master compares so while a roll soaks, the tool while it watches what it has switched to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Numbers:
    """Of one worker, or of several together, at one time."""

    in_hand: int
    """requests begun and not answered"""
    requests: int
    """answered by the engine"""
    errors: int
    """of these, with a 5xx"""
    empty: int
    """of these, without text"""
    audio_ms: int
    """recognised, milliseconds of sound"""
    busy_ms: int
    """spent on it in the engine, milliseconds"""

    def since(self, before: Numbers) -> Numbers:
        """What has been added; `in_hand` stays as it is now."""
        return Numbers(
            self.in_hand,
            self.requests - before.requests,
            self.errors - before.errors,
            self.empty - before.empty,
            self.audio_ms - before.audio_ms,
            self.busy_ms - before.busy_ms,
        )

    def plus(self, other: Numbers) -> Numbers:
        """Both together."""
        return Numbers(
            self.in_hand + other.in_hand,
            self.requests + other.requests,
            self.errors + other.errors,
            self.empty + other.empty,
            self.audio_ms + other.audio_ms,
            self.busy_ms + other.busy_ms,
        )


NOTHING: Final = Numbers(0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How far a new version may fall behind the old one."""

    min_samples: int
    """requests on both sides before they are compared"""
    max_errors: float
    """share of answers that are errors, above that of the old version"""
    max_empty: float
    """share of answers without text, above that of the old version"""
    max_slowdown: float
    """time in the engine for a second of sound, times that of the old version"""


def compare(new: Numbers, old: Numbers, allowed: Thresholds, *, forced: bool = False) -> str | None:
    """What is wrong with the new version by its requests; None if nothing is, or too few are known.

    Args:
        new: of the new version.
        old: of the old one.
        allowed: see `Thresholds`.
        forced: leaves out the comparison of text and speed.
    """
    if min(new.requests, old.requests) < allowed.min_samples:
        return None
    shares = [("errors", new.errors, old.errors, allowed.max_errors)]
    if not forced:
        shares.append(("empty texts", new.empty, old.empty, allowed.max_empty))
    for name, one, other, limit in shares:
        share, before = one / new.requests, other / old.requests
        if share > before + limit:
            return f"{share:.0%} {name} against {before:.0%} of the old version"
    if not forced and new.audio_ms and old.audio_ms and old.busy_ms:
        slowdown = (new.busy_ms / new.audio_ms) / (old.busy_ms / old.audio_ms)
        if slowdown > allowed.max_slowdown:
            return f"{slowdown:.1f} times the engine's time of the old version"
    return None


def compare_silence(new: Numbers, old: Numbers, allowed: Thresholds) -> str | None:
    """What is wrong if the new version has taken requests and answered none while the old one answered.

    Args:
        new: of the new version, when the time that it was given is over.
        old: of the old one.
        allowed: see `Thresholds`.
    """
    if new.in_hand and not new.requests and old.requests >= allowed.min_samples:
        return f"it took {new.in_hand} requests and answered none, the old version answered {old.requests}"
    return None
