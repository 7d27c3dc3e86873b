"""The soak: the first worker of a new version beside the old ones, compared by what they answer."""

from __future__ import annotations

from asrsvc.release.numbers import NOTHING, Numbers, Thresholds, compare, compare_silence
from asrsvc.serving.roll import Machine, Step, WorkerState
from asrsvc.serving.scoreboard import Scoreboard
from asrsvc.settings import Settings


class Soak:
    """Watches the workers' numbers while a roll soaks."""

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard
        self._roll = 0
        self._before: dict[int, Numbers] = {}

    def look(self, machine: Machine, loaded: Settings, now: float) -> tuple[bool, str | None]:
        """Look at the numbers.

        Args:
            machine: with its roll.
            loaded: the thresholds.
            now: time.monotonic(); when the time of the soak is over, silence counts too.

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
            return False, None
        new = old = NOTHING
        for number, numbers in rows.items():
            added = numbers.since(self._before.get(number, NOTHING))
            if machine.workers[number].roll == roll.id:
                new = new.plus(added)
            else:
                old = old.plus(added)
        allowed = thresholds(loaded)
        wrong = compare(new, old, allowed)
        if wrong is None and now >= roll.step_since + machine.limits.soak_seconds:
            wrong = compare_silence(new, old, allowed)
        error = f"it falls behind in the soak: {wrong}" if wrong else None
        return error is not None or new.requests >= loaded.soak_requests, error


def thresholds(loaded: Settings) -> Thresholds:
    """What the settings allow."""
    return Thresholds(
        min_samples=loaded.soak_min_samples,
        max_errors=loaded.soak_max_errors,
        max_empty=loaded.soak_max_empty,
        max_slowdown=loaded.soak_max_slowdown,
    )
