"""The replacement of workers as a plain state machine: events in, actions out.

No processes, clocks or files: an event says what happened and when, on a clock that never goes back;
the actions say what the master is to do. What it keeps to:

- because of a roll never fewer than the wanted number of ready workers;
- never more than one above that loading or ready; those that leave or drain are outside the count, and
  limited by themselves;
- a worker that dies is replaced with the version that last served well, never with an untried one;
- a roll that fails or is called off leaves no worker of its version;
- every state has a deadline, which `Machine.deadline` tells.

At any time there are two sides of workers, old and new, and how many there should be of each
(`Machine._sides`). What is above that goes, as far as the first rule allows; what is missing is started,
as far as the second one does; then the roll is settled if it can be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from asrsvc.serving.roll_types import (
    Action,
    Drains,
    Event,
    Gone,
    Kill,
    Leave,
    Limits,
    Ready,
    Result,
    Roll,
    Scale,
    Settle,
    Soaked,
    Spawn,
    Step,
    Tick,
    Wish,
    Worker,
    WorkerState,
    Worn,
)

__all__ = [
    "Action",
    "Drains",
    "Event",
    "Gone",
    "Kill",
    "Leave",
    "Limits",
    "Machine",
    "Ready",
    "Result",
    "Roll",
    "Scale",
    "Settle",
    "Soaked",
    "Spawn",
    "Step",
    "Tick",
    "Wish",
    "Worker",
    "WorkerState",
    "Worn",
]

# A worker that served for so many seconds before it died did not die of being started.
_PROVEN_SECONDS: Final = 60.0
_MAX_BACKOFF_SECONDS: Final = 60.0
_STAYING: Final = frozenset({WorkerState.LOADING, WorkerState.READY})


@dataclass(slots=True)
class Machine:
    """The workers, and the roll that is under way."""

    wanted: int
    """workers"""
    limits: Limits
    candidates: list[str]
    """versions that may serve, the best first: where the base does not load, the next one is tried"""
    base: str | None = None
    """the version that last served well; at first the best candidate"""
    workers: dict[int, Worker] = field(default_factory=dict)
    roll: Roll | None = None
    """the one under way, else the last one"""
    pending: Wish | None = None
    """what to roll to when the one under way has ended"""
    _forced: set[str] = field(default_factory=set)
    _numbers: int = 0
    _failures: int = 0
    _unloadable: int = 0
    _failed_at: float = -math.inf
    _not_before: float = -math.inf
    _held_back: bool = False
    _actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        first = [] if self.base is None else [self.base]
        self.candidates = list(dict.fromkeys([*first, *self.candidates]))
        self.base = self.candidates[0] if self.candidates else None

    # Questions.

    @property
    def rolling(self) -> bool:
        """Whether a roll is under way."""
        return self._active is not None

    def count(self, *states: WorkerState) -> int:
        """Workers with a model in one of these states."""
        return sum(w.state in states for w in self.workers.values() if w.version is not None)

    @property
    def ready(self) -> int:
        """Workers that serve."""
        return self.count(WorkerState.READY)

    def deadline(self) -> float | None:
        """When the next state runs out; None where nothing can."""
        times = [w.since + self._patience(w)[0] for w in self.workers.values()]
        roll = self._active
        if roll is not None and roll.step is Step.SOAK:
            times.append(roll.step_since + self.limits.soak_seconds)
        if self._held_back:
            times.append(self._not_before)
        return min((time for time in times if time < math.inf), default=None)

    # Events.

    def handle(self, event: Event) -> tuple[Action, ...]:
        """Take an event; what is to be done."""
        match event:
            case Wish():
                self._wish(event)
            case Soaked():
                self._soaked(event)
            case Scale():
                self.wanted = max(1, event.workers)
            case Ready() | Worn() | Drains() | Gone():
                # A worker that was killed is forgotten: what it still said comes to nothing.
                worker = self.workers.get(event.worker)
                if worker is not None:
                    self._heard(worker, event)
            case Tick():
                pass
        self._expire(event.at)
        self._balance(event.at)
        if self._settle(event.at):
            self._balance(event.at)  # the next roll has begun, or the sides are others
        actions, self._actions = tuple(self._actions), []
        return actions

    def _wish(self, wish: Wish) -> None:
        roll = self._active
        self.pending = wish if wish.version is not None else None
        if roll is None:
            self._begin(wish.at)
        elif wish.version != roll.target:
            self._undo(wish.at, Result.ABORTED, "called off")

    def _soaked(self, event: Soaked) -> None:
        roll = self._active
        if roll is not None and roll.step is Step.SOAK:
            if event.error is None:
                roll.step, roll.step_since = Step.REPLACE, event.at
            else:
                self._undo(event.at, Result.FAILED, event.error)

    def _heard(self, worker: Worker, event: Ready | Worn | Drains | Gone) -> None:
        unasked = worker.state in _STAYING
        match event:
            case Ready() if worker.state is WorkerState.LOADING:
                self._enter(worker, WorkerState.READY, event.at)
                roll = self._active
                if roll is not None and roll.step is Step.FIRST and self._is_new(worker):
                    roll.step = Step.SOAK if roll.soaks else Step.REPLACE
                    roll.step_since = event.at
                if worker.version == self.base:
                    self._unloadable = 0
            case Worn() if worker.state is WorkerState.READY:
                worker.worn = True
            case Drains() if worker.state is not WorkerState.DRAINING:
                if unasked:
                    self._failed(worker, event.at, "it left unasked")
                self._enter(worker, WorkerState.DRAINING, event.at)
            case Gone():
                if unasked:
                    self._failed(worker, event.at, event.error)
                del self.workers[worker.number]

    def _failed(self, worker: Worker, at: float, error: str) -> None:
        """A worker died or left unasked: end its roll, or count it for the back-off."""
        if self._is_new(worker):
            self._undo(at, Result.FAILED, error)
            return
        if self._proven(worker, at) or any(
            self._proven(w, at) and w.since >= self._failed_at for w in self.workers.values()
        ):
            self._failures = 0
        elif worker.started < self._failed_at:
            return  # started together with one that was counted, it tells nothing new
        self._failures += 1
        self._unloadable += worker.version == self.base and worker.state is WorkerState.LOADING
        self._failed_at = at
        # The first time at once, then after 1, 2, 4, … seconds (the exponent kept in float's range).
        pause = min(_MAX_BACKOFF_SECONDS, 2.0 ** min(self._failures - 2, 100))
        self._not_before = at + (pause if self._failures > 1 else 0.0)

    def _proven(self, worker: Worker, at: float) -> bool:
        served = at - worker.since if worker.state is WorkerState.READY else 0.0
        return worker.version is not None and worker.version == self.base and served >= _PROVEN_SECONDS

    # Deadlines.

    def _patience(self, worker: Worker) -> tuple[float, str]:
        """Seconds that a worker may be in its state, and what it failed to do when they are over."""
        match worker.state:
            case WorkerState.LOADING:
                return self.limits.ready_seconds, "was not ready"
            case WorkerState.LEAVING:
                return self.limits.leave_seconds, "did not stop taking requests"
            case WorkerState.DRAINING:
                return self.limits.drain_seconds, "did not finish"
            case WorkerState.READY:
                return math.inf, ""

    def _expire(self, at: float) -> None:
        roll = self._active
        if roll is not None and roll.step is Step.SOAK and at >= roll.step_since + self.limits.soak_seconds:
            roll.step, roll.step_since = Step.REPLACE, at
        for worker in list(self.workers.values()):
            seconds, failing = self._patience(worker)
            if at >= worker.since + seconds:
                reason = f"it {failing} within {seconds:g} s"
                self._actions.append(Kill(worker.number, reason))
                self._heard(worker, Gone(at, worker.number, reason))

    # Decisions.

    @property
    def _active(self) -> Roll | None:
        return self.roll if self.roll is not None and self.roll.ended is None else None

    def _is_new(self, worker: Worker) -> bool:
        return self._active is not None and worker.roll == self._active.id

    def _sides(self) -> tuple[tuple[list[Worker], int], tuple[list[Worker], int]]:
        """The old and the new workers that load or serve, and how many of each there should be.

        Without a roll the second are those that the base is to replace.
        """
        alive = [w for w in self.workers.values() if w.version is not None and w.state in _STAYING]
        roll = self._active
        if roll is None:
            outgoing = [w for w in alive if w.worn or w.version != self.base]
            return ([w for w in alive if w not in outgoing], self.wanted), (outgoing, 0)
        new = [w for w in alive if self._is_new(w)]
        old = [w for w in alive if w not in new]
        match roll.step:
            case Step.FIRST | Step.SOAK:
                return (old, self.wanted), (new, 1)
            case Step.REPLACE:
                replaced = sum(w.state is WorkerState.READY for w in new)
                return (old, max(0, self.wanted - replaced)), (new, self.wanted)
            case Step.UNDO:
                return (old, self.wanted), (new, 0)

    def _balance(self, at: float) -> None:
        for workers, number in self._sides():
            # Those that load first, then the oldest.
            order = sorted(workers, key=lambda w: (w.state is WorkerState.READY, w.number))
            for worker in order[: max(0, len(order) - number)]:
                if worker.state is WorkerState.LOADING or self._dispensable():
                    self._dismiss(worker, at)
        self._refill(at)
        self._advance(at)
        self._apologise(at)

    def _dispensable(self) -> bool:
        """Whether one that serves may leave now."""
        crowded = self.count(WorkerState.LEAVING, WorkerState.DRAINING) >= self.limits.max_draining
        # Without a base nothing would ever take its place, and nothing served before its roll.
        return not crowded and (self.ready > self.wanted or self.base is None)

    def _refill(self, at: float) -> None:
        """Start what is missing of the old side, with the base."""
        self._held_back = False
        if self.base is None or self._missing() <= 0:
            return
        (old, _), _ = self._sides()
        hopeless = self._hopeless()
        if hopeless and any(w.state is WorkerState.LOADING for w in old):
            return  # the last of them may still get ready
        if at < self._not_before:
            self._held_back = True
            return
        if hopeless:
            following = self.candidates.index(self.base) + 1
            self.base = self.candidates[following % len(self.candidates)]
        for _ in range(self._missing()):
            self._spawn(self.base, 0, at, tried=self.base not in self._forced)

    def _hopeless(self) -> bool:
        """Whether the base does not load, and nothing is lost by trying another version."""
        serving = [w for w in self.workers.values() if w.state is WorkerState.READY]
        undoing = self._active is not None and self._active.step is Step.UNDO
        # An undo is not to wait for ever.
        wanting = undoing and any(self._is_new(w) for w in serving)
        return self._unloadable > 1 and (wanting or all(w.version != self.base for w in serving))

    def _missing(self) -> int:
        """How many of the old side are to be started, as far as there is room."""
        (old, number), (new, _) = self._sides()
        return min(number - len(old), self.wanted + 1 - len(old) - len(new))

    def _advance(self, at: float) -> None:
        """Start the roll's next worker, if none of its own is loading and there is room."""
        roll = self._active
        (old, _), (new, number) = self._sides()
        if roll is None or len(new) >= number or len(old) + len(new) > self.wanted:
            return
        # The first one waits for old ones that load, say at boot, but not for those that fail to.
        waits_for = new if roll.step is Step.REPLACE or self._failures else [*old, *new]
        if not any(w.state is WorkerState.LOADING for w in waits_for):
            self._spawn(roll.target, roll.id, at, tried=roll.tried)

    def _apologise(self, at: float) -> None:
        """While nothing can be loaded, have one worker without a model that says so."""
        mute = [w for w in self.workers.values() if w.version is None and w.state in _STAYING]
        if self.ready:
            for worker in mute:
                self._dismiss(worker, at)
        elif not mute and (self.base is None or self._failures > len(self.candidates)):
            if at < self._not_before:
                self._held_back = True
            else:
                self._spawn(None, 0, at, tried=True)

    def _spawn(self, version: str | None, roll: int, at: float, *, tried: bool) -> None:
        self._numbers += 1
        self.workers[self._numbers] = Worker(self._numbers, version, roll, at, WorkerState.LOADING, at)
        self._actions.append(Spawn(self._numbers, version, tried))

    def _dismiss(self, worker: Worker, at: float) -> None:
        if worker.state is WorkerState.LOADING:
            self._actions.append(Kill(worker.number, "it is not needed any more"))
            del self.workers[worker.number]
        else:
            self._actions.append(Leave(worker.number))
            self._enter(worker, WorkerState.LEAVING, at)

    def _enter(self, worker: Worker, state: WorkerState, at: float) -> None:
        worker.state, worker.since = state, at

    # Begin and end of a roll.

    def _begin(self, at: float) -> None:
        """Begin the roll that is wished for, if any."""
        wish, self.pending = self.pending, None
        if wish is not None and wish.version is not None:
            number = self.roll.id + 1 if self.roll is not None else 1
            self.roll = Roll(
                number, self.base, wish.version, wish.tried, at, Step.FIRST, at, soaks=wish.soaks
            )

    def _undo(self, at: float, result: Result, error: str) -> None:
        roll = self._active
        if roll is not None and roll.step is not Step.UNDO:
            roll.step, roll.step_since = Step.UNDO, at
            roll.result, roll.error = result, error
            if result is Result.FAILED and roll.target != self.base:
                self.candidates = [c for c in self.candidates if c != roll.target]

    def _settle(self, at: float) -> bool:
        """End the roll, if nothing that takes requests is on the wrong side; whether it has ended."""
        roll = self._active
        if roll is None:
            return False
        taking = [w for w in self.workers.values() if w.state is not WorkerState.DRAINING]
        mine = [w for w in taking if self._is_new(w)]
        if roll.step is Step.REPLACE and len(mine) == len(taking) and self.ready >= self.wanted:
            roll.result = Result.SUCCEEDED
            self._adopt(roll)
        elif roll.step is not Step.UNDO or mine:
            return False
        assert roll.result is not None
        roll.ended = at
        self._actions.append(Settle(roll.id, roll.target, roll.result, roll.error))
        self._begin(at)
        return True

    def _adopt(self, roll: Roll) -> None:
        """Make the roll's version the base, and the base of before the next to try."""
        former = [] if self.base is None else [self.base]
        self.candidates = list(dict.fromkeys([roll.target, *former, *self.candidates]))
        self.base = roll.target
        # Who came in without the comparison can't be asked for it later.
        self._forced = self._forced - {roll.target} if roll.tried else self._forced | {roll.target}
        self._failures = self._unloadable = 0
        self._failed_at = self._not_before = -math.inf
