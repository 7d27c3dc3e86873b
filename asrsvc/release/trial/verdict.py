"""From what was measured to a verdict: plain numbers in, sentences with figures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from asrsvc.release.speed import slow
from asrsvc.release.trial.types import (
    MAX_CER_ALONE,
    MAX_COST_ALONE,
    MORE_ERRORS,
    Measured,
    Reference,
    TrialOptions,
)

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a version may serve."""

    reasons: tuple[str, ...]
    """sentences; none if it passed"""
    limit: float | None
    """character error rate that it was allowed; None: any"""
    limit_from: str
    """where that limit comes from"""
    slowdown: float | None
    """CPU time against that of the serving version; None: there is nothing to compare"""
    praise: str
    """what speaks for it"""

    @property
    def passed(self) -> bool:
        """Whether there is no reason against it."""
        return not self.reasons

    @property
    def reason(self) -> str:
        """All of it in one text."""
        return " ".join(self.reasons) or self.praise


def judge(
    tried: Measured,
    serving: Measured | None,
    options: TrialOptions,
    seconds: Mapping[str, float],
    reference: Reference,
    *,
    own_recordings: bool = True,
) -> Verdict:
    """Compare with what is demanded.

    Args:
        tried: the version.
        serving: the one that serves; None if none does, or the embedded model, which is for demonstration.
        options: the demands.
        seconds: name of an embedded clip → its length.
        reference: token ids.
        own_recordings: whether the acceptance set is the operator's, not the embedded clips: these suit the
            embedded model, so other models may write what is said in them in another way.
    """
    known = serving if serving is not None and serving.problem is None else None
    limit, limit_from = _limit(known, options, own_recordings=own_recordings)
    cost, known_cost = tried.cost(seconds), known.cost(seconds) if known else None
    slowdown = cost / known_cost if cost is not None and known_cost else None
    if tried.problem is not None:
        return Verdict((_sentence(tried.problem),), limit, limit_from, slowdown, "")
    reasons = []
    if tried.garbage is not None:
        reasons.append(_sentence(tried.garbage))
    errors = tried.errors
    if limit is not None and errors.rate > limit:
        reasons.append(
            f"Its character error rate is {errors.rate:.4f} ({errors.edits} edits for"
            f" {errors.characters} characters of {len(tried.clips)} clips); {limit:.4f} is the limit"
            f" ({limit_from})."
        )
    if known is not None and looks_slow(tried, known, options, seconds):
        reasons.append(
            f"It is slow: {cost:.4f} CPU seconds for a second of sound at best of {tried.rounds} runs of each"
            f" clip, {slowdown:.1f} times the {known_cost:.4f} of {known.version}, which serves;"
            f" {options.max_slowdown:g} times is the limit."
        )
    if known is None and cost is not None and cost > MAX_COST_ALONE * options.threads:
        reasons.append(
            f"It is slower than real time: {cost:.4f} CPU seconds for a second of sound;"
            f" {MAX_COST_ALONE * options.threads:g} is the limit with {options.threads} threads."
        )
    if reference.differ:
        reasons.append(
            f"{len(reference.differ)} of {reference.compared} answers have other token ids than those of"
            f" {reference.name}: {', '.join(reference.differ)}."
        )
    compared = f", {slowdown:.2f} times the CPU time of {known.version}" if known and slowdown else ""
    alone = "" if known is not None else f"{_alone(tried, cost)} "
    allowed = f"{limit:.4f} is the limit" if limit is not None else "there is no limit"
    praise = (
        f"{alone}Its character error rate is {errors.rate:.4f} over {len(tried.clips)} clips; {allowed}"
        f" ({limit_from}){compared}; it held {tried.memory_bytes // _MIB} MiB of memory."
    )
    return Verdict(tuple(reasons), limit, limit_from, slowdown, praise)


def looks_slow(
    tried: Measured, serving: Measured | None, options: TrialOptions, seconds: Mapping[str, float]
) -> bool:
    """Whether the version is too slow by what is known so far; arguments as for `judge`."""
    if serving is None or serving.problem is not None:
        return False
    cost, known = tried.cost(seconds), serving.cost(seconds)
    return cost is not None and known is not None and slow(cost, known, options.max_slowdown)


def _alone(tried: Measured, cost: float | None) -> str:
    """What a version has shown that was compared with no other: all that was demanded of it."""
    words = f" ({tried.embedded.likeness:.0%} like the known texts)" if tried.embedded is not None else ""
    speed = f" ({cost:.4f} CPU seconds for a second of sound)" if cost is not None else ""
    return (
        "It loads, its numbers are finite, it says words of the right languages for the clips that come with"
        f" asrsvc{words}, and it is faster than real time{speed}."
    )


def _limit(
    serving: Measured | None, options: TrialOptions, *, own_recordings: bool
) -> tuple[float | None, str]:
    if options.max_cer is not None:
        return options.max_cer, "as asked for"
    if serving is None and not own_recordings:
        return None, "no serving version to compare with, and no recordings of your own"
    if serving is None:
        return MAX_CER_ALONE, "no serving version to compare with"
    rate = serving.errors.rate
    return rate + MORE_ERRORS, f"{MORE_ERRORS:g} above the {rate:.4f} of {serving.version}, which serves"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
