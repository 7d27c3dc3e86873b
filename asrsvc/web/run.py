"""A request that a thread works on: its steps as they are done; if it is a long one, its way to the queue."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from starlette.requests import Request

from asrsvc.errors import Cancelled, HandedOn, OverCapacity
from asrsvc.serving.lanes import LaneName
from asrsvc.speech.transcribe import Progress
from asrsvc.speech.types import Segment, Transcript
from asrsvc.web.form import Form
from asrsvc.web.notes import of_transcript

SHORT_SECONDS: Final = 30.0
"""of a short recording, at most: one span"""
_LONG_SECONDS: Final = 0.1  # how often it is looked whether a request that was taken for short is a long one
_SILENCE_SECONDS: Final = 10.0  # after which a step is given though nothing has moved
_AHEAD: Final = 64  # segments that wait for a client that is slow to take them, at most
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

    def reading(self) -> AbstractContextManager[None]:
        """While the body of the request is read."""

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


class Run:
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
        self.relay = Relay()
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


class Relay:
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
