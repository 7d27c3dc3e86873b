"""uvicorn's HTTP protocol with a close that lets an early answer arrive.

A socket that is closed while the client still sends makes the kernel answer with RST, and a RST
makes the client's kernel throw away the answer that it has not read yet (RFC 9112 §9.6). So an answer
given before the body was read is sent, the connection is half-closed, what still comes is read and
thrown away within bounds of bytes and seconds, and only then the connection is closed.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_SECONDS: Final = 30.0
LINGER_BYTES: Final = 2**30


class _LingeringTransport:
    """The transport as uvicorn sees it: all but `close` goes straight through."""

    def __init__(self, transport: asyncio.Transport, protocol: LingeringProtocol) -> None:
        self._transport = transport
        self._protocol = protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._protocol.lingering or self._transport.is_closing()

    def close(self) -> None:
        self._protocol.close_gently()


class LingeringProtocol(HttpToolsProtocol):
    """One connection; subclasses uvicorn 0.54's protocol at `connection_made` and `data_received`."""

    lingering = False
    _wire: asyncio.Transport
    _discarded = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection (asyncio.Protocol)."""
        self._wire = cast("asyncio.Transport", transport)
        super().connection_made(cast("asyncio.Transport", _LingeringTransport(self._wire, self)))

    def data_received(self, data: bytes) -> None:
        """Parse, or throw away what comes after the answer (asyncio.Protocol)."""
        if not self.lingering:
            super().data_received(data)
            return
        self._discarded += len(data)
        if self._discarded > LINGER_BYTES:
            self._wire.close()

    def eof_received(self) -> None:
        """The client has sent all that it will (asyncio.Protocol)."""
        if self.lingering:
            self._wire.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection (asyncio.Protocol)."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def close_gently(self) -> None:
        """Close at once if the request has been read whole, else linger."""
        if self.lingering:
            return
        unread = self.cycle is None or self.cycle.more_body
        if not unread or self._wire.is_closing():
            self._wire.close()
            return
        self.lingering = True
        self._wire.write_eof()
        self._wire.resume_reading()
        self._deadline = self.loop.call_later(LINGER_SECONDS, self._wire.abort)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is no HTTP, in the shape of all errors."""
        error = {"message": msg, "type": "invalid_request_error", "param": None, "code": "http_malformed"}
        body = json.dumps({"error": error}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\nx-request-id: {uuid.uuid4().hex}\r\n\r\n"
        )
        self._wire.write(head.encode() + body)
        if self.cycle is not None:
            # A request whose body turned malformed is still at work: its answer has just been given.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.close_gently()
