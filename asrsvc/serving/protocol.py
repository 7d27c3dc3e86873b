"""uvicorn's HTTP protocol with a close that lets an early answer arrive.

A socket that is closed while the client still sends makes the kernel answer with RST, and a RST
makes the client's kernel throw away the answer that it has not read yet (RFC 9112 §9.6). So an answer
given before the body was read is sent, the connection is half-closed, what still comes is read and
thrown away within bounds of bytes and seconds, and only then the connection is closed.

A client may shut down its half when it has sent all. It is told from one that has gone by what comes back
when the first bytes of the answer are sent ahead: see `asrsvc.serving.lanes.listens`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from asrsvc.serving.accept import HEAD_BYTES, HEAD_LATE, HEAD_TOO_LARGE
from asrsvc.serving.lanes import AHEAD, is_dead
from asrsvc.serving.paths import named_authority

log = logging.getLogger(__name__)

LINGER_SECONDS: Final = 30.0
LINGER_IDLE_SECONDS: Final = 5.0
"""without a byte of the client, which has then read its answer and needs no more time"""
LINGER_BYTES: Final = 2**30
FLUSH_SECONDS: Final = 120.0
"""a client that takes nothing of its whole answer for so long has gone"""
_LOOK_SECONDS: Final = 0.1  # how often it is looked whether a client that sends no more has gone
HEAD_LINGER_SECONDS: Final = 1.0
"""for a client whose header was refused: it must not hold up a worker that leaves"""
_REFUSALS: Final = {
    HEAD_LATE: (408, "the request's header did not arrive in time"),
    HEAD_TOO_LARGE: (431, f"the request's header is over {HEAD_BYTES} bytes"),
}


class _LingeringTransport:
    """The transport as uvicorn sees it: all but `write` and `close` goes straight through."""

    def __init__(self, transport: asyncio.Transport, protocol: LingeringProtocol) -> None:
        self._transport = transport
        self._protocol = protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._protocol.lingering or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        self._protocol.write(data)

    def close(self) -> None:
        self._protocol.close_gently()


class LingeringProtocol(HttpToolsProtocol):
    """One connection with one request; subclasses uvicorn 0.54's protocol and its parser's callbacks.

    Every answer closes the connection, so what follows the first request (a pipelined second one, or
    garbage) is thrown away: its sender learns from `Connection: close` that nobody has read it.
    """

    lingering = False
    unserved: Callable[[], None] | None = None
    """called if the connection ends before the application has heard of a request"""
    reached: Callable[[], None] | None = None
    """called once: when the application has begun with the request, or nothing will reach it any more"""
    refused: Callable[[int, str], None] | None = None
    """told of the status and the code of what is answered in the place of the application"""
    _wire: asyncio.Transport
    _discarded = 0
    _heard = 0.0  # when bytes last came that were thrown away, loop.time()
    _overhead = 0  # bytes since the last that belonged to a whole head or to the body
    _deadline: asyncio.TimerHandle | None = None
    _watch: asyncio.TimerHandle | None = None
    _ahead = False  # the first bytes of the answer have been sent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection (asyncio.Protocol)."""
        self._wire = cast("asyncio.Transport", transport)
        super().connection_made(cast("asyncio.Transport", _LingeringTransport(self._wire, self)))
        self._ahead = bool(self.app_state.get("ahead"))
        # The deadline and the size of a header are watched where connections are accepted.
        code = self.app_state.get("refusal")
        if code in _REFUSALS:
            status, message = _REFUSALS[code]
            self._refuse(status, message, code, linger=HEAD_LINGER_SECONDS)
        again = self.app_state.pop("again", None)
        if again is not None:  # a request that has been read elsewhere
            self.data_received(again)

    # A request that goes on in another worker.

    @property
    def is_ahead(self) -> bool:
        """Whether the first bytes of the answer have been sent."""
        return self._ahead

    def connection(self) -> socket.socket:
        """A descriptor of its own for the connection; the caller closes it."""
        return socket.socket(fileno=os.dup(self._wire.get_extra_info("socket").fileno()))

    def pause(self) -> None:
        """Read nothing from now on."""
        self._wire.pause_reading()

    def go_on(self) -> None:
        """Read on after all."""
        self._wire.resume_reading()

    def let_go(self) -> None:
        """Forget the connection, which somebody else has: nothing is sent or closed over it."""
        self.cycle.disconnected = True
        self._wire.abort()

    def data_received(self, data: bytes) -> None:
        """Parse, or throw away what comes after the request or its answer (asyncio.Protocol)."""
        self._receive(data)
        if self.reached is not None:
            self.loop.call_soon(self.say_reached)  # behind the first step of the application

    def say_reached(self) -> None:
        """Call `reached`, if that has not been done."""
        reached, self.reached = self.reached, None
        if reached is not None:
            reached()

    def _receive(self, data: bytes) -> None:
        if self.lingering or self._request_is_whole():
            self._discarded += len(data)
            self._heard = self.loop.time()
            if self._discarded > LINGER_BYTES:
                self._wire.abort()
            return
        self._overhead += len(data)
        self._parse(data)
        # The parser has no limit of its own: trailers of a chunked body may come without end.
        if self._overhead > HEAD_BYTES and not self.lingering and not self._request_is_whole():
            status, message = _REFUSALS[HEAD_TOO_LARGE]
            self._refuse(status, message, HEAD_TOO_LARGE)

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Java's HTTP client and `curl --http2` offer HTTP/2 so; a server may ignore it (RFC 9110
            # §7.8). The parser stops here all the same: another one, which does not hear of it, goes on.
            framing = b"".join(
                b"%s: %s\r\n" % header
                for header in self.cycle.scope["headers"]
                if header[0] in (b"content-length", b"transfer-encoding")
            )
            self.cycle.more_body = True
            self.cycle.message_event.clear()
            self.parser = httptools.HttpRequestParser(self)
            self._parse(b"POST / HTTP/1.1\r\n" + framing + b"\r\n" + data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("this is no HTTP request that can be read")

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's always closes
        """The client has sent all that it will; whether it may still have its answer (asyncio.Protocol)."""
        if self.lingering or not self._request_is_whole():
            self._wire.close()
            return False
        if self._wire.is_closing():
            return False
        if not self.cycle.response_started:
            if not self._ahead:
                self._wire.write(AHEAD)
                self._ahead = True
        elif self.cycle.chunked_encoding and not self.cycle.response_complete:
            filler = self.cycle.scope["state"].get("filler", b"")
            if filler:
                self._wire.write(b"%x\r\n%b\r\n" % (len(filler), filler))
        self._look()
        return True

    def _look(self) -> None:
        """Look now and then whether the client has gone: the loop reads no more, and would not see it."""
        if self._wire.is_closing():
            return
        if is_dead(self._wire.get_extra_info("socket").fileno()):
            self._wire.abort()
        else:
            self._watch = self.loop.call_later(_LOOK_SECONDS, self._look)

    def write(self, data: bytes) -> None:
        """Send a piece of the answer, without what has been sent of it ahead."""
        if self._ahead:
            self._ahead = False
            data = data.removeprefix(AHEAD)
        self._wire.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection (asyncio.Protocol)."""
        for timer in (self._deadline, self._watch):
            if timer is not None:
                timer.cancel()
        self.say_reached()
        if self._current is None and self.unserved is not None:
            self.unserved()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """The head of a request is whole (httptools)."""
        self._overhead = 0
        if self._current is not None:
            if self._request_is_whole():  # a pipelined request
                self._discarded += 1
            return
        self.scope["state"]["authority"] = named_authority(self.url)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body (httptools)."""
        if self.cycle.more_body:
            self._overhead = 0
            super().on_body(body)

    @property
    def _current(self) -> RequestResponseCycle | None:
        """The request that is being answered; uvicorn's own type leaves out that there may be none."""
        return self.cycle

    def _request_is_whole(self) -> bool:
        return self._current is not None and not self._current.more_body

    def close_gently(self) -> None:
        """Close at once if nothing of the client's is unread, else linger."""
        if self.lingering:
            return
        silent = self._current is None and not self._overhead
        unread = not silent and (not self._request_is_whole() or self._discarded > 0)
        if not unread or self._wire.is_closing():
            self._wire.close()
            self._flush(self._wire.get_write_buffer_size())
            return
        self._linger(LINGER_SECONDS)

    def _flush(self, waiting: int) -> None:
        """See that what has been written is taken; who takes nothing would keep the connection for ever."""
        if waiting:
            self._deadline = self.loop.call_later(FLUSH_SECONDS, self._flushed, waiting)

    def _flushed(self, waited: int) -> None:
        waiting = self._wire.get_write_buffer_size()
        if waiting < waited:
            self._flush(waiting)
        else:
            self._wire.abort()

    def _linger(self, seconds: float) -> None:
        self.lingering = True
        self._wire.write_eof()
        self._wire.resume_reading()
        self._heard = self.loop.time()
        self._linger_on(self.loop.time() + seconds)

    def _linger_on(self, until: float) -> None:
        end = min(until, self._heard + LINGER_IDLE_SECONDS)
        if end <= self.loop.time():
            self._wire.abort()
        else:
            self._deadline = self.loop.call_at(end, self._linger_on, until)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is no HTTP, in the shape of all errors."""
        if self._request_is_whole():  # the garbage stands behind it: its answer is still to come
            self._discarded += 1
            return
        self._refuse(400, msg, "http_malformed")

    def _refuse(self, status: int, message: str, code: str, *, linger: float | None = None) -> None:
        """Answer in the place of the application, which may be waiting for the body.

        Args:
            status: of the answer.
            message: one sentence.
            code: of the error.
            linger: seconds to wait for a client whose bytes are unread; None finds out whether there are.
        """
        request_id = uuid.uuid4().hex
        log.info("refused: %s", message, extra={"request_id": request_id, "status": status, "error": code})
        if self.refused is not None:
            self.refused(status, code)
        if self._current is not None:
            # Its place is free before its client has the answer; an application that has not begun need not.
            state = self.cycle.scope["state"]
            if "leave" in state:
                state["leave"]()
            elif "place" in state:
                state["place"].release()
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        body = json.dumps({"error": error}).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\nx-request-id: {request_id}\r\n"
            "x-content-type-options: nosniff\r\ncache-control: no-store\r\n\r\n"
        )
        self.write(head.encode() + body)
        if self._current is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if linger is None:
            self.close_gently()
        else:
            self._linger(linger)
