"""Who is next: each request has a line of its spans, and the requests take turns."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Items that wait, of several askers. Not to be used by two threads at once.

    The askers take turns, each with its oldest item; nobody has two turns one after the other while
    somebody else waits. So a request of one span waits for one span of each of the others at most,
    however many they have.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[Hashable, deque[Item]] = OrderedDict()  # whose turn comes first, first
        self._count = 0
        self._last: Hashable = None

    def __len__(self) -> int:
        """Items that wait."""
        return self._count

    def put(self, asker: Hashable, item: Item) -> None:
        """Let an item wait behind those of the same asker; an asker that is new here has the last turn."""
        self._lines.setdefault(asker, deque()).append(item)
        self._count += 1

    def take(self, fits: Callable[[Item], bool] = lambda _item: True) -> Item | None:
        """The item whose turn it is; None if none waits, or if it does not fit: nobody is passed over."""
        asker = self._next()
        if asker is None or not fits(self._lines[asker][0]):
            return None
        self._last = asker
        line = self._lines[asker]
        item = line.popleft()
        self._count -= 1
        if line:
            self._lines.move_to_end(asker)
        else:
            del self._lines[asker]
        return item

    def drain(self) -> Iterator[Item]:
        """Take all out."""
        while (item := self.take()) is not None:
            yield item

    def _next(self) -> Hashable | None:
        """Who was served last, and has asked again before anybody else came, is not first all the same."""
        waiting = iter(self._lines)
        first = next(waiting, None)
        return next(waiting, first) if first is not None and first == self._last else first
