"""Other machines, for tests: servers on loopback that answer as each path says, over TLS or plainly."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from waiting import PATIENCE

NAMES = ("localhost", "media.example.org", "other.example.org")


@dataclass(frozen=True)
class Authority:
    """Who vouches for the certificates of these machines."""

    certificate: Path
    chain: Path
    """of a machine that has all of `NAMES` and 127.0.0.1"""
    key: Path


def make_authority(folder: Path) -> Authority:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        *("req", "-x509", *new_key, "-days", "36500", "-keyout", "ca.key", "-out", "ca.pem"),
        *("-subj", "/CN=authority of the tests", "-addext", "basicConstraints=critical,CA:TRUE"),
        *("-addext", "keyUsage=critical,keyCertSign"),
    )
    openssl("req", *new_key, "-keyout", "host.key", "-out", "host.csr", "-subj", "/CN=localhost")
    names = ",".join([*(f"DNS:{name}" for name in NAMES), "IP:127.0.0.1"])
    (folder / "extensions").write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
    openssl(
        *("x509", "-req", "-in", "host.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-days", "36500", "-out", "host.pem", "-extfile", "extensions"),
    )
    return Authority(folder / "ca.pem", folder / "host.pem", folder / "host.key")


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    moment: float


Answer = Callable[["Machine", socket.socket], None]
"""says something over a connection, which is closed behind it"""


def content(
    body: bytes,
    kind: str | None = "audio/flac",
    *,
    status: str = "200 OK",
    length: int | None = -1,
    more: str = "",
) -> Answer:
    """A whole answer.

    Args:
        body: of it.
        kind: its media type; None: none is said.
        status: number and words.
        length: Content-Length; -1: the right one; None: none is said.
        more: lines of the header.
    """
    lines = f"HTTP/1.1 {status}\r\nConnection: close\r\n{more}"
    lines += "" if kind is None else f"Content-Type: {kind}\r\n"
    length = len(body) if length == -1 else length
    lines += "" if length is None else f"Content-Length: {length}\r\n"
    return lambda _machine, made: made.sendall(lines.encode() + b"\r\n" + body)


def redirect(location: str, status: int = 302) -> Answer:
    return content(
        b"secret of the network", "text/plain", status=f"{status} There", more=f"Location: {location}\r\n"
    )


def silence(head: bytes = b"") -> Answer:
    """Nothing, or nothing more, for as long as the machine is there."""

    def answer(machine: Machine, made: socket.socket) -> None:
        made.sendall(head)
        machine.over.wait(3 * PATIENCE)

    return answer


def endless(head: bytes, piece: bytes, pause: float = 0.0) -> Answer:
    """The same again and again, until the other side has enough."""

    def answer(machine: Machine, made: socket.socket) -> None:
        made.sendall(head)
        while not machine.over.wait(pause):
            made.sendall(piece)

    return answer


@dataclass
class Machine:
    """One of them."""

    port: int
    answers: dict[str, Answer] = field(default_factory=dict)
    """by path; others are 404"""
    asked: list[Asked] = field(default_factory=list)
    hung_up: list[str] = field(default_factory=list)
    """paths whose client went away before it had the whole answer"""
    connections: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str, host: str = "localhost", scheme: str = "https") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def of(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]


@contextmanager
def machine(authority: Authority | None = None, port: int = 0) -> Iterator[Machine]:
    """A machine for the time of a `with` block.

    Args:
        authority: of its certificate; None: it speaks without TLS.
        port: where it listens; 0: somewhere.
    """
    listener = socket.create_server(("127.0.0.1", port), backlog=64)
    made = Machine(listener.getsockname()[1])
    context = None
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.chain, authority.key)
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                connection, _address = listener.accept()
            except OSError:
                return
            made.connections += 1
            thread = threading.Thread(target=_serve, args=(made, connection, context), daemon=True)
            threads.append(thread)
            thread.start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield made
    finally:
        made.over.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in [accepting, *threads]:
            thread.join(30)


def _serve(made: Machine, connection: socket.socket, context: ssl.SSLContext | None) -> None:
    connection.settimeout(30)
    path = ""
    try:
        if context is not None:
            connection = context.wrap_socket(connection, server_side=True)
        asked = _read(connection)
        if asked is None:
            return
        path = asked.path
        made.asked.append(asked)
        made.answers.get(path, content(b"no such thing", "text/plain", status="404 Not Found"))(
            made, connection
        )
    except (OSError, ssl.SSLError):
        made.hung_up.append(path)
    finally:
        connection.close()


def _read(connection: socket.socket) -> Asked | None:
    raw = b""
    while b"\r\n\r\n" not in raw:
        data = connection.recv(65536)
        if not data:
            return None
        raw += data
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        data = connection.recv(65536)
        if not data:
            return None
        body += data
    method, path, _version = first.split(" ")
    return Asked(method, path, headers, body, time.time())
