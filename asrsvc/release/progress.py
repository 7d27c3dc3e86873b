"""What a pull says of itself while it works, and what bounds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one file is."""

    step: Literal["download", "resume", "copy", "unpack", "retry", "done"]
    """resume: some of it was there; retry: `detail` says why; done: all of it is there and checked"""
    file: str
    done: int = 0
    """bytes"""
    total: int | None = None
    """bytes; None: nobody has said"""
    detail: str = ""


Report: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a source may cost."""

    seconds: float = 7200
    """all of it; what has arrived is kept for the next try"""
    idle_seconds: float = 30
    """without a byte"""
    total_bytes: int = 8 << 30
    """of the files of a model, and of an archive"""
    list_bytes: int = 16 << 20
    """of a hub's list of files"""
    list_pages: int = 20
    members: int = 1000
    """files and folders in an archive"""
    redirects: int = 5
    tries: int = 5
    """of one request, without a byte that is new"""
    backoff_seconds: float = 1
    """before the second try; twice as much before each further one"""
    longest_backoff_seconds: float = 30
    """also where a hub asks for more"""
