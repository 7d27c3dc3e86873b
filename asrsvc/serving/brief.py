"""What the master tells a new worker, and the lines that a worker says back over its pipe."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from asrsvc.serving.keys import KeyRing
from asrsvc.serving.lanes import LaneName
from asrsvc.serving.limits import ClientTable
from asrsvc.serving.queue import Queue
from asrsvc.serving.scoreboard import Row
from asrsvc.settings import Settings

LINE_BYTES = 4096
"""a line is no longer (PIPE_BUF, pipe(7)): it arrives whole"""


@dataclass(frozen=True, slots=True)
class Brief:
    """A worker's task, settled before the fork."""

    number: int
    version: str | None
    """id of the version to load; None: answer 503 and say why"""
    path: Path | None
    """its folder"""
    tried: bool
    """False leaves out the comparison of text and speed"""
    reference_cost: float | None
    """CPU seconds for a second of sound of the version that serves"""
    problems: tuple[str, ...]
    """sentences: why there is no version, or why it is not the wished one"""
    settings: Settings
    queues: dict[LaneName, Queue]
    row: Row
    """the worker's own numbers"""
    service: Row
    """the master's row"""
    clients: ClientTable
    """where the limits of clients are counted"""
    keys: KeyRing | None
    """the API keys as the master has them; None: no key is needed"""
    pipe: int
    """descriptor that the worker writes its lines to"""
    ops_listeners: frozenset[int]
    """descriptors of listeners whose requests never wait in the queue"""
    keep_listeners: bool
    """whether somebody else (systemd) keeps the listeners when the service stops"""


@dataclass(frozen=True, slots=True)
class Line:
    """What a worker says: `ready`, `failed`, `draining` or `recycle`."""

    say: str
    error: str = ""
    cost: float = 0.0
    load_seconds: float = 0.0
    reason: str = ""
    """one word: why it is to be replaced"""
    baked: bool = False
    """whether it serves the faster twin of its version"""
    problem: str = ""
    """what is wrong with that twin, a sentence; the worker serves all the same"""


def say(pipe: int, line: Line) -> bool:
    """Write a line to the master; whether it can hear it."""
    data = json.dumps(asdict(line)).encode()[: LINE_BYTES - 1] + b"\n"
    try:
        os.write(pipe, data)
    except (BrokenPipeError, BlockingIOError):
        return False
    return True


def hear(text: bytes) -> Line | None:
    """A line of a worker; None if it is none of ours."""
    try:
        found = json.loads(text)
        return Line(
            say=str(found["say"]),
            error=str(found["error"]),
            cost=float(found["cost"]),
            load_seconds=float(found["load_seconds"]),
            reason=str(found["reason"]),
            baked=bool(found["baked"]),
            problem=str(found["problem"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
