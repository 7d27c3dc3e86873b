"""A proxy between a client and a service that cuts connections in the middle of an answer."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from waiting import PATIENCE

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, with RST


class Proxy:
    """Passes bytes on; once armed, it stops behind a certain text of an answer, until it is told to cut.

    A reset throws away what the client has not yet read: so the cut waits until the client has shown it.
    """

    def __init__(self, port: int) -> None:
        self.stop_after: re.Pattern[bytes] | None = None
        self._cut = threading.Event()
        self._to = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._ended = False

    def run(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def cut(self) -> None:
        """Reset the connections that stopped, and those that would stop from now on."""
        self._cut.set()

    def close(self) -> None:
        self._ended = True
        self._cut.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._to, PATIENCE) as server:
            client.settimeout(PATIENCE)
            there = threading.Thread(target=self._up, args=(client, server), daemon=True)
            there.start()
            with suppress(OSError):
                self._down(client, server)
            with suppress(OSError):
                client.shutdown(socket.SHUT_RD)  # wakes the thread: while it reads, the socket stays open
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            there.join(PATIENCE)

    @staticmethod
    def _up(client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        seen = b""
        while data := server.recv(65536):
            passed = len(seen)
            seen += data
            stop = self.stop_after.search(seen) if self.stop_after is not None else None
            client.sendall(seen[passed : stop.end() if stop else None])
            if stop:
                self._cut.wait(PATIENCE)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                return


@contextmanager
def cutting(port: int) -> Iterator[Proxy]:
    """A proxy for the time of a `with` block."""
    proxy = Proxy(port)
    thread = threading.Thread(target=proxy.run, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(PATIENCE)
