"""The worker: a process that loads its model after the fork, says so, serves, and drains.

The master imports this module for the class; what is heavy is imported in the worker's own process.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from setproctitle import setproctitle
from uvicorn._compat import asyncio_run
from uvicorn.server import ServerState
from uvicorn_worker import UvicornWorker

from asrsvc.errors import AsrError
from asrsvc.release.speed import cost_class
from asrsvc.release.versions import Version
from asrsvc.serving.accept import Acceptor, Limits
from asrsvc.serving.brief import Brief, Line, say
from asrsvc.serving.counted import Counted
from asrsvc.serving.gentle import in_gentle_thread
from asrsvc.serving.happenings import WORN_MEMORY, WORN_REQUESTS, WORN_TWIN
from asrsvc.serving.intake import Intake
from asrsvc.serving.lanes import Waiting
from asrsvc.serving.memory import GIVE_BACK_SECONDS, anonymous_mebibytes, give_back
from asrsvc.serving.parcel import Parcel, unpack
from asrsvc.serving.places import Place, Places
from asrsvc.serving.protocol import LingeringProtocol
from asrsvc.serving.scoreboard import Column

if TYPE_CHECKING:
    from asrsvc.release.bake import Found
    from asrsvc.serving.jobs import Jobs
    from asrsvc.serving.loading import Loaded
    from asrsvc.serving.twin import Maker
    from asrsvc.web.app import Envelope

log = logging.getLogger(__name__)

COULD_NOT_LOAD: Final = 70
"""exit code of a worker whose model cannot serve (EX_SOFTWARE); gunicorn's own 3 and 4 halt its master"""

_BEAT_SECONDS: Final = 1.0
_WEIGH_EVERY_BEATS: Final = 5
_REASON_SECONDS: Final = 1.0  # from SIGTERM until the master says why, at most
_LOOK_SECONDS: Final = 0.02  # how often a worker that drains looks whether it is done
_MOST_STALLED: Final = 5  # requests that wait for the application, or are read and not worked on
_VISITORS: Final = 2048
_DESCRIPTORS_EACH: Final = 4  # of those that a process may have, one in so many may be a visitor


class Worker(UvicornWorker):  # type: ignore[misc]  # uvicorn-worker has no types
    """One uvicorn worker with one model."""

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012 - the name and type are uvicorn-worker's
        "loop": "uvloop",
        "http": LingeringProtocol,
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "server_header": False,
        # uvicorn would believe X-Forwarded-For of whoever comes from this machine.
        "proxy_headers": False,
        # An idle connection could be closed under a client's feet: none is kept.
        "headers": [("Connection", "close")],
    }

    brief: Brief
    """set by the master before the fork"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # uvicorn-worker gives uvicorn gunicorn's level; its news of every start are gunicorn's too.
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    def load_wsgi(self) -> None:
        """Nothing: the model is loaded while the heart beats (called by gunicorn's init_process)."""

    def run(self) -> None:
        """Live, from loading to the end of the drain (called by gunicorn's init_process)."""
        sys.exit(asyncio_run(self._live(), loop_factory=self.config.get_loop_factory()))

    async def _live(self) -> int:
        brief = self.brief
        self._leaving = asyncio.Event()
        self._orphaned = False
        self._worn = False
        self._loaded = False
        self._maker: Maker | None = None
        self._state = ServerState()
        self._reading = 0  # bodies
        self._handed = 0  # connections that have been accepted, and have not reached the application
        self._connecting: set[asyncio.Task[Any]] = set()
        self._jobs: Jobs | None = None
        self._install_signals()
        beat = asyncio.ensure_future(self._beat())
        try:
            with _all_kept():
                app = await self._load()
            if app is None:
                return COULD_NOT_LOAD
            self.config.app = self._app = Counted(app, self._count)
            self._refused = app.meter.refused
            self.config.load()
            self._refresh_headers()
            self._open()
            await self._leaving.wait()
            await self._hear_why()
            await self._drain()
        finally:
            beat.cancel()
        log.info("worker leaves", extra={"version": brief.version})
        return 0

    # Loading.

    async def _load(self) -> Envelope | None:
        brief = self.brief
        if brief.version is None or brief.path is None:
            from asrsvc.serving import compose  # noqa: PLC0415 - not in the master

            self._title("no model")
            reason = " ".join(brief.problems) or "no model can be loaded"
            app = compose.load_apology(brief, reason)
            self._loaded = True
            return app if self._say_ready(Line("ready")) else None
        self._title(f"{brief.version} loading")
        started = time.monotonic()
        folder, version = brief.path, brief.version

        def load() -> Loaded:
            # The digests of large files and ONNX Runtime leave Python's lock to the imports, which are a
            # good part of a load, and which the master does without.
            with ThreadPoolExecutor(2, "asr-load-aside") as aside:
                from asrsvc.serving.twin import look  # noqa: PLC0415

                looked = aside.submit(look, folder, version, brief.settings)
                from asrsvc.serving import loading  # noqa: PLC0415

                aside.submit(importlib.import_module, "asrsvc.serving.compose")
                return loading.load(
                    folder,
                    looked.result,
                    version=version,
                    tried=brief.tried,
                    reference_cost=brief.reference_cost,
                    settings=brief.settings,
                )

        try:
            loaded = await self._gently(load)
            from asrsvc.serving import compose  # noqa: PLC0415 - as above

            transcribers = await asyncio.to_thread(compose.assemble, brief.settings, loaded, brief.row)
        except AsrError as error:
            self._cannot_load(error.message)
            return None
        except MemoryError:
            self._cannot_load("the model needs more memory than there is")
            return None
        except Exception as error:
            log.exception("the model cannot be loaded")
            self._cannot_load(f"{type(error).__name__}: {error}")
            return None
        seconds = time.monotonic() - started
        self._title(f"{version} ready")
        self._loaded = True
        log.info(
            "worker ready",
            extra={
                "version": version,
                "load_ms": round(seconds * 1000, 1),
                "likeness": round(loaded.findings.likeness, 3),
            },
        )
        app, self._jobs = await asyncio.to_thread(
            compose.load_app, brief, transcribers, self._observe, seconds, loaded.twin
        )
        twin = loaded.twin
        ready = Line(
            "ready",
            cost=loaded.findings.cost,
            load_seconds=seconds,
            baked=twin is not None and twin.usable is not None,
            problem=(twin.problem or "")[:1000] if twin is not None and twin.state == "damaged" else "",
        )
        if not self._say_ready(ready):
            return None
        if twin is not None and twin.usable is None:
            self._make_twin(Version(version, folder), twin)
        return app

    async def _gently(self, load: Callable[[], Loaded]) -> Loaded:
        """Load so that those who serve are not slowed; the master hurries what takes long."""
        if self.brief.settings.thread_count() > 1:
            # The session starts threads, which would keep the low priority for ever.
            return await asyncio.to_thread(load)
        return await asyncio.wrap_future(in_gentle_thread(load))

    def _make_twin(self, version: Version, found: Found) -> None:
        from asrsvc.serving.twin import Maker  # noqa: PLC0415 - not in the master

        maker = Maker(self.brief.settings, version, found)
        if maker.wanted:
            maker.start()
            self._maker = maker

    def _say_ready(self, line: Line) -> bool:
        """Tell the master; where it cannot hear it would end this worker in the middle of its requests."""
        said = say(self.brief.pipe, line)
        if not said:
            log.error("the master does not listen: this worker does not serve")
        return said

    def _cannot_load(self, reason: str) -> None:
        log.error("the model cannot be loaded: %s", reason, extra={"version": self.brief.version})
        say(self.brief.pipe, Line("failed", error=reason[:2000]))

    # Serving.

    def _open(self) -> None:

        brief = self.brief
        workers = brief.settings.worker_count()
        self._places = Places(
            brief.queues,
            serve=self._serve_waiting,
            longest_wait=brief.settings.queue_timeout,
            changed=self._count,
            tickets=brief.clients,
            crowded=lambda: brief.row.total(Column.SHORT_AT_WORK) >= workers,
        )
        self._acceptor = Acceptor(
            [
                (listener.sock, {"local": True} if listener.fileno() in brief.ops_listeners else {})
                for listener in self.sockets
            ],
            serve=self._hand_over,
            limits=Limits(
                head_seconds=brief.settings.header_timeout,
                visitors=min(_VISITORS, _raise_descriptor_limit() // _DESCRIPTORS_EACH),
            ),
            changed=self._count_arriving,
        )
        if self._jobs is not None:
            self._places.start()
            self._jobs.start()
        self._acceptor.start()

    def _hand_over(self, connection: socket.socket, state: dict[str, Any]) -> None:
        """Hand a new connection to uvicorn's protocol."""
        protocol = LingeringProtocol(config=self.config, server_state=self._state, app_state=state)
        if not state.get("local") and self.brief.version is not None:
            state["intake"] = self._intake(protocol)
        if "refusal" not in state:
            protocol.reached = lambda: self._count_handed(-1)
            self._count_handed(1)
        self._connect(protocol, connection)

    def _count_handed(self, change: int) -> None:
        self._handed += change
        self._count()
        self._count_arriving()

    def _serve_waiting(self, waiting: Waiting, place: Place, *, ahead: bool) -> None:
        """Hand a connection that has waited, and its request, to uvicorn's protocol."""
        try:
            parcel = unpack(waiting.spool)
        except (OSError, ValueError) as error:
            log.error("a request that has waited cannot be read: %s", error)
            waiting.close()
            place.release()
            return
        state = self._state_of(parcel, waiting, place, ahead=ahead)
        protocol = LingeringProtocol(config=self.config, server_state=self._state, app_state=state)
        state["intake"] = self._intake(protocol)

        def drop() -> None:
            place.release()
            state["form"].close()

        protocol.unserved = drop
        self._connect(protocol, waiting.connection)

    def _intake(self, protocol: LingeringProtocol) -> Intake:
        brief = self.brief
        return Intake(self._places, brief.queues, brief.clients, protocol, self._count_reading)

    def _count_reading(self, change: int) -> None:
        self._reading += change
        self._count()
        self._count_arriving()

    def _state_of(self, parcel: Parcel, waiting: Waiting, place: Place, *, ahead: bool) -> dict[str, Any]:
        from asrsvc.serving import compose  # noqa: PLC0415 - not in the master

        return {
            "place": place,
            "form": compose.form_of(parcel, waiting.spool),
            "waited_from": waiting.arrived,
            "ticket": waiting.ticket,
            "arrived": parcel.started,
            "started": parcel.started,
            "request_id": parcel.request_id,
            "note": parcel.note,
            "ahead": ahead,
            "again": parcel.head,
        }

    def _connect(self, protocol: LingeringProtocol, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        protocol.refused = self._refused
        task = loop.create_task(loop.connect_accepted_socket(lambda: protocol, connection))
        self._connecting.add(task)
        task.add_done_callback(lambda done: self._connected(done, connection, protocol))

    def _connected(
        self, task: asyncio.Task[Any], connection: socket.socket, protocol: LingeringProtocol
    ) -> None:
        self._connecting.discard(task)
        if task.cancelled() or task.exception() is not None:  # the client had gone meanwhile
            connection.close()
            protocol.say_reached()
            if protocol.unserved is not None:
                protocol.unserved()

    def _count(self) -> None:
        row = self.brief.row
        # What the application has read and has not begun to answer is in hand, too. It should have a place
        # by then, or be on its way to another worker: where it has none, others had better take what comes.
        read = self._app.uploads - self._reading
        row[Column.IN_HAND] = max(self._places.in_hand, read)
        self._acceptor.pause(paused=read - self._places.in_hand + self._handed >= _MOST_STALLED)
        row[Column.SHORT_AT_WORK] = self._places.short_at_work
        if self._jobs is not None:
            self._jobs.note_requests(self._places.in_hand)

    def _count_arriving(self) -> None:
        self.brief.row[Column.ARRIVING] = self._acceptor.begun + self._reading + self._handed

    def _observe(self, status: int, note: dict[str, Any]) -> None:
        """Keep count of a request that the engine has answered."""
        row = self.brief.row
        row.add(Column.REQUESTS)
        row.add(Column.ERRORS, int(status >= 500))
        row.add(Column.EMPTY, int(bool(note.get("empty"))))
        row.add(Column.AUDIO_MS, round(note.get("audio_seconds", 0) * 1000))
        row.add(Column.BUSY_MS, round(note.get("inference_ms", 0)))
        if cpu_ms := note.get("inference_cpu_ms"):
            row.add_cost(cost_class(cpu_ms / 1000, note.get("audio_seconds", 0)))
        limit = self.brief.settings.worker_max_requests
        if limit and row[Column.REQUESTS] >= limit:
            self._wear_out(f"it has answered {limit} requests", WORN_REQUESTS)

    def _weigh(self) -> None:
        """Look at the memory of this process, if it has a limit."""
        limit = self.brief.settings.worker_max_memory
        if limit and anonymous_mebibytes() >= limit:
            self._wear_out(f"it has grown beyond {limit} MiB", WORN_MEMORY)

    def _wear_out(self, why: str, reason: str) -> None:
        """Ask once for a replacement; this worker serves until it is there."""
        if not self._worn:
            self._worn = True
            say(self.brief.pipe, Line("recycle", error=why, reason=reason))

    # Leaving.

    async def _hear_why(self) -> None:
        """Serve on until it is known why SIGTERM came: what waits may have no other worker to go to.

        systemd sends it to all processes of the service at once, and the master says in a moment that
        it stops, or is dead.
        """
        brief = self.brief
        deadline = time.monotonic() + _REASON_SECONDS
        while time.monotonic() < deadline:
            self._look_for_master()
            if self._orphaned or brief.row[Column.LEAVE] or brief.service[Column.STOPPING]:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _drain(self) -> None:
        # Where nobody says why (the master hangs, and systemd ends all), nobody may be left who serves.
        rolling = self.brief.row[Column.LEAVE] and not self.brief.service[Column.STOPPING]
        stopping = self._orphaned or not rolling
        self._title(f"{self.brief.version or 'no model'} draining")
        # When the service stops, what waits at the listeners has no other worker to go to, unless
        # systemd keeps them for the next start. Then they are closed, so that a new master can bind them.
        self._acceptor.stop(empty=stopping and not self.brief.keep_listeners)
        for listener in self.sockets:
            listener.close()
        if not stopping:
            self._places.stop()
        if self._jobs is not None:
            self._jobs.leave()
        say(self.brief.pipe, Line("draining"))
        # No deadline here: the master has one, and ends what is left then.
        while not self._is_done(stopping=stopping):
            await asyncio.sleep(_LOOK_SECONDS)
            if not stopping and (self._orphaned or self.brief.service[Column.STOPPING]):
                # A body that is still arriving here has no other worker to go to any more.
                stopping = True
                self._places.start()
        self._places.stop()

    def _is_done(self, *, stopping: bool) -> bool:
        """Nothing is in hand; and, if no other worker is left for it, nothing waits either."""
        if self._acceptor.visitors or self._connecting or self._places.in_hand:
            return False
        if self._state.connections or self._state.tasks:
            return False
        if self._jobs is not None and not self._jobs.idle:
            return False
        # Its client may have gone; to leave in the middle of a run would be a crash.
        if self.brief.row[Column.RUNNING] or self.brief.row[Column.IN_BACKGROUND]:
            return False
        return not stopping or not any(len(queue) for queue in self.brief.queues.values())

    # The heart, and signals.

    async def _beat(self) -> None:
        beats = 0
        give_back_at = time.monotonic() + GIVE_BACK_SECONDS
        giving: asyncio.Task[None] | None = None
        while True:
            self.notify()
            self._look_for_master()
            if self.brief.row[Column.LEAVE] or self.brief.service[Column.STOPPING]:
                self._told_to_leave()  # a SIGTERM from before there was a handler is lost
            self._refresh_headers()
            if self.brief.keys is not None:
                self.brief.keys.look()  # what it knows is all that is left when the file breaks
            beats += 1
            if time.monotonic() >= give_back_at and (giving is None or giving.done()):
                give_back_at = time.monotonic() + GIVE_BACK_SECONDS
                # Not waited for: the heart beats on where no thread is free.
                giving = asyncio.create_task(asyncio.to_thread(give_back))
            if beats % _WEIGH_EVERY_BEATS == 0:
                self._weigh()
            if self._maker is not None and self._maker.made.is_set():
                self._wear_out("its faster twin is there", WORN_TWIN)
            await asyncio.sleep(_BEAT_SECONDS)

    def _look_for_master(self) -> None:
        if os.getppid() != self.ppid and not self._orphaned:
            log.warning("the master has died: this worker finishes what it has and leaves")
            self._orphaned = True
            self._leaving.set()
            if not hasattr(self, "_acceptor"):
                os._exit(0)

    def _refresh_headers(self) -> None:
        # What uvicorn's own server does every second; protocols made by hand read it too.
        date = (b"date", formatdate(time.time(), usegmt=True).encode())
        encoded = getattr(self.config, "encoded_headers", [])
        self._state.default_headers = [date, *encoded]

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told_to_leave)
        loop.add_signal_handler(signal.SIGQUIT, lambda: os._exit(0))
        loop.add_signal_handler(signal.SIGUSR1, self.log.reopen_files)
        # A terminal sends these to the whole process group; the master decides.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _told_to_leave(self) -> None:
        if not self._loaded:
            os._exit(0)  # nothing is in hand, and a thread cannot be stopped
        self._leaving.set()  # also of one that does not accept yet: it may be the last, and others wait

    def _title(self, text: str) -> None:
        with suppress(OSError):
            setproctitle(f"gunicorn: worker [{self.cfg.proc_name}] {text}")


def _raise_descriptor_limit() -> int:
    """Allow this process as many descriptors as it may have: the usual soft limit is 1,024."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else sys.maxsize


@contextmanager
def _all_kept() -> Iterator[None]:
    """What is made here stays as long as the process: the garbage collector need never look at it again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
