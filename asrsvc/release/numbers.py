"""What the workers of a version have answered, and whether one version falls behind another by it.

The master compares so while a roll soaks, the tool while it watches what it has switched to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from asrsvc.release.speed import milliseconds, quantile, slow

_SURE: Final = math.log(100_000)
"""a share is too high only if a version as good as the old one shows it once in so many samples, or less"""
_CLEAN: Final = 1000
"""answers without an error: what a version is held against where there is no other"""
_MORE_FOR_NO: Final = 2
"""times the least number of requests: so many must be known before a version is called slow"""
_BEST: Final = 0.25
"""share of the new version's requests, the cheapest ones, that speak for it"""
_USUAL: Final = 0.5


def trimmed(counts: Iterable[int]) -> tuple[int, ...]:
    """Counts by class without the zeros at their end."""
    found = list(counts)
    while found and not found[-1]:
        found.pop()
    return tuple(found)


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
    costs: tuple[int, ...] = ()
    """of the requests that the engine has run for, how many are in each class of `speed.cost_class`; classes
    that are missing at the end hold none"""

    def since(self, before: Numbers) -> Numbers:
        """What has been added; `in_hand` stays as it is now."""
        return Numbers(
            self.in_hand,
            self.requests - before.requests,
            self.errors - before.errors,
            self.empty - before.empty,
            self.audio_ms - before.audio_ms,
            self.busy_ms - before.busy_ms,
            trimmed(now - then for now, then in zip_longest(self.costs, before.costs, fillvalue=0)),
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
            trimmed(one + two for one, two in zip_longest(self.costs, other.costs, fillvalue=0)),
        )


NOTHING: Final = Numbers(0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How far a new version may fall behind the old one."""

    min_samples: int
    """requests on both sides before they are compared; twice as many before a version is called slow"""
    max_errors: float
    """share of answers that are errors, above that of the old version"""
    max_empty: float
    """share of answers without text, above that of the old version"""
    max_slowdown: float
    """CPU time of the engine for a second of sound, times that of the old version"""


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
        if _too_many(one, new.requests, other, old.requests, limit):
            return (
                f"{one / new.requests:.0%} {name} against {other / old.requests:.0%} of the old version"
                f" ({one} of {new.requests} answers against {other} of {old.requests})"
            )
    if not forced and sum(new.costs) >= _MORE_FOR_NO * allowed.min_samples:
        return _slower(new, old, allowed)
    return None


def compare_errors(new: Numbers, allowed: Thresholds) -> str | None:
    """What is wrong with the new version where too little is known of an old one: it should make no errors.

    Args:
        new: of the new version.
        allowed: see `Thresholds`.
    """
    if new.requests < allowed.min_samples:
        return None
    if _too_many(new.errors, new.requests, 0, _CLEAN, allowed.max_errors):
        return f"{new.errors / new.requests:.0%} errors ({new.errors} of {new.requests} answers)"
    return None


def in_doubt(new: Numbers, old: Numbers, allowed: Thresholds, *, forced: bool = False) -> bool:
    """Whether the new version looks slow by too few requests to say so; arguments as for `compare`."""
    if forced:
        return False
    few = allowed.min_samples <= sum(new.costs) < _MORE_FOR_NO * allowed.min_samples
    return few and _slower(new, old, allowed) is not None


def compare_silence(new: Numbers, old: Numbers, allowed: Thresholds) -> str | None:
    """What is wrong if the new version has taken requests and answered none while the old one answered.

    Args:
        new: of the new version, when the time that it was given is over.
        old: what the old one has answered since the new one has had requests in hand.
        allowed: see `Thresholds`.
    """
    if new.in_hand and not new.requests and old.requests >= allowed.min_samples:
        return f"it took {new.in_hand} requests and answered none, the old version answered {old.requests}"
    return None


def _too_many(bad: int, answers: int, known_bad: int, known_answers: int, limit: float) -> bool:
    """Whether a share is above the old one by more than the limit, and not by chance.

    Two versions that fail as often as each other, however often that is, show shares so far apart with a
    probability of exp(-answers · KL(share ‖ both) - known_answers · KL(known ‖ both)) at most, where both is
    the share among all answers (Chernoff's bound for each; Hoeffding 1963, theorem 1).
    """
    share, known = bad / answers, known_bad / known_answers
    if share <= known + limit:
        return False
    both = (bad + known_bad) / (answers + known_answers)
    return answers * _divergence(share, both) + known_answers * _divergence(known, both) > _SURE


def _divergence(share: float, other: float) -> float:
    """Kullback and Leibler's, of two coins."""
    return sum(one * math.log(one / two) for one, two in ((share, other), (1 - share, 1 - other)) if one > 0)


def _slower(new: Numbers, old: Numbers, allowed: Thresholds) -> str | None:
    """What is wrong with the speed: the new version's cheap requests against the old one's usual ones.

    So what made some requests dear, or the first ones of a new worker, does not count; where each request
    takes ten times as long, the cheap ones do too.
    """
    if sum(old.costs) < allowed.min_samples:
        return None
    cost, known = quantile(new.costs, _BEST), quantile(old.costs, _USUAL)
    if not slow(cost, known, allowed.max_slowdown):
        return None
    return (
        f"{cost / known:.1f} times the engine's CPU time of the old version: for a second of sound,"
        f" {1 - _BEST:.0%} of its {sum(new.costs)} requests took {milliseconds(cost)} or more, half of the"
        f" old version's {sum(old.costs)} took {milliseconds(known)} or less;"
        f" {allowed.max_slowdown:g} times is the limit"
    )
