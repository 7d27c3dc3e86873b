"""The soak: the first worker of a new version beside the old ones, compared by what they answer."""

from __future__ import annotations

from typing import Final

from asrsvc.serving.roll import Machine, Step, WorkerState
from asrsvc.serving.scoreboard import NOTHING, Numbers, Scoreboard
from asrsvc.settings import Settings

SILENCE_SECONDS: Final = 5.0
"""with requests in hand and none answered, until a new worker counts as one that never answers"""


class Soak:
    """Watches the workers' numbers while a roll soaks."""

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard
        self._roll = 0
        self._before: dict[int, Numbers] = {}
        self._silent_since = 0.0

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
            self._roll, self._before, self._silent_since = roll.id, rows, now
            return False, None
        new = old = NOTHING
        for number, numbers in rows.items():
            added = numbers.since(self._before.get(number, NOTHING))
            if machine.workers[number].roll == roll.id:
                new = new.plus(added)
            else:
                old = old.plus(added)
        error = compare(new, old, loaded)
        if not new.in_hand or new.requests:
            self._silent_since = now
        over = now >= roll.step_since + machine.limits.soak_seconds
        if error is None and over and now >= self._silent_since + SILENCE_SECONDS:
            error = compare_silence(new, old, loaded)
        return error is not None or new.requests >= loaded.soak_requests, error


def compare_silence(new: Numbers, old: Numbers, loaded: Settings) -> str | None:
    """What is wrong if the new version has taken requests and answered none while the old one answers."""
    if new.in_hand and not new.requests and old.requests >= loaded.soak_min_samples:
        return (
            f"it falls behind in the soak: it took {new.in_hand} requests and answered none, "
            f"the old version answered {old.requests}"
        )
    return None


def compare(new: Numbers, old: Numbers, loaded: Settings) -> str | None:
    """What is wrong with the new version by its first requests; None if nothing is, or too few are known."""
    if min(new.requests, old.requests) < loaded.soak_min_samples:
        return None
    for name, one, other, allowed in (
        ("errors", new.errors, old.errors, loaded.soak_max_errors),
        ("empty texts", new.empty, old.empty, loaded.soak_max_empty),
    ):
        share, before = one / new.requests, other / old.requests
        if share > before + allowed:
            return f"it falls behind in the soak: {share:.0%} {name} against {before:.0%} of the old version"
    if new.audio_ms and old.audio_ms and old.busy_ms:
        slowdown = (new.busy_ms / new.audio_ms) / (old.busy_ms / old.audio_ms)
        if slowdown > loaded.soak_max_slowdown:
            return f"it falls behind in the soak: {slowdown:.1f} times the engine's time of the old version"
    return None
