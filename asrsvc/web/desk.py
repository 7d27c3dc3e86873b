"""Requests for transcription: the upload is read, then there is a place for it, and a thread works on it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from starlette.requests import Request

from asrsvc.errors import Cancelled, HandedOn, NoSpace, NotReady, OverCapacity
from asrsvc.remote.client import Client
from asrsvc.serving.lanes import LaneName
from asrsvc.speech.joining import whole
from asrsvc.speech.transcribe import Options, Progress, Transcriber
from asrsvc.speech.types import Segment, Transcript
from asrsvc.web.fields import Field, names, sizes
from asrsvc.web.notes import of_transcript
from asrsvc.web.spool import Spool
from asrsvc.web.upload import (
    MEMORY_BYTES,
    SHORT_BYTES,
    Form,
    UploadLimits,
    check_head,
    declared_length,
    read_form,
)
from asrsvc.web.url_field import UrlField

_TICK_SECONDS: Final = 0.25  # between two looks at how far it is
_SILENCE_SECONDS: Final = 10.0  # after which a step is given though nothing has moved
_AHEAD: Final = 64  # segments that wait for a client that is slow to take them, at most
SHORT_SECONDS: Final = 30.0
"""of a short recording, at most: one span"""
_LONG_SECONDS: Final = 0.1  # how often it is looked whether a request that was taken for short is a long one
_LOOK_SECONDS: Final = 0.5  # how often the thread looks whether anybody still waits for its segments


class Place(Protocol):
    """A request's place among those that its worker works on."""

    spent: float
    """seconds that it has cost"""
    handed_on: bool
    """whether it goes on elsewhere"""

    @property
    def is_long(self) -> bool:
        """Whether it is taken to be a long one."""

    def lengthen(self) -> bool:
        """It has turned out to be a long one; whether it has a place here among those."""

    def release(self) -> None:
        """The place is not needed any more; may be called again."""


class Intake(Protocol):
    """The way to a place, of one connection."""

    def check_room(self, lane: LaneName, client: int) -> None:
        """See, before a body is read, that its request could wait.

        Raises:
            OverCapacity: it could not.
        """

    def enter(self, lane: LaneName, client: int, scope: Mapping[str, Any], form: Form) -> Place:
        """A place for a request that has been read.

        Raises:
            HandedOn: another worker will answer it.
            OverCapacity, NoSpace: it may not wait.
        """

    def hand_on(self, lane: LaneName, client: int, scope: Mapping[str, Any], form: Form) -> None:
        """Put it into the queue: the caller ends without a word.

        Raises:
            OverCapacity, NoSpace: it may not wait; nothing has been done.
        """


@dataclass(frozen=True, slots=True)
class Moved:
    """How far the work is."""

    audio_seconds: float
    """of the recording decoded so far"""
    duration: float | None
    """seconds of the whole recording by its header; None: it does not say"""


Step: TypeAlias = Moved | Segment | Transcript
"""Moved and segments as they come; the transcript is the last one"""


class Desk:
    """Takes requests for transcription that have a place in this worker."""

    def __init__(
        self,
        transcriber: Transcriber,
        *,
        limits: UploadLimits,
        spool: Spool,
        threads: int,
        queue_timeout: float,
        remote: Client | None = None,
    ) -> None:
        """Prepare the threads.

        Args:
            transcriber: does the work.
            limits: of request bodies.
            spool: the disk that they have.
            threads: requests that are decoded and recognised at the same time, at most.
            queue_timeout: seconds that a request may wait for its place.
            remote: goes to the hosts that recordings may be fetched from; None: there are none.
        """
        self._url = UrlField(remote, limits)
        self._transcriber = transcriber
        self._limits = limits
        self._spool = spool
        self._queue_timeout = queue_timeout
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="asr-request")

    @property
    def version(self) -> str:
        """Id of the version that answers."""
        return self._transcriber.model.version

    async def read(self, request: Request, fields: Sequence[Field]) -> Form:
        """Read the form of a request; whoever gets it closes it.

        Args:
            request: that may have come through the queue.
            fields: that may stand beside the file.

        Raises:
            NotReady: nothing is transcribed at this listener.
            OverCapacity: its client has as many in the queue as it may.
            AsrError: what is wrong with the body, see `read_form`.
        """
        state = request.scope["state"]
        if "form" in state:
            form: Form = state["form"]  # it was read before it waited
        else:
            form = await self._read(request, fields)
        state["read"] = (dict(form.fields), {name: list(values) for name, values in form.lists.items()})
        return form

    async def _read(self, request: Request, fields: Sequence[Field]) -> Form:
        check_head(request.headers, self._limits.bytes)
        state = request.scope["state"]
        intake: Intake | None = state.get("intake")
        if intake is None:
            raise NotReady("this listener does not transcribe: ask the service's own address")
        size = declared_length(request.headers)
        try:
            intake.check_room(_lane_of(size), state["client_number"])
            if size is not None and size > MEMORY_BYTES:
                self._spool.expect(state["ticket"], size)
        except (OverCapacity, NoSpace):
            state["withdraw"]()
            raise
        return await read_form(
            request.headers,
            request.receive,
            self._limits,
            names(fields, many=False),
            lists=names(fields, many=True),
            most_bytes=sizes(fields),
            hold=self._spool.holder(state["ticket"]),
        )

    async def fetch(self, request: Request, form: Form) -> None:
        """Put the recording into a form that names one with `url`.

        Raises:
            AsrError: why it cannot be had, see `UrlField.fetch`.
        """
        hold = self._spool.holder(request.scope["state"]["ticket"])
        await self._url.fetch(request, form, reserve=hold)

    def enter(self, request: Request, form: Form) -> None:
        """Wait for a place, here or in another worker; what the request asks for has been checked.

        Raises:
            HandedOn: it goes on elsewhere.
            OverCapacity, NoSpace: it may not wait.
            NotReady: it has waited for too long.
        """
        state = request.scope["state"]
        if "place" not in state:
            state["place"] = state["intake"].enter(
                _lane_of(form.size), state["client_number"], request.scope, form
            )
            state["note"].setdefault("queue_ms", 0.0)
            return
        waited = time.monotonic() - state["waited_from"]
        state["note"]["queue_ms"] = _milliseconds(waited)
        if waited > self._queue_timeout:
            raise NotReady(f"no worker was free for {waited:.0f} s", code="queue_timeout")

    async def transcribe(self, request: Request, form: Form, options: Options) -> Transcript:
        """Work on a request until its transcript is there.

        Raises:
            AsrError: what is wrong with the recording, see `Transcriber.segments`.
        """
        async with aclosing(self._work(request, form, options, tick=None)) as steps:
            async for step in steps:
                if isinstance(step, Transcript):
                    return step
        raise Cancelled("the work has ended without a transcript")

    def follow(self, request: Request, form: Form, options: Options) -> AsyncGenerator[Step, None]:
        """Work on a request and tell each step as it is done; closing it drops the rest.

        Raises:
            AsrError: what is wrong with the recording, see `Transcriber.segments`.
        """
        return self._work(request, form, options, tick=_TICK_SECONDS)

    async def _work(
        self, request: Request, form: Form, options: Options, *, tick: float | None
    ) -> AsyncGenerator[Step, None]:
        self.enter(request, form)
        run = _Run(request, form)
        loop = asyncio.get_running_loop()
        tell = run.relay.tell if tick is not None else None
        run.work = loop.run_in_executor(
            self._threads, self._run, form.take(), options, run.progress, run.relay.cancelled, tell
        )
        try:
            async with aclosing(run.steps(tick)) as steps:
                async for step in steps:
                    yield step
        finally:
            await run.end()
        if run.elsewhere:
            run.go_elsewhere()

    def _run(
        self,
        descriptor: int,
        options: Options,
        progress: Progress,
        cancelled: threading.Event,
        tell: Callable[[Segment], None] | None,
    ) -> Transcript:
        """Run in a thread, which alone lets the file go: it may outlive the request."""
        try:
            found = []
            for segment in self._transcriber.segments(descriptor, options, progress, cancelled):
                found.append(segment)
                if tell is not None:
                    tell(segment)
            return whole(tuple(found), progress.audio_seconds, progress.warnings)
        finally:
            os.close(descriptor)


class _Run:
    """A request that a thread works on."""

    work: asyncio.Future[Transcript]

    def __init__(self, request: Request, form: Form) -> None:
        """Prepare; the form holds a file, and the request has a place."""
        assert form.descriptor is not None
        self._request = request
        self._form = form
        self._state = request.scope["state"]
        self._place: Place = self._state["place"]
        # Kept until it is sure that the request is answered here.
        self._kept = None if self._place.is_long else os.dup(form.descriptor)
        self._gone = asyncio.ensure_future(_disconnected(request))
        self.progress = Progress(client=self._state["client_number"], is_long=self._place.is_long)
        self.relay = _Relay()
        self.elsewhere = False
        """whether it goes on in the queue, with the long ones"""

    async def steps(self, tick: float | None) -> AsyncGenerator[Step, None]:
        """Each step as it is done; none but the transcript without a tick.

        Raises:
            AsrError: what the thread has met.
            Cancelled: the client has gone.
        """
        told, told_at = 0.0, time.monotonic()
        while not self._gone.done():
            done = self.work.done()
            if not done and self._turns_long():
                self.elsewhere = True
                return
            while self.relay.segments:
                self._drop_kept()
                yield self.relay.take()
                told_at = time.monotonic()
            if done:
                transcript = await self.work
                self._state["note"].update(of_transcript(transcript))
                self._leave()  # who gets the end of a stream may ask again at once
                yield transcript
                return
            moved = self.progress.audio_seconds > told
            if tick is not None and (moved or time.monotonic() - told_at > _SILENCE_SECONDS):
                told, told_at = self.progress.audio_seconds, time.monotonic()
                self._drop_kept()
                yield Moved(round(told, 3), self.progress.declared_seconds)
            within = tick if self._place.is_long else min(tick or _LONG_SECONDS, _LONG_SECONDS)
            await self.relay.news(self.work, self._gone, within=within)
        raise Cancelled("the client has gone")

    def _turns_long(self) -> bool:
        """Look whether it is a long one; whether it has to wait among those, since there is no place here."""
        seconds = max(self.progress.audio_seconds, self.progress.declared_seconds or 0.0)
        if self._place.is_long or seconds <= SHORT_SECONDS:
            return False
        self.progress.is_long = True
        return not self._place.lengthen() and self._kept is not None and self._may_wait()

    def _may_wait(self) -> bool:
        try:
            self._state["intake"].check_room(LaneName.LONG, self._state["client_number"])
        except OverCapacity:
            return False
        return True

    async def end(self) -> None:
        """Nothing more is wanted of it."""
        self.relay.cancelled.set()
        self._gone.cancel()
        await asyncio.wait({self.work})  # its place is not free before it has let the engine go
        if not self.work.cancelled():
            self.work.exception()  # looked at: what failed after the client had gone is of no interest
        if not self.elsewhere:
            self._drop_kept()
            self._leave()
        _write_note(self._state["note"], self._form, self.progress)

    def go_elsewhere(self) -> None:
        """Let it wait again.

        Raises:
            HandedOn: as it should be.
            OverCapacity, NoSpace: it may not.
        """
        self._form.descriptor, self._kept = self._kept, None
        self._place.handed_on = True
        self._leave()
        intake: Intake = self._state["intake"]
        intake.hand_on(LaneName.LONG, self._state["client_number"], self._request.scope, self._form)
        raise HandedOn

    def _leave(self) -> None:
        self._place.spent = self.progress.decode_seconds + self.progress.inference_cpu_seconds
        self._place.release()

    def _drop_kept(self) -> None:
        if self._kept is not None:
            os.close(self._kept)
            self._kept = None


def _lane_of(size: int | None) -> LaneName:
    """The size that a request is taken to be by its bytes; None: they come in chunks."""
    return LaneName.SHORT if size is not None and size <= SHORT_BYTES else LaneName.LONG


class _Relay:
    """Passes segments from the thread that finds them to the event loop, no more than it can take."""

    def __init__(self) -> None:
        self.segments: deque[Segment] = deque()
        self.cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(_AHEAD)
        self._arrived = asyncio.Event()

    def tell(self, segment: Segment) -> None:
        """Called by the thread; waits while the client is slow.

        Raises:
            Cancelled: nobody waits for it any more.
        """
        while not self._room.acquire(timeout=_LOOK_SECONDS):
            if self.cancelled.is_set():
                raise Cancelled("the client has gone")
        self._loop.call_soon_threadsafe(self._put, segment)

    def _put(self, segment: Segment) -> None:
        self.segments.append(segment)
        self._arrived.set()

    def take(self) -> Segment:
        """The oldest segment."""
        self._room.release()
        return self.segments.popleft()

    async def news(self, *futures: asyncio.Future[Any], within: float | None) -> None:
        """Wait until a segment is there or one of the futures is done, or for so many seconds."""
        self._arrived.clear()
        if self.segments:
            return
        arrived = asyncio.ensure_future(self._arrived.wait())
        try:
            await asyncio.wait({arrived, *futures}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrived.cancel()


async def _disconnected(request: Request) -> None:
    """Return when the client has gone; the body has been read to its end."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _write_note(note: dict[str, Any], form: Form, progress: Progress) -> None:
    note["bytes"] = form.size
    note["audio_seconds"] = round(progress.audio_seconds, 3)
    note["decode_ms"] = _milliseconds(progress.decode_seconds)
    note["inference_ms"] = _milliseconds(progress.inference_seconds)
    note["inference_cpu_ms"] = _milliseconds(progress.inference_cpu_seconds)
    note["spans"] = progress.spans


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
