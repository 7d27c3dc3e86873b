"""Having the running service roll, and waiting for it: what reload, activate, rollback and abort share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from asrsvc import settings
from asrsvc.errors import NotRunning, RollAborted, RollFailed, StoreError, WaitTimeout
from asrsvc.release.cli.command import Context
from asrsvc.release.cli.service import describe
from asrsvc.release.journal import Change, Journal
from asrsvc.release.numbers import Numbers, Thresholds
from asrsvc.release.store import Store, Version
from asrsvc.release.swap_types import Serving
from asrsvc.serving.status import Roll, Status
from asrsvc.settings import SettingError

BEGIN_SECONDS: Final = 30.0
"""from the signal, or the end of the roll before, until a roll begins"""
STEPS: Final = {
    "first": "the first new worker loads",
    "soak": "it serves beside the old ones",
    "replace": "the other workers follow, one at a time",
    "undo": "back to what served before",
}


def roll_and_wait(context: Context, timeout: float, target: str | None = None) -> Roll:
    """Send SIGHUP and wait for the end of the roll that follows.

    Args:
        context: of the command.
        timeout: seconds.
        target: id of the version that it must be to; None: whatever is wished for.

    Raises:
        AsrError: no roll began, or it did not succeed; the class says which.
    """
    service = context.service
    before = service.status()
    last = before.roll.id if before.roll else 0
    show = Progress(context)
    if before.roll and before.rolling:
        context.progress(f"{describe(before.roll)} is under way and ends first")
    service.hang_up(before)
    context.progress(f"asked process {before.master.pid}")
    idle_since = context.seconds
    for found in service.watch(before, timeout):
        show(found)
        if found.rolling:
            idle_since = context.seconds
        elif context.seconds - idle_since > BEGIN_SECONDS:  # abort may have taken it back, unbegun
            raise WaitTimeout(f"process {before.master.pid} began no roll within {BEGIN_SECONDS:g} s")
        roll = found.roll
        if roll and roll.id > last and not found.rolling:
            check(roll)
            if target is not None and roll.target != target:
                raise RollAborted(
                    f"{describe(roll)} was done instead: somebody has changed the wish for {target}"
                )
            return roll
    raise AssertionError("the watch ends with an exception")


def check(roll: Roll) -> None:
    """Whether a roll that has ended has succeeded.

    Raises:
        RollAborted: it was called off.
        RollFailed: it failed; the message has the worker's own words.
    """
    if roll.result == "aborted":
        raise RollAborted(f"{describe(roll)} was called off: {roll.error or 'the wish has changed'}")
    if roll.result != "succeeded":
        raise RollFailed(f"{describe(roll)} failed: {roll.error or 'no reason is known'}")


@dataclass
class Progress:
    """Says each step of each roll once."""

    context: Context
    said: set[tuple[int, str]] = field(default_factory=set)

    def __call__(self, found: Status) -> None:
        """Look at the status."""
        roll = found.roll
        if roll is None or (roll.ended is not None and not self.said):
            return  # an earlier one
        step = roll.step if roll.result is None or roll.ended is None else roll.result
        if (roll.id, step) not in self.said:
            self.said.add((roll.id, step))
            self.context.progress(f"{describe(roll)}: {STEPS.get(step, step)}")


class RunningService:
    """The service as `asrsvc.release.swap` sees it."""

    def __init__(self, context: Context, timeout: float) -> None:
        """Prepare.

        Args:
            context: of the command.
            timeout: seconds that a roll may take.
        """
        self._context = context
        self._timeout = timeout

    def serving(self) -> Serving | None:
        """What it says now; None while none runs."""
        try:
            found = self._context.service.status()
        except NotRunning:
            return None
        return Serving(
            version=found.version,
            rolling_to=found.roll.target if found.roll is not None and found.rolling else None,
            numbers={
                n.version: Numbers(0, n.requests, n.errors, n.empty, n.audio_ms, n.busy_ms, n.costs)
                for n in found.numbers
            },
            deaths={n.version: n.deaths for n in found.numbers},
        )

    def roll(self, version: Version) -> None:
        """Have the master take its wish, and wait until the roll to this version has succeeded."""
        roll_and_wait(self._context, self._timeout, version.id)

    def thresholds(self) -> Thresholds:
        """Those of the soak: what is too bad there is too bad here."""
        return Thresholds(
            min_samples=settings.value("ASR_SOAK_MIN_SAMPLES"),
            max_errors=settings.value("ASR_SOAK_MAX_ERRORS"),
            max_empty=settings.value("ASR_SOAK_MAX_EMPTY"),
            max_slowdown=settings.value("ASR_SOAK_MAX_SLOWDOWN"),
        )


@contextmanager
def noted(context: Context, command: str) -> Iterator[Change]:
    """Note a command that holds no lock in the history, if the store is known and can be written."""
    try:
        store = context.store(lock_timeout=0, command=command)
    except SettingError:
        store = None  # the master reads the settings, and says what is wrong
    if store is None or not os.access(store.root, os.W_OK):
        yield Change()
        return
    with Journal(store.root).change(command, store.actor, must=False) as change:
        yield change
    if change.unwritten:
        context.progress(f"done, and not in the history: {change.unwritten}")


def next_start(store: Store) -> str:
    """What a start would serve."""
    found = store.candidates()
    if not os.path.lexists(store.pointers / "current") and not found.versions:
        return "the next start serves the embedded model"
    try:
        wish = store.wish(found.versions[0].id if found.versions else None)
    except StoreError as error:
        return f"the next start finds that {error.message}"
    if not found.versions:
        return f"the next start tries {wish.id if wish else 'nothing'}"
    first = found.versions[0].id
    then = f", then rolls to {wish.id}" if wish and wish.id != first else ""
    return f"the next start serves {first}{then}"
