"""Server-sent events of a job: what it has found, how far it is, its end (WHATWG HTML, §9.2).

Any worker may tell of any job: it reads the store, while another one does the work. A worker that
leaves ends its streams, and a client that comes back with `Last-Event-ID` goes on where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing, suppress
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from asrsvc.errors import AsrError, NotFound
from asrsvc.jobs.store import JobStore
from asrsvc.jobs.threads import Threads
from asrsvc.jobs.types import Found
from asrsvc.web.answers import json_text
from asrsvc.web.events import FILLER, NO_LINE_ENDS
from asrsvc.web.job_answers import job_body
from asrsvc.web.transcriptions import segment_body

_LOOK_SECONDS: Final = 0.5
_SILENT_SECONDS: Final = 15.0
"""after which a comment is sent: proxies give up on what is silent, and a client that has gone is noticed"""
_SEND_SECONDS: Final = 30.0
"""for a client to take what is sent; then the stream is cut"""
_LONGEST_SECONDS: Final = 3600.0
_ADMISSION_SECONDS: Final = 10.0
"""after which it is looked again whether the client may ask: its key may have been revoked"""
_AT_ONCE: Final = 200  # segments


class Events:
    """The streams of one worker."""

    def __init__(self, store: JobStore, disk: Threads, keep_seconds: float) -> None:
        """Prepare.

        Args:
            store: of the jobs.
            disk: where it is asked.
            keep_seconds: see `asrsvc.jobs.types.Limits`.
        """
        self._store = store
        self._disk = disk
        self._keep_seconds = keep_seconds
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """End all streams at once; their clients come back, to another worker."""
        self._leaving.set()

    async def of_job(
        self, job_id: str, client: str, after: int, admitted: Callable[[], bool]
    ) -> AsyncGenerator[bytes, None]:
        """The events of one job, from behind a segment to its end.

        Args:
            job_id: of a job that has been looked at.
            client: who asks.
            after: number of the last segment that the client has.
            admitted: whether the client may still ask; a key may be revoked meanwhile.
        """
        goes_on = self._limit(admitted)
        said = time.monotonic()
        progress: dict[str, Any] = {}
        yield b"retry: 1000\n\n"
        while goes_on():
            try:
                job, found = await self._disk.run(
                    self._store.look, job_id, client, after=after, limit=_AT_ONCE
                )
            except NotFound:
                yield _event("end", {"id": job_id, "status": "removed"})
                return
            except AsrError:
                return  # the client comes back, and is told then
            for one in found:
                after = one.number
                yield _event("segment", _segment_body(one), number=one.number)
            body = job_body(job, self._keep_seconds)
            if {"status": body["status"], **body["progress"]} != progress:
                progress = {"status": body["status"], **body["progress"]}
                said = time.monotonic()
                yield _event("progress", progress)
            if len(found) == _AT_ONCE:
                continue
            if job.ended is not None:
                yield _event("end", body)
                return
            if time.monotonic() - said > _SILENT_SECONDS:
                said = time.monotonic()
                yield b": still here\n\n"
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._leaving.wait()

    def _limit(self, admitted: Callable[[], bool]) -> Callable[[], bool]:
        """What says whether a stream goes on; else its client comes back, and is told then."""
        begun = asked = time.monotonic()

        def goes_on() -> bool:
            nonlocal asked
            now = time.monotonic()
            if self._leaving.is_set() or now - begun > _LONGEST_SECONDS:
                return False
            if now - asked <= _ADMISSION_SECONDS:
                return True
            asked = now
            return admitted()

        return goes_on


def _segment_body(found: Found) -> dict[str, Any]:
    return {**segment_body(found.segment, words=True), "model_version": found.version}


def _event(name: str, data: dict[str, Any], *, number: int | None = None) -> bytes:
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {name}\ndata: {json_text(data).translate(NO_LINE_ENDS)}\n\n".encode()


class EventStream(Response):
    """An answer that is sent as it comes, until its events or its client end."""

    def __init__(self, events: AsyncGenerator[bytes, None], share: AbstractContextManager[None]) -> None:
        """Take the events.

        Args:
            events: closed in the end.
            share: held while the stream lasts; raises an AsrError on entry if there is none.
        """
        super().__init__(
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        del self.headers["content-length"]
        self._events = events
        self._share = share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it (ASGI 3)."""
        with self._share:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["filler"] = FILLER
        talk = asyncio.ensure_future(self._talk(scope, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({talk, gone}, return_when=asyncio.FIRST_COMPLETED)
            if talk.done():
                await talk
        finally:
            for task in (talk, gone):
                task.cancel()
            await asyncio.gather(talk, gone, return_exceptions=True)

    async def _talk(self, scope: Scope, send: Send) -> None:
        async with aclosing(self._events) as events:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                async for event in events:
                    async with asyncio.timeout(_SEND_SECONDS):
                        await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


async def _disconnected(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
