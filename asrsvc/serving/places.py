"""The requests that this worker works on, and whether it may take another from the queue.

A worker works on one short request at a time, and on several long ones; their spans take turns in the engine.
One that has something in hand lets those go first that have nothing. While a roll goes on there is
a worker more than cores: it waits until one of the others has ended its request, for a while.

A long recording may take hours: one client may have as many of them here as there are places left for others,
so that one more client always finds a place for its first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from asrsvc.serving.lanes import LaneName, Waiting, wanted
from asrsvc.serving.limits import NO_TICKET
from asrsvc.serving.queue import Queue, Turn

log = logging.getLogger(__name__)

MOST_LONG: Final = 8
"""long requests of a worker at the same time"""
_COURTESY_SECONDS: Final = 0.003  # an idle worker needs a tenth of that to take what waits
_CROWD_SECONDS: Final = 0.5
_AGAIN_SECONDS: Final = 0.05  # what waits may not be taken here: another may come that may
_EXPIRE_SECONDS: Final = 0.5
_EXPIRE_AT_ONCE: Final = 16


class Tickets(Protocol):
    """Where requests are counted; see `asrsvc.serving.limits`."""

    def hand_on(self, ticket: int) -> None:
        """It goes into the queue."""

    def take(self, ticket: int) -> None:
        """It has come out of the queue, into this process."""

    def leave(self, ticket: int) -> None:
        """It has ended."""


class Serve(Protocol):
    """Answers a request that has waited."""

    def __call__(self, waiting: Waiting, place: Place, *, ahead: bool) -> None:
        """Answer it; `ahead`: the first bytes of the answer have been sent."""


class Places:
    """The places of one worker."""

    def __init__(
        self,
        queues: Mapping[LaneName, Queue],
        *,
        serve: Serve,
        longest_wait: float,
        changed: Callable[[], None],
        tickets: Tickets,
        most_long: int = MOST_LONG,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            queues: what waits, by size.
            serve: answers a request in this worker.
            longest_wait: seconds; who has waited longer is served at once, to be told so.
            changed: called when the number of requests in hand, or of short ones among them, has changed.
            tickets: where requests are counted.
            most_long: long requests at the same time.
            crowded: whether as many short requests are at work, in all workers, as there are cores for.
        """
        self._queues = queues
        self._serve = serve
        self._longest_wait = longest_wait
        self._changed = changed
        self._tickets = tickets
        self._most_long = most_long
        self._crowded = crowded
        self._held: set[Place] = set()
        self._loop = asyncio.get_running_loop()
        self._open = False
        self._watched: set[LaneName] = set()
        self._pausing: set[LaneName] = set()
        self._expiry: asyncio.TimerHandle | None = None

    @property
    def in_hand(self) -> int:
        """Requests begun and not ended."""
        return len(self._held)

    @property
    def short_at_work(self) -> int:
        """Short requests in hand."""
        return sum(place.lane is LaneName.SHORT for place in self._held)

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

    def enter(self, lane: LaneName, client: int, ticket: int) -> Place | None:
        """A place at once for a request that this worker has read; None: it has to wait in the queue.

        Args:
            lane: its size.
            client: the number of its client.
            ticket: in the table of clients.
        """
        idle = not self._held and not self._queues[lane] and not self._too_many(lane)
        if not idle or not self._may_take(lane):
            return None
        return self._hold(lane, client, ticket, charged=0)

    def _may_take(self, lane: LaneName) -> bool:
        """Whether there may be a client of which a request may be taken."""
        if lane is LaneName.SHORT:
            return self._open and not self.short_at_work
        return self._open and self._long() < self._most_long

    def _long(self) -> int:
        return sum(place.lane is LaneName.LONG for place in self._held)

    def _may_take_of(self, lane: LaneName, client: int) -> bool:
        if lane is LaneName.SHORT:
            return True
        of_client = sum(place.lane is LaneName.LONG and place.client == client for place in self._held)
        return of_client < self._most_long - self._long()

    def _watch(self) -> None:
        """Listen to the queues that a request may be taken from, and to no others."""
        for name, queue in self._queues.items():
            if self._may_take(name) and name not in self._watched | self._pausing:
                self._watched.add(name)
                self._loop.add_reader(queue.fileno(), self._take, name)
            elif not self._may_take(name) and name in self._watched:
                self._unwatch(name)

    def _unwatch(self, name: LaneName) -> None:
        self._watched.discard(name)
        self._loop.remove_reader(self._queues[name].fileno())

    def _expire(self) -> None:
        """Take those out that have waited too long, turn or no turn: the application tells them.

        Those whose clients have gone hold tickets and disk until they are dropped.
        """
        before = time.monotonic() - self._longest_wait
        for name, queue in self._queues.items():
            for _ in range(_EXPIRE_AT_ONCE):
                turn = queue.take_oldest(before)
                if turn is None:
                    break
                self._begin(name, turn)
            self.drop_dead(name)
        self._expiry = self._loop.call_later(_EXPIRE_SECONDS, self._expire)

    def _take(self, name: LaneName) -> None:
        if not self._may_take(name):
            return
        if self._held or self._too_many(name):
            self._pause(name, _COURTESY_SECONDS, self._take_after_all, name, time.monotonic())
        else:
            self._take_one(name)

    def _pause(self, name: LaneName, seconds: float, then: Callable[..., None], *arguments: object) -> None:
        self._pausing.add(name)
        if name in self._watched:
            self._unwatch(name)
        self._loop.call_later(seconds, then, *arguments)

    def _too_many(self, name: LaneName) -> bool:
        return name is LaneName.SHORT and self._crowded()

    def _take_after_all(self, name: LaneName, since: float) -> None:
        """Nobody else was idle, or one more would only slow those who work."""
        if self._may_take(name):
            patient = not self._held and time.monotonic() - since < _CROWD_SECONDS
            if patient and self._too_many(name):
                self._loop.call_later(_COURTESY_SECONDS, self._take_after_all, name, since)
                return
        self._pausing.discard(name)
        if self._may_take(name):
            self._take_one(name)
        self._watch()

    def _take_one(self, name: LaneName) -> None:
        turn = self._queues[name].take(lambda client: self._may_take_of(name, client))
        if turn is not None:
            self._begin(name, turn)
        elif self._queues[name]:
            # All that wait are of clients that have their share here, or this process has no descriptors
            # free: to be woken at once would be a spin.
            self._pause(name, _AGAIN_SECONDS, self._go_on, name)

    def _go_on(self, name: LaneName) -> None:
        self._pausing.discard(name)
        self._watch()

    def _begin(self, name: LaneName, turn: Turn) -> None:
        waiting = wanted(turn.waiting)
        self._tickets.take(turn.waiting.ticket)
        if waiting is None:
            turn.waiting.close()
            self._client_has_gone(turn.waiting)
            self._queues[name].settle(turn.waiting.client, turn.charged, 0)
            return
        place = self._hold(name, waiting.client, waiting.ticket, charged=turn.charged)
        self._serve(waiting, place, ahead=waiting.ahead)

    def drop_dead(self, name: LaneName, client: int = 0) -> None:
        """Make room in a queue: a request whose client has gone waits no longer; see `Queue.drop_dead`."""
        for waiting in self._queues[name].drop_dead(client):
            self._client_has_gone(waiting)

    def _client_has_gone(self, waiting: Waiting) -> None:
        log.info("a client left the queue", extra={"error": "client_gone"})
        self._tickets.leave(waiting.ticket)

    def _hold(self, lane: LaneName, client: int, ticket: int, *, charged: int) -> Place:
        place = Place(self, lane, client, ticket, charged=charged)
        self._held.add(place)
        self._update()
        return place

    def _update(self) -> None:
        self._watch()
        self._changed()

    def release(self, place: Place) -> None:
        """A request has ended."""
        if place in self._held:
            self._held.discard(place)
            self._queues[place.queue].settle(place.client, place.charged, round(place.spent * 1e6))
            if not place.handed_on:
                self._tickets.leave(place.ticket)
            self._update()

    def lengthen(self, place: Place) -> bool:
        """A request has turned out to be a long one; whether there is a place for it among these."""
        room = self._may_take_of(LaneName.LONG, place.client)
        place.lane = LaneName.LONG
        self._update()
        return room


@dataclass(slots=True, eq=False)
class Place:
    """One request's place in a worker."""

    places: Places
    lane: LaneName
    client: int = 0
    """its number"""
    ticket: int = NO_TICKET
    """in the table of clients"""
    charged: int = 0
    """microseconds that its client's lane was charged for it"""
    spent: float = 0.0
    """seconds that it has cost; to be told before it is released"""
    handed_on: bool = False
    """whether it goes on elsewhere: its ticket is in use"""
    queue: LaneName = field(init=False)
    """that it came from"""

    def __post_init__(self) -> None:
        self.queue = self.lane

    @property
    def is_long(self) -> bool:
        """Whether it is taken to be a long one."""
        return self.lane is LaneName.LONG

    def lengthen(self) -> bool:
        """The request has turned out to be a long one: it keeps no short ones out.

        Returns:
            whether it has a place here among the long ones; without one it had better wait for it.
        """
        return self.places.lengthen(self)

    def release(self) -> None:
        """The request has ended, whichever way; may be called again."""
        self.places.release(self)
