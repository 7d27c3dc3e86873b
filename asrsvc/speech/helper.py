"""One decoder process, its environment, and the messages that it and its worker exchange."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from asrsvc.speech.decoded import FileLimits
from asrsvc.system import environment

MESSAGE: Final = struct.Struct("!cI")
"""head of a message from a helper: its kind and the length of what follows, in bytes"""
IGNORED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""signals that a helper ignores; from its first moment they are blocked, until it has come to that"""

_PROGRAM: Final = "asrsvc.speech.ffmpeg_helper"
_GENTLE_PROGRAM: Final = "asrsvc.speech.ffmpeg_gently"
_MAX_BLOCK: Final = 64 * 2**20
_MAX_TEXT: Final = 4096  # bytes of a message that is no block
_MAX_SAID: Final = 4096  # bytes of what a process wrote to its standard error


@dataclass(frozen=True, slots=True)
class Request:
    """What a helper is told of a file."""

    limits: FileLimits
    cpu_seconds: float
    """CPU time for the whole file"""


class Helper:
    """One helper process and the socket to it.

    It gets an environment without settings and secrets, no descriptor but its socket and the files that
    are passed to it, and nothing of it reaches the log unread: it is taken for an enemy from the moment
    that it has seen a file.
    """

    def __init__(self, memory_bytes: int, *, gently: bool = False) -> None:
        """Start it.

        Args:
            memory_bytes: address space beyond what it starts with.
            gently: nobody waits for it yet: its start gives way to others.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        said, errors = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            # -P: modules come from PYTHONPATH, never from the folder that the service was started in.
            command = [sys.executable, "-P", "-m", _GENTLE_PROGRAM if gently else _PROGRAM]
            with _blocked(IGNORED):
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno()), str(memory_bytes)],
                    pass_fds=[theirs.fileno()],
                    env=environment.minimal(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                )
        except BaseException:
            ours.close()
            os.close(said)
            raise
        finally:
            theirs.close()
            os.close(errors)
        self._socket = ours
        self._said = said

    @property
    def pid(self) -> int:
        """Process id, for logs and tests."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether it can take another file."""
        return self._socket.fileno() >= 0 and self._process.poll() is None

    def request(self, descriptor: int, request: Request) -> None:
        """Hand over a file, for reading; the messages of `receive` answer it."""
        with _for_reading(descriptor) as passed:
            socket.send_fds(self._socket, [json.dumps(asdict(request)).encode()], [passed])

    def receive(self, timeout: float) -> tuple[bytes, memoryview]:
        """Wait for the next message.

        Returns:
            its kind and its payload.

        Raises:
            TimeoutError: nothing whole came in time.
            EOFError: the helper has died.
        """
        deadline = time.monotonic() + timeout
        kind, length = MESSAGE.unpack(self._read(MESSAGE.size, deadline))
        if length > (_MAX_BLOCK if kind == b"B" else _MAX_TEXT):
            raise EOFError(f"a message of {length} bytes")
        return kind, self._read(length, deadline)

    def _read(self, size: int, deadline: float) -> memoryview:
        whole = np.empty(size, np.uint8).data  # which nobody fills with zeros first
        left = whole
        while left:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            count = self._socket.recv_into(left)
            if count == 0:
                raise EOFError("the helper closed its socket")
            left = left[count:]
        return whole

    def end(self, grace: float = 0.0) -> str:
        """Close the socket, let the process end by itself for so many seconds, then kill it.

        Returns:
            how it ended, for a log.
        """
        self._socket.close()
        try:
            code = self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
            return "it hung"
        if code < 0:
            return f"it died of {signal.Signals(-code).name}"
        return f"it exited with {code}"

    def said(self) -> str:
        """What the process wrote to its standard error, the first of it; once, when it has ended."""
        if self._said < 0:
            return ""
        text = b""
        with contextlib.suppress(BlockingIOError):
            text = os.read(self._said, _MAX_SAID)
        os.close(self._said)
        self._said = -1
        return text.decode(errors="replace")


@contextlib.contextmanager
def _blocked(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """Block signals in this thread, and for good in the processes that it starts meanwhile (execve(2)).

    systemd sends SIGTERM to all processes of a service that stops, while workers still finish requests.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _for_reading(descriptor: int) -> Iterator[int]:
    """The same file by a descriptor that cannot write, with a position of its own (proc(5), fd)."""
    try:
        passed = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # without /proc
        passed = os.dup(descriptor)
    try:
        yield passed
    finally:
        os.close(passed)
