"""What each client holds at the same time, and how fast its requests come, over all workers.

The table is shared memory, made by the master and mapped by whoever inherits its descriptor, a new
master too. A request that brings work has a ticket with the process that holds it, or none while it
waits in the queue; a ticket of a process that has died is given back, so nothing leaks. What a client
has is counted from the tickets each time: there is no sum that a killed process could leave wrong.

What is scarce is shared out by dynamic thresholds (Choudhury & Hahne, "Dynamic queue length thresholds
for shared-memory packet switches", IEEE/ACM Transactions on Networking, 1998): a client may hold as much
as is still free, times a factor. One client alone gets most of it, the others always find a rest, and
nobody needs to know how many clients there are.

Rates are kept as one time for each client (GCRA: ITU-T I.371, the virtual scheduling algorithm).
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Final

from asrsvc.serving.table_lock import TableLock

log = logging.getLogger(__name__)

NO_TICKET: Final = -1
_MAGIC: Final = 0x61737273_00000002
_HEADER: Final = 4  # words: magic, tickets, clients, none
SPOOL_FACTOR: Final = 4
"""times the free bytes of the spool that a client may hold: four fifths of it, if it is alone"""
_CLIENTS: Final = 4096
"""whose rate is known; more make the one that has been quiet for longest forgotten"""
_IN_QUEUE: Final = 0
"""owner of a ticket whose request waits"""
_MINUTE_NS: Final = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one client may."""

    client: str
    """who it is"""
    rate: int = 0
    """requests a minute; so many may come at once, and are made good evenly; 0: any"""
    concurrency: int = 0
    """requests at the same time; 0: any, as long as nobody else waits"""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a client stands with its rate."""

    remaining: int
    """requests that it may send now"""
    reset_seconds: float
    """until it may send as many as at all"""


@dataclass(frozen=True, slots=True)
class Refused:
    """No, for this reason."""

    reason: str
    """`rate`, `concurrency`, `share`: the client holds as many as it may beside what is free, or `full`:
    more are under way than can be told apart"""
    retry_seconds: float


class ClientTable:
    """The table. Every change is made under a lock that the kernel frees when its holder dies."""

    def __init__(self, descriptor: int) -> None:
        """Map it.

        Raises:
            ValueError: this is no table, or one of another version.
        """
        self.descriptor = descriptor
        self._lock = TableLock(descriptor, "the table of clients")
        self._memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        words = memoryview(self._memory).cast("q")
        if len(words) < _HEADER or words[0] != _MAGIC:
            raise ValueError("no table of clients")
        tickets, clients = words[1], words[2]
        start = _HEADER
        self._holder = words[start : start + tickets]  # client of each ticket, 0: free
        self._owner = words[start + tickets : start + 2 * tickets]
        self._since = words[start + 2 * tickets : start + 3 * tickets]
        self._bytes = words[start + 3 * tickets : start + 4 * tickets]  # of its upload, in the spool
        start += 4 * tickets
        self._who = words[start : start + clients]  # client of each rate, 0: free
        self._due = words[start + clients : start + 2 * clients]  # when its bucket is full again, ns

    @classmethod
    def create(cls, tickets: int) -> ClientTable:
        """An empty table.

        Args:
            tickets: requests that may be under way at the same time.
        """
        descriptor = os.memfd_create("asrsvc-clients")
        size = (_HEADER + 4 * tickets + 2 * _CLIENTS) * 8
        os.ftruncate(descriptor, size)
        with mmap.mmap(descriptor, size) as memory, memoryview(memory).cast("q") as words:
            words[1], words[2] = tickets, _CLIENTS
            words[0] = _MAGIC
        return cls(descriptor)

    def _locked(self) -> AbstractContextManager[bool]:
        """Hold the lock; False if it could not be had in time: then limits are not kept, and requests are."""
        return self._lock.held()

    def enter(self, allowance: Allowance) -> int | Refused:
        """Let a request in: its ticket (NO_TICKET: it cannot be counted now), or why not."""
        client = number_of(allowance.client)
        now = time.monotonic_ns()
        with self._locked() as locked:
            if not locked:
                return NO_TICKET
            held = self._holder.tolist()
            mine = held.count(client)
            if allowance.concurrency and mine >= allowance.concurrency:
                return Refused("concurrency", 1.0)
            free = held.count(0)
            if mine >= free:
                return Refused("share" if free else "full", 1.0)
            if allowance.rate:
                late = self._charge(client, allowance.rate, now)
                if late > 0:
                    return Refused("rate", late / 1e9)
            return self._give(held.index(0), client, now)

    def _give(self, ticket: int, client: int, now: int) -> int:
        self._since[ticket] = now
        self._owner[ticket] = os.getpid()
        self._bytes[ticket] = 0
        self._holder[ticket] = client  # last: now it counts
        return ticket

    def hold(self, ticket: int, size: int, budget: int) -> bool:
        """Whether the upload of a request may take so many bytes of the spool; if so, they are taken.

        Args:
            ticket: of the request.
            size: bytes, with those that it has already.
            budget: bytes of all uploads together; one client alone may have four fifths of them.
        """
        if ticket == NO_TICKET:
            return True
        with self._locked() as locked:
            if not locked:
                return True
            others = self._bytes.tolist()
            others[ticket] = 0
            client = self._holder[ticket]
            total = sum(others)
            mine = (
                sum(taken for taken, one in zip(others, self._holder.tolist(), strict=True) if one == client)
                if total
                else 0
            )
            if mine + size > SPOOL_FACTOR * (budget - total - size):
                return False
            self._bytes[ticket] = size
            return True

    def spooled(self) -> int:
        """Bytes of all uploads in the spool."""
        return sum(self._bytes.tolist())

    def _charge(self, client: int, rate: int, now: int) -> int:
        """Take one request from a client's bucket; else nanoseconds until there is one."""
        each = _MINUTE_NS // rate
        row = self._row(client)
        due = max(now, self._due[row] if self._who[row] == client else 0)
        late = due + each - (now + _MINUTE_NS)
        if late > 0:
            return late
        self._due[row] = due + each
        self._who[row] = client
        return 0

    def _row(self, client: int) -> int:
        """The client's row; for a new one a free row, else that whose bucket is fullest."""
        known = self._who.tolist()
        for wanted in (client, 0):
            with suppress(ValueError):
                return known.index(wanted)
        due = self._due.tolist()
        row = due.index(min(due))
        self._who[row] = self._due[row] = 0
        return row

    def refund(self, allowance: Allowance) -> None:
        """Give a request back to its client's bucket: nothing was done for it."""
        if not allowance.rate:
            return
        client = number_of(allowance.client)
        with self._locked() as locked:
            known = self._who.tolist()
            if locked and client in known:
                self._due[known.index(client)] -= _MINUTE_NS // allowance.rate

    def standing(self, allowance: Allowance) -> Standing | None:
        """Where a client stands with its rate; None if it has none."""
        if not allowance.rate:
            return None
        now = time.monotonic_ns()
        known, client = self._who.tolist(), number_of(allowance.client)
        due = self._due[known.index(client)] if client in known else now
        used = max(0, due - now)
        each = _MINUTE_NS // allowance.rate
        return Standing(min(allowance.rate, max(0, (_MINUTE_NS - used) // each)), used / 1e9)

    def hand_on(self, ticket: int) -> None:
        """The request goes into the queue: it belongs to no process."""
        if ticket != NO_TICKET:
            self._since[ticket] = time.monotonic_ns()
            self._owner[ticket] = _IN_QUEUE

    def take(self, ticket: int) -> None:
        """The request has come out of the queue: it belongs to this process."""
        if ticket != NO_TICKET:
            self._owner[ticket] = os.getpid()

    def leave(self, ticket: int) -> None:
        """The request has ended."""
        if ticket != NO_TICKET:
            self._free(ticket)

    def _free(self, ticket: int) -> None:
        self._bytes[ticket] = 0
        self._holder[ticket] = 0  # last: now another may have it

    def under_way(self, client: str) -> int:
        """Requests of a client that have a ticket."""
        return self._holder.tolist().count(number_of(client))

    def sweep(self, *, dead: int | None = None, longest_wait: float) -> int:
        """Give back the tickets of processes that have died; how many there were.

        Args:
            dead: a process that is known to have ended; its number may belong to another soon.
            longest_wait: seconds that a request can be in the queue: a process that died between the
                queue and its own mark has left it there.
        """
        oldest = time.monotonic_ns() - round(longest_wait * 1e9)
        found = [
            ticket
            for ticket, client in enumerate(self._holder.tolist())
            if client and self._is_lost(ticket, dead, oldest)
        ]
        for ticket in found:
            self._free(ticket)
        return len(found)

    def _is_lost(self, ticket: int, dead: int | None, oldest: int) -> bool:
        owner = self._owner[ticket]
        if owner == _IN_QUEUE:
            return self._since[ticket] < oldest
        if owner == dead:
            return True
        try:
            os.kill(owner, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return True  # another user's: ours has gone
        return False


def number_of(client: str) -> int:
    """64 bits that stand for a client; never 0."""
    digest = hashlib.blake2b(client.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) or 1
