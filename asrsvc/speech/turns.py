"""Who is next: each request has a line of its spans; the requests of a client take turns, and clients do."""

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

    An asker may be a tuple: those that begin alike are a group, and groups take turns as askers do. Of the
    askers `(long, client, request)` the short and the long ones take turns, in each of these the clients,
    and of each client the requests.
    """

    def __init__(self) -> None:
        self._root: _Group[Item] = _Group()
        self._count = 0

    def __len__(self) -> int:
        """Items that wait."""
        return self._count

    def put(self, asker: Hashable, item: Item) -> None:
        """Let an item wait behind those of the same asker; an asker that is new here has the last turn."""
        path = asker if isinstance(asker, tuple) else (asker,)
        self._root.put(deque(path), item)
        self._count += 1

    def take(self, fits: Callable[[Item], bool] = lambda _item: True) -> Item | None:
        """The item whose turn it is; None if none waits, or if it does not fit: nobody is passed over."""
        if not self._count or not fits(self._root.first()):
            return None
        self._count -= 1
        return self._root.take()

    def drain(self) -> Iterator[Item]:
        """Take all out."""
        while (item := self.take()) is not None:
            yield item


class _Group(Generic[Item]):
    """Those who take turns at one place, whose turn comes first, first: groups, or lines of items."""

    def __init__(self) -> None:
        self._members: OrderedDict[Hashable, _Group[Item]] = OrderedDict()
        self._items: deque[Item] = deque()
        self._last: Hashable = None

    def put(self, path: deque[Hashable], item: Item) -> None:
        if path:
            self._members.setdefault(path.popleft(), _Group()).put(path, item)
        else:
            self._items.append(item)

    def is_empty(self) -> bool:
        return not self._items and not self._members

    def first(self) -> Item:
        """The item that `take` gives next."""
        return self._items[0] if self._items else self._members[self._next()].first()

    def take(self) -> Item:
        if self._items:
            return self._items.popleft()
        name = self._last = self._next()
        member = self._members[name]
        item = member.take()
        if member.is_empty():
            del self._members[name]
        else:
            self._members.move_to_end(name)
        return item

    def _next(self) -> Hashable:
        """Who was served last, and has asked again before anybody else came, is not first all the same."""
        waiting = iter(self._members)
        first = next(waiting)
        return next(waiting, first) if first == self._last else first
