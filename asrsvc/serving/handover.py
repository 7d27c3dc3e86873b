"""SIGUSR2: the old master starts a new one on the same listeners and the same queue, and makes room for it.

gunicorn 27.0 hands the listeners down in GUNICORN_FD and its own pid in GUNICORN_PID; the lanes of the
queue go the same way. Under systemd too: LISTEN_FDS would ask for the numbers from 3 on, which gunicorn
has given away by then (sd_listen_fds(3)). The new master says over a pipe that its workers serve: a
signal would look like an operator's, who wants the service to stop.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from asrsvc import settings
from asrsvc.serving.queue import Ends
from asrsvc.settings import INHERITANCE_VARIABLE


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a new master takes over beside the listeners."""

    queues: tuple[Ends, ...]
    """of each size; none: the old master's queue is of another kind, and cannot be shared"""
    systemd: bool
    """whether systemd keeps the listeners"""
    clients: int
    """descriptor of the table of clients and their limits"""
    pipe: int
    """descriptor that it says over that its workers serve"""


def inheritance() -> Inheritance | None:
    """What the old master has handed down; None for a first start."""
    text = settings.inheritance_text()
    if text is None:
        return None
    found = json.loads(text)
    inherited = Inheritance(
        queues=tuple(Ends(_pairs(one["lanes"]), int(one["table"])) for one in found.get("queues", ())),
        systemd=bool(found["systemd"]),
        clients=int(found.get("clients", -1)),
        pipe=int(found["pipe"]),
    )
    os.set_inheritable(inherited.pipe, False)  # noqa: FBT003 - its name is its meaning
    return inherited


def _pairs(found: Iterable[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((int(one), int(two)) for one, two in found)


def handed_down(master_pid: int, listeners: Sequence[int], inherited: Inheritance) -> dict[str, str]:
    """The environment variables of a new master."""
    content = {
        "queues": [{"lanes": ends.lanes, "table": ends.table} for ends in inherited.queues],
        "systemd": inherited.systemd,
        "clients": inherited.clients,
        "pipe": inherited.pipe,
    }
    return {
        "GUNICORN_PID": str(master_pid),
        "GUNICORN_FD": ",".join(map(str, listeners)),
        INHERITANCE_VARIABLE: json.dumps(content),
    }


def take_over(inherited: Inheritance) -> None:
    """In the new master: tell the old one that its time is over."""
    with suppress(BrokenPipeError):  # it has just died
        os.write(inherited.pipe, b"!")
    os.close(inherited.pipe)


def exec_master(context: Mapping[str | int, object], environ: Mapping[str, str], kept: Sequence[int]) -> None:
    """In a forked process: become the new master.

    Args:
        context: gunicorn's START_CTX: how the old master was started, and where.
        environ: of the new process.
        kept: descriptors that it inherits.
    """
    for descriptor in kept:
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - its name is its meaning
    os.chdir(str(context["cwd"]))
    os.execvpe(str(context[0]), list(map(str, context["args"])), environ)  # type: ignore[call-overload]  # noqa: S606 - its purpose


class Successor:
    """A new master that has been started, as the old one sees it."""

    def __init__(self, pid: int, pipe: int, seconds: float) -> None:
        """Begin to wait for it.

        Args:
            pid: its process.
            pipe: descriptor to hear it from.
            seconds: until it must have taken over.
        """
        self.pid = pid
        self.pipe = pipe
        self._deadline = time.monotonic() + seconds

    @property
    def late(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() > self._deadline

    def has_taken_over(self) -> bool:
        """Whether it has said so; to be asked when the pipe can be read. False at the pipe's end."""
        return bool(os.read(self.pipe, 1))

    def tell(self, signal_number: int) -> None:
        """Send it a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal_number)

    def close(self) -> None:
        """Wait for it no more."""
        os.close(self.pipe)
