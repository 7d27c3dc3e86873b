"""From a source to a version that serves, and back: pull → try → activate → watch → roll back.

Each function is done by the holder of the store's lock, from its first look to its last, so that two
operators take turns. The master, which never takes the lock, is wished things: `next` and SIGHUP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from asrsvc.errors import (
    AsrError,
    NothingToRollBack,
    NotTried,
    StoreError,
    TrialFailed,
    WatchFailed,
)
from asrsvc.release.embedded import is_demonstration
from asrsvc.release.records import Record
from asrsvc.release.store import Store, Version
from asrsvc.release.swap_types import Service, Serving, Terms, Verdict
from asrsvc.release.versions import check_digests
from asrsvc.release.watch import CALLED_OFF, watch
from asrsvc.release.watched import Watched


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


def activate(
    store: Store,
    service: Service,
    version: Version,
    terms: Terms,
    *,
    bake: Callable[[Version], None] | None = None,
) -> Swapped:
    """Switch to a version of the store, watch it, and go back if anything is off.

    Args:
        store: whose lock is held.
        service: that is to serve it.
        version: to switch to.
        terms: see `Terms`.
        bake: makes its faster twin for this host if that is missing; None: it is served as it came.

    Raises:
        NotTried: its files, as they are now, have passed no trial.
        WatchFailed: it served, fell behind or was called off, and was taken back.
        AsrError: the roll failed or was called off; what served serves on.
    """
    if not terms.forced:
        require_trial(store, version)
    if bake is not None:
        bake(version)
    before = service.serving()
    store.records.note_forced(version.id, forced=terms.forced)
    store.records.note_returning(version.id, returning=False)
    store.set_next(version)
    if before is None:
        return Swapped(version, None, serves=False)
    service.roll(version)
    wrong = _watch(store, service, version, before, terms)
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

    None: nothing does, or the embedded model, which no version is measured against.

    Args:
        store: that holds it.
        serving: id of the version that serves; None: none does.
    """
    found: Version | None = None
    if serving is not None:
        with suppress(StoreError):  # it has been removed, or damaged
            found = store.version(serving)
    if found is None:
        found = next(iter(store.candidates().versions), None)
    return None if found is None or is_demonstration(store, found.id) else found


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


def _watch(store: Store, service: Service, version: Version, before: Serving, terms: Terms) -> str | None:
    """Watch it, and let others call it off where there is a version to go back to; what is wrong."""
    comparable = not is_demonstration(store, before.version)
    if before.version in {None, version.id}:
        return watch(service, version, before, terms, called_off=lambda: False, comparable=comparable)
    shown = Watched(store.pointers, version)
    try:
        wrong = watch(
            service, version, before, terms, called_off=lambda: shown.called_off, comparable=comparable
        )
    finally:
        called_off = shown.end()
    return wrong or (CALLED_OFF if called_off else None)


def _taken_back(
    store: Store, service: Service, version: Version, former: str | None, wrong: str
) -> WatchFailed:
    """Wish for the former version again and wait for it; the error that says how it went."""
    store.records.note_withdrawn(version.id, wrong)
    text = f"{version.id} served and {'was called off' if wrong == CALLED_OFF else f'did badly: {wrong}'}"
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
