"""`/api/jobs`: recordings that are taken now and transcribed when there is time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asrsvc.errors import AsrError, BadRequest, JobHasNoResult, JobNotFinished, NotFound
from asrsvc.jobs.store import Arrival, JobStore
from asrsvc.jobs.threads import Threads
from asrsvc.remote.client import Client
from asrsvc.web.answers import JsonResponse
from asrsvc.web.clients import client_of
from asrsvc.web.job_answers import FORMATS, job_body, result_response
from asrsvc.web.job_events import Events, EventStream
from asrsvc.web.notices import INCOMPLETE
from asrsvc.web.run import Intake
from asrsvc.web.shares import Shares
from asrsvc.web.transcriptions import FIELDS as TRANSCRIBE_FIELDS
from asrsvc.web.transcriptions import TIMESTAMPS, parse_fields
from asrsvc.web.upload import UploadLimits, check_head, declared_length, read_form
from asrsvc.web.url_field import URL, UrlField
from asrsvc.web.webhook_field import WEBHOOK, WebhookField

_AS_THERE: Final = {"language", "use_itn", "punctuation", INCOMPLETE.name}
FIELDS: Final = (
    *(field for field in TRANSCRIBE_FIELDS if field.name in _AS_THERE),
    URL,
    WEBHOOK,
)
"""that may stand beside `file`"""
_UPLOADS: Final = 64
"""that a worker receives at the same time; they need no place in the queue"""
_STREAMS: Final = 256
"""of events, of a worker"""
_GROWTH: Final = 8
"""one part in so many of what has come is reserved in advance"""
_LEAST_GROWTH: Final = 2**20
"""bytes"""
_DISK_THREADS: Final = 8
_PAGE: Final = 20
LARGEST_PAGE: Final = 100
LARGEST_NUMBER: Final = 2**53


class JobDesk:
    """Takes jobs, tells of them and hands out their results."""

    def __init__(
        self,
        store: JobStore,
        *,
        limits: UploadLimits,
        keep_seconds: float,
        wake: Callable[[], None],
        refuse_incomplete: bool = False,
        remote: Client | None = None,
        signed: bool = False,
    ) -> None:
        """Prepare.

        Args:
            store: of the jobs.
            limits: of request bodies.
            keep_seconds: see `asrsvc.jobs.types.Limits`.
            wake: called when a job waits.
            refuse_incomplete: what is done with an incomplete recording where the request does not say.
            remote: goes to the hosts that a job may name; None: there are none.
            signed: whether there is a secret to sign webhooks with.
        """
        self._url = UrlField(remote, limits)
        self._webhook = WebhookField(remote, signed=signed)
        self._store = store
        self._limits = limits
        self._keep_seconds = keep_seconds
        self._wake = wake
        self._refuse_incomplete = refuse_incomplete
        self._disk = Threads(_DISK_THREADS, "asr-jobs-disk")
        self._events = Events(store, self._disk, keep_seconds)
        self._receiving = Shares(_UPLOADS, "uploads")
        self._streams = Shares(_STREAMS, "streams of events")

    def routes(self) -> list[Route]:
        """What is served."""
        return [
            Route("/api/jobs", self._jobs, methods=["GET", "POST"]),
            Route("/api/jobs/{job}", self._job, methods=["GET", "DELETE"]),
            Route("/api/jobs/{job}/events", self._tell, methods=["GET"]),
            Route("/api/jobs/{job}/result", self._result, methods=["GET"]),
        ]

    def leave(self) -> None:
        """End what would go on for long; uploads go on."""
        self._events.leave()

    async def _jobs(self, request: Request) -> Response:
        client = _client(request)
        if request.method == "POST":
            return await self._create(request, client)
        query = _query(request, {"limit", "before"})
        limit = _number(query, "limit", _PAGE, 1, LARGEST_PAGE)
        before = _number(query, "before", LARGEST_NUMBER, 1, LARGEST_NUMBER)
        found = await self._disk.run(self._store.page, client, before=before, limit=limit + 1)
        more = found[limit - 1].number if len(found) > limit else None
        return JsonResponse(
            {"jobs": [job_body(job, self._keep_seconds) for job in found[:limit]], "next": more}
        )

    async def _create(self, request: Request, client: str) -> Response:
        check_head(request.headers, self._limits.bytes)
        intake: Intake | None = request.scope["state"].get("intake")
        arriving = nullcontext() if intake is None else intake.reading()
        with self._receiving.one_of(client_of(request.scope).label), arriving:
            arrival = await self._disk.finish(
                self._store.receive, client, declared_length(request.headers) or 0
            )
            try:
                form = await read_form(
                    request.headers,
                    request.receive,
                    self._limits,
                    FIELDS,
                    open_file=arrival.lock.open,
                    hold=self._holder(arrival),
                )
                try:
                    options = parse_fields(form, refuse_incomplete=self._refuse_incomplete).options
                    webhook = await self._webhook.check(form)
                    await self._url.fetch(
                        request,
                        form,
                        open_file=arrival.lock.open,
                        reserve=lambda size: self._disk.finish(self._store.reserve, arrival, size),
                    )
                finally:
                    form.close()
                job = await self._disk.finish(self._store.queue, arrival, options, webhook)
            except BaseException:
                await self._discard(arrival)
                raise
        request.scope["state"]["note"] |= {"bytes": form.size, "job": job.id}
        self._wake()
        body = job_body(job, self._keep_seconds)
        return JsonResponse(body, status_code=202, headers={"Location": body["links"]["self"]})

    def _holder(self, arrival: Arrival) -> Callable[[int], Awaitable[None]]:
        """What `read_form` calls as an upload grows."""
        held = 0

        async def hold(size: int) -> None:
            nonlocal held
            if size > held:
                wanted = max(size, min(size + max(_LEAST_GROWTH, size // _GROWTH), self._limits.bytes))
                await self._disk.finish(self._store.reserve, arrival, wanted)
                held = wanted

        return hold

    async def _discard(self, arrival: Arrival) -> None:
        with suppress(AsrError):  # what cannot be written is swept away when its lock is free
            await self._disk.finish(self._store.discard, arrival)
        arrival.lock.close()

    async def _job(self, request: Request) -> Response:
        client, job_id = _client(request), request.path_params["job"]
        _query(request, set())
        if request.method == "DELETE":
            cancelled = await self._disk.finish(self._store.end, job_id, client)
            if cancelled is None:
                return Response(status_code=204)
            return JsonResponse(job_body(cancelled, self._keep_seconds))
        job = await self._disk.run(self._store.read, job_id, client)
        return JsonResponse(job_body(job, self._keep_seconds))

    async def _tell(self, request: Request) -> Response:
        client, job_id = _client(request), request.path_params["job"]
        _query(request, set())
        last = {"Last-Event-ID": request.headers.get("last-event-id") or "0"}
        after = _number(last, "Last-Event-ID", 0, 0, LARGEST_NUMBER)
        await self._disk.run(self._store.read, job_id, client)
        share = self._streams.one_of(client_of(request.scope).label)
        admitted: Callable[[], bool] = request.scope["state"]["is_admitted"]
        return EventStream(self._events.of_job(job_id, client, after, admitted), share)

    async def _result(self, request: Request) -> Response:
        client, job_id = _client(request), request.path_params["job"]
        query = _query(request, {"format", "timestamps"})
        form = _one_of(query, "format", FORMATS)
        timestamps = _one_of(query, "timestamps", TIMESTAMPS)
        job = await self._disk.run(self._store.read, job_id, client)
        if job.ended is None:
            raise JobNotFinished(
                f"job {job.id} is {job.state}, {job.audio_seconds:g} s of its recording are done: "
                f"/api/jobs/{job.id}/events tells when it has ended"
            )
        if job.error is not None:
            raise JobHasNoResult(f"job {job.id} failed ({job.error.code}): {job.error.message}")
        if job.state != "succeeded":
            raise JobHasNoResult(f"job {job.id} was {job.state}", code=f"job_{job.state}")
        job, found = await self._disk.run(self._store.look, job_id, client)
        return await self._disk.run(
            result_response,
            job,
            found,
            form=form,
            timestamps=timestamps,
            request_id=request.scope["state"]["request_id"],
        )


def _client(request: Request) -> str:
    """Whose jobs these are; see `Client.owner`.

    Raises:
        NotFound: the listener is not the one that knows keys.
    """
    if request.scope["state"].get("local"):
        raise NotFound("jobs are not served here: ask the service's own address")
    return client_of(request.scope).owner


def _query(request: Request, known: set[str]) -> dict[str, str]:
    """The parameters behind the `?`.

    Raises:
        BadRequest: one is unknown, or given twice.
    """
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            parameters = ", ".join(sorted(known)) or "none"
            raise BadRequest(
                f"parameter {name[:60]!r} is unknown; the parameters are: {parameters}",
                param=name[:60],
                code="unknown_field",
            )
        if name in found:
            raise BadRequest(f"parameter {name} is given twice", param=name)
        found[name] = value
    return found


def _one_of(query: dict[str, str], name: str, allowed: tuple[str, ...]) -> str:
    value = query.get(name, allowed[0])
    if value not in allowed:
        raise BadRequest(f"{name} is {value[:60]!r}; one of {', '.join(allowed)} is right", param=name)
    return value


def _number(query: dict[str, str], name: str, default: int, low: int, high: int) -> int:
    text = query.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or len(text) > 16 or not low <= int(text) <= high:
        raise BadRequest(f"{name} is {text[:60]!r}; a whole number from {low} to {high} is right", param=name)
    return int(text)
