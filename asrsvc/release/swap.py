"""From a source to a version that serves, and back: pull → try → activate → watch → roll back.

Each function is done by the holder of the store's lock, from its first look to its last, so that two
operators take turns. The master, which never takes the lock, is wished things: `next` and SIGHUP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from asrsvc.errors import (
    AsrError,
    NothingToRollBack,
    NotTried,
    RollAborted,
    StoreError,
    TrialFailed,
    WatchFailed,
)
from asrsvc.release.numbers import NOTHING, Numbers, Thresholds, compare
from asrsvc.release.records import Record
from asrsvc.release.store import Store, Version
from asrsvc.release.versions import check_digests

_LOOK_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Serving:
    """What the service says of itself, as far as a change of its version needs it."""

    version: str | None
    """id of what last served well"""
    rolling_to: str | None
    """id of what a roll under way leads to"""
    numbers: Mapping[str, Numbers]
    """what each version's workers have answered since the master started"""
    deaths: Mapping[str, int]
    """of workers of each version that were to serve"""


class Service(Protocol):
    """The running service."""

    def serving(self) -> Serving | None:
        """What it says now; None while none runs."""

    def roll(self, version: Version) -> None:
        """Have the master take its wish, and wait until the roll to this version has succeeded.

        Raises:
            AsrError: it has not; the class says how it ended.
        """

    def thresholds(self) -> Thresholds:
        """How far a new version may fall behind."""


class Verdict(Protocol):
    """What a trial found."""

    @property
    def passed(self) -> bool:
        """Whether the version may serve."""

    @property
    def reason(self) -> str:
        """Why, in one sentence."""

    def to_record(self) -> dict[str, Any]:
        """All that it found, as JSON can say it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a version is switched to."""

    watch_seconds: float
    """for which the numbers are watched afterwards"""
    forced: bool = False
    """leaves out the demand for a trial, and the comparison of text and speed in the worker too"""
    say: Callable[[str], None] = lambda _text: None
    """hears of each step"""


@dataclass(frozen=True, slots=True)
class Swapped:
    """What has been done."""

    version: Version
    former: str | None
    """id of what served before"""
    serves: bool
    """whether it serves now; if not, no service runs, and it is the wish that the next start takes"""


def deploy(
    store: Store,
    service: Service,
    terms: Terms,
    *,
    pull: Callable[[], Version],
    try_out: Callable[[Version, Version | None], Verdict],
    bake: Callable[[Version], None] | None = None,
) -> Swapped:
    """From a source to a version that serves; one that its trial refuses stays in the store.

    Args:
        store: whose lock is held.
        service: that is to serve it.
        terms: see `Terms`.
        pull: brings the version into the store, verified.
        try_out: tries it, against what serves, and notes the trial in its record.
        bake: makes its faster twin for this host before it is tried; None: it is served as it came.

    Raises:
        TrialFailed: the trial says no; the message has its reason.
        AsrError: a step failed; what served serves on.
    """
    version = pull()
    if bake is not None:
        bake(version)
    now = service.serving()
    trial = try_out(version, baseline_of(store, now.version if now is not None else None))
    if not trial.passed:
        raise TrialFailed(
            f"{version.id} is in the store, and its trial refuses it: {trial.reason}",
            report={"version": version.id, **trial.to_record()},
        )
    return activate(store, service, version, terms)


def activate(store: Store, service: Service, version: Version, terms: Terms) -> Swapped:
    """Switch to a version of the store, watch it, and go back if anything is off.

    Raises:
        NotTried: its files, as they are now, have passed no trial.
        WatchFailed: it served, fell behind, and was taken back.
        AsrError: the roll failed or was called off; what served serves on.
    """
    if not terms.forced:
        require_trial(store, version)
    before = service.serving()
    store.records.note_forced(version.id, forced=terms.forced)
    store.records.note_returning(version.id, returning=False)
    store.set_next(version)
    if before is None:
        return Swapped(version, None, serves=False)
    service.roll(version)
    wrong = _watch(service, version, before, terms)
    if wrong is not None:
        raise _taken_back(store, service, version, before.version, wrong)
    store.records.note_withdrawn(version.id, None)
    return Swapped(version, before.version, serves=True)


def rollback(store: Store, service: Service, wanted: str | None, terms: Terms) -> Swapped:
    """Go back to the version before, or to a named one; it has served, so it needs no trial.

    Args:
        store: whose lock is held.
        service: that is to serve it.
        wanted: id of the version; None: the one before.
        terms: see `Terms`; nothing is watched, since what is left is what was wrong.

    Raises:
        NothingToRollBack: none has served well before, or a roll is under way.
        NotTried: the named one has never served, or was taken back.
        AsrError: the roll failed or was called off; what served serves on.
    """
    before = service.serving()
    version = _to_go_back_to(store, before, wanted)
    store.records.note_returning(version.id, returning=True)
    store.set_next(version)
    if before is None:
        return Swapped(version, None, serves=False)
    terms.say(f"back from {before.version or 'nothing'} to {version.id}")
    service.roll(version)
    store.records.note_returning(version.id, returning=False)
    return Swapped(version, before.version, serves=True)


def require_trial(store: Store, version: Version) -> None:
    """Whether a version may be activated.

    Raises:
        NotTried: no trial, a failed one, or one of other files.
        StoreError: a file is not the one that was stored, or cannot be read.
    """
    trial = store.record(version.id).trial
    if trial is None:
        raise NotTried(f"{version.id} has not been tried")
    if trial.get("passed") is not True:
        raise NotTried(f"{version.id} has failed its trial: {trial.get('reason') or 'no reason is known'}")
    tried, found = trial.get("files"), check_digests(version.path)
    for name, digest in found.items():
        if not isinstance(tried, Mapping) or tried.get(name) != digest:
            raise NotTried(
                f"{version.path / name} is not the file that was tried: its SHA-256 is another one"
            )


def baseline_of(store: Store, serving: str | None) -> Version | None:
    """What a new version is compared with: what serves, else what a start would serve.

    Args:
        store: that holds it.
        serving: id of the version that serves; None: none does.
    """
    if serving is not None:
        with suppress(StoreError):  # it has been removed, or damaged
            return store.version(serving)
    return next(iter(store.candidates().versions), None)


def _to_go_back_to(store: Store, now: Serving | None, wanted: str | None) -> Version:
    if wanted is not None:
        version = store.version(wanted)
        _check_served(store.record(version.id))
        return version
    if now is not None and now.rolling_to not in {None, now.version}:
        raise NothingToRollBack(
            f"a roll to {now.rolling_to} is under way and {now.version} still serves: abort takes it back"
        )
    first = next(iter(store.candidates().versions), None)
    serving = now.version if now is not None else first.id if first is not None else None
    former = store.former(serving)
    if former is None:
        raise NothingToRollBack(
            f"no version but {serving or 'none'} has served well here: name one to activate"
        )
    return former


def _check_served(record: Record) -> None:
    if record.last_served is None:
        raise NotTried(f"{record.id} has never served here: activate it, which wants a passed trial")
    if record.withdrawn is not None:
        raise NotTried(
            f"{record.id} was taken back when it last served ({record.withdrawn.reason}): activate it if you"
            " want it all the same"
        )


def _watch(service: Service, version: Version, before: Serving, terms: Terms) -> str | None:
    """Look at the numbers for a while; what is wrong, or None.

    Raises:
        RollAborted: somebody has changed the version meanwhile.
        AsrError: the service has ended, or cannot be asked.
    """
    if terms.watch_seconds > 0:
        terms.say(f"{version.id} serves; watching it for {terms.watch_seconds:g} s")
    allowed = service.thresholds()
    old = before.numbers.get(before.version or "", NOTHING)
    end = time.monotonic() + terms.watch_seconds
    while time.monotonic() < end:
        now = service.serving()
        if now is None:
            raise RollAborted(
                f"the service has ended while {version.id} was watched; the next start serves it"
            )
        if now.version != version.id:
            raise RollAborted(f"{now.version} serves: somebody has taken {version.id} back meanwhile")
        wrong = _judge(version, before, now, allowed, old, forced=terms.forced)
        if wrong is not None:
            return wrong
        time.sleep(_LOOK_SECONDS)
    return None


def _judge(
    version: Version, before: Serving, now: Serving, allowed: Thresholds, old: Numbers, *, forced: bool
) -> str | None:
    dead = now.deaths.get(version.id, 0) - before.deaths.get(version.id, 0)
    if dead > 0:
        return f"{dead} of its workers died"
    new = now.numbers.get(version.id, NOTHING).since(before.numbers.get(version.id, NOTHING))
    wrong = compare(new, old, allowed, forced=forced)
    if wrong is None and old.requests < allowed.min_samples:
        # Too little is known of the old version's text and speed; errors are to be none.
        clean = replace(NOTHING, requests=allowed.min_samples)
        wrong = compare(new, clean, allowed, forced=True)
    return wrong


def _taken_back(
    store: Store, service: Service, version: Version, former: str | None, wrong: str
) -> WatchFailed:
    """Wish for the former version again and wait for it; the error that says how it went."""
    store.records.note_withdrawn(version.id, wrong)
    text = f"{version.id} served and did badly: {wrong}"
    if former is None or former == version.id:
        return WatchFailed(f"{text}; no other version served before, so it serves on")
    try:
        back = store.version(former)
        store.records.note_returning(back.id, returning=True)
        store.set_next(back)
        service.roll(back)
        store.records.note_returning(back.id, returning=False)
    except AsrError as error:
        return WatchFailed(f"{text}; going back to {former} failed: {error.message}")
    return WatchFailed(f"{text}; {former} serves again")
