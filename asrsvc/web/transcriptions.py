"""`POST /api/transcribe`: an uploaded file in, its transcript out."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol, cast

from starlette.requests import Request
from starlette.responses import Response

from asrsvc.errors import BadRequest, NotReady
from asrsvc.speech.transcribe import Options, Progress, Transcriber
from asrsvc.speech.types import LANGUAGES, Language, Transcript
from asrsvc.web.answers import JsonResponse
from asrsvc.web.notes import of_transcript
from asrsvc.web.upload import Form, UploadLimits, check_head, read_form

TIMESTAMPS: Final = ("none", "segment", "word")
_FIELDS: Final = frozenset({"language", "use_itn", "timestamps"})
_BOOLEANS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Place(Protocol):
    """A request's place among those that its worker has in hand."""

    def body_complete(self) -> None:
        """The engine is needed from now on."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """The text fields of a request, checked."""

    options: Options
    timestamps: str


def parse_fields(fields: dict[str, str]) -> Wishes:
    """Check the text fields.

    Raises:
        BadRequest: a value is not among those that the message lists.
    """
    language = _one_of("language", fields.get("language", "auto"), LANGUAGES)
    timestamps = _one_of("timestamps", fields.get("timestamps", "none"), TIMESTAMPS)
    itn = fields.get("use_itn", "true")
    if itn.lower() not in _BOOLEANS:
        raise BadRequest(f"use_itn is {itn[:60]!r}; true or false is right", param="use_itn")
    options = Options(
        language=cast("Language", language), use_itn=_BOOLEANS[itn.lower()], words=timestamps == "word"
    )
    return Wishes(options, timestamps)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise BadRequest(f"{name} is {value[:60]!r}; one of {', '.join(allowed)} is right", param=name)
    return value


class Desk:
    """Takes requests for transcription that have a place in this worker."""

    def __init__(
        self, transcriber: Transcriber, *, limits: UploadLimits, threads: int, queue_timeout: float
    ) -> None:
        """Prepare the threads.

        Args:
            transcriber: does the work.
            limits: of request bodies.
            threads: requests that are decoded and recognised at the same time, at most.
            queue_timeout: seconds that a request may have waited for its place.
        """
        self._transcriber = transcriber
        self._limits = limits
        self._queue_timeout = queue_timeout
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="asr-request")

    async def transcribe(self, request: Request) -> Response:
        """Answer one request."""
        check_head(request.headers, self._limits.bytes)
        state = request.scope["state"]
        place: Place | None = state.get("place")
        if place is None:
            raise NotReady("this listener does not transcribe: ask the service's own address")
        waited = time.monotonic() - state["arrived"]
        state["note"]["queue_ms"] = _milliseconds(waited)
        if waited > self._queue_timeout:
            raise NotReady(f"no worker was free for {waited:.0f} s", code="queue_timeout")
        form = await read_form(request.headers, request.receive, self._limits, _FIELDS)
        try:
            wishes = parse_fields(form.fields)
            place.body_complete()
            transcript = await self._work(request, form, wishes.options)
        finally:
            form.close()
        state["note"].update(of_transcript(transcript))
        body = answer(transcript, wishes.timestamps)
        body["model_version"] = self._transcriber.model.version
        body["request_id"] = request.scope["state"]["request_id"]
        return JsonResponse(body)

    async def _work(self, request: Request, form: Form, options: Options) -> Transcript:
        note = request.scope["state"]["note"]
        gone = asyncio.ensure_future(_disconnected(request))
        progress = Progress()
        cancelled = threading.Event()
        try:
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(
                self._threads, self._transcribe, form.take(), options, progress, cancelled
            )
            await _first(work, gone)
            if not work.done():
                cancelled.set()
            return await work
        finally:
            cancelled.set()
            gone.cancel()
            note["bytes"] = form.size
            note["audio_seconds"] = round(progress.audio_seconds, 3)
            note["decode_ms"] = _milliseconds(progress.decode_seconds)
            note["inference_ms"] = _milliseconds(progress.inference_seconds)
            note["spans"] = progress.spans

    def _transcribe(
        self, descriptor: int, options: Options, progress: Progress, cancelled: threading.Event
    ) -> Transcript:
        """Run in a thread, which alone lets the file go: it may outlive the request."""
        try:
            return self._transcriber.transcribe(descriptor, options, progress, cancelled)
        finally:
            os.close(descriptor)


async def _first(*futures: asyncio.Future[Any]) -> None:
    """Wait until one of them is done."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _disconnected(request: Request) -> None:
    """Return when the client has gone; the body has been read to its end."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def answer(transcript: Transcript, timestamps: str) -> dict[str, Any]:
    """The answer's keys that come from the transcript, in their documented order."""
    body: dict[str, Any] = {
        "text": transcript.text,
        "language": transcript.language,
        "emotion": transcript.emotion,
        "events": list(transcript.events),
        "duration": transcript.duration,
    }
    if timestamps != "none":
        segments = [asdict(segment) for segment in transcript.segments]
        for segment in segments:
            if timestamps == "segment":
                del segment["words"]
        body["segments"] = segments
    return body


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
