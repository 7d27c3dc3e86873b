"""An answer in pieces: server-sent events (WHATWG HTML, §9.2), each sent when it is known."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from asrsvc.errors import AsrError, Cancelled
from asrsvc.web.answers import error_body, json_text

log = logging.getLogger(__name__)

STALL_SECONDS: Final = 60.0
"""a client that takes nothing for so long has gone"""
CLIENT_GONE: Final = 499
"""nginx's number for it, for the log: nobody hears it"""
FILLER: Final = b":\n\n"
"""an empty comment, by which the server sees whether the client is there: may stand between two events"""
_END: Final = b"data: [DONE]\n\n"
_ALIVE: Final = b": alive\n\n"
# Some clients take these for the end of a line (Python's str.splitlines).
NO_LINE_ENDS: Final = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})

Event: TypeAlias = Mapping[str, Any] | None
"""what is sent as JSON; None: a comment, so that nobody on the way takes the connection for dead"""


async def stream(events: AsyncGenerator[Event, None]) -> EventStream:
    """An answer that has begun: what fails before the first event is answered as without a stream.

    Raises:
        AsrError: the events have failed before the first one.
    """
    try:
        first = await anext(events)
    except BaseException:
        await events.aclose()
        raise
    return EventStream(first, events)


class EventStream(Response):
    """Sends events, what they fail with as one more, and `[DONE]`.

    What the request has come to is put into its state as `outcome`, since its status is 200 by then.
    """

    media_type = "text/event-stream"

    def __init__(self, first: Event, rest: AsyncGenerator[Event, None]) -> None:
        """Take the events.

        Args:
            first: of them.
            rest: of them; closed in the end.
        """
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Answer one request (ASGI 3)."""
        state = scope["state"]
        state["filler"] = FILLER
        async with aclosing(self._rest):
            try:
                await _send(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await _write(send, _encoded(self._first))
                try:
                    async for event in self._rest:
                        await _write(send, _encoded(event))
                except Exception as error:  # noqa: BLE001 - the status has been sent: an event says it
                    failure = _failure(error, state)
                    if failure is None:
                        return
                    await _write(send, _encoded({"type": "error", **error_body(failure)}))
                await _write(send, _END)
                await _send(send, {"type": "http.response.body", "body": b""})
            except _StalledError:
                state["outcome"] = CLIENT_GONE
                state["note"]["error"] = "client_stalled"
                log.warning("a client took nothing of its stream for %g s", STALL_SECONDS)


class _StalledError(Exception):
    """The client takes nothing."""


def _failure(error: Exception, state: dict[str, Any]) -> AsrError | None:
    """What the client is told; None if it has gone."""
    if isinstance(error, _StalledError):
        raise error
    if isinstance(error, Cancelled):
        state["outcome"], state["note"]["error"] = CLIENT_GONE, error.code
        return None
    if not isinstance(error, AsrError):
        log.error("request failed", exc_info=error, extra={"request_id": state["request_id"]})
        error = AsrError(f"the service failed; its log says why under request id {state['request_id']}")
    elif error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s: %s", error.code, error.message)
    state["outcome"], state["note"]["error"] = int(error.status), error.code
    return error


async def _write(send: Send, data: bytes) -> None:
    await _send(send, {"type": "http.response.body", "body": data, "more_body": True})


async def _send(send: Send, message: dict[str, Any]) -> None:
    try:
        async with asyncio.timeout(STALL_SECONDS):
            await send(message)
    except TimeoutError:
        raise _StalledError from None


def _encoded(event: Event) -> bytes:
    if event is None:
        return _ALIVE
    return f"data: {json_text(event).translate(NO_LINE_ENDS)}\n\n".encode()
