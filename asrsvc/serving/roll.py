"""The replacement of workers as a plain state machine: events in, actions out.

No processes, clocks or files: an event says what happened and when, the actions say what the master
is to do. What it keeps to:

- because of a roll never fewer than the wanted number of ready workers;
- never more than one above that loading or ready; those that drain are outside the count, and
  limited by themselves;
- a worker that dies is replaced with the version that last served well, never with an untried one;
- a roll that fails or is called off leaves no worker of its version;
- every state has a deadline, which `Machine.deadline` tells.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

# A worker that served for so many seconds before it died did not die of being started.
_PROVEN_SECONDS: Final = 60.0
_MAX_BACKOFF_SECONDS: Final = 60.0


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
    """workers that may drain at the same time"""


# Events.


@dataclass(frozen=True, slots=True)
class Wish:
    """Somebody asks for a roll to this version; None calls a running roll off."""

    at: float
    version: str | None
    tried: bool = True
    """False skips what compares the new version with what it should say"""


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has loaded and serves."""

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


Event: TypeAlias = Wish | Ready | Drains | Gone | Soaked | Scale | Tick


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
    state: WorkerState
    since: float
    """when it came to this state"""


@dataclass(slots=True)
class Roll:
    """One replacement of all workers."""

    id: int
    source: str | None
    target: str
    tried: bool
    started: float
    step: Step = Step.FIRST
    step_since: float = 0.0
    result: Result | None = None
    error: str | None = None
    ended: float | None = None


@dataclass(slots=True)
class Machine:
    """The workers, and the roll that is under way."""

    wanted: int
    """workers"""
    limits: Limits
    candidates: list[str]
    """versions to start with, the best first; the first that serves is taken"""
    base: str | None = None
    """the version that last served well"""
    workers: dict[int, Worker] = field(default_factory=dict)
    roll: Roll | None = None
    """the one under way, else the last one"""
    pending: Wish | None = None
    _numbers: int = 0
    _rolls: int = 0
    _failures: int = 0
    _not_before: float = 0.0
    _actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.base is None and self.candidates:
            self.base = self.candidates[0]

    # Questions.

    @property
    def rolling(self) -> bool:
        """Whether a roll is under way."""
        return self.roll is not None and self.roll.ended is None

    def count(self, *states: WorkerState) -> int:
        """Workers with a model in one of these states."""
        return sum(w.state in states for w in self.workers.values() if w.version is not None)

    @property
    def ready(self) -> int:
        """Workers that serve."""
        return self.count(WorkerState.READY)

    def deadline(self) -> float | None:
        """When the next state runs out; None where nothing can."""
        times = [w.since + self._seconds(w) for w in self.workers.values() if self._seconds(w) is not None]
        if self.rolling and self.roll is not None and self.roll.step is Step.SOAK:
            times.append(self.roll.step_since + self.limits.soak_seconds)
        if self._short() and self._not_before:
            times.append(self._not_before)
        return min(times, default=None)

    # Events.

    def handle(self, event: Event) -> tuple[Action, ...]:
        """Take an event; what is to be done."""
        match event:
            case Wish():
                self._wish(event)
            case Ready():
                self._ready(event)
            case Drains():
                self._drains(event)
            case Gone():
                self._gone(event)
            case Soaked():
                self._soaked(event)
            case Scale():
                self.wanted = max(1, event.workers)
            case Tick():
                pass
        self._expire(event.at)
        self._decide(event.at)
        actions, self._actions = tuple(self._actions), []
        return actions

    def _wish(self, wish: Wish) -> None:
        if not self.rolling or self.roll is None:
            if wish.version is not None:
                self._begin(wish)
            return
        self.pending = wish if wish.version is not None else None
        if self.roll.step is not Step.UNDO and wish.version != self.roll.target:
            self._undo(wish.at, Result.ABORTED, "called off")

    def _begin(self, wish: Wish) -> None:
        assert wish.version is not None
        self._rolls += 1
        self.roll = Roll(self._rolls, self.base, wish.version, wish.tried, wish.at, step_since=wish.at)

    def _ready(self, event: Ready) -> None:
        worker = self.workers.get(event.worker)
        if worker is None or worker.state is not WorkerState.LOADING:
            return
        self._enter(worker, WorkerState.READY, event.at)
        roll = self.roll
        if roll is not None and self.rolling and worker.roll == roll.id and roll.step is Step.FIRST:
            roll.step, roll.step_since = Step.SOAK, event.at

    def _drains(self, event: Drains) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None:
            self._enter(worker, WorkerState.DRAINING, event.at)

    def _gone(self, event: Gone) -> None:
        worker = self.workers.pop(event.worker, None)
        if worker is None or worker.state in (WorkerState.LEAVING, WorkerState.DRAINING):
            return
        if self._is_new(worker):
            self._undo(event.at, Result.FAILED, event.error)
            return
        lived = event.at - worker.since if worker.state is WorkerState.READY else 0.0
        self._failures = 1 if lived >= _PROVEN_SECONDS else self._failures + 1
        # The first time at once, then after 1, 2, 4, … seconds.
        pause = min(_MAX_BACKOFF_SECONDS, 2.0 ** (self._failures - 2)) if self._failures > 1 else 0.0
        self._not_before = event.at + pause
        if worker.state is WorkerState.LOADING and self.ready == 0 and worker.version == self.base:
            self._next_candidate()

    def _next_candidate(self) -> None:
        """Nothing serves and the base does not load: try the next version that may."""
        if self.base in self.candidates:
            later = self.candidates[self.candidates.index(self.base) + 1 :]
            if later:
                self.base = later[0]
                self._failures = 0
                self._not_before = 0.0
            else:
                self.base = self.candidates[0]

    def _soaked(self, event: Soaked) -> None:
        if not self.rolling or self.roll is None or self.roll.step is not Step.SOAK:
            return
        if event.error is None:
            self.roll.step, self.roll.step_since = Step.REPLACE, event.at
        else:
            self._undo(event.at, Result.FAILED, event.error)

    # Deadlines.

    def _seconds(self, worker: Worker) -> float | None:
        match worker.state:
            case WorkerState.LOADING:
                return self.limits.ready_seconds
            case WorkerState.LEAVING:
                return self.limits.leave_seconds
            case WorkerState.DRAINING:
                return self.limits.drain_seconds
        return None

    def _expire(self, at: float) -> None:
        roll = self.roll
        if roll is not None and self.rolling and roll.step is Step.SOAK:
            if at >= roll.step_since + self.limits.soak_seconds:
                roll.step, roll.step_since = Step.REPLACE, at
        for worker in list(self.workers.values()):
            seconds = self._seconds(worker)
            if seconds is None or at < worker.since + seconds:
                continue
            if worker.state is WorkerState.LOADING:
                reason = f"it was not ready within {seconds:g} s"
            elif worker.state is WorkerState.LEAVING:
                reason = f"it did not stop taking requests within {seconds:g} s"
            else:
                reason = f"it did not finish within {seconds:g} s"
            self._actions.append(Kill(worker.number, reason))
            self._gone(Gone(at, worker.number, reason))
            self.workers.pop(worker.number, None)

    # Decisions.

    def _decide(self, at: float) -> None:
        self._finish_roll(at)
        self._retire(at)
        self._refill(at)
        self._finish_roll(at)

    def _is_new(self, worker: Worker) -> bool:
        return self.rolling and self.roll is not None and worker.roll == self.roll.id

    def _unwanted(self) -> list[Worker]:
        """Workers that are to go, in the order in which they may."""
        alive = [
            w for w in self.workers.values() if w.state in (WorkerState.LOADING, WorkerState.READY)
        ]
        roll = self.roll
        if roll is None or not self.rolling:
            return []
        if roll.step is Step.UNDO:
            return [w for w in alive if w.roll == roll.id]
        if roll.step is Step.REPLACE:
            return [w for w in alive if w.roll != roll.id and w.version is not None]
        return []

    def _retire(self, at: float) -> None:
        roll = self.roll
        unwanted = self._unwanted()
        if roll is not None and self.rolling and roll.step is Step.UNDO:
            for worker in unwanted:
                if worker.state is WorkerState.LOADING:
                    self._actions.append(Kill(worker.number, "its roll was called off"))
                    del self.workers[worker.number]
            unwanted = [w for w in unwanted if w.state is WorkerState.READY]
        if self.ready:
            for worker in list(self.workers.values()):
                if worker.version is None and worker.state is WorkerState.READY:
                    self._leave(worker, at)
        surplus = unwanted or sorted(
            (w for w in self.workers.values() if w.version is not None), key=lambda w: w.number
        )
        soaking = roll is not None and self.rolling and roll.step in (Step.FIRST, Step.SOAK)
        allowed = self.wanted + (1 if soaking else 0)
        for worker in surplus:
            leaving = self.count(WorkerState.LEAVING, WorkerState.DRAINING)
            if self.ready <= allowed or leaving >= self.limits.max_draining:
                return
            if worker.state is WorkerState.READY:
                self._leave(worker, at)

    def _leave(self, worker: Worker, at: float) -> None:
        self._actions.append(Leave(worker.number))
        self._enter(worker, WorkerState.LEAVING, at)

    def _short(self) -> bool:
        return self.count(WorkerState.LOADING, WorkerState.READY) < self.wanted

    def _refill(self, at: float) -> None:
        roll = self.roll
        active = roll if roll is not None and self.rolling else None
        if self.base is not None and at >= self._not_before:
            good = [
                w
                for w in self.workers.values()
                if w.state in (WorkerState.LOADING, WorkerState.READY)
                and w.version is not None
                and not (active is not None and active.step is Step.UNDO and w.roll == active.id)
            ]
            missing = self.wanted - len(good)
            room = self.wanted + 1 - self.count(WorkerState.LOADING, WorkerState.READY)
            if active is not None and active.step in (Step.FIRST, Step.SOAK):
                missing = self.wanted - sum(w.roll != active.id for w in good)
            for _ in range(min(missing, room)):
                self._spawn(self.base, 0, at, tried=True)
        if active is not None and active.step in (Step.FIRST, Step.REPLACE):
            self._advance(active, at)
        if not any(self.workers.values()) or (self.ready == 0 and self._failures > len(self.candidates)):
            self._apologise(at)

    def _advance(self, roll: Roll, at: float) -> None:
        """Start the roll's next worker, if none of its own is loading and there is room."""
        new = [w for w in self.workers.values() if w.roll == roll.id]
        loading = any(w.state is WorkerState.LOADING for w in new)
        alive = self.count(WorkerState.LOADING, WorkerState.READY)
        enough = 1 if roll.step is Step.FIRST else self.wanted
        if not loading and len(new) < enough and alive <= self.wanted:
            self._spawn(roll.target, roll.id, at, tried=roll.tried)

    def _apologise(self, at: float) -> None:
        """Nothing can be loaded: one worker without a model says so."""
        if not any(w.version is None for w in self.workers.values()):
            self._spawn(None, 0, at, tried=True)

    def _spawn(self, version: str | None, roll: int, at: float, *, tried: bool) -> None:
        self._numbers += 1
        self.workers[self._numbers] = Worker(self._numbers, version, roll, WorkerState.LOADING, at)
        self._actions.append(Spawn(self._numbers, version, tried))

    def _enter(self, worker: Worker, state: WorkerState, at: float) -> None:
        worker.state, worker.since = state, at

    # Ends of a roll.

    def _undo(self, at: float, result: Result, error: str) -> None:
        roll = self.roll
        if roll is None or roll.step is Step.UNDO:
            return
        roll.step, roll.step_since = Step.UNDO, at
        roll.result, roll.error = result, error

    def _finish_roll(self, at: float) -> None:
        roll = self.roll
        if roll is None or not self.rolling:
            return
        if roll.step is Step.UNDO:
            if self._unwanted():
                return
            assert roll.result is not None
        elif roll.step is Step.REPLACE:
            new = sum(w.roll == roll.id and w.state is WorkerState.READY for w in self.workers.values())
            old = any(
                w.roll != roll.id and w.state is not WorkerState.DRAINING and w.version is not None
                for w in self.workers.values()
            )
            if new < self.wanted or old:
                return
            roll.result = Result.SUCCEEDED
            self.base = roll.target
        else:
            return
        roll.ended = at
        self._actions.append(Settle(roll.id, roll.target, roll.result, roll.error))
        if self.pending is not None:
            wish, self.pending = self.pending, None
            self._begin(wish)
