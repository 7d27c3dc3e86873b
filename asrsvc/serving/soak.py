"""The soak: the first worker of a new version beside the old ones, compared by what they answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from asrsvc.release.numbers import NOTHING, Numbers, Thresholds, compare, compare_silence, in_doubt
from asrsvc.serving.roll import Machine, Step, WorkerState
from asrsvc.serving.scoreboard import Scoreboard
from asrsvc.settings import Settings

SILENCE_SECONDS: Final = 5.0
"""with requests in hand and none answered, until a new worker counts as one that never answers"""


class Soak:
    """Watches the workers' numbers while a roll soaks."""

    def __init__(
        self, scoreboard: Scoreboard, comparable: Callable[[str | None], bool] = lambda _version: True
    ) -> None:
        """Prepare.

        Args:
            scoreboard: with the workers' numbers.
            comparable: whether text and speed may be compared with those of a version, by its id.
        """
        self._scoreboard = scoreboard
        self._may_compare = comparable
        self._comparable = True
        self._roll = 0
        self._before: dict[int, Numbers] = {}
        self._silent_since = 0.0
        self._old_then = NOTHING

    def look(self, machine: Machine, loaded: Settings, now: float) -> tuple[bool, str | None]:
        """Look at the numbers.

        Args:
            machine: with its roll.
            loaded: the thresholds.
            now: time.monotonic(); when the time of the soak is over, long silence counts too.

        Returns:
            whether the soak is decided before its time is over, and what is wrong if anything is.
        """
        roll = machine.roll
        if roll is None or not machine.rolling or roll.step is not Step.SOAK:
            return False, None
        rows = {
            worker.number: self._scoreboard.row(worker.number).numbers()
            for worker in machine.workers.values()
            if worker.state is WorkerState.READY and worker.version is not None
        }
        if roll.id != self._roll:
            self._roll, self._before = roll.id, rows
            self._silent_since, self._old_then = now, NOTHING
            self._comparable = self._may_compare(roll.source)
            return False, None
        new = old = NOTHING
        for number, numbers in rows.items():
            added = numbers.since(self._before.get(number, NOTHING))
            if machine.workers[number].roll == roll.id:
                new = new.plus(added)
            else:
                old = old.plus(added)
        allowed = thresholds(loaded)
        wrong = compare(new, old, allowed, forced=not self._comparable)
        if not new.in_hand or new.requests:
            self._silent_since, self._old_then = now, old
        over = now >= roll.step_since + machine.limits.soak_seconds
        if wrong is None and over and now >= self._silent_since + SILENCE_SECONDS:
            wrong = compare_silence(new, old.since(self._old_then), allowed)
        error = f"it falls behind in the soak: {wrong}" if wrong else None
        enough = new.requests >= loaded.soak_requests and not in_doubt(
            new, old, allowed, forced=not self._comparable
        )
        return error is not None or enough, error


def thresholds(loaded: Settings) -> Thresholds:
    """What the settings allow."""
    return Thresholds(
        min_samples=loaded.soak_min_samples,
        max_errors=loaded.soak_max_errors,
        max_empty=loaded.soak_max_empty,
        max_slowdown=loaded.soak_max_slowdown,
    )
