"""End a function at each of its steps that write to disk, in a child process of its own."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
EVENTS = {
    "os.rename",
    "os.remove",
    "os.symlink",
    "os.link",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.chown",
    "os.truncate",
}
KILLED = 137

Strike = Callable[[str, str], None]


def watch(strike: Strike, below: Path | None = None) -> None:
    """Call strike(step, name) before each step that writes, from now until the process ends.

    Args:
        strike: called with what is done, and the name that it is done to.
        below: only steps in this folder count.
    """
    fsync = os.fsync

    def counts(place: object) -> bool:
        return below is None or Path(str(place)).is_relative_to(below)

    def named_fsync(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        if counts(place):
            strike("fsync", place.name)
        fsync(descriptor)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
            if counts(arguments[0]):
                strike("open", Path(str(arguments[0])).name)
        elif event in EVENTS:
            place = arguments[1] if event in {"os.rename", "os.symlink", "os.link"} else arguments[0]
            if counts(place):
                strike(event.removeprefix("os."), Path(str(place)).name)

    os.fsync = named_fsync
    sys.addaudithook(hook)


def fork() -> int:
    """As `os.fork`. Python warns from 3.12 on where threads run: other tests may have left some."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def in_child(action: Callable[[], object]) -> int:
    """Run it in a forked process; the exit code: 0, 1 for an exception, KILLED."""
    pid = fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except Exception:  # noqa: BLE001 - the parent sees the exit code
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(step: int, action: Callable[[], object]) -> int:
    """Run it in a process that ends before its n-th step (from 1) that writes; the exit code."""
    seen = 0

    def strike(_kind: str, _name: str) -> None:
        nonlocal seen
        seen += 1
        if seen == step:
            os._exit(KILLED)

    def run() -> None:
        watch(strike)
        action()

    return in_child(run)


def failing_from(step: int, action: Callable[[], object], expected: type[Exception]) -> int:
    """Run it on a disk that is full from its n-th step (from 1) that writes; 0, 1, or 2: it said so."""
    seen = 0

    def strike(_kind: str, _name: str) -> None:
        nonlocal seen
        seen += 1
        if seen >= step and _kind not in {"remove", "rmdir"}:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), _name)

    def run() -> None:
        watch(strike)
        try:
            action()
        except expected:
            os._exit(2)

    return in_child(run)


def steps_of(action: Callable[[], object]) -> list[tuple[str, str]]:
    """The steps that write, in order: what is done, and to which name."""
    reader, writer = os.pipe()

    def run() -> None:
        watch(lambda kind, name: os.write(writer, f"{kind}\t{name}\n".encode()) and None)
        action()

    code = in_child(run)
    os.close(writer)
    with open(reader, encoding="utf-8") as lines:  # noqa: PTH123 - a descriptor, no path
        steps = [(kind, name) for kind, name in (line.rstrip("\n").split("\t") for line in lines)]
    assert code == 0
    return steps
