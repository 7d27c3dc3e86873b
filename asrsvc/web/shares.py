"""What is scarce in a worker, shared out among clients: each may hold as many as are left for others.

Dynamic thresholds; see `asrsvc.serving.limits`. One client alone gets half, and the next always finds some.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from asrsvc.errors import OverCapacity


class Shares:
    """So many of one kind, in one worker."""

    def __init__(self, most: int, what: str) -> None:
        """Begin with all free.

        Args:
            most: of all clients together.
            what: they are, for a message.
        """
        self._most = most
        self._what = what
        self._held: Counter[str] = Counter()

    @contextmanager
    def one_of(self, client: str) -> Iterator[None]:
        """Hold one for a client.

        Raises:
            OverCapacity: it holds as many as are free, or none is.
        """
        if self._held[client] >= self._most - self._held.total():
            raise OverCapacity(
                f"{self._held[client]} {self._what} of yours are open, of {self._held.total()} in all:"
                " no more may be; try again in a second"
            )
        self._held[client] += 1
        try:
            yield
        finally:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]
