"""The process that decodes the files of strangers; `asrsvc.speech.ffmpeg` starts it.

It takes one file descriptor after the other over a Unix socket and answers with mono blocks at the
file's own rate. Its memory, CPU time and files are limited, so that a file that crashes, hangs or
bloats a decoder ends this process and nothing else; and before its first file it gives up nearly all
that a process may do (`asrsvc.speech.confinement`). It ignores SIGTERM and SIGINT, which a process group
may get while its worker still finishes requests, and leaves when the socket closes.

Its messages are `L` what its sandbox lacks on this host (JSON: names and reasons; once, if anything),
`D` the length that the file declares in seconds (JSON; not every file does), `R` the sample rate of
what follows (JSON), `B` a block of samples (float32), `S` silence (JSON: so many samples), `W` that parts
of the recording are missing (JSON: a sentence), `E` the end and `X` an error (JSON: sentence and code);
`MESSAGE` is the head of each.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np

from asrsvc.speech import confinement, rehearsal
from asrsvc.speech.decode_upload import decode
from asrsvc.speech.decoded import Block, Declared, FileLimits, Item, Refused, Silence
from asrsvc.speech.helper import IGNORED, MESSAGE
from asrsvc.system import sandbox


def _address_space() -> int:
    """Bytes of address space this process has now (proc(5), statm, first field)."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class _Sender:
    """Sends messages; what is short goes out with what follows, so that the worker wakes up for it once."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._waiting = bytearray()
        self._rate = 0

    def item(self, item: Item) -> None:
        """Something that was decoded; the sample rate is said only where it changes."""
        match item:
            case Block(rate, samples):
                self._rate_is(rate)
                if len(samples):
                    content = np.ascontiguousarray(samples).data.cast("B")
                    self._waiting += MESSAGE.pack(b"B", len(content))
                    self._flush()
                    self._connection.sendall(content)
            case Silence(rate, count):
                self._rate_is(rate)
                if count:
                    self._later(b"S", count)
                    self._flush()
            case Declared(seconds):
                self._later(b"D", seconds)
            case _:
                self._later(b"W", item.sentence)

    def lacking(self, lacking: tuple[str, ...]) -> None:
        """What the sandbox lacks, if anything."""
        if lacking:
            self._later(b"L", lacking)
            self._flush()

    def refused(self, refusal: Refused) -> None:
        """The end of a file that cannot be decoded."""
        self._later(b"X", [refusal.sentence, refusal.code])
        self._flush()

    def end(self) -> None:
        """The end of a file."""
        self._later(b"E", None)
        self._flush()

    def _rate_is(self, rate: int) -> None:
        if rate != self._rate:
            self._rate = rate
            self._later(b"R", rate)

    def _later(self, kind: bytes, content: object) -> None:
        payload = json.dumps(content).encode()
        self._waiting += MESSAGE.pack(kind, len(payload)) + payload

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, bytearray()
        self._connection.sendall(waiting)


def _serve_one(connection: socket.socket, descriptor: int, request: dict[str, Any]) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(used.ru_utime + used.ru_stime) + 1 + int(request["cpu_seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, resource.RLIM_INFINITY))
    sender = _Sender(connection)
    try:
        with closing(decode(descriptor, FileLimits(**request["limits"]))) as items:
            for item in items:
                sender.item(item)
    except Refused as refusal:
        sender.refused(refusal)
    else:
        sender.end()
    finally:
        os.close(descriptor)


def main() -> int:
    """Serve files from the socket whose number is the first argument until it closes.

    The second argument is the memory limit in bytes.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    av.logging.set_level(None)
    connection = socket.socket(fileno=int(sys.argv[1]))
    os.nice(1)  # decoding gives way to the workers' event loops
    sandbox.refuse_new_code()
    held = rehearsal.rehearse()
    limit = _address_space() + int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lacking = confinement.confine(connection.fileno())
    try:
        _Sender(connection).lacking(lacking)
        while True:
            request, descriptors, _flags, _address = socket.recv_fds(connection, 4096, 1)
            if not request:
                return 0
            _serve_one(connection, descriptors[0], json.loads(request))
    except (BrokenPipeError, ConnectionResetError):
        return 0
    finally:
        del held


if __name__ == "__main__":
    sys.exit(main())
