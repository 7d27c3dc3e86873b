"""A trial, on one screen: listen → check → bake → load → hear → requests → reference → verdict → record.

The version and the one that serves are each in a process of their own, asked in turn, so that the
machine is the same for both; what one of them does to its process does nothing to the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from asrsvc.errors import BakeFailed, TrialImpossible
from asrsvc.release.bake import MakeLimits, find, make_if_missing
from asrsvc.release.golden import (
    MOST_CLIP_SECONDS,
    MOST_SECONDS,
    Clip,
    ClipSet,
    acceptance_set,
    clips_error,
    embedded,
)
from asrsvc.release.process import ChildBroke, ChildRefused, Limits
from asrsvc.release.store import Store
from asrsvc.release.trial.compare import compare_with_reference
from asrsvc.release.trial.record import make_record
from asrsvc.release.trial.subject import Subject
from asrsvc.release.trial.types import Reference, Trial, TrialOptions
from asrsvc.release.trial.verdict import judge, looks_slow
from asrsvc.release.versions import Version

REQUESTS: Final = 60
"""at least: some faults show only after a while"""
MORE_ROUNDS: Final = 3
"""of the embedded clips, at most, before a version is called slow"""
_SAY_SECONDS: Final = 10.0
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be heard."""

    clips: ClipSet
    """the acceptance set"""
    embedded: ClipSet
    seconds: Mapping[str, float]
    """name of a clip of the acceptance set → its length"""
    embedded_seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Turn:
    """One request to each model."""

    clip: Clip
    seconds: float
    """length of the recording"""
    counts: bool
    """whether its text counts for the error rate"""
    timed: bool
    """whether its CPU time counts"""


def run_trial(
    store: Store,
    version: Version,
    *,
    baseline: Version | None,
    options: TrialOptions,
    progress: Progress,
) -> Trial:
    """Try a version, and write into its record what was found.

    Args:
        store: that holds it.
        version: to be tried.
        baseline: the version that serves, which it is compared with; None: it is judged by itself.
        options: limits and demands.
        progress: is told each step.

    Returns:
        how it went; a model that does whatever it likes fails its trial, and nothing else.

    Raises:
        ClipsError: the acceptance set is not as it must be.
        TrialImpossible: nothing can be tried here.
        StoreError: the record cannot be written, or somebody else holds the lock.
    """
    started = time.monotonic()
    limits = Limits(options.memory_bytes, started + options.timeout)
    serving: Subject | None = None
    reference = Reference(skipped="the trial did not come so far")
    with ExitStack() as stack:
        progress("listens to the recordings")
        tried = stack.enter_context(_begun(version, options, limits))
        plan = _plan(tried, acceptance_set(store.root, options.clips), embedded(), options)
        try:
            tried.check()  # what no worker could read is told before a twin is made for minutes
            _bake(store, tried, options, limits, progress)
            _load(tried, progress)
            if baseline is not None:
                serving = stack.enter_context(_begun(baseline, options, limits))
                if options.bake != "off":
                    serving.baked = find(store.root, baseline.id, options.bake).usable
                _load_serving(serving, progress)
            _hear_all(tried, serving, plan, progress)
            _hear_again(tried, serving, plan, options, progress)
            reference = _reference(tried, plan, options, limits, progress)
        except ChildBroke as error:
            tried.found.problem = str(error)
        except ChildRefused as error:
            tried.found.problem = error.message
    other = serving.found if serving is not None else None
    own = plan.clips.digest != plan.embedded.digest
    verdict = judge(tried.found, other, options, plan.embedded_seconds, reference, own_recordings=own)
    record = make_record(
        tried.found,
        other,
        verdict,
        reference,
        clips=plan.clips,
        embedded_seconds=plan.embedded_seconds,
        seconds=time.monotonic() - started,
    )
    with store.lock():
        store.records.note_trial(version.id, record)
    return Trial(version.id, verdict.passed, verdict.reason, record)


def _begun(version: Version, options: TrialOptions, limits: Limits) -> Subject:
    """Its process, ready to be asked.

    Raises:
        TrialImpossible: it does not come so far, without any model.
    """
    subject = Subject(version, options, limits)
    try:
        subject.hello()
    except (ChildBroke, ChildRefused) as error:
        subject.end()
        raise TrialImpossible(f"no version can be tried here: {error}") from None
    except BaseException:
        subject.end()
        raise
    return subject


def _plan(subject: Subject, clips: ClipSet, known: ClipSet, options: TrialOptions) -> _Plan:
    """Listen to every recording before any model can have a hand in it.

    Raises:
        ClipsError: one cannot be decoded, or they are too long; names each.
    """
    embedded_seconds = _lengths(subject, known, options)
    seconds = _lengths(subject, clips, options) if clips.digest != known.digest else embedded_seconds
    if (total := sum(seconds.values())) > MOST_SECONDS:
        raise clips_error([f"{clips.name} holds {total:.0f} s of sound; {MOST_SECONDS:.0f} s is the limit"])
    return _Plan(clips, known, seconds, embedded_seconds)


def _lengths(subject: Subject, clips: ClipSet, options: TrialOptions) -> dict[str, float]:
    seconds: dict[str, float] = {}
    faults: list[str] = []
    for clip in clips.clips:
        question = {"do": "listen", "path": str(clip.path), "max_seconds": MOST_CLIP_SECONDS}
        try:
            answer = subject.ask(question, doing="while it was decoded", seconds=options.clip_timeout)
            seconds[clip.name] = float(answer["seconds"])
        except ChildRefused as error:
            faults.append(f"{clip.path}: {error.message}")
        except ChildBroke as error:
            faults.append(f"{clip.path}: {error}")
            break
    if faults:
        raise clips_error(faults)
    return seconds


def _bake(store: Store, tried: Subject, options: TrialOptions, limits: Limits, progress: Progress) -> None:
    """Let the twin be what is tried: it is what workers will serve. Without one, they serve the file."""
    if options.bake == "off":
        return
    # A model that breaks what makes its twin breaks what loads it too: that is what its trial says.
    seconds = min(options.load_timeout, limits.seconds_left)
    allowed = MakeLimits(seconds, options.memory_bytes, wait_seconds=seconds)
    try:
        made = make_if_missing(store.root, tried.version, options.bake, limits=allowed, progress=progress)
    except BakeFailed as error:
        progress(error.message)
        tried.found.baked = {"problem": error.message}
        return
    tried.baked = made.usable
    if made.usable is None or made.twin is None:
        tried.found.baked = {"problem": made.problem}
    else:
        tried.found.baked = {"key": made.twin.key, "matrices": made.twin.matrices, "int8": made.twin.int8}


def _load(subject: Subject, progress: Progress) -> None:
    progress(f"loads {subject.version.id}")
    subject.load()
    subject.hear()


def _load_serving(serving: Subject, progress: Progress) -> None:
    """A version that serves and cannot be loaded is no fault of the one that is tried."""
    try:
        serving.check()
        _load(serving, progress)
    except (ChildBroke, ChildRefused) as error:
        serving.found.problem = str(error)


def _hear_all(tried: Subject, serving: Subject | None, plan: _Plan, progress: Progress) -> None:
    """The acceptance set once; then the embedded clips again and again, for speed and endurance."""
    same = plan.clips.digest == plan.embedded.digest
    rounds = -(-REQUESTS // len(plan.embedded.clips))
    once = () if same else plan.clips.clips
    turns = [_Turn(clip, plan.seconds[clip.name], counts=True, timed=False) for clip in once]
    turns += [
        _Turn(clip, plan.embedded_seconds[clip.name], counts=same and n == 0, timed=True)
        for n in range(rounds)
        for clip in plan.embedded.clips
    ]
    progress(f"hears {plan.clips.name} ({len(plan.clips.clips)}, {sum(plan.seconds.values()):.0f} s)")
    _take_turns(tried, serving, turns, progress)
    for subject in (tried, serving):
        if subject is not None:
            subject.found.rounds = rounds


def _hear_again(
    tried: Subject, serving: Subject | None, plan: _Plan, options: TrialOptions, progress: Progress
) -> None:
    """The embedded clips some more times, if the version looks slow: its best runs count."""
    turns = [
        _Turn(clip, plan.embedded_seconds[clip.name], counts=False, timed=True)
        for clip in plan.embedded.clips
    ]
    for _ in range(MORE_ROUNDS):
        if serving is None or not looks_slow(tried.found, serving.found, options, plan.embedded_seconds):
            return
        _take_turns(tried, serving, turns, progress)
        for subject in (tried, serving):
            subject.found.rounds += 1


def _take_turns(tried: Subject, serving: Subject | None, turns: Sequence[_Turn], progress: Progress) -> None:
    said = time.monotonic()
    for number, turn in enumerate(turns, start=1):
        # Neither is always the one that finds the machine as the other has left it.
        for subject in (tried, serving) if number % 2 else (serving, tried):
            if subject is None or subject.found.problem is not None:
                continue
            try:
                subject.transcribe(turn.clip, turn.seconds, counts=turn.counts, timed=turn.timed)
            except (ChildBroke, ChildRefused) as error:
                if subject is tried:
                    raise
                subject.found.problem = str(error)
        if time.monotonic() - said > _SAY_SECONDS:
            said = time.monotonic()
            progress(f"has made {number} of {len(turns)} requests")


def _reference(
    tried: Subject, plan: _Plan, options: TrialOptions, limits: Limits, progress: Progress
) -> Reference:
    if not options.reference:
        return Reference(skipped="it was not asked for")
    progress("compares with funasr-onnx")
    return compare_with_reference(tried, [clip.name for clip in plan.embedded.clips], options, limits)
