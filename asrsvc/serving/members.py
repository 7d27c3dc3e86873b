"""The master's view of its worker processes: number, version, pipe, and what each says over it."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from asrsvc.serving.brief import LINE_BYTES, Line, hear
from asrsvc.serving.gentle import HURRY_SECONDS, hurry


class Member:
    """What the master holds of one worker process."""

    def __init__(self, number: int, version: str | None, pipe: int) -> None:
        self.number = number
        self.version = version
        self.pipe = pipe
        """descriptor that its lines are read from"""
        self.pid = 0
        self.error = ""
        """why it failed, in its own words or the master's"""
        self.cost: float | None = None
        """CPU seconds of its engine for a second of sound"""
        self.baked = False
        """whether it serves the faster twin of its version"""
        self.problem = ""
        """what is wrong with that twin"""
        self.forced = False
        """whether the comparison of text and speed was left out"""
        self.loads = True
        """whether it has not said yet that it is ready"""
        self.since = time.monotonic()
        """when it was begun"""
        self._heard = b""

    def lines(self) -> Iterator[Line]:
        """What it has said since the last look.

        Raises:
            EOFError: it has closed its pipe.
        """
        try:
            data = os.read(self.pipe, 16 * LINE_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise EOFError
        *texts, self._heard = (self._heard + data).split(b"\n")
        for text in texts:
            line = hear(text)
            if line is not None:
                yield line


class Members:
    """The workers by their processes; listens to all of them at once."""

    def __init__(self, listen: Callable[[Member], None]) -> None:
        """Prepare an empty list.

        Args:
            listen: called when a worker has said something, or has closed its pipe.
        """
        self._listen = listen
        self._by_pid: dict[int, Member] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._drain)

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._by_pid.values()))

    @property
    def pids(self) -> dict[int, int]:
        """Number of a worker → its process."""
        return {member.number: member.pid for member in self}

    def by_number(self, number: int) -> Member | None:
        """The worker of this number, if its process is not known to have ended."""
        return next((member for member in self if member.number == number), None)

    def by_pid(self, pid: int) -> Member | None:
        """The worker that is this process."""
        return self._by_pid.get(pid)

    def cheapest(self, version: str | None) -> float | None:
        """The least CPU seconds for a second of sound that a worker of this version has found."""
        costs = [member.cost for member in self if member.version == version and member.cost is not None]
        return min(costs, default=None)

    def problems(self) -> tuple[str, ...]:
        """What is wrong with the twins of what the workers serve; each once."""
        return tuple(dict.fromkeys(member.problem for member in self if member.problem))

    def hurry(self) -> None:
        """Have those go on that have waited for idle cores to load on for long enough."""
        for member in self:
            if member.loads and time.monotonic() - member.since >= HURRY_SECONDS:
                hurry(member.pid)

    def add(self, member: Member) -> None:
        """Take in a worker whose process has been started."""
        self._by_pid[member.pid] = member
        self.watch(member.pipe, lambda: self._listen(member))

    def remove(self, pid: int) -> Member | None:
        """Forget a process that has ended, after hearing its last words; None if it is no worker."""
        member = self._by_pid.pop(pid, None)
        if member is not None:
            if self.is_watched(member.pipe):
                self._listen(member)
            self.unwatch(member.pipe)
            os.close(member.pipe)
        return member

    def tell(self, number: int, signal_number: int) -> None:
        """Send a signal to the worker of this number."""
        member = self.by_number(number)
        if member is not None:
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal_number)

    # Waiting, for more than workers.

    def watch(self, descriptor: int, react: Callable[[], None]) -> None:
        """Call this when the descriptor can be read, from `wait`."""
        self._selector.register(descriptor, selectors.EVENT_READ, react)

    def unwatch(self, descriptor: int) -> None:
        """Watch a descriptor no more; it may be unknown."""
        if self.is_watched(descriptor):
            self._selector.unregister(descriptor)

    def is_watched(self, descriptor: int) -> bool:
        """Whether `wait` looks at it."""
        return descriptor in self._selector.get_map()

    def wait(self, seconds: float) -> None:
        """Wait until something can be read, or `wake` was called; react to it."""
        for key, _events in self._selector.select(seconds):
            key.data()

    def wake(self) -> None:
        """Let `wait` return; a signal handler may call it."""
        with suppress(BlockingIOError):  # it is full: `wait` will return anyway
            os.write(self._wake_write, b"!")

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def close(self) -> None:
        """Let go of all descriptors; in a new worker, which has inherited them."""
        for member in self:
            os.close(member.pipe)
        self._by_pid = {}
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
