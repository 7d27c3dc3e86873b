"""What is said to and by the machine in roll.py: events in, actions out, and what it knows meanwhile.

Times are seconds on a clock that never goes back (`time.monotonic`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class WorkerState(StrEnum):
    """Where a worker stands."""

    LOADING = "loading"
    READY = "ready"
    LEAVING = "leaving"  # told to leave; it may still take requests until it says that it drains
    DRAINING = "draining"


class Step(StrEnum):
    """Where a roll stands."""

    FIRST = "first"  # the first new worker loads
    SOAK = "soak"  # it serves beside the old ones
    REPLACE = "replace"  # the others follow, one at a time
    UNDO = "undo"  # its workers are replaced by the old version


class Result(StrEnum):
    """How a roll ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers of workers and seconds."""

    ready_seconds: float
    """from the start of a worker until it is ready"""
    leave_seconds: float
    """from the word to leave until it takes no more requests"""
    drain_seconds: float
    """from then until it has ended"""
    soak_seconds: float
    """that the first new worker serves beside the old ones, at most"""
    max_draining: int
    """workers that may leave or drain at the same time, at least 1"""


# Events.


@dataclass(frozen=True, slots=True)
class Wish:
    """Somebody asks for a roll to this version; None calls a running roll off."""

    at: float
    version: str | None
    tried: bool = True
    """False skips what compares the new version with what it should say"""
    soaks: bool = True
    """False skips the soak: it has served well before, and what serves now may be what is wrong"""


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has loaded and serves."""

    at: float
    worker: int


@dataclass(frozen=True, slots=True)
class Worn:
    """A worker has served enough, or grown too large: another is to take its place."""

    at: float
    worker: int


@dataclass(frozen=True, slots=True)
class Drains:
    """A worker takes no more requests and finishes what it began."""

    at: float
    worker: int


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker's process has ended; `error` says how, or what the worker said before."""

    at: float
    worker: int
    error: str


@dataclass(frozen=True, slots=True)
class Soaked:
    """The comparison during the soak is decided: an error, or None if all is well."""

    at: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Scale:
    """Another number of workers is wanted."""

    at: float
    workers: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""

    at: float


Event: TypeAlias = Wish | Ready | Worn | Drains | Gone | Soaked | Scale | Tick


# Actions.


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a worker under this number; without a version it answers 503 with the reason."""

    worker: int
    version: str | None
    tried: bool = True


@dataclass(frozen=True, slots=True)
class Leave:
    """Tell a worker to finish and leave (SIGTERM)."""

    worker: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End a worker at once (SIGKILL)."""

    worker: int
    reason: str


@dataclass(frozen=True, slots=True)
class Settle:
    """A roll has ended: move the pointers, or record why not."""

    roll: int
    version: str
    result: Result
    error: str | None


Action: TypeAlias = Spawn | Leave | Kill | Settle


@dataclass(slots=True)
class Worker:
    """What the machine knows of one worker."""

    number: int
    version: str | None
    roll: int
    """the roll that it was started for; 0 for none"""
    started: float
    state: WorkerState
    since: float
    """when it came to this state"""
    worn: bool = False


@dataclass(slots=True)
class Roll:
    """One replacement of all workers."""

    id: int
    source: str | None
    target: str
    tried: bool
    started: float
    step: Step
    step_since: float
    result: Result | None = None
    error: str | None = None
    ended: float | None = None
    soaks: bool = True
