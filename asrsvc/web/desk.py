"""Requests for transcription: the upload is read, then there is a place for it, and a thread works on it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Final

from starlette.requests import Request

from asrsvc.errors import Cancelled, NoSpace, NotReady, OverCapacity
from asrsvc.remote.client import Client
from asrsvc.serving.lanes import LaneName
from asrsvc.speech.joining import whole
from asrsvc.speech.transcribe import Options, Progress, Transcriber
from asrsvc.speech.types import Segment, Transcript
from asrsvc.web.fields import Field
from asrsvc.web.form import Form
from asrsvc.web.run import Intake, Run, Step
from asrsvc.web.spool import Spool
from asrsvc.web.upload import (
    MEMORY_BYTES,
    SHORT_BYTES,
    UploadLimits,
    check_head,
    declared_length,
    read_form,
)
from asrsvc.web.url_field import UrlField

_TICK_SECONDS: Final = 0.25  # between two looks at how far it is


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
        with intake.reading():
            return await read_form(
                request.headers,
                request.receive,
                self._limits,
                fields,
                hold=self._spool.holder(state["ticket"]),
            )

    async def fetch(self, request: Request, form: Form) -> None:
        """Put the recording into a form that names one with `url`.

        Raises:
            AsrError: why it cannot be had, see `UrlField.fetch`.
        """
        state = request.scope["state"]
        with state["intake"].reading():
            await self._url.fetch(request, form, reserve=self._spool.holder(state["ticket"]))

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
        run = Run(request, form)
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


def _lane_of(size: int | None) -> LaneName:
    """The size that a request is taken to be by its bytes; None: they come in chunks."""
    return LaneName.SHORT if size is not None and size <= SHORT_BYTES else LaneName.LONG


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
