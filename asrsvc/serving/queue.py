"""The queue of one size: a lane for each client, and the client whose turn it is.

A client that is not known here gets an empty lane; where there is none, clients share lanes by hash. Whose
turn it is follows from the work that each has had: start-time fair queueing (Goyal, Vin & Cheng, "Start-time
fair queuing: a scheduling algorithm for integrated services packet switching networks", SIGCOMM 1996). The
next request of a lane starts, in virtual time, where the lane's last one ended, or now, if the lane was idle;
the earliest start is taken. What a request costs is known when it has ended: until then its lane is charged
what its requests cost on average. So of n clients that all have work waiting each gets one nth of what is
served, whatever the others send; one that is alone waits for nobody, and first come is first served.

The lanes' table is shared memory, as the table of clients is; see `asrsvc.serving.limits`.
"""

from __future__ import annotations

import logging
import mmap
import os
import select
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from asrsvc.serving.lanes import Lane, Waiting, wanted
from asrsvc.serving.table_lock import TableLock

log = logging.getLogger(__name__)

LANES: Final = 16
_HEADER: Final = 2  # words: lanes, virtual time
_COLUMNS: Final = 3  # client, virtual finish, average cost
_FIRST_COST: Final = 100_000
"""microseconds that a request of a client is taken to cost of which nothing is known"""
_SHARE: Final = 4
"""one part in so many that the last request has in a client's average cost"""
_SWEPT: Final = 512
"""requests that are looked at, at most, each time that those are dropped whose clients have gone"""
_SWEEP_PAUSE: Final = 10
"""times as long as that took, until it is done again: a tenth of a worker's time at most"""


@dataclass(frozen=True, slots=True)
class Ends:
    """The descriptors of a queue, to be inherited."""

    lanes: tuple[tuple[int, int], ...]
    """of each lane's entrance and exit"""
    table: int

    def all(self) -> list[int]:
        """All of them."""
        return [*(end for ends in self.lanes for end in ends), self.table]


@dataclass(frozen=True, slots=True)
class Turn:
    """A request that has been taken out, and what its lane was charged for it."""

    waiting: Waiting
    charged: int
    """microseconds"""


class Queue:
    """The requests of one size that wait, of all workers."""

    def __init__(self, lanes: Sequence[Lane], table: int, limit: int) -> None:
        self._lanes = tuple(lanes)
        self._table = table
        self._lock = TableLock(table, "the queue's table")
        self._limit = limit
        self._memory = mmap.mmap(table, os.fstat(table).st_size)
        words = memoryview(self._memory).cast("q")
        count = len(self._lanes)
        self._words = words
        self._client = words[_HEADER : _HEADER + count]
        self._finish = words[_HEADER + count : _HEADER + 2 * count]
        self._cost = words[_HEADER + 2 * count : _HEADER + 3 * count]
        self._epoll: select.epoll | None = None
        self._sweep_at = 0.0  # time.monotonic(): not before

    @classmethod
    def create(cls, limit: int, lanes: int = LANES) -> Queue:
        """Make an empty queue.

        Args:
            limit: requests of one client that may wait if it is alone; all together may be twice as many.
            lanes: clients that can be told apart at the same time.
        """
        table = os.memfd_create("asrsvc-queue")
        os.ftruncate(table, (_HEADER + _COLUMNS * lanes) * 8)
        return cls([Lane.create(2 * limit) for _ in range(lanes)], table, limit)

    @classmethod
    def inherit(cls, ends: Ends, limit: int) -> Queue:
        """Take over a queue of another program."""
        return cls([Lane.inherit(pair, 2 * limit) for pair in ends.lanes], ends.table, limit)

    def descriptors(self) -> Ends:
        """What is to be inherited."""
        return Ends(tuple(lane.descriptors() for lane in self._lanes), self._table)

    def fileno(self) -> int:
        """A descriptor of this process that is readable while somebody waits."""
        if self._epoll is None:
            self._epoll = select.epoll()
            for lane in self._lanes:
                self._epoll.register(lane.fileno(), select.EPOLLIN)
        return self._epoll.fileno()

    def close(self) -> None:
        """Let go of all descriptors; what waits is lost with the last process that has them."""
        if self._epoll is not None:
            self._epoll.close()
        for lane in self._lanes:
            lane.close()
        os.close(self._table)

    def set_limit(self, limit: int) -> None:
        """Let so many requests of one client wait from now on (the buffers stay as they were made)."""
        self._limit = limit
        for lane in self._lanes:
            lane.set_limit(2 * limit)

    def __len__(self) -> int:
        """Requests that wait now."""
        return sum(map(len, self._lanes))

    def has_room(self, client: int) -> bool:
        """Whether one more request of a client may wait: it may have as many as there is room for others."""
        lengths = [len(lane) for lane in self._lanes]
        return self._room(lengths, self._lane_of(client, lengths))

    def _room(self, lengths: list[int], lane: int) -> bool:
        return lengths[lane] + 1 <= 2 * self._limit - sum(lengths)

    def put(self, waiting: Waiting) -> bool:
        """Let a request wait; False if its client has as many here as it may. The caller closes its own
        descriptors.
        """
        with self._locked():
            lengths = [len(lane) for lane in self._lanes]
            lane = self._lane_of(waiting.client, lengths)
            if not self._room(lengths, lane):
                return False
            if self._client[lane] != waiting.client and not lengths[lane]:
                self._client[lane] = waiting.client
                self._finish[lane] = self._words[1]
                self._cost[lane] = _FIRST_COST
            return self._lanes[lane].put(waiting)

    def _lane_of(self, client: int, lengths: list[int]) -> int:
        known = self._client.tolist()
        if client in known:
            return known.index(client)
        empty = [lane for lane, length in enumerate(lengths) if not length]
        if not empty:
            return client % len(self._lanes)
        finish = self._finish.tolist()
        return min(empty, key=lambda lane: finish[lane])  # the one whose client has been quiet for longest

    def oldest(self) -> float | None:
        """When the request that has waited longest began to wait (time.monotonic()); None: none waits."""
        return min((seen[0] for lane in self._lanes if (seen := lane.look()) is not None), default=None)

    def take(self, may: Callable[[int], bool] = lambda _client: True) -> Turn | None:
        """The request whose turn it is, of those whose clients may be served here; None: there is none.

        Args:
            may: whether a request of the client with this number may be taken.
        """
        with self._locked() as alone:
            now = self._words[1]
            finish = self._finish.tolist()
            starts: list[tuple[int, float, int]] = []
            for number, lane in enumerate(self._lanes):
                seen = lane.look()
                if seen is not None and may(seen[1]):
                    starts.append((max(now, finish[number]), seen[0], number))
            for start, _arrived, number in sorted(starts):
                waiting = self._lanes[number].take(alone=alone)
                if waiting is None:
                    continue
                charged = self._cost[number] or _FIRST_COST
                self._words[1] = start
                self._finish[number] = start + charged
                return Turn(waiting, charged)
        return None

    def take_oldest(self, before: float) -> Turn | None:
        """A request that began to wait before a time (time.monotonic()), whoever's turn it is."""
        oldest = self.oldest()
        if oldest is None or oldest >= before:
            return None
        with self._locked() as alone:
            for lane in self._lanes:
                seen = lane.look()
                if seen is not None and seen[0] < before:
                    waiting = lane.take(alone=alone)
                    if waiting is not None:
                        return Turn(waiting, 0)
        return None

    def drop_dead(self, client: int = 0) -> list[Waiting]:
        """Let those go whose clients have gone: they need no place. The rest waits on in its order.

        What it costs is bounded, see `_SWEPT` and `_SWEEP_PAUSE`; a lane that is longer loses its order.

        Args:
            client: whose lane is looked through first.

        Returns:
            those that have been dropped, closed; their tickets are the caller's to give back.
        """
        begun = time.monotonic()
        if begun < self._sweep_at or not len(self):
            return []
        dropped: list[Waiting] = []
        with self._locked() as alone:
            if not alone:
                return []
            rest = _SWEPT
            known = self._client.tolist()
            for number in sorted(range(len(self._lanes)), key=lambda lane: known[lane] != client):
                count = min(rest, len(self._lanes[number]))
                rest -= count
                dropped += _sweep(self._lanes[number], count)
        ended = time.monotonic()
        self._sweep_at = ended + _SWEEP_PAUSE * (ended - begun)
        return dropped

    def settle(self, client: int, charged: int, spent: int) -> None:
        """A request has ended: its client's lane is charged what it has cost.

        Args:
            client: its number.
            charged: microseconds that its lane was charged when it was taken; 0: it did not wait.
            spent: microseconds that it has cost.
        """
        with self._locked():
            known = self._client.tolist()
            if client not in known:
                return
            lane = known.index(client)
            self._finish[lane] = (
                max(self._finish[lane], self._words[1] if not charged else 0) + spent - charged
            )
            if spent:
                average = self._cost[lane] or spent
                self._cost[lane] = max(1, average + (spent - average) // _SHARE)

    def _locked(self) -> AbstractContextManager[bool]:
        """Hold the lock of the table, or go on without it (False): then two may have a turn at once."""
        return self._lock.held()


def _sweep(lane: Lane, count: int) -> list[Waiting]:
    """Look at so many of a lane's requests, from the oldest on: each is dropped, or put back at the end."""
    dropped = []
    for _ in range(count):
        waiting = lane.take(alone=True)
        if waiting is None:
            break  # no descriptor is free here
        kept = wanted(waiting)
        if kept is None:
            dropped.append(waiting)
        elif not lane.put(kept):
            log.error("a request that waited has been lost: the kernel did not take it back")
        waiting.close()
    return dropped
