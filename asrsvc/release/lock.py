"""The right to change a store: flock on one file, which says who holds it, since when and for what.

flock works on a shared file system too (Linux turns it into a lock of the whole file on NFS), so hosts
that share a store take turns.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from asrsvc.errors import StoreError, StoreLocked

_POLL_SECONDS: Final = 0.05
_MOST_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something."""

    user: str
    on_behalf_of: str
    """who became that user for it, as sudo says, or a client of the admin API; empty: nobody else"""
    host: str
    pid: int

    def __str__(self) -> str:
        """As in `process 12 of root (for alice) on asr-1`."""
        behind = f" (for {self.on_behalf_of})" if self.on_behalf_of else ""
        return f"process {self.pid} of {self.user}{behind} on {self.host}"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lock."""

    actor: Actor
    command: str
    """what for, as `activate nano-01234567`"""
    since: str
    """UTC, ISO 8601"""

    def __str__(self) -> str:
        """As in `process 12 of root on asr-1, since …, for: activate b`."""
        return f"{self.actor}, since {self.since}, for: {self.command or 'a change of the store'}"


Waiting = Callable[[str], None]
"""told once who is waited for"""


def myself(on_behalf_of: str = "") -> Actor:
    """This process.

    Args:
        on_behalf_of: see `Actor`.
    """
    uid = os.geteuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return Actor(user, on_behalf_of, socket.gethostname(), os.getpid())


def now() -> str:
    """The time as the store's files say it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def acquire(descriptor: int, path: Path, timeout: float, waiting: Waiting) -> None:
    """Take the lock.

    Args:
        descriptor: of the lock's file, open for reading and writing.
        path: its name, for messages.
        timeout: seconds to wait for another holder.
        waiting: told once who holds it, if somebody does.

    Raises:
        StoreLocked: somebody else held it all the time; says who, since when and for what.
        StoreError: the file system has no locks.
    """
    deadline = time.monotonic() + timeout
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        except OSError as error:
            raise StoreError(f"{path} cannot be locked: {error.strerror}") from error
        else:
            return
        if time.monotonic() >= deadline:
            waited = f"; waited {timeout:g} s for it" if timeout else ""
            raise StoreLocked(f"{path} is held by {_holder(descriptor)}{waited}")
        if not told:
            told = True
            waiting(_holder(descriptor))
        time.sleep(_POLL_SECONDS)


def sign(descriptor: int, actor: Actor, command: str) -> None:
    """Say in the lock's file who holds it; for its holder."""
    content = json.dumps(asdict(Holder(actor, command, now()))).encode()[:_MOST_BYTES] + b"\n"
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)
    except OSError:
        pass  # a full disk; the lock is held all the same


def clear(descriptor: int) -> None:
    """Take the name out again, so that nobody is named who has gone; for the holder."""
    try:
        os.ftruncate(descriptor, 0)
    except OSError:
        pass


def _holder(descriptor: int) -> str:
    try:
        found = json.loads(os.pread(descriptor, _MOST_BYTES, 0))
        return str(Holder(Actor(**found["actor"]), str(found["command"]), str(found["since"])))
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown process"  # it is just being written
