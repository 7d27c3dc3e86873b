"""Accepting connections, and looking at a header without reading it until it is whole.

Every worker that is ready accepts. It looks at the header (MSG_PEEK), waiting for more of it with
SO_RCVLOWAT, under a deadline and a limit of size: a client that is silent or trickles its header costs next
to nothing. The header is parsed with httptools, which parses it again when it is served.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import httptools

from asrsvc.serving.lanes import has_gone
from asrsvc.serving.paths import plain_path

log = logging.getLogger(__name__)

HEAD_BYTES: Final = 32 * 1024
"""bytes of a request's header, at most"""
HEAD_TOO_LARGE: Final = "header_too_large"
HEAD_LATE: Final = "header_timeout"
"""refusals, which the state of a request may hold: the server answers before it reads"""
_END_OF_HEAD: Final = b"\r\n\r\n"
_ACCEPTS_AT_ONCE: Final = 8  # then other connections of this worker have their turn
_OUT_OF_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE_SECONDS: Final = 0.1
_GRACE_SECONDS: Final = 1.0  # a client that is well may take so long from its connection to its request
_FRESH_SECONDS: Final = 0.25  # so long a request is taken to be on its way on a new connection
_LOOK_AGAIN_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Head:
    """The header of a request."""

    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]


class Serve(Protocol):
    """Hands a connection to the HTTP server."""

    def __call__(self, connection: socket.socket, state: dict[str, Any]) -> None:
        """Serve the connection's one request; `state` becomes part of its scope."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What connections may be at most."""

    head_seconds: float
    """time for a whole header to arrive"""
    visitors: int
    """connections of this worker whose header is not complete"""


class _WholeError(Exception):
    """The header is whole: the parser reads no further."""


class _HeadParser:
    """Collects what httptools finds up to the end of the first header.

    What stands behind it may be the next request (pipelining, RFC 9112, section 9.3.2), and the parser would
    read on into that.
    """

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.complete = True
        raise _WholeError


def parse_head(data: bytes) -> Head | None:
    """The first header at the start of these bytes; None if it is not complete.

    Raises:
        httptools.HttpParserError: this is no HTTP; the server that serves it will say so.
    """
    collector = _HeadParser()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(data)
    except httptools.HttpParserError:
        if not collector.complete:
            raise
    if not collector.complete:
        return None
    raw_path = httptools.parse_url(collector.url).path or b"/"
    path = plain_path(raw_path)  # as the application does: this must be the path that is served
    return Head(parser.get_method().decode("ascii"), path, tuple(collector.headers))


@dataclass(slots=True, eq=False)
class _Visitor:
    """A connection whose header is not complete."""

    connection: socket.socket
    arrived: float
    state: dict[str, Any]
    seen: int = 0
    begun: bool = False
    """whether it is counted among those that have begun to send"""
    timer: asyncio.TimerHandle | None = field(default=None)


class Acceptor:
    """Accepts connections of one worker and decides where each goes."""

    def __init__(
        self,
        listeners: Iterable[tuple[socket.socket, dict[str, Any]]],
        *,
        serve: Serve,
        limits: Limits,
        changed: Callable[[], None],
    ) -> None:
        """Prepare; `start` begins.

        Args:
            listeners: each with what belongs to the state of its requests.
            serve: answers a request in this worker.
            limits: of connections.
            changed: called when the number of those that have begun to send has changed.
        """
        self._listeners = list(listeners)
        self._serve = serve
        self._limits = limits
        self._changed = changed
        self._begun = 0
        self._visitors: dict[_Visitor, None] = {}  # in order of arrival
        self._loop = asyncio.get_running_loop()
        self._accepting = False
        self._paused = False

    @property
    def visitors(self) -> int:
        """Connections whose header is not complete."""
        return len(self._visitors)

    @property
    def begun(self) -> int:
        """Of these, those that have begun to send, or were made just now: they are lost with this process."""
        return self._begun

    def start(self) -> None:
        """Begin to accept."""
        self._accepting = True
        for listener, state in self._listeners:
            self._loop.add_reader(listener.fileno(), self._accept, listener, state)

    def pause(self, *, paused: bool) -> None:
        """Leave new connections to other workers, or take them again; those of operators are always taken."""
        if paused == self._paused:
            return
        self._paused = paused
        for listener, state in self._listeners:
            if state.get("local") or not self._accepting:
                continue
            if paused:
                self._loop.remove_reader(listener.fileno())
            else:
                self._loop.add_reader(listener.fileno(), self._accept, listener, state)

    def stop(self, *, empty: bool) -> None:
        """Accept no more. Connections whose header is not complete go on.

        Args:
            empty: first take everything that waits at the listeners.
        """
        if not self._accepting:
            return
        self._accepting = False
        for listener, state in self._listeners:
            self._loop.remove_reader(listener.fileno())
            if empty:
                while self._accept_one(listener, state):
                    pass

    def _accept(self, listener: socket.socket, state: dict[str, Any]) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            if (self._paused and not state.get("local")) or not self._accept_one(listener, state):
                return

    def _accept_one(self, listener: socket.socket, state: dict[str, Any]) -> bool:
        try:
            connection, _address = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            if error.errno not in _OUT_OF_DESCRIPTORS:
                raise
            # Level-triggered: without a pause this would spin until a descriptor is free.
            log.error("no connection can be accepted: %s", error.strerror)
            self._loop.remove_reader(listener.fileno())
            self._loop.call_later(_PAUSE_SECONDS, self._resume, listener, state)
            self._send_one_away(only_silent=True)  # who has just come is about to send
            return False
        connection.settimeout(0)
        visitor = _Visitor(connection, time.monotonic(), state)
        self._visitors[visitor] = None
        # Should this process be killed now, what the client is about to send is lost, and nobody sees it.
        self._count(visitor, begun=True)
        fresh = min(_FRESH_SECONDS, self._limits.head_seconds)
        visitor.timer = self._loop.call_later(fresh, self._settle, visitor)
        self._look(visitor)
        if len(self._visitors) > self._limits.visitors:
            self._send_one_away()
        return True

    def _resume(self, listener: socket.socket, state: dict[str, Any]) -> None:
        if self._accepting and (not self._paused or state.get("local")):
            self._loop.add_reader(listener.fileno(), self._accept, listener, state)

    def _look(self, visitor: _Visitor) -> None:
        """Look at what has come of the header."""
        connection = visitor.connection
        try:
            data = connection.recv(HEAD_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            self._wait(visitor)
            return
        except OSError:
            self._dismiss(visitor)
            return
        if len(data) <= visitor.seen and (not data or has_gone(connection)):
            self._dismiss(visitor)  # closed before the header was whole
            return
        self._count(visitor, begun=True)
        if visitor.seen and len(data) == visitor.seen:
            # A Unix socket is readable whatever SO_RCVLOWAT says: not to be asked about it at once again.
            self._loop.remove_reader(connection.fileno())
            self._loop.call_later(_LOOK_AGAIN_SECONDS, self._look_again, visitor)
            return
        # What is no HTTP is told at once; a header that grows is parsed again only when it is whole.
        whole = _END_OF_HEAD in data[max(0, visitor.seen - len(_END_OF_HEAD)) :]
        try:
            head = parse_head(data) if whole or not visitor.seen else None
        except httptools.HttpParserError:
            self._answer_here(visitor, {})
            return
        if head is None:
            if len(data) >= HEAD_BYTES:
                self._answer_here(visitor, {"refusal": HEAD_TOO_LARGE})
                return
            visitor.seen = len(data)
            # Not to be woken for the bytes that have been looked at (socket(7)).
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(data) + 1)
            self._wait(visitor)
            return
        self._answer_here(visitor, {})

    def _look_again(self, visitor: _Visitor) -> None:
        if visitor in self._visitors:
            self._look(visitor)

    def _wait(self, visitor: _Visitor) -> None:
        self._loop.add_reader(visitor.connection.fileno(), self._look, visitor)

    def _answer_here(self, visitor: _Visitor, state: dict[str, Any]) -> None:
        self._forget(visitor)
        self._serve(visitor.connection, {**visitor.state, "arrived": time.monotonic(), **state})
        self._count(visitor, begun=False)

    def _settle(self, visitor: _Visitor) -> None:
        """It is new no longer: what counts is whether it has sent something."""
        remaining = visitor.arrived + self._limits.head_seconds - time.monotonic()
        visitor.timer = self._loop.call_later(max(0.0, remaining), self._too_late, visitor)
        if not visitor.seen:
            self._count(visitor, begun=False)

    def _too_late(self, visitor: _Visitor) -> None:
        visitor.timer = None
        # A client that has sent nothing waits for nothing; one that has begun is told.
        if visitor.seen:
            self._answer_here(visitor, {"refusal": HEAD_LATE})
        else:
            self._dismiss(visitor)

    def _send_one_away(self, *, only_silent: bool = False) -> None:
        """Make room: one that has sent nothing for long is the likeliest to mean nothing.

        Args:
            only_silent: where there is no such one, send nobody away.
        """
        latest = time.monotonic() - _GRACE_SECONDS
        silent = (v for v in self._visitors if v.seen == 0 and v.arrived < latest)
        visitor = next(silent, None)
        if visitor is None and not only_silent:
            visitor = next(iter(self._visitors), None)
        if visitor is not None:
            self._dismiss(visitor)

    def _dismiss(self, visitor: _Visitor) -> None:
        self._forget(visitor)
        visitor.connection.close()
        self._count(visitor, begun=False)

    def _count(self, visitor: _Visitor, *, begun: bool) -> None:
        if visitor.begun != begun:
            visitor.begun = begun
            self._begun += 1 if begun else -1
            self._changed()

    def _forget(self, visitor: _Visitor) -> None:
        if self._visitors.pop(visitor, visitor) is visitor:
            return
        self._loop.remove_reader(visitor.connection.fileno())
        if visitor.timer is not None:
            visitor.timer.cancel()
        if visitor.seen:
            visitor.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
