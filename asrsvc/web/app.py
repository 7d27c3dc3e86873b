"""The HTTP application: `create_app` puts routes, middleware and error handlers together."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asrsvc.errors import (
    AsrError,
    Cancelled,
    HandedOn,
    MethodNotAllowed,
    NotFound,
    NotReady,
    OutOfDescriptors,
    Unauthorised,
)
from asrsvc.release.card import Card
from asrsvc.remote.client import Client
from asrsvc.remote.hosts import HostList
from asrsvc.serving.paths import plain_path
from asrsvc.settings import Settings
from asrsvc.speech.transcribe import Transcriber
from asrsvc.system.disk import lacks_descriptors
from asrsvc.web import pages
from asrsvc.web.access import Access
from asrsvc.web.admin import Admin
from asrsvc.web.answers import JsonResponse, error_response, with_defaults
from asrsvc.web.desk import Desk
from asrsvc.web.gate import asked_of, guarded
from asrsvc.web.meter import Meter, RouteNames
from asrsvc.web.metrics import Metrics
from asrsvc.web.openai import TRANSCRIPTIONS_PATH, OpenAi
from asrsvc.web.openapi import document as openapi
from asrsvc.web.ops import health, live, of_version, said, unhealthy
from asrsvc.web.spool import Spool
from asrsvc.web.transcriptions import Transcriptions
from asrsvc.web.upload import UploadLimits

log = logging.getLogger(__name__)
access_log = logging.getLogger("asrsvc.access")

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

# An id that a client brings is kept if it can do no harm in a log or a header.
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9._:+/=-]{1,64}")


ENGINE_PATHS: Final = frozenset({"/api/transcribe", TRANSCRIPTIONS_PATH})
"""paths whose POST needs the engine: these requests wait in the queue"""

Observe = Callable[[int, dict[str, Any]], None]
"""told of each request that had a place: its status and what its log line says"""


@dataclass(frozen=True, slots=True)
class Counting:
    """What this worker counts, and the sum over all workers."""

    meter: Meter
    metrics: Metrics


def create_app(
    settings: Settings,
    transcriber: Transcriber,
    card: Card,
    *,
    threads: int,
    observe: Observe,
    access: Access,
    counting: Counting,
    problems: tuple[str, ...] = (),
    admin: Admin | None = None,
    more: Sequence[Route] = (),
) -> Envelope:
    """Build the application of one worker.

    The server that runs it puts into each request's state: `arrived` (time.monotonic()) when its header
    was whole, and its `intake`, see `asrsvc.web.desk.Intake`; into that of one that has come through the
    queue: `place`, `form`, `ticket`, `waited_from` (time.monotonic()), and the `request_id`, `started` and
    `note` that it had before. What is behind `access` finds the `client` there.

    Args:
        settings: in force.
        transcriber: with its model loaded.
        card: of the version.
        threads: requests that are worked on at the same time, at most.
        observe: see `Observe`.
        access: who may come in.
        counting: what `/metrics` answers.
        problems: what is not as it should be though the service serves, for `/health`.
        admin: the operator's endpoints, if there are any.
        more: routes.
    """
    limits = upload_limits(settings)
    desk = Desk(
        transcriber,
        limits=limits,
        spool=Spool(
            access.table, settings.spool_dir, settings.spool_mb * 2**20 if settings.spool_mb else None
        ),
        threads=threads,
        queue_timeout=settings.queue_timeout,
        remote=remote_client(settings),
    )
    refuse = settings.refuses_incomplete()
    known = of_version(problems, serves=True)
    ready = health(
        transcriber.model.version,
        lambda: (*known, *access.problems()),
        lambda request: access.is_operator(asked_of(request.scope)),
    )
    app = Starlette(
        routes=[
            Route("/api/transcribe", Transcriptions(desk, refuse).transcribe, methods=["POST"]),
            *OpenAi(desk, card, settings.model_aliases, refuse_incomplete=refuse).routes(),
            *more,
            Route("/health/live", live, methods=["GET"]),
            Route("/health/ready", ready, methods=["GET"]),
            Route("/health", ready, methods=["GET"]),
            Route("/metrics", counting.metrics.endpoint, methods=["GET"]),
            *(admin.routes() if admin is not None else ()),
            *pages.routes(),
            openapi.route(),
        ],
        exception_handlers={
            AsrError: _on_error,
            HTTPException: _on_http_exception,
            OSError: _on_os_error,
            Exception: _on_unexpected,
        },
    )
    app.router.redirect_slashes = False
    return Envelope(
        guarded(app, access, settings.cors_origins),
        transcriber.model.version,
        observe,
        counting.meter,
        RouteNames(app.routes),
    )


def upload_limits(settings: Settings) -> UploadLimits:
    """What a request body may be at most."""
    return UploadLimits(
        bytes=settings.max_upload_mb * 2**20,
        seconds=settings.body_timeout,
        idle_seconds=settings.body_idle_timeout,
        least_rate=settings.body_least_rate,
        spool_dir=settings.spool_dir,
    )


def remote_client(settings: Settings) -> Client | None:
    """What goes to other machines that a request names; None: none may be named."""
    return Client(HostList.of(settings.url_hosts)) if settings.url_hosts else None


def create_apology(
    reason: str,
    access: Access,
    counting: Counting,
    origins: tuple[str, ...] = (),
    admin: Admin | None = None,
) -> Envelope:
    """Build the application of a worker that has no model: it is alive, and says what is wrong.

    Args:
        reason: one sentence, for the operator.
        access: who may come in.
        counting: what `/metrics` answers.
        origins: web pages of other sites that may use the API.
        admin: the operator's endpoints: who has no model wants another.
    """
    known = of_version((reason,), serves=False)

    async def apologise(request: Request) -> Response:
        if request.scope["path"] == "/health/live":
            return JsonResponse({"status": "alive"})
        problems = said(known, to_operator=access.is_operator(asked_of(request.scope)))
        if request.scope["path"] in ("/health", "/health/ready"):
            return unhealthy(problems)
        raise NotReady(" ".join(problems))

    app = Starlette(
        routes=[
            *(admin.routes() if admin is not None else ()),
            Route("/metrics", counting.metrics.endpoint, methods=["GET"]),
            *pages.routes(),
            openapi.route(),
            Route("/{path:path}", apologise, methods=[*_METHODS]),
        ],
        exception_handlers={
            AsrError: _on_error,
            HTTPException: _on_http_exception,
            OSError: _on_os_error,
            Exception: _on_unexpected,
        },
    )
    app.router.redirect_slashes = False
    names = RouteNames(app.routes)
    return Envelope(guarded(app, access, origins), None, lambda _status, _note: None, counting.meter, names)


async def _on_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, AsrError):
        raise error
    if isinstance(error, Cancelled):
        request.scope["state"]["note"]["error"] = error.code
        return Response(status_code=499)  # nginx's number for it, for the log: nobody hears this
    request.scope["state"]["note"]["error"] = error.code
    if error.status >= 500:
        log.error("%s: %s", error.code, error.message)
    if isinstance(error, Unauthorised):
        return error_response(error, headers={"WWW-Authenticate": "Bearer"})
    return error_response(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """What the router raises, in the shape of all errors."""
    if not isinstance(error, HTTPException):
        raise error
    path = request.scope["path"][:100]
    if error.status_code == 404:
        return error_response(NotFound(f"path {path!r} is not served here"))
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        wrong = MethodNotAllowed(f"method {request.method} is not served at {path!r}; {allowed} is")
        return error_response(wrong, headers={"Allow": allowed})
    raise error


async def _on_os_error(request: Request, error: Exception) -> Response:
    """What could not be opened for want of descriptors is a matter of a moment, wherever that was."""
    if not lacks_descriptors(error):
        raise error
    return await _on_error(
        request, OutOfDescriptors("as many files are open as may be: try again in a moment")
    )


async def _on_unexpected(request: Request, _error: Exception) -> Response:
    """What must not happen: the answer names the request, the log has the trace."""
    return error_response(_failure(request.scope["state"]["request_id"]))


def _failure(request_id: str) -> AsrError:
    return AsrError(f"the service failed; its log says why under request id {request_id}")


class Envelope:
    """Outermost layer: the request id, the version, and one log line and one count for each request."""

    def __init__(
        self, app: ASGIApp, version: str | None, observe: Observe, meter: Meter, names: RouteNames
    ) -> None:
        self._app = app
        self._version = version
        self._observe = observe
        self.meter = meter
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = plain_path(scope["raw_path"])  # before anything decides by it
        state = scope.setdefault("state", {})
        state.setdefault("started", time.monotonic())
        request_id = state.setdefault("request_id", _request_id(scope))
        state.setdefault("note", {})
        status = 0
        self.meter.begin()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *with_defaults(message.get("headers", [])),
                    (b"x-request-id", request_id.encode()),
                ]
                if self._version is not None:
                    message["headers"].append((b"x-model-version", self._version.encode()))
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except HandedOn:  # whoever answers it counts it
            self.meter.handed_on()
            return
        except Exception:  # answered by _on_unexpected; here it becomes visible, with its id
            log.exception("request failed", extra={"request_id": request_id})
            if not status:  # it came from in front of the application, which answers for itself
                await error_response(_failure(request_id))(scope, receive, send_with_headers)
        except BaseException:
            self._end(scope, status)
            raise
        self._end(scope, status)

    def _end(self, scope: Scope, status: int) -> None:
        """Count a request that has ended, and write its line."""
        state, note = scope["state"], scope["state"]["note"]
        if "form" in state:
            state["form"].close()  # the application may not have come to it
        if "place" in state:
            state["place"].release()  # whoever has answered: the application may not have begun
            status = state.get("outcome", status)  # of an answer that failed when it had begun
            self._observe(status, note)
        seconds = time.monotonic() - state["started"]
        self.meter.end(self._names.of(scope), status, seconds, note)
        access_log.info(
            "%s %s",
            scope["method"],
            scope["path"][:200],
            extra={
                "request_id": state["request_id"],
                "status": status,
                "total_ms": round(seconds * 1000, 1),
                "version": self._version,
                **note,
            },
        )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            if _PLAIN_ID.fullmatch(text):
                return str(text)
    return uuid.uuid4().hex
