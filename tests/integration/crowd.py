"""Connections that mean nothing: they are silent, or send a byte now and then."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from bodies import head
from service import wait_for


class Crowd:
    """Connections that send nothing, or a header byte a second; each is made again when it is closed."""

    def __init__(self, port: int, *, silent: int, trickling: int) -> None:
        self.open = 0
        self.answers: dict[bytes, int] = {}
        self.trickled = 0
        """bytes"""
        self._port = port
        self._sizes = (silent, trickling)
        self._end = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        wait_for("the crowd", lambda: self.open >= sum(self._sizes) * 0.99)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    async def _run(self) -> None:
        silent, trickling = self._sizes
        tasks = [asyncio.ensure_future(self._one(every)) for every in [None] * silent + [1.0] * trickling]
        await asyncio.to_thread(self._end.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, every: float | None) -> None:
        while True:
            try:
                reader, writer = await self._connect()
            except OSError:
                await asyncio.sleep(0.1)
                continue
            self.open += 1
            sender = asyncio.ensure_future(self._trickle(writer, every)) if every else None
            try:
                answer = (await reader.read())[:12]
                self.answers[answer] = self.answers.get(answer, 0) + 1
            except OSError:
                pass
            finally:
                self.open -= 1
                if sender is not None:
                    sender.cancel()
                writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        made = socket.socket()
        made.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", self._port))
            return await asyncio.open_connection(sock=made)
        except BaseException:  # cancelled too: asyncio would leave it open then
            made.close()
            raise

    async def _trickle(self, writer: asyncio.StreamWriter, every: float) -> None:
        for byte in head(length=1000):
            writer.write(bytes([byte]))
            self.trickled += 1
            await asyncio.sleep(every)


@contextmanager
def many_descriptors() -> Iterator[None]:
    """As many open connections as this process may have: the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def main(arguments: list[str]) -> None:
    """Be a crowd until standard input ends, then say what it did.

    Args:
        arguments: port, number of the silent, number of the trickling.
    """
    port, silent, trickling = map(int, arguments)
    with many_descriptors(), Crowd(port, silent=silent, trickling=trickling) as crowd:
        began, before = time.monotonic(), (sum(crowd.answers.values()), crowd.trickled)
        sys.stdout.write("open\n")
        sys.stdout.flush()
        sys.stdin.read()
        done = {
            "seconds": time.monotonic() - began,
            "open": crowd.open,
            "closed": sum(crowd.answers.values()) - before[0],
            "trickled": crowd.trickled - before[1],
        }
    sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
