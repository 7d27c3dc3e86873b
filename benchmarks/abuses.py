"""Clients that misbehave, each kind as a program: see `benchmarks/fair.py`.

    python benchmarks/abuses.py KIND PORT SOURCE

Says `open` when it is at work, goes on until its stdin ends, and says what it has met: statuses, 0 for a
connection that was cut. All sends come from the address SOURCE, one of 127.0.0.0/8. What it sends is bounded:
each kind has so many connections at the same time, and waits a moment between two requests.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from stage import speech

from bodies import form, head, part, request, upload  # isort: skip - stage says where it is
from flac import silent_flac  # isort: skip - the same

_PAUSE_SECONDS: Final = 0.05
_ANSWER_SECONDS: Final = 600.0
_RESET: Final = struct.pack("ii", 1, 0)

Abuse = Callable[["Attacker"], Awaitable[None]]


class Attacker:
    """Connections from one address, and what came back over them."""

    def __init__(self, port: int, source: str) -> None:
        self.met: Counter[int] = Counter()
        self._port = port
        self._source = source

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection.

        Raises:
            OSError: it is refused.
        """
        return await asyncio.open_connection("127.0.0.1", self._port, local_addr=(self._source, 0))

    async def ask(self, raw: bytes) -> int:
        """The status of the answer to a request; 0: there was none."""
        status = 0
        try:
            reader, writer = await self.connect()
            try:
                writer.write(raw)
                async with asyncio.timeout(_ANSWER_SECONDS):
                    line = await reader.readline()
                    status = int(line.split()[1]) if line else 0
                    await reader.read()
            finally:
                writer.close()
        except (OSError, TimeoutError, IndexError, ValueError):
            pass
        self.met[status] += 1
        return status

    async def hold(self, raw: bytes, every: float, piece: bytes = b"x") -> None:
        """Send something, and then a piece now and then until the service ends it; for ever again."""
        while True:
            try:
                reader, writer = await self.connect()
                writer.write(raw)
                answer = asyncio.ensure_future(reader.read())
                while not answer.done():
                    await asyncio.wait({answer}, timeout=every)
                    if piece and not answer.done():
                        writer.write(piece)
                line = answer.result().split(b" ", 2)
                self.met[int(line[1]) if len(line) > 1 else 0] += 1
                writer.close()
            except OSError:
                self.met[0] += 1
            await asyncio.sleep(_PAUSE_SECONDS)

    async def reset(self, raw: bytes) -> None:
        """Send a request and cut the connection."""
        try:
            _reader, writer = await self.connect()
            writer.write(raw)
            await writer.drain()
            found = writer.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        except OSError:
            pass
        self.met[0] += 1


async def _many(count: int, one: Callable[[], Awaitable[None]]) -> None:
    await asyncio.gather(*(one() for _ in range(count)))


def _over_and_over(raw: bytes, count: int) -> Abuse:
    async def run(attacker: Attacker) -> None:
        async def one() -> None:
            while True:
                await attacker.ask(raw)
                await asyncio.sleep(_PAUSE_SECONDS)

        await _many(count, one)

    return run


def _holding(raw: bytes, count: int, every: float, piece: bytes = b"x") -> Abuse:
    async def run(attacker: Attacker) -> None:
        await _many(count, lambda: attacker.hold(raw, every, piece))

    return run


async def _resets(attacker: Attacker) -> None:
    raw = request(upload(speech(10)))
    while True:
        await _many(300, lambda: attacker.reset(raw))
        await asyncio.sleep(1)


async def _streams(attacker: Attacker) -> None:
    """Event streams of a job that takes long."""
    reader, writer = await attacker.connect()
    writer.write(request(upload(speech(3600)), path="/api/jobs"))
    job = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])["id"]
    writer.close()
    raw = head("GET", f"/api/jobs/{job}/events", length=0)
    await _many(200, lambda: attacker.hold(raw, 60.0, b""))


def _slow_body(length: int = 100_000, path: str = "/api/transcribe") -> bytes:
    return head(path=path, length=length) + form(part("file", b"", "a.wav"), end=False)[:-2]


def _text_fields() -> bytes:
    value = "\N{GRINNING FACE}" + "a" * 2**20
    return request(form(*(part("known_speaker_references[]", value) for _ in range(20))))


def kinds() -> dict[str, Callable[[], Abuse]]:
    """What there is, made when it is needed."""
    return {
        "trickling uploads": lambda: _holding(_slow_body(), 200, 5.0),
        "large uploads that stop": lambda: _holding(_slow_body(500 * 2**20), 50, 5.0, b""),
        "jobs that trickle": lambda: _holding(_slow_body(500 * 2**20, "/api/jobs"), 50, 5.0),
        "text fields of 20 MiB": lambda: _over_and_over(_text_fields(), 4),
        "requests that are reset": lambda: _resets,
        "4 h of silence": lambda: _over_and_over(request(upload(silent_flac(14_400, 16_000, 1))), 2),
        "384 kHz, 8 channels": lambda: _over_and_over(request(upload(silent_flac(150, 384_000, 8))), 2),
        "wrong paths": lambda: _over_and_over(head("GET", "/nowhere", length=0), 20),
        "metrics and pages": lambda: _over_and_over(head("GET", "/docs", length=0), 10),
        "files that are none": lambda: _over_and_over(request(upload(bytes(2**20))), 8),
        "200 event streams": lambda: _streams,
        "idle connections": lambda: _holding(b"", 5000, 60.0, b""),
        "10 s, 30 at once": lambda: _over_and_over(request(upload(speech(10))), 30),
        "10 min, 8 at once": lambda: _over_and_over(request(upload(speech(600))), 8),
        "an hour, 4 at once": lambda: _over_and_over(request(upload(speech(3600))), 4),
    }


async def _run(abuse: Abuse, attacker: Attacker) -> None:
    work = asyncio.ensure_future(abuse(attacker))
    await asyncio.sleep(1)
    print("open", flush=True)
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(
        target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(end.set)), daemon=True
    ).start()
    ended = asyncio.ensure_future(end.wait())
    await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


def main() -> None:
    """Be one."""
    kind, port, source = sys.argv[1:]
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attacker = Attacker(int(port), source)
    asyncio.run(_run(kinds()[kind](), attacker))
    print(json.dumps({str(status): count for status, count in sorted(attacker.met.items())}), flush=True)


if __name__ == "__main__":
    main()
