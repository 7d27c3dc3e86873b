"""Requests that have a place in this worker: the upload is read, and a thread works on it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from starlette.requests import Request

from asrsvc.errors import Cancelled, NotReady
from asrsvc.remote.client import Client
from asrsvc.speech.joining import whole
from asrsvc.speech.transcribe import Options, Progress, Transcriber
from asrsvc.speech.types import Segment, Transcript
from asrsvc.web.fields import Field
from asrsvc.web.form import Form
from asrsvc.web.notes import of_transcript
from asrsvc.web.upload import SHORT_BYTES, UploadLimits, check_head, read_form
from asrsvc.web.url_field import URL, UrlField

_TICK_SECONDS: Final = 0.25  # between two looks at how far it is
_SILENCE_SECONDS: Final = 10.0  # after which a step is given though nothing has moved
_AHEAD: Final = 64  # segments that wait for a client that is slow to take them, at most
_LOOK_SECONDS: Final = 0.5  # how often the thread looks whether anybody still waits for its segments


class Place(Protocol):
    """A request's place among those that its worker has in hand."""

    def body_complete(self) -> None:
        """The engine is needed from now on."""

    def release(self) -> None:
        """Neither the engine nor the place is needed any more; may be called again."""

    def lengthen(self) -> None:
        """The request has turned out to be a long one."""


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
        threads: int,
        queue_timeout: float,
        remote: Client | None = None,
    ) -> None:
        """Prepare the threads.

        Args:
            transcriber: does the work.
            limits: of request bodies.
            threads: requests that are decoded and recognised at the same time, at most.
            queue_timeout: seconds that a request may have waited for its place.
            remote: goes to the hosts that recordings may be fetched from; None: there are none.
        """
        self._url = UrlField(remote, limits)
        self._transcriber = transcriber
        self._limits = limits
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
            NotReady: it has not come through the queue, or has waited there for too long.
            AsrError: what is wrong with the body, see `read_form`.
        """
        check_head(request.headers, self._limits.bytes)
        state = request.scope["state"]
        if state.get("place") is None:
            raise NotReady("this listener does not transcribe: ask the service's own address")
        waited = time.monotonic() - state["arrived"]
        state["note"]["queue_ms"] = _milliseconds(waited)
        if waited > self._queue_timeout:
            raise NotReady(f"no worker was free for {waited:.0f} s", code="queue_timeout")
        return await read_form(
            request.headers,
            request.receive,
            self._limits,
            fields,
        )

    async def fetch(self, request: Request, form: Form) -> None:
        """Put the recording into a form that names one with `url`; until it is there, others have their turn.

        Raises:
            AsrError: why it cannot be had, see `UrlField.fetch`.
        """
        await self._url.fetch(request, form)
        if form.size > SHORT_BYTES and URL.name in form.fields:
            request.scope["state"]["place"].lengthen()

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
        state = request.scope["state"]
        place: Place = state["place"]
        place.body_complete()
        progress = Progress()
        relay = _Relay()
        gone = asyncio.ensure_future(_disconnected(request))
        loop = asyncio.get_running_loop()
        tell = relay.tell if tick is not None else None
        work = loop.run_in_executor(
            self._threads, self._run, form.take(), options, progress, relay.cancelled, tell
        )
        told, told_at = 0.0, time.monotonic()
        try:
            while not gone.done():
                done = work.done()
                while relay.segments:
                    yield relay.take()
                    told_at = time.monotonic()
                if done:
                    transcript = await work
                    state["note"].update(of_transcript(transcript))
                    place.release()  # who gets the end of a stream may ask again at once
                    yield transcript
                    return
                moved = progress.audio_seconds > told
                if tick is not None and (moved or time.monotonic() - told_at > _SILENCE_SECONDS):
                    told, told_at = progress.audio_seconds, time.monotonic()
                    yield Moved(round(told, 3), progress.declared_seconds)
                await relay.news(work, gone, within=tick)
            raise Cancelled("the client has gone")
        finally:
            relay.cancelled.set()
            gone.cancel()
            await asyncio.wait({work})  # its place is not free before it has let the engine go
            place.release()
            if not work.cancelled():
                work.exception()  # looked at: what failed after the client had gone is of no interest
            _write_note(state["note"], form, progress)

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
