"""Accepting, looking at the header without reading it, and passing connections to the queue.

Every worker that is ready accepts. It looks at the header (MSG_PEEK), waiting for more of it with
SO_RCVLOWAT, under a deadline and a limit of size: a client that is silent or trickles costs no slot.
What needs the engine waits in a lane (`asrsvc.serving.lanes`) until a worker has a place for it; the
rest is answered here. The header is parsed with httptools, which parses it again when it is served.
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

from asrsvc.serving.lanes import Lane, LaneName, has_gone, listens
from asrsvc.serving.limits import NO_TICKET
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
_COURTESY_SECONDS: Final = 0.003  # an idle worker needs a tenth of that to take what waits
_CROWD_SECONDS: Final = 0.5
_EXPIRE_SECONDS: Final = 0.5
_EXPIRE_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Head:
    """The header of a request."""

    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]


class Tickets(Protocol):
    """Where the requests of clients with limits are counted; see `asrsvc.serving.limits`."""

    def hand_on(self, ticket: int) -> None:
        """It goes into the queue."""

    def take(self, ticket: int) -> None:
        """It has come out of the queue, into this process."""

    def leave(self, ticket: int) -> None:
        """It has ended."""


class Entry(Protocol):
    """A request of a client that may come in; it counts until it is withdrawn or its ticket left."""

    @property
    def ticket(self) -> int:
        """In the table of clients."""

    def withdraw(self) -> None:
        """Nothing was done for it."""


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
        lane_of: Callable[[Head], LaneName | None],
        lanes: dict[LaneName, Lane],
        limits: Limits,
        changed: Callable[[], None],
        admit: Callable[[Head, socket.socket], Entry | Exception] | None = None,
        tickets: Tickets | None = None,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            listeners: each with what belongs to the state of its requests.
            serve: answers a request in this worker.
            lane_of: which lane a request must wait in; None if it needs no engine.
            lanes: the queue.
            limits: of connections.
            changed: called when the number of those that have begun to send has changed.
            admit: lets a request in that would wait in a lane, or says what it is answered instead.
            tickets: where those are counted that it has let in.
        """
        self._admit = admit
        self._tickets = tickets
        self._listeners = list(listeners)
        self._serve = serve
        self._lane_of = lane_of
        self._lanes = lanes
        self._limits = limits
        self._changed = changed
        self._begun = 0
        self._visitors: dict[_Visitor, None] = {}  # in order of arrival
        self._loop = asyncio.get_running_loop()
        self._accepting = False

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
            if not self._accept_one(listener, state):
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
            self._send_one_away()
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
        if self._accepting:
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
        self._route(visitor, head)

    def _look_again(self, visitor: _Visitor) -> None:
        if visitor in self._visitors:
            self._look(visitor)

    def _wait(self, visitor: _Visitor) -> None:
        self._loop.add_reader(visitor.connection.fileno(), self._look, visitor)

    def _route(self, visitor: _Visitor, head: Head) -> None:
        lane = None if visitor.state.get("local") else self._lane_of(head)
        if lane is None:
            self._answer_here(visitor, {})
            return
        entry = self._admit(head, visitor.connection) if self._admit is not None else None
        if isinstance(entry, Exception):
            self._answer_here(visitor, {"denial": entry})
            return
        ticket = entry.ticket if entry is not None else NO_TICKET
        self._forget(visitor)
        if self._tickets is not None:
            self._tickets.hand_on(ticket)  # before: another worker may have it at once
        if self._lanes[lane].put(visitor.connection, time.monotonic(), ticket):
            visitor.connection.close()  # this process's descriptor; the lane holds another
        else:
            if entry is not None:
                entry.withdraw()
            self._serve(visitor.connection, {**visitor.state, "refusal": "over_capacity"})
        self._count(visitor, begun=False)

    def _answer_here(self, visitor: _Visitor, state: dict[str, Any]) -> None:
        self._forget(visitor)
        self._serve(visitor.connection, {**visitor.state, **state})
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

    def _send_one_away(self) -> None:
        """Make room: one that has sent nothing for long is the likeliest to mean nothing."""
        latest = time.monotonic() - _GRACE_SECONDS
        silent = (v for v in self._visitors if v.seen == 0 and v.arrived < latest)
        visitor = next(silent, None) or next(iter(self._visitors), None)
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


class Places:
    """The requests that this worker has taken from the queue, and whether it may take another.

    A worker works on one short and one long request at a time; their spans take turns in the engine.
    One that has something in hand lets those go first that have nothing. While a roll goes on there is
    a worker more than cores: it waits until one of the others has ended its request, for a while.
    A request whose body is slow to arrive gives its turn up while it waits, so that a slow client
    does not keep the engine idle.
    """

    def __init__(
        self,
        lanes: dict[LaneName, Lane],
        *,
        serve: Serve,
        patience: float,
        longest_wait: float,
        most: int,
        changed: Callable[[], None],
        tickets: Tickets | None = None,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            lanes: the queue.
            serve: answers a request in this worker.
            patience: seconds that a body may take before its request gives up its turn.
            longest_wait: seconds; who has waited longer is served at once, to be told so.
            most: requests at the same time, with those whose body is slow.
            changed: called when the number of requests in hand, or of those that hold a turn, has changed.
            tickets: where requests of clients with limits are counted.
            crowded: whether as many short requests are at work, in all workers, as there are cores for.
        """
        self._tickets = tickets
        self._crowded = crowded
        self._lanes = lanes
        self._serve = serve
        self._patience = patience
        self._longest_wait = longest_wait
        self._most = most
        self._changed = changed
        self._held: set[Place] = set()
        self._loop = asyncio.get_running_loop()
        self._open = False
        self._watched: set[LaneName] = set()
        self._yielding: set[LaneName] = set()
        self._expiry: asyncio.TimerHandle | None = None

    @property
    def in_hand(self) -> int:
        """Requests begun and not ended."""
        return len(self._held)

    @property
    def short_at_work(self) -> int:
        """Short requests that hold a turn."""
        return sum(place.holds_turn and place.lane is LaneName.SHORT for place in self._held)

    def start(self) -> None:
        """Begin to take."""
        self._open = True
        self._watch()
        self._expire()

    def stop(self) -> None:
        """Take no more; what has been taken goes on."""
        self._open = False
        self._watch()
        if self._expiry is not None:
            self._expiry.cancel()

    def _may_take(self, lane: LaneName) -> bool:
        return (
            self._open
            and len(self._held) < self._most
            and not any(place.lane is lane and place.holds_turn for place in self._held)
        )

    def _watch(self) -> None:
        """Listen to the lanes that a request may be taken from, and to no others."""
        for name, lane in self._lanes.items():
            if self._may_take(name) and name not in self._watched | self._yielding:
                self._watched.add(name)
                self._loop.add_reader(lane.fileno(), self._take, name)
            elif not self._may_take(name) and name in self._watched:
                self._watched.discard(name)
                self._loop.remove_reader(lane.fileno())

    def _expire(self) -> None:
        """Take those out that have waited too long, turn or no turn: the application tells them."""
        latest = time.monotonic() - self._longest_wait
        for name, lane in self._lanes.items():
            for _ in range(_EXPIRE_AT_ONCE):
                arrived = lane.oldest()
                if arrived is None or arrived >= latest:
                    break
                self._begin(name)
        self._expiry = self._loop.call_later(_EXPIRE_SECONDS, self._expire)

    def _take(self, name: LaneName) -> None:
        if not self._may_take(name):
            return
        if self._engaged() or self._too_many(name):
            self._yielding.add(name)
            self._watched.discard(name)
            self._loop.remove_reader(self._lanes[name].fileno())
            self._loop.call_later(_COURTESY_SECONDS, self._take_after_all, name, time.monotonic())
        else:
            self._begin(name)

    def _engaged(self) -> bool:
        return any(place.holds_turn for place in self._held)

    def _too_many(self, name: LaneName) -> bool:
        return name is LaneName.SHORT and self._crowded()

    def _take_after_all(self, name: LaneName, since: float) -> None:
        """Nobody else was idle, or one more would only slow those who work."""
        if self._may_take(name):
            patient = not self._engaged() and time.monotonic() - since < _CROWD_SECONDS
            if patient and self._too_many(name):
                self._loop.call_later(_COURTESY_SECONDS, self._take_after_all, name, since)
                return
            self._begin(name)
        self._yielding.discard(name)
        self._watch()

    def _begin(self, name: LaneName) -> None:
        waiting = self._lanes[name].take()
        if waiting is None:
            return  # another worker was quicker
        if self._tickets is not None:
            self._tickets.take(waiting.ticket)
        ended = has_gone(waiting.connection)
        if ended and not listens(waiting.connection):
            log.info("a client left the queue", extra={"error": "client_gone"})
            waiting.connection.close()
            self._leave(waiting.ticket)
            return
        place = Place(self, name, ticket=waiting.ticket)
        self._held.add(place)
        place.timer = self._loop.call_later(self._patience, place.give_way)
        self._update()
        self._serve(waiting.connection, {"arrived": waiting.arrived, "place": place, "ahead": ended})

    def _update(self) -> None:
        self._watch()
        self._changed()

    def release(self, place: Place) -> None:
        """A request has ended."""
        if place in self._held:
            self._held.discard(place)
            self._leave(place.ticket)
            self._update()

    def _leave(self, ticket: int) -> None:
        if self._tickets is not None:
            self._tickets.leave(ticket)


@dataclass(slots=True, eq=False)
class Place:
    """One request's place in a worker."""

    places: Places
    lane: LaneName
    holds_turn: bool = True
    """whether it keeps others of its lane out"""
    ticket: int = NO_TICKET
    """in the table of clients"""
    timer: asyncio.TimerHandle | None = None

    def give_way(self) -> None:
        """The body is slow: another request may begin meanwhile."""
        self.holds_turn = False
        self.places._update()

    def body_complete(self) -> None:
        """The body has arrived: the request needs the engine now."""
        self._quiet()
        if not self.holds_turn:
            self.holds_turn = True
            self.places._update()

    def lengthen(self) -> None:
        """The request has turned out to be a long one: it keeps other long ones out, and no short ones."""
        self.lane = LaneName.LONG
        self.places._update()

    def release(self) -> None:
        """The request has ended, whichever way; may be called again."""
        self._quiet()
        self.places.release(self)

    def _quiet(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
