"""What happens to workers and in rolls, counted by the master; a master that takes over counts on."""

from __future__ import annotations

from collections import Counter
from typing import Final

from asrsvc.serving.status import Count, Counters

# Why a worker was started in the place of another.
KILLED: Final = "killed"  # by a signal: a crash, the kernel for want of memory, or somebody's hand
EXITED: Final = "exited"
HUNG: Final = "hung"  # without a heartbeat for ASR_HEARTBEAT_TIMEOUT
NOT_LOADED: Final = "not_loaded"  # it never came to serve
WORN_REQUESTS: Final = "requests"  # ASR_WORKER_MAX_REQUESTS
WORN_MEMORY: Final = "memory"  # ASR_WORKER_MAX_MEMORY
WORN_TWIN: Final = "twin"  # the faster twin of its version is there now
REASONS: Final = (KILLED, EXITED, HUNG, NOT_LOADED, WORN_REQUESTS, WORN_MEMORY, WORN_TWIN)


class Happenings:
    """The counts."""

    def __init__(self) -> None:
        self.restarts = 0
        self.killed_draining = 0
        self.lost_requests = 0
        self._reasons: Counter[str] = Counter()
        self._rolls: Counter[str] = Counter()

    def replaced(self, reason: str) -> None:
        """A worker is replaced, or could not be started."""
        self._reasons[reason if reason in REASONS else EXITED] += 1

    def rolled(self, result: str) -> None:
        """A roll has ended."""
        self._rolls[result] += 1

    def go_on_from(self, before: Counters) -> None:
        """Add what the master before this one has counted."""
        self.restarts += before.restarts
        self.killed_draining += before.killed_draining
        self.lost_requests += before.lost_requests
        self._reasons.update({count.name: count.number for count in before.reasons})
        self._rolls.update({count.name: count.number for count in before.rolls})

    def counters(self) -> Counters:
        """As the status file says them."""
        return Counters(
            restarts=self.restarts,
            killed_draining=self.killed_draining,
            lost_requests=self.lost_requests,
            reasons=tuple(Count(*item) for item in sorted(self._reasons.items())),
            rolls=tuple(Count(*item) for item in sorted(self._rolls.items())),
        )


def reason_of_end(code: int, *, hung: bool, loading: bool) -> str:
    """Why a worker has ended.

    Args:
        code: as os.waitpid gives it.
        hung: whether the master ended it for want of a heartbeat.
        loading: whether it had not come to serve.
    """
    if hung:
        return HUNG
    if loading:
        return NOT_LOADED
    return KILLED if code & 0x7F else EXITED
