"""Decoding by FFmpeg's libraries in helper processes, kept warm and replaced when they die."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from asrsvc.errors import AsrError, BadAudio, OutOfDescriptors, TooLarge
from asrsvc.speech.types import FloatArray, Notice
from asrsvc.system.disk import lacks_descriptors

log = logging.getLogger(__name__)

MESSAGE: Final = struct.Struct("!cI")
"""head of a message from a helper: its kind and the length of what follows, in bytes"""

_PROGRAM: Final = "asrsvc.speech.ffmpeg_helper"
_GENTLE_PROGRAM: Final = "asrsvc.speech.ffmpeg_gently"
_IDLE_KEPT: Final = 2
_GRACE: Final = 5.0  # seconds in which a process that has closed its socket, or seen it close, ends
_MAX_MESSAGE: Final = 64 * 2**20


class Helper:
    """One helper process and the socket to it."""

    def __init__(self, memory_bytes: int, *, gently: bool = False) -> None:
        """Start it.

        Args:
            memory_bytes: address space beyond what it starts with.
            gently: nobody waits for it yet: its start gives way to others.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            command = [sys.executable, "-m", _GENTLE_PROGRAM if gently else _PROGRAM]
            try:
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno()), str(memory_bytes)],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            except BaseException:
                ours.close()
                raise
        self._socket = ours

    @property
    def pid(self) -> int:
        """Process id, for logs and tests."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether it can take another file."""
        return self._socket.fileno() >= 0 and self._process.poll() is None

    def request(
        self,
        descriptor: int,
        max_rate: int,
        max_channels: int,
        cpu_seconds: float,
        max_seconds: float = math.inf,
        *,
        max_values: float = math.inf,
    ) -> None:
        """Hand over a file; the messages of `receive` answer it."""
        body = {
            "max_rate": max_rate,
            "max_channels": max_channels,
            "cpu_seconds": cpu_seconds,
            "max_seconds": max_seconds,
            "max_values": max_values,
        }
        socket.send_fds(self._socket, [json.dumps(body).encode()], [descriptor])

    def receive(self, timeout: float) -> tuple[bytes, bytes]:
        """Wait for the next message.

        Returns:
            its kind and its payload.

        Raises:
            TimeoutError: nothing whole came in time.
            EOFError: the helper has died.
        """
        self._socket.settimeout(timeout)
        kind, length = MESSAGE.unpack(self._read(MESSAGE.size))
        if length > _MAX_MESSAGE:
            raise EOFError(f"a message of {length} bytes")
        return kind, self._read(length)

    def _read(self, size: int) -> bytes:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            count = self._socket.recv_into(view)
            if count == 0:
                raise EOFError("the helper closed its socket")
            view = view[count:]
        return bytes(buffer)

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


class _Answer:
    """What a helper says of one file."""

    def __init__(
        self, declared: Callable[[float], None], warn: Callable[[Notice], None], *, refuse_incomplete: bool
    ) -> None:
        self._declared = declared
        self._warn = warn
        self._refuse_incomplete = refuse_incomplete
        self._incomplete: Notice | None = None
        self.rate = 0
        """Hz, of the blocks"""

    def read(self, kind: bytes, payload: bytes) -> FloatArray | None:
        """A message, one after the other: the block that it is, if it is one.

        Raises:
            BadAudio: the file cannot be decoded; or, at the end, parts of it are missing.
            TooLarge: it is too long.
        """
        if kind == b"B":
            return np.frombuffer(payload, dtype=np.float32)
        content = json.loads(payload or b"null")
        match kind:
            case b"S":
                return np.zeros(content, np.float32)
            case b"R":
                self.rate = content
            case b"D":
                self._declared(content)
            case b"W":
                code, message = content
                self._take(Notice(code, f"file is {message}"))
            case b"X":
                raise _error(*content)
            case _ if self._incomplete is not None:
                raise BadAudio(self._incomplete.message, param="file", code="audio_truncated")
        return None

    def _take(self, notice: Notice) -> None:
        if self._refuse_incomplete:
            self._incomplete = notice
        else:
            self._warn(notice)


def _error(message: str, code: str | None) -> AsrError:
    if code == "audio_too_long":
        return TooLarge(f"file is too long: {message}", param="file", code=code)
    if code == "audio_too_much":
        return TooLarge(f"file is too much to decode: {message}", param="file", code=code)
    return BadAudio(f"file cannot be decoded: {message}", param="file", code=code)


class HelperPool:
    """Helpers for the requests of one worker: as many as are asked for at once, a few kept idle."""

    def __init__(self, *, memory_bytes: int, block_timeout: float) -> None:
        """Prepare an empty pool.

        Args:
            memory_bytes: address space of a helper beyond what it starts with.
            block_timeout: seconds for one block of about ten seconds of sound, at most.
        """
        self._memory_bytes = memory_bytes
        self._block_timeout = block_timeout
        self._idle: list[Helper] = []
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Start one helper, so that the first file that needs it does not wait for its start."""
        self._give_back(Helper(self._memory_bytes, gently=True))

    def close(self) -> None:
        """End all idle helpers."""
        with self._lock:
            idle, self._idle = self._idle, []
        for helper in idle:
            helper.end(_GRACE)

    def pids(self) -> list[int]:
        """Process ids of the idle helpers."""
        with self._lock:
            return [helper.pid for helper in self._idle]

    def decode(
        self,
        descriptor: int,
        *,
        max_rate: int,
        max_channels: int,
        cpu_seconds: float,
        max_seconds: float = math.inf,
        max_values: float = math.inf,
        declared: Callable[[float], None] = lambda _seconds: None,
        refuse_incomplete: bool = False,
        warn: Callable[[Notice], None] = lambda _notice: None,
    ) -> Iterator[tuple[int, FloatArray]]:
        """Decode a file: mono blocks, shape (n,), float32, each with its sample rate in Hz, which may change.

        Args:
            descriptor: of the file, open for reading; its position is moved.
            max_rate: Hz; a higher rate is refused.
            max_channels: more are refused.
            cpu_seconds: CPU time for the whole file.
            max_seconds: a hole in the time stamps that makes the recording longer is refused.
            max_values: samples of all its channels together; more are refused.
            declared: told the length in seconds that the file declares or FFmpeg estimates, if there is one.
            refuse_incomplete: whether it is an error that parts of the recording are missing.
            warn: told otherwise that they are, once, at the end.

        Raises:
            BadAudio: the file cannot be decoded, or it crashed or hung the decoder, or it is incomplete.
            TooLarge: a hole in it makes it longer than `max_seconds`, or it has over `max_values` samples.
        """
        answer = _Answer(declared, warn, refuse_incomplete=refuse_incomplete)
        helper = self._take()
        done = False
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            helper.request(
                descriptor, max_rate, max_channels, cpu_seconds, max_seconds, max_values=max_values
            )
            while not done:
                kind, payload = helper.receive(self._block_timeout)
                done = kind in b"EX"
                block = answer.read(kind, payload)
                if block is not None:
                    yield answer.rate, block
        except TimeoutError:
            raise BadAudio(
                f"file cannot be decoded: its decoder gave nothing for {self._block_timeout:g} s",
                param="file",
                code="audio_decoder_hung",
            ) from None
        except (EOFError, BrokenPipeError, ConnectionResetError):
            done = True
            how = helper.end(_GRACE)
            log.warning("a decoder process was lost: %s", how)
            raise BadAudio(
                f"file cannot be decoded: it is damaged, its decoder did not survive it ({how})",
                param="file",
                code="audio_decoder_died",
            ) from None
        finally:
            if done and helper.alive():
                self._give_back(helper)
            elif not done:
                helper.end()

    def _take(self) -> Helper:
        with self._lock:
            while self._idle:
                helper = self._idle.pop()
                if helper.alive():
                    return helper
                helper.end()
        try:
            return Helper(self._memory_bytes)
        except OSError as error:
            if lacks_descriptors(error):
                raise OutOfDescriptors(f"no decoder can be started: {error.strerror}") from error
            raise

    def _give_back(self, helper: Helper) -> None:
        with self._lock:
            if len(self._idle) < _IDLE_KEPT:
                self._idle.append(helper)
                return
        with contextlib.suppress(OSError):
            helper.end(_GRACE)
