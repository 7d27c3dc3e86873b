"""The process that runs FFmpeg's libraries on files of strangers; `asrsvc.speech.ffmpeg` starts it.

It takes one file descriptor after the other over a Unix socket and answers with mono blocks at the
file's own rate. Its memory, CPU time and files are limited, so that a file that crashes, hangs or
bloats a decoder ends this process and nothing else. It ignores SIGTERM and SIGINT, which a process
group may get while its worker still finishes requests, and leaves when the socket closes.

Its messages are `D` the length that the file declares in seconds (JSON; not every file does), `R` the
sample rate of what follows (JSON), `B` a block of samples (float32), `S` silence (JSON: so many
samples), `W` a warning (JSON: code and sentence), `E` the end and `X` an error (JSON: sentence and
code); `MESSAGE` is the head of each.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import av
import av.error

from asrsvc.speech.decode_file import decode
from asrsvc.speech.decoded import Block, Declared, FileLimits, Item, Refused, Silence
from asrsvc.speech.ffmpeg import MESSAGE
from asrsvc.speech.types import AUDIO_INCOMPLETE


def _address_space() -> int:
    """Bytes of address space this process has now (proc(5), statm, first field)."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _send(connection: socket.socket, kind: bytes, payload: bytes) -> None:
    connection.sendall(MESSAGE.pack(kind, len(payload)))
    connection.sendall(payload)


def _send_error(connection: socket.socket, message: str, code: str | None = None) -> None:
    _send(connection, b"X", json.dumps([message, code]).encode())


class _Sender:
    """Sends what is decoded of one file; the sample rate only where it changes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rate = 0

    def item(self, item: Item) -> None:
        match item:
            case Block(rate, samples):
                self._rate_is(rate)
                _send(self._connection, b"B", samples.tobytes())
            case Silence(rate, count):
                self._rate_is(rate)
                _send(self._connection, b"S", json.dumps(count).encode())
            case Declared(seconds):
                _send(self._connection, b"D", json.dumps(seconds).encode())
            case _:
                _send(self._connection, b"W", json.dumps([AUDIO_INCOMPLETE, item.message]).encode())

    def _rate_is(self, rate: int) -> None:
        if rate != self._rate:
            self._rate = rate
            _send(self._connection, b"R", json.dumps(rate).encode())


def _serve_one(connection: socket.socket, descriptor: int, request: dict[str, Any]) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(used.ru_utime + used.ru_stime) + 1 + int(request.pop("cpu_seconds"))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, resource.RLIM_INFINITY))
    sender = _Sender(connection)
    try:
        with io.FileIO(descriptor, "rb") as file:
            for item in decode(file, FileLimits(**request)):
                sender.item(item)
    except Refused as refusal:
        _send_error(connection, str(refusal), refusal.code)
    except MemoryError:  # FFmpeg's own is one too
        _send_error(connection, "its decoder needs more memory than it may have")
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        _send_error(connection, f"it is damaged ({type(error).__name__})")
    else:
        _send(connection, b"E", b"")


def main() -> int:
    """Serve files from the socket whose number is the first argument until it closes.

    The second argument is the memory limit in bytes.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    av.logging.set_level(None)
    connection = socket.socket(fileno=int(sys.argv[1]))
    limit = _address_space() + int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(1)  # decoding gives way to the workers' event loops
    while True:
        request, descriptors, _flags, _address = socket.recv_fds(connection, 4096, 1)
        if not request:
            return 0
        try:
            _serve_one(connection, descriptors[0], json.loads(request))
        except (BrokenPipeError, ConnectionResetError):
            return 0


if __name__ == "__main__":
    sys.exit(main())
