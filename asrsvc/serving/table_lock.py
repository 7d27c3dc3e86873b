"""The lock of a table in memory that all workers share."""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

log = logging.getLogger(__name__)

_SECONDS: Final = 1.0
"""that are waited: on a busy machine its holder may be without a core for a part of that"""
_FORGO_SECONDS: Final = 5.0
"""after a wait in vain, for so long a lock that is held is not waited for"""
_PAUSE: Final = 0.0005


class TableLock:
    """A lock between processes and between the threads of each.

    A POSIX record lock belongs to a process and goes with it (fcntl(2)); among its threads an ordinary lock
    decides. Holders need microseconds, unless one is stopped there: then the others go on without the lock.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        """Prepare.

        Args:
            descriptor: of the table, which stays open for as long as the lock is used.
            name: of the table, for the log.
        """
        self._descriptor = descriptor
        self._name = name
        self._threads = threading.Lock()
        self._forgo_until = 0.0

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold it for the time of a `with` block; False if it could not be had in time."""
        began = time.monotonic()
        deadline = began + (_SECONDS if began >= self._forgo_until else 0)
        if not self._threads.acquire(timeout=max(0, deadline - began)):
            yield False
            return
        try:
            locked = self._lock(deadline)
            try:
                yield locked
            finally:
                if locked:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def _lock(self, deadline: float) -> bool:
        while True:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now = time.monotonic()
                if now < deadline:
                    time.sleep(_PAUSE)
                    continue
                if now >= self._forgo_until:
                    log.error("%s is held by a process that does not let it go", self._name)
                    self._forgo_until = now + _FORGO_SECONDS
                return False
            return True
