"""Steps that the tests of rolls share: a service with a store of versions, load, and a watch over it."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import psutil
from load import Clip, Load, Report, clips, head
from service import PROJECT, Service, is_read, wait_for
from waiting import PATIENCE

from asrsvc.errors import StatusError
from asrsvc.release.store import Store, Version
from asrsvc.serving import status
from asrsvc.serving.status import Roll, Status, WorkerStatus

PREVIOUS_MODEL = PROJECT / "tests" / "data" / "sensevoice-nano-prev"
EMBEDDED_MODEL = PROJECT / "asrsvc" / "models" / "sensevoice-nano"
AT_ONCE = 100
"""requests without an answer, at most: lost ones are looked for, not how many a busy machine can take"""
TRIES = 10
"""times that something is begun again that was over before it was seen"""
_LOOK_SECONDS = 0.01

T = TypeVar("T")


class Operated(Service):
    """A service, and what an operator does with it."""

    def __init__(self, folder: Path, **settings: str) -> None:
        usual = {
            "ASR_WORKERS": "2",
            "ASR_THREADS": "1",
            "ASR_SOAK_SECONDS": "0.5",
            # What is looked for are lost requests, not how many a busy machine can take.
            "ASR_QUEUE_LIMIT": "1000",
            "ASR_SOAK_MAX_SLOWDOWN": "20",
            # Longer than any wait of a test: what waits for half a request is seen to wait.
            "ASR_BODY_IDLE_TIMEOUT": "600",
            "ASR_BODY_TIMEOUT": "600",
            # A client that connects long before it sends may be stopped meanwhile, with this whole machine.
            "ASR_HEADER_TIMEOUT": "60",
        }
        super().__init__(folder, **{**usual, **settings})
        self.store = Store(folder / "store")

    @property
    def status_path(self) -> Path:
        return self.folder / "run" / "status.json"

    @property
    def status(self) -> Status:
        return status.read(self.status_path)

    @cached_property
    def good(self) -> Version:
        """The version that the first start serves; an operator chose it, so others are measured by it."""
        version = self.add(EMBEDDED_MODEL)
        with self.store.lock():
            self.store.records.note_source(version.id, str(EMBEDDED_MODEL))
        return version

    @cached_property
    def other(self) -> Version:
        """Another good version, which says other things."""
        return self.add(PREVIOUS_MODEL)

    def add(self, folder: Path) -> Version:
        return self.store.add_folder(folder, folder.name)

    def wait_status(self, what: str, condition: Callable[[Status], T | None], seconds: float = PATIENCE) -> T:
        try:
            return wait_for(what, lambda: condition(self.status), seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.status}") from None

    def wait_whole(self, version: Version | None = None, seconds: float = 2 * PATIENCE) -> Status:
        """Wait until this process's workers all serve, of this version, and no roll is under way."""

        def whole(now: Status) -> Status | None:
            assert self.process is not None
            ready = [w for w in now.workers if w.state == "ready"]
            right = version is None or (
                now.version == version.id and all(w.version == version.id for w in ready)
            )
            mine = now.master.pid == self.process.pid
            return now if mine and right and len(ready) == now.wanted and not now.rolling else None

        return self.wait_status("a whole service", whole, seconds)

    def hang_up(self) -> None:
        self.master.send_signal(signal.SIGHUP)

    def wish(self, version: Version) -> int:
        """Ask for a version; the number of the last roll before."""
        now = self.status
        last = now.roll.id if now.roll else 0
        self.store.set_next(version)
        self.hang_up()
        return last

    def end_of_roll(self, after: int, seconds: float = 2 * PATIENCE) -> Roll:
        """Wait for the end of the first roll after this one."""

        def ended(now: Status) -> Roll | None:
            roll = now.roll
            return roll if roll and roll.id > after and roll.ended else None

        return self.wait_status(f"the end of roll {after + 1}", ended, seconds)

    def roll_to(self, version: Version) -> Roll:
        return self.end_of_roll(self.wish(version))

    def reload(self) -> Roll:
        """Hang up and wait for the end of the roll that follows."""
        roll = self.status.roll
        self.hang_up()
        return self.end_of_roll(roll.id if roll else 0)

    def wait_worker(self, step: str, *, state: str, version: Version) -> WorkerStatus:
        """Wait until the roll is at this step, and for a worker of this version in this state."""

        def found(now: Status) -> WorkerStatus | None:
            if now.roll is None or now.roll.ended or now.roll.step != step:
                return None
            return next((w for w in now.workers if (w.version, w.state) == (version.id, state)), None)

        return self.wait_status(f"a {state} worker of {version.id} at step {step}", found)

    def kill_at(
        self,
        step: str,
        *,
        to: Version,
        state: str,
        version: Version,
        number: signal.Signals,
        master: bool = False,
    ) -> tuple[int, WorkerStatus]:
        """Wish for a version, and when its roll is at a step signal a worker of this version in this state.

        The master is stopped meanwhile, so that its roll goes no further. Where the step was over before
        it was seen, the roll is taken back and begun again.

        Args:
            step: of the roll.
            to: what is wished for.
            state: of the worker.
            version: of the worker.
            number: the signal.
            master: is signalled, and not the worker.

        Returns:
            the number of the last roll before, and the worker.
        """
        source = self.store.version(str(self.status.version))
        for _ in range(TRIES):
            last = self.wish(to)

            def found(now: Status, last: int = last) -> WorkerStatus | None:
                if now.roll is None or now.roll.id <= last or now.roll.ended or now.roll.step != step:
                    return None
                return next((w for w in now.workers if (w.version, w.state) == (version.id, state)), None)

            def is_over(now: Status, last: int = last) -> bool:
                return now.roll is not None and now.roll.id > last and now.roll.ended is not None

            self.wait_status(
                f"a {state} worker of {version.id} at step {step}",
                lambda now, found=found, is_over=is_over: found(now) or is_over(now),
            )
            with stopped(self.master):
                worker = found(self.status)
                if worker is not None and self.store.pointer("next") != to:
                    worker = None  # it is just over
                if worker is not None:
                    os.kill(self.master.pid if master else worker.pid, number)
            if worker is not None:
                return last, worker
            assert self.end_of_roll(last).result == "succeeded"
            assert self.roll_to(source).result == "succeeded"
            self.wait_whole(source)
        raise AssertionError(f"no worker was seen at step {step}")

    def wait_refused(self, before: status.Refused | None) -> str:
        """Wait for a SIGHUP to be refused; why it was."""

        def refused(now: Status) -> str | None:
            return now.refused.error if now.refused and now.refused != before else None

        return self.wait_status("the refusal of SIGHUP", refused)

    def tool(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Begin a command of bin/swap-model."""
        return subprocess.Popen(
            [self.python, "-m", "asrsvc.release.cli", *arguments],
            env=self.environ,
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def kill_all(self) -> None:
        """SIGKILL for the master and all that it started: as a power cut does it."""
        self.master.suspend()  # it starts nobody who would not be listed
        everybody = [self.master, *self.master.children(recursive=True)]
        for process in everybody:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        assert self.process is not None
        self.process.wait(PATIENCE)
        wait_for("the end of all workers", lambda: not any(p.is_running() for p in everybody))


@contextmanager
def operated(folder: Path, **settings: str) -> Iterator[Operated]:
    """A whole service for the time of a `with` block; what it logged is shown if the block fails."""
    service = Operated(folder, **settings)
    try:
        service.start()
        service.wait_whole()
        assert service.good
        yield service
    except BaseException as error:
        error.add_note("the service's last words:\n" + service.log()[-6000:])
        raise
    finally:
        if service.process is not None:
            service.stop()


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """A process that does nothing for the time of a `with` block, if it does not end in it."""
    process.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


@dataclass
class Watch:
    """What was seen of the status file meanwhile."""

    fewest_ready: int = 1_000_000
    most_processes: int = 0
    """loading or ready"""
    ends: list[tuple[float, Roll]] = field(default_factory=list)
    """time.monotonic() when a roll was first seen to have ended, and the roll"""
    begins: list[tuple[float, int]] = field(default_factory=list)
    """time.monotonic() when a roll had not begun yet, the last such look, and the roll's id"""
    looks: int = 0


@contextmanager
def watching(service: Operated) -> Iterator[Watch]:
    """Look at the status file all the time."""
    watch = Watch()
    before = time.monotonic()
    begun = service.status.roll
    known = {begun.id} if begun else set()
    ended = {begun.id} if begun and begun.ended else set()
    end = threading.Event()

    def look() -> None:
        nonlocal before
        while not end.wait(_LOOK_SECONDS):
            asked = time.monotonic()
            try:
                now = service.status
            except StatusError:
                continue
            moment = time.monotonic()
            states = [worker.state for worker in now.workers]
            watch.looks += 1
            watch.fewest_ready = min(watch.fewest_ready, states.count("ready"))
            watch.most_processes = max(watch.most_processes, states.count("ready") + states.count("loading"))
            if now.roll and now.roll.id not in known:
                known.add(now.roll.id)
                watch.begins.append((before, now.roll.id))
            if now.roll and now.roll.ended and now.roll.id not in ended:
                ended.add(now.roll.id)
                watch.ends.append((moment, now.roll))
            before = asked

    thread = threading.Thread(target=look, name="watch")
    thread.start()
    try:
        yield watch
    finally:
        end.set()
        thread.join()


class Traffic:
    """Load from a thread of its own, so that a test may wait for other things meanwhile."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="traffic")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._load.run())
        finally:
            self._loop.close()

    @property
    def report(self) -> Report:
        return self._load.report

    @property
    def answered(self) -> int:
        """Requests that have an answer."""
        return sum(record.version != "" for record in list(self.report.records))

    def wait_answered(self, more: int, seconds: float = PATIENCE) -> None:
        """Wait for so many more answers."""
        goal = self.answered + more
        wait_for(f"{more} more answers", lambda: self.answered >= goal, seconds)

    def end(self) -> Report:
        """Send no more; wait for the last answers."""
        if self._thread.is_alive():
            with suppress(RuntimeError):  # it has just ended by itself
                self._loop.call_soon_threadsafe(self._load.stop)
        self._thread.join()
        return self.report


def known_clips(service: Operated) -> list[Clip]:
    return clips({service.good.id: "withitn", service.other.id: "prev"})


@contextmanager
def traffic(service: Operated, rate: float, *ports: int, **options: Any) -> Iterator[Traffic]:
    """Load for the time of a `with` block; it has ended, and all is answered, when the block is left."""
    options = {"at_once": AT_ONCE, **options}
    flow = Traffic(Load(list(ports or (service.port,)), known_clips(service), rate=rate, **options))
    try:
        yield flow
    finally:
        flow.end()


def late_answers(report: Report, watch: Watch) -> list[str]:
    """Answers of another version to requests that were sent after a roll was done.

    Only those that came before the next roll began: after that the other version may serve again.
    """
    late = []
    for moment, roll in watch.ends:
        following = min((begun for begun, number in watch.begins if number > roll.id), default=math.inf)
        served = roll.target if roll.result == "succeeded" else roll.source
        late += [
            f"{record.version} {record.sent - moment:.3f} s after roll {roll.id}, to {roll.target}"
            for record in report.records
            if moment < record.sent and record.sent + record.seconds < following
            if record.version not in {served, ""}
        ]
    return late


class Half:
    """A request of which half has been sent: a worker has it in hand."""

    def __init__(self, service: Operated) -> None:
        self.clip: Clip = known_clips(service)[0]
        self.connection = socket.create_connection(("127.0.0.1", service.port), timeout=2 * PATIENCE)
        middle = len(self.clip.body) // 2
        self._rest = self.clip.body[middle:]
        self.connection.sendall(head(self.clip.body, keep_alive=False) + self.clip.body[:middle])

    def finish(self) -> bytes:
        """Send the rest; the whole answer."""
        self.connection.sendall(self._rest)
        with self.connection, self.connection.makefile("rb") as reader:
            return reader.read()

    def close(self) -> None:
        self.connection.close()


def in_hand(service: Operated, half: Half) -> bool:
    """Whether a worker has taken the connection out of the queue (it reads the body as it comes)."""
    return is_read(service.port, half.connection)


def begin_half(service: Operated) -> Half:
    half = Half(service)
    wait_for("a worker that has it", lambda: in_hand(service, half))
    return half


NGINX = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 600m;
  # An idle connection that nginx closes under a client's feet is no fault of the service.
  keepalive_timeout 3600s;
  keepalive_requests 1000000;
  upstream asr {{
    server 127.0.0.1:{upstream} max_fails=0;
    keepalive 16;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://asr;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_next_upstream off;
      proxy_read_timeout 120s;
    }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, port: int, upstream: int) -> Iterator[int]:
    """A real nginx before the service: it keeps connections to it alive, and tries nothing again.

    Args:
        folder: for its files.
        port: where it listens, on 127.0.0.1.
        upstream: the service's port.

    Yields:
        the port.
    """
    program = shutil.which("nginx") or "/usr/sbin/nginx"  # which is not on every user's PATH
    folder.mkdir()
    configuration = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # else it gives up root, and its folder with it
    configuration.write_text(NGINX.format(folder=folder, port=port, upstream=upstream, user=user))
    process = subprocess.Popen(
        [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(configuration)]
    )
    try:
        wait_for("nginx", (folder / "nginx.pid").exists)
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)
