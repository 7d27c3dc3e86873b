"""The master: gunicorn's arbiter, replacing workers one at a time and never halting for a bad one.

The decisions are those of `asrsvc.serving.roll`; this class hears of events (signals, lines of
workers, ends of processes), asks the machine, and carries its actions out. What it overrides of
gunicorn 27.0 is listed in tests/test_gunicorn_contract.py.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gunicorn import sock, util
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from asrsvc import __version__, settings
from asrsvc.errors import AsrError, RootRefused, StoreError
from asrsvc.release.embedded import is_demonstration
from asrsvc.release.store import Store, Version
from asrsvc.serving import report, status
from asrsvc.serving.brief import Brief, Line
from asrsvc.serving.door import read_keys_of, refuse_open_listeners, table_of_clients
from asrsvc.serving.exposed import exposed_files
from asrsvc.serving.handover import (
    Inheritance,
    Successor,
    exec_master,
    handed_down,
    inheritance,
    take_over,
)
from asrsvc.serving.happenings import Happenings, reason_of_end
from asrsvc.serving.lanes import LaneName
from asrsvc.serving.ledger import Ledger
from asrsvc.serving.members import Member, Members
from asrsvc.serving.metric_folder import empty_metric_folder
from asrsvc.serving.notify import Notifier
from asrsvc.serving.queue import Queue
from asrsvc.serving.roll import (
    Action,
    Drains,
    Event,
    Gone,
    Kill,
    Leave,
    Limits,
    Machine,
    Ready,
    Result,
    Scale,
    Settle,
    Soaked,
    Spawn,
    Step,
    Tick,
    Wish,
    WorkerState,
    Worn,
)
from asrsvc.serving.root_user import refuse_foreign_folders
from asrsvc.serving.scoreboard import Column, Scoreboard
from asrsvc.serving.soak import Soak
from asrsvc.serving.tally import Tally
from asrsvc.settings import SettingError, Settings

LEAVE_SECONDS: Final = 15.0
"""from SIGTERM until a worker says that it takes no more; it may wait for headers that long"""
_TICK_SECONDS: Final = 1.0
_STOP_LOOK_SECONDS: Final = 0.05
_QUICK_SECONDS: Final = 2.0
_QUEUE_GRACE_SECONDS: Final = 60.0
_NUMBERS_SECONDS: Final = 1.0
"""how old the numbers in the status file may be"""


class RollingArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """A gunicorn arbiter with gated replacement."""

    # gunicorn's own, which has no types
    LISTENERS: list[Any]
    WORKERS: dict[int, Any]
    num_workers: Any
    reexec_pid: int
    master_pid: int

    def __init__(self, app: Any) -> None:
        self._settings = settings.load()
        self._members = Members(self._listen)
        self._systemd_environ = settings.take_systemd_environment()
        self._notifier = Notifier(self._systemd_environ)
        self._next_ping = 0.0
        self._written: status.Status | None = None
        self._refused: status.Refused | None = None
        self._problems: tuple[str, ...] = ()
        self._happened = Happenings()
        self._late: list[Event] = []
        self._told_ready = False
        self._stopping = False
        self._store = Store(self._settings.store, pointers=self._settings.store_pointers)
        self._ledger = Ledger(self._store)
        self._tally = Tally()
        self._numbers: tuple[status.VersionNumbers, ...] = ()
        self._numbers_at = 0.0
        self._machine: Machine | None = None
        self._inherited = inheritance()
        self._environ = settings.environment({})
        self._reader = -1  # of the worker that is being started
        self._successor: Successor | None = None
        self._handed_over = False
        self._locked = False
        self._keys = read_keys_of(self._settings)
        super().__init__(app)

    # Start.

    def run(self) -> None:
        """Run until the end (gunicorn); what forbids a start is one line and an exit code."""
        try:
            super().run()
        except HaltServer as halt:
            self.log.error("%s", halt.reason)
            sys.exit(halt.exit_status)

    def start(self) -> None:
        """Lock the runtime folder, make the queue, choose the version, then listen (gunicorn)."""
        loaded = self._settings
        if self._inherited is None:
            try:
                refuse_foreign_folders(loaded)
            except RootRefused as error:
                raise HaltServer(error.message, error.exit_code) from None
            self._lock_runtime_folder(loaded.runtime_dir)
            self._begin_to_measure(loaded.runtime_dir)
        self._myself = status.myself(__version__)
        self._queues = self._take_queues(loaded.queue_limit)
        self._clients = table_of_clients(loaded, self._inherited)
        self._scoreboard = Scoreboard.create()
        self._soak = Soak(self._scoreboard, lambda version: not is_demonstration(self._store, version))
        self.log.info("%s", loaded.layout().reason)
        self._warn_of_exposed_files()
        candidates = self._store.candidates()
        self._problems = candidates.problems
        for problem in candidates.problems:
            self.log.error("%s", problem)
        self._machine = Machine(
            loaded.worker_count(), self._limits(), [version.id for version in candidates.versions]
        )
        super().start()
        if self._inherited is not None:
            self.systemd = self._inherited.systemd
        self._guard_ops_listener()
        try:
            refuse_open_listeners(self.LISTENERS, self._ops_listeners(), loaded)
        except SettingError as error:
            raise HaltServer(str(error), error.exit_code) from None

    def _take_queues(self, limit: int) -> dict[LaneName, Queue]:
        """The old master's, so that what waits there is served; else new ones."""
        if self._inherited is None:
            return {name: Queue.create(limit) for name in LaneName}
        found = self._inherited.queues
        if len(found) != len(LaneName):
            raise HaltServer(
                "the master that runs has a queue that this code cannot share: restart the service instead", 2
            )
        return {name: Queue.inherit(ends, limit) for name, ends in zip(LaneName, found, strict=True)}

    def _lock_runtime_folder(self, folder: Path) -> None:
        """A second service on the same runtime folder would fight over the status file."""
        try:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            # A POSIX record lock belongs to this process alone: workers do not inherit it.
            self._lock = (folder / "master.lock").open("a+")
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._lock.seek(0)
                holder = self._lock.read(32).strip() or "unknown"
                raise HaltServer(
                    f"{folder} belongs to a service that runs already, process {holder}: stop it, or choose "
                    "another ASR_RUNTIME_DIR",
                    2,
                ) from None
            self._locked = True
            self._lock.truncate(0)
            self._lock.write(f"{os.getpid()}\n")
            self._lock.flush()
        except OSError as error:
            raise HaltServer(f"{folder} (ASR_RUNTIME_DIR) cannot be used: {error.strerror}", 2) from None

    def _begin_to_measure(self, folder: Path) -> None:
        try:
            empty_metric_folder(folder)
        except OSError as error:
            self.log.error("there are no metrics: %s", error)

    def _guard_ops_listener(self) -> None:
        listeners = self._ops_listeners()
        if not listeners:
            self.log.warning(
                "systemd passes no listener named ops: health and administration have none apart"
            )
        for listener in listeners:
            if listener.FAMILY == socket.AF_UNIX:
                with suppress(OSError):
                    Path(listener.getsockname()).chmod(0o660)

    def _ops_listeners(self) -> list[Any]:
        """Those of systemd by their name; our own by their place, as gunicorn.conf.py binds them."""
        if not self.systemd:
            return self.LISTENERS[1:]
        names = settings.listener_names()
        # One socket unit gives all its sockets one name: only what is named so has an operator's rights.
        return [lnr for lnr, name in zip(self.LISTENERS, names, strict=False) if name == "ops"]

    def _limits(self) -> Limits:
        loaded = self._settings
        return Limits(
            ready_seconds=loaded.ready_timeout,
            leave_seconds=LEAVE_SECONDS + loaded.header_timeout,
            drain_seconds=loaded.drain_timeout,
            soak_seconds=loaded.soak_seconds,
            max_draining=loaded.draining_count(),
        )

    # The loop: gunicorn's, woken by workers too.

    def signal(self, sig: int, frame: Any) -> None:
        """Note a signal and wake the loop (a signal handler: nothing else may happen here)."""
        super().signal(sig, frame)
        self._members.wake()

    def signal_chld(self, sig: int, frame: Any) -> None:
        """Note the end of a child and wake the loop (a signal handler)."""
        super().signal_chld(sig, frame)
        self._members.wake()

    def wait_for_signals(self, timeout: float = _TICK_SECONDS) -> list[int]:
        """Wait for a signal, a worker's line, or the machine's next deadline."""
        self._members.wait(self._patience(timeout))
        found: list[int] = super().wait_for_signals(timeout=0.0)
        return found

    def _patience(self, timeout: float) -> float:
        deadline = self._machine.deadline() if self._machine is not None else None
        if deadline is None:
            return timeout
        return min(timeout, max(0.0, deadline - time.monotonic()))

    def manage_workers(self) -> None:
        """Let the machine look at the clock; gunicorn calls this in every round."""
        for event in self._late:
            self._handle(event)
        self._late = []
        now = time.monotonic()
        if self._keys is not None:
            self._keys.look()
        self._give_back_tickets()
        self._members.hurry()
        if self._machine is not None:
            decided, error = self._soak.look(self._machine, self._settings, now)
            if decided:
                self._handle(Soaked(now, error))
        self._handle(Tick(now))
        self._report()
        interval = self._notifier.watchdog_interval
        if interval is not None and time.monotonic() >= self._next_ping:
            self._next_ping = time.monotonic() + interval
            self._notifier.watchdog()

    def _give_back_tickets(self, dead: int | None = None) -> None:
        """No client is held to what a process had in hand that has died."""
        longest_wait = self._settings.queue_timeout + _QUEUE_GRACE_SECONDS
        given_back = self._clients.sweep(dead=dead, longest_wait=longest_wait)
        if given_back:
            self.log.info("%s requests of clients with limits count no more", given_back)

    def _handle(self, event: Event) -> None:
        assert self._machine is not None
        if self._stopping:
            return  # all workers have been told to leave: none is to be replaced
        before = self._machine.roll.step if self._machine.rolling and self._machine.roll else None
        for action in self._machine.handle(event):
            self._carry_out(action)
        roll = self._machine.roll
        if roll is not None and self._machine.rolling and roll.step is not before:
            self._entered(roll.step)
        self._report()

    def _carry_out(self, action: Action) -> None:
        match action:
            case Spawn():
                self._spawn(action)
            case Leave():
                self._scoreboard.row(action.worker)[Column.LEAVE] = 1
                self._members.tell(action.worker, signal.SIGTERM)
            case Kill():
                self._end(action.worker, action.reason)
            case Settle():
                self._settle(action)

    # Workers.

    def _spawn(self, action: Spawn) -> None:
        version: Version | None = None
        forced = returning = False
        try:
            if action.version is not None:
                version = self._store.version(action.version)
                record = self._store.record(version.id)
                # A forced version that served must come back after a restart too.
                forced, returning = record.forced, record.returning
            reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, StoreError) as error:
            self._handle_later(Gone(time.monotonic(), action.worker, str(error)))
            return
        member = Member(action.worker, action.version, reader)
        member.forced = forced or not action.tried
        row = self._scoreboard.row(action.worker)
        row.clear()
        base = self._machine.base if self._machine is not None else None
        # What it is to replace in a rollback may be quick because it does nothing.
        alike = base != action.version and not returning and not is_demonstration(self._store, base)
        self._brief = Brief(
            number=action.worker,
            version=action.version,
            path=version.path if version is not None else None,
            tried=action.tried and not forced,
            reference_cost=self._members.cheapest(base) if alike else None,
            problems=self._problems,
            settings=self._settings,
            queues=self._queues,
            row=row,
            service=self._scoreboard.row(0),
            clients=self._clients,
            keys=self._keys,
            pipe=writer,
            ops_listeners=frozenset(lnr.fileno() for lnr in self._ops_listeners()),
            keep_listeners=self.systemd,
        )
        self._reader = reader
        try:
            member.pid = self.spawn_worker()
        except OSError as error:
            os.close(reader)
            os.close(writer)
            self._handle_later(Gone(time.monotonic(), action.worker, f"it cannot be started: {error}"))
            return
        os.close(writer)
        self._members.add(member)

    def brief_worker(self, worker: Any) -> None:
        """Give a new worker its task; called before the fork (gunicorn's pre_fork)."""
        worker.brief = self._brief

    def leave_to_worker(self) -> None:
        """Let go of what is the master's; called in the new process (gunicorn's post_fork)."""
        self._members.close()
        os.close(self._reader)
        if self._successor is not None:
            self._successor.close()
        if self._inherited is not None and self.master_pid:
            os.close(self._inherited.pipe)

    def _handle_later(self, event: Event) -> None:
        """Put an event behind those that are being handled."""
        self._late.append(event)
        self._members.wake()

    def _in_hand(self, number: int) -> int:
        """Requests that are lost if this worker ends now."""
        row = self._scoreboard.row(number)
        return row[Column.IN_HAND] + row[Column.ARRIVING]

    def _end(self, number: int, reason: str) -> None:
        member = self._members.by_number(number)
        if member is None:
            return
        row = self._scoreboard.row(number)
        in_hand = self._in_hand(number)
        member.error = reason
        # One that loads is ended too, when it hangs or its roll is called off: it drained nothing.
        self._happened.killed_draining += int(bool(row[Column.LEAVE]))
        self.log.error(
            "worker %s is ended: %s",
            member.pid,
            reason,
            extra={"version": member.version, "lost_requests": in_hand},
        )
        self._members.tell(number, signal.SIGKILL)

    def _listen(self, member: Member) -> None:
        """Take in what a worker says."""
        try:
            for line in member.lines():
                self._hear(member, line)
        except EOFError:
            self._members.unwatch(member.pipe)  # its end follows, by SIGCHLD

    def _hear(self, member: Member, line: Line) -> None:
        now = time.monotonic()
        match line.say:
            case "ready":
                member.loads = False
                member.cost = line.cost or None
                member.baked, member.problem = line.baked, line.problem
                self._handle(Ready(now, member.number))
            case "failed":
                member.error = line.error
            case "draining":
                self._handle(Drains(now, member.number))
            case "recycle":
                self.log.info("worker %s is to be replaced: %s", member.pid, line.error)
                self._happened.replaced(line.reason)
                self._handle(Worn(now, member.number))

    def reap_workers(self) -> None:
        """Reap children; the end of one, whatever its exit code, is an event and never halts the master."""
        while True:
            try:
                pid, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.reexec_pid:
                self.reexec_pid = 0
                continue
            worker = self.WORKERS.pop(pid, None)
            member = self._members.remove(pid)
            if worker is None or member is None:
                continue  # an orphan that the kernel gave to process 1
            self._bury(worker, member, code)

    def _bury(self, worker: Any, member: Member, code: int) -> None:
        worker.tmp.close()
        self.cfg.child_exit(self, worker)
        self._give_back_tickets(member.pid)
        how = _how_it_ended(code)
        error = member.error or f"worker {member.pid} {how}"
        in_hand = self._in_hand(member.number) if code else 0
        self._happened.lost_requests += in_hand
        if code:
            self.log.error(
                "worker %s %s",
                member.pid,
                how,
                extra={"version": member.version, "lost_requests": in_hand, "error": member.error},
            )
        known = self._machine.workers.get(member.number) if self._machine is not None else None
        died = not self._stopping and known is not None and known.state is WorkerState.READY
        row = self._scoreboard.row(member.number)
        self._tally.bury(member.version, row.numbers(), died=died)
        row[Column.RUNNING] = row[Column.IN_BACKGROUND] = row[Column.SHORT_AT_WORK] = 0
        if self._stopping or self._machine is None:
            return
        if self.master_pid and known is not None and known.state is WorkerState.LOADING:
            raise HaltServer(f"this new master cannot start its workers: {error}", 1)
        self._happened.restarts += died
        loading = known is not None and known.state is WorkerState.LOADING
        # One that was to leave, or that a roll undoes, has its reason in the roll.
        if died or (loading and not self._scoreboard.row(member.number)[Column.LEAVE]):
            self._happened.replaced(reason_of_end(code, hung=worker.aborted, loading=loading))
        self._handle(Gone(time.monotonic(), member.number, error))

    # Signals.

    def handle_hup(self) -> None:
        """Re-read the settings and the wish, and roll."""
        assert self._machine is not None
        if self.reexec_pid or self.master_pid:
            self._refuse("SIGHUP", "a new master is being started")
            return
        try:
            wish = self._ledger.take_wish(self._machine.base)
            record = self._store.record(wish.id)
        except AsrError as error:
            self._refuse("SIGHUP", error.message)
            return
        roll = self._machine.roll
        called_off = (
            self._machine.rolling
            and roll is not None
            and roll.target != self._machine.base
            and wish.id == self._machine.base
        )
        try:
            loaded = self._reload_settings()
        except SettingError as error:
            self._refuse("SIGHUP", str(error))
            if called_off:  # that needs no settings
                self._handle(Wish(time.monotonic(), None))
            return
        self._refused = None
        self._settings = loaded
        self._warn_of_exposed_files()
        self._machine.limits = self._limits()
        for queue in self._queues.values():
            queue.set_limit(loaded.queue_limit)
        now = time.monotonic()
        self.num_workers = loaded.worker_count()
        if self.num_workers != self._machine.wanted:
            self.log.info("%s", loaded.layout().reason)
            self._handle(Scale(now, self.num_workers))
        if record.forced:
            self.log.warning("%s is forced: its text and speed are not compared", wish.id)
        version = None if called_off else wish.id
        self._handle(Wish(now, version, tried=not record.forced, soaks=not record.returning))

    def _reload_settings(self) -> Settings:
        """Check the settings, then let gunicorn read its configuration again.

        Raises:
            SettingError: something is wrong; what was in force stays in force.
        """
        loaded = settings.load()
        keys = read_keys_of(loaded)
        refuse_open_listeners(self.LISTENERS, self._ops_listeners(), loaded)
        before = self.app.cfg
        try:
            # gunicorn's own error handling ends the process.
            self.app.reload()
            self.setup(self.app)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a configuration file raises
            self.app.cfg = self.cfg = before
            raise SettingError(f"the configuration cannot be read again: {error}") from None
        self._keys = keys
        return loaded

    def _refuse(self, what: str, reason: str) -> None:
        self.log.error("%s is refused: %s", what, reason)
        self._refused = status.Refused(status.now(), reason)
        self._notifier.status(f"{what} refused: {reason}")
        self._report()

    def handle_ttin(self) -> None:
        """One more worker."""
        self.num_workers += 1
        self._handle(Scale(time.monotonic(), self.num_workers))

    def handle_ttou(self) -> None:
        """One fewer worker."""
        if self.num_workers > 1:
            self.num_workers -= 1
            self._handle(Scale(time.monotonic(), self.num_workers))

    def handle_int(self) -> None:
        """SIGINT: stop, as SIGTERM does; a second one stops quickly."""
        raise StopIteration

    def handle_winch(self) -> None:
        """SIGWINCH, the change of a terminal's size: nothing."""

    # New code: a second master on the same listeners and the same queue.

    def handle_usr2(self) -> None:
        """SIGUSR2: start a new master with the code that is on disk now; it asks this one to leave."""
        reason = None
        if os.getpid() == 1:
            reason = "a master that is process 1 cannot leave"
        elif self.reexec_pid or self.master_pid:
            reason = "another master is being started"
        elif self._machine is None or self._machine.rolling or self._machine.ready == 0:
            reason = "a roll is under way, or nothing serves"
        if reason is not None:
            self._refuse("SIGUSR2", reason)
            return
        self.reexec()

    def reexec(self) -> None:
        """Start the new master (gunicorn); it inherits listeners and queues by their numbers."""
        queues = tuple(queue.descriptors() for queue in self._queues.values())
        environ = {**self._environ, **self._systemd_environ}
        environ.pop("WATCHDOG_PID", None)
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        environ |= handed_down(
            os.getpid(),
            [listener.fileno() for listener in self.LISTENERS],
            Inheritance(queues, self.systemd, self._clients.descriptor, writer),
        )
        self.reexec_pid = os.fork()
        if not self.reexec_pid:
            inherited = [*(end for ends in queues for end in ends.all()), self._clients.descriptor, writer]
            exec_master(self.START_CTX, environ, inherited)
        os.close(writer)
        # Its workers load all at once and are tried once; then there is the hand-over.
        self._successor = Successor(self.reexec_pid, reader, 2 * self._settings.ready_timeout)
        self._members.watch(reader, self._hear_successor)
        self.log.info("starting a new master", extra={"new_master": self.reexec_pid})

    def _hear_successor(self) -> None:
        """The new master's workers serve: leave. If it has died instead, SIGCHLD tells."""
        assert self._successor is not None
        self._members.unwatch(self._successor.pipe)
        if self._successor.has_taken_over():
            self._handed_over = True
            self.log.info("handing over to the new master", extra={"new_master": self.reexec_pid})
            self.SIG_QUEUE.put_nowait(signal.SIGTERM)

    def maybe_promote_master(self) -> None:
        """A new master takes over once all its workers serve (gunicorn calls this in every round)."""
        if self.master_pid and self._machine is not None:
            alone = self.master_pid != os.getppid()
            if alone or self._machine.ready >= self._machine.wanted:
                self._promote()
        if not self._locked and not self.master_pid:
            with suppress(HaltServer):  # the old master still finishes
                self._lock_runtime_folder(self._settings.runtime_dir)
        self._watch_handover()

    def _promote(self) -> None:
        assert self._inherited is not None
        self.log.info("this master takes over", extra={"old_master": self.master_pid})
        self._notifier.mainpid(os.getpid())
        with suppress(AsrError):  # there is none: it has nothing to say
            before = status.read(self._settings.runtime_dir / status.FILE_NAME)
            if before.master.pid == self.master_pid:
                self._happened.go_on_from(before.counters)
        take_over(self._inherited)
        settings.forget_inheritance()
        self.master_pid = 0
        self.master_name = "Master"
        self.proc_name = self.cfg.proc_name
        util._setproctitle(f"master [{self.proc_name}]")
        self._report()

    def _watch_handover(self) -> None:
        """End a new master that does not get ready; this one goes on."""
        if self._successor is None or self._handed_over:
            return
        if not self.reexec_pid:
            self._members.unwatch(self._successor.pipe)
            self._successor.close()
            self._successor = None
            self._refuse("SIGUSR2", "the new master has failed; its own log lines say why")
        elif self._successor.late:
            self.log.error("the new master is not ready in time and is ended")
            self._successor.tell(signal.SIGKILL)

    # Ends of rolls.

    def _entered(self, step: Step) -> None:
        assert self._machine is not None
        assert self._machine.roll is not None
        roll = self._machine.roll
        self.log.info(
            "roll %s to %s: %s",
            roll.id,
            roll.target,
            step.value,
            extra={"seconds": round(time.monotonic() - roll.started, 2)},
        )
        if step is Step.FIRST:
            self._notifier.reloading(f"rolling to {roll.target}")
        else:
            self._notifier.status(f"rolling to {roll.target}: {step.value}")
        if step is Step.UNDO and roll.result is Result.FAILED:
            self.log.error("roll %s to %s has failed: %s", roll.id, roll.target, roll.error)

    def _settle(self, action: Settle) -> None:
        """Move the pointers, or say why not."""
        assert self._machine is not None
        roll = self._machine.roll
        source = roll.source if roll is not None else None
        try:
            self._ledger.settle(action, source=source, base=self._machine.base)
        except AsrError as error:
            # The workers serve what they serve; the disk is told as soon as it can be.
            self.log.error("the store cannot be brought up to date: %s", error.message)
            self._problems = (error.message,)
        else:
            if action.result is Result.SUCCEEDED:
                self._problems = ()
        log = self.log.info if action.result is Result.SUCCEEDED else self.log.error
        log(
            "roll %s to %s %s",
            action.roll,
            action.version,
            action.result.value,
            extra={"error": action.error},
        )
        self._happened.rolled(action.result.value)
        outcome = "" if action.result is Result.SUCCEEDED else f" (roll to {action.version}: {action.error})"
        self._notifier.ready(f"serving {self._machine.base}{outcome}")

    # What others read.

    def _report(self) -> None:
        """Write the status file if something has changed, and tell systemd once when all serve."""
        machine = self._machine
        if machine is None or self._handed_over or self.master_pid:
            return  # the status file belongs to the other master
        self._write(machine)
        if not self._told_ready and machine.ready > 0:
            # After the file: who waits for systemd reads there that it serves.
            self._told_ready = True
            self._notifier.ready(f"serving {machine.base}")
            self._first_serves(machine)

    def _write(self, machine: Machine) -> None:
        """Replace the status file if anything in it has changed."""
        found = report.build(
            machine,
            report.Known(
                myself=self._myself,
                pids=self._members.pids,
                stopping=self._stopping,
                problems=self._problems + self._problems_of_keys() + self._members.problems(),
                refused=self._refused,
                counters=self._happened.counters(),
                forced=frozenset(member.number for member in self._members if member.forced),
                baked=frozenset(member.number for member in self._members if member.baked),
                numbers=self._count_up(),
            ),
        )
        if found == self._written:
            return
        try:
            status.write(self._settings.runtime_dir / status.FILE_NAME, found)
            self._written = found
        except AsrError as error:
            self.log.error("%s", error.message)

    def _warn_of_exposed_files(self) -> None:
        for warning in exposed_files(self._settings):
            self.log.warning("%s", warning)

    def _problems_of_keys(self) -> tuple[str, ...]:
        return (self._keys.problem,) if self._keys is not None and self._keys.problem else ()

    def _count_up(self) -> tuple[status.VersionNumbers, ...]:
        """The numbers by version; counted anew once a second, since each change is written to disk."""
        if time.monotonic() >= self._numbers_at + _NUMBERS_SECONDS:
            self._numbers_at = time.monotonic()
            rows = ((m.version, self._scoreboard.row(m.number).numbers()) for m in self._members)
            self._numbers = self._tally.sums(rows)
        return self._numbers

    def _first_serves(self, machine: Machine) -> None:
        """The start has succeeded: note what serves; a wish found on disk is rolled to now."""
        if machine.base is None:
            return
        try:
            wish = self._ledger.first_serves(machine.base)
        except AsrError as error:
            self._refuse("the wish found at the start", error.message)
            return
        if wish is not None:
            self.SIG_QUEUE.put_nowait(signal.SIGHUP)
            self._members.wake()

    # Stop.

    def stop(self, graceful: bool = True) -> None:  # noqa: FBT001, FBT002 - gunicorn's signature
        """Stop all workers: they accept what waits, finish, and leave; a second signal ends them.

        Args:
            graceful: False ends them at once.
        """
        self._stopping = True
        if not self._handed_over and not self.master_pid:
            # Otherwise another master serves on: its workers take what waits, and it tells systemd.
            self._notifier.stopping()
            self._report()
            self._scoreboard_stop()
        sock.close_sockets(
            self.LISTENERS, unlink=not self.systemd and self.reexec_pid == self.master_pid == 0
        )
        self.LISTENERS = []
        for leaving in self._members:
            self._scoreboard.row(leaving.number)[Column.LEAVE] = 1
        self._tell_all(signal.SIGTERM if graceful else signal.SIGQUIT)
        limit = time.monotonic() + (self._settings.drain_timeout if graceful else _QUICK_SECONDS)
        while (self.WORKERS or self._unpromoted()) and time.monotonic() < limit:
            self.murder_workers()
            if graceful and self._asked_again():
                graceful = False
                self.log.info("asked again: ending the workers")
                self._tell_all(signal.SIGQUIT)
                limit = time.monotonic() + _QUICK_SECONDS
            self.reap_workers()
            self._members.wait(_STOP_LOOK_SECONDS)
        for pid in list(self.WORKERS):
            member = self._members.by_pid(pid)
            in_hand = self._in_hand(member.number) if member is not None else 0
            self.log.error("worker %s did not finish in time", pid, extra={"lost_requests": in_hand})
        self._tell_all(signal.SIGKILL)
        self.reap_workers()

    def _tell_all(self, number: int) -> None:
        """Signal the workers, and a new master that has not taken over: the service is to stop."""
        self.kill_workers(number)
        if self._successor is not None and self._unpromoted():
            self._successor.tell(number)

    def _unpromoted(self) -> bool:
        """Whether a new master lives that this one has not handed over to."""
        return bool(self.reexec_pid) and not self._handed_over

    def _scoreboard_stop(self) -> None:
        if hasattr(self, "_scoreboard"):
            self._scoreboard.row(0)[Column.STOPPING] = 1

    def _asked_again(self) -> bool:
        asked = {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
        return bool(asked & set(super().wait_for_signals(timeout=0.0)))


def _how_it_ended(code: int) -> str:
    if os.WIFSIGNALED(code):
        number = os.WTERMSIG(code)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"was killed by {name}"
    return f"exited with code {os.WEXITSTATUS(code)}"
