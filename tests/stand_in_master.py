"""A process that says what a master says and takes its signals, without workers.

    python stand_in_master.py RUNTIME_DIR STORE BEHAVIOUR [SETTLED]

A roll takes as many turns of the loop as it has steps; the behaviour says how it ends. With
STAND_IN_STEP_BY_STEP, each step waits for a file `go` beside the status, which it takes away.
SIGUSR1 is answered, after all signals before it, by a file `heard` there.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
from dataclasses import replace
from pathlib import Path

from asrsvc.errors import StoreError
from asrsvc.release.store import Store
from asrsvc.serving import status as status_file
from asrsvc.serving.status import Refused, Result, Roll, Status, VersionNumbers, WorkerStatus

TURN_SECONDS = 0.15
STEP_BY_STEP = bool(os.environ.get("STAND_IN_STEP_BY_STEP"))
STEPS = ("first", "soak", "replace")


class Master:
    def __init__(self, runtime: Path, store: Path, behaviour: str, settled: str) -> None:
        self.path = runtime / status_file.FILE_NAME
        self.store = Store(store, lock_timeout=0)
        self.behaviour = behaviour
        self.pending = False
        self.settled = settled
        me = status_file.myself("1.2.3")
        worker = WorkerStatus(pid=me.pid, version=settled, state="ready", since=status_file.now())
        self.status = Status(master=me, state="serving", version=settled, workers=(worker,), wanted=1)
        self.status = replace(self.status, numbers=(VersionNumbers(settled, 100, 1, 0, 9000, 900, 0),))

    def run(self) -> None:
        signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, lambda n, _: signals.put(n))
        self.say()
        while True:
            try:
                number = signals.get(timeout=TURN_SECONDS)
            except queue.Empty:
                self.turn()
                continue
            if number == signal.SIGTERM:
                return
            if number == signal.SIGUSR1:
                self.path.with_name("heard").touch()
                continue
            self.hang_up()

    def say(self, **changes: object) -> None:
        self.status = replace(self.status, **changes)  # type: ignore[arg-type]
        status_file.write(self.path, self.status)

    def hang_up(self) -> None:
        if self.behaviour == "ignores":
            return
        if self.behaviour == "dies":
            sys.exit(1)
        if self.behaviour == "stops":
            self.say(state="stopping")
            return
        if self.behaviour == "is replaced":
            self.say(master=replace(self.status.master, since="later"))
            return
        try:
            wish = self.store.wish(self.status.version)
        except StoreError as error:
            self.say(refused=Refused(status_file.now(), error.message))
            return
        assert wish is not None
        roll = self.status.roll
        if roll is not None and self.status.rolling:
            if wish.id == roll.target:
                self.pending = True
            else:
                self.pending = wish.id != self.status.version
                self.end("aborted", "called off")
            return
        number = roll.id + 1 if roll else 1
        began = Roll(number, self.status.version, wish.id, STEPS[0], status_file.now())
        self.say(state="rolling", roll=began)

    def turn(self) -> None:
        roll = self.status.roll
        if roll is None or not self.status.rolling:
            if self.pending:
                self.pending = False
                self.hang_up()
            return
        if self.behaviour == "never ends":
            return
        go = self.path.with_name("go")
        if (self.behaviour == "waits" or STEP_BY_STEP) and not go.exists():
            return
        if STEP_BY_STEP:
            go.unlink()
        if self.behaviour == "fails" and roll.step == "soak":
            self.say(roll=replace(roll, step="undo"))
        elif roll.step == "undo":
            self.end("failed", "worker 7 said: NaN in the logits")
        elif roll.step == STEPS[-1]:
            self.store.promote(self.store.version(roll.target), settled=roll.source)
            self.end("succeeded", None)
        else:
            self.say(roll=replace(roll, step=STEPS[STEPS.index(roll.step) + 1]))

    def end(self, result: Result, error: str | None) -> None:
        assert self.status.roll is not None
        roll = replace(self.status.roll, result=result, error=error, ended=status_file.now())
        version = roll.target if result == "succeeded" else self.status.version
        worker = replace(self.status.workers[0], version=version)
        self.say(
            state="serving", roll=roll, version=version, workers=(worker,), numbers=self.numbers(version)
        )

    def numbers(self, serving: str | None) -> tuple[VersionNumbers, ...]:
        """As if every version had answered so much by now; that which came later does badly."""
        versions = {self.settled, serving or self.settled}
        later = {"errs": {"errors": 20}, "loses a worker": {"deaths": 1}}.get(self.behaviour, {})
        good = VersionNumbers("", 40, 0, 0, 4000, 400, 0)
        return tuple(
            replace(good, version=version, **({} if version == self.settled else later))
            for version in sorted(versions)
        )


if __name__ == "__main__":
    Master(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]).run()
