"""Requests as bytes, right and wrong ones, and connections that misbehave."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from waiting import PATIENCE

BOUNDARY = "------------------------d74496d66958873e"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str | None, content: bytes | str, filename: str | None = None, headers: str = "") -> bytes:
    """One part of a form, as it stands between two boundaries."""
    disposition = "Content-Disposition: form-data"
    disposition += "" if name is None else f'; name="{name}"'
    disposition += "" if filename is None else f'; filename="{filename}"'
    raw = content.encode() if isinstance(content, str) else content
    return f"{disposition}\r\n{headers}\r\n".encode() + raw


def form(*parts: bytes, end: bool = True) -> bytes:
    """A whole body; without its `end` it stops in the middle of its last part."""
    body = b"".join(f"--{BOUNDARY}\r\n".encode() + piece + b"\r\n" for piece in parts)
    return body + f"--{BOUNDARY}--\r\n".encode() if end else body


def upload(content: bytes, filename: str = "clip.wav", **fields: str) -> bytes:
    """The body of an ordinary request."""
    return form(*(part(name, value) for name, value in fields.items()), part("file", content, filename))


def head(
    method: str = "POST",
    path: str = "/api/transcribe",
    *,
    length: int | None = None,
    version: str = "1.1",
    content_type: str = FORM,
    **headers: str,
) -> bytes:
    """The head of a request; `length=None` announces a body in chunks."""
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", f"Content-Type: {content_type}"]
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def request(body: bytes, **options: Any) -> bytes:
    """Head and body of a request."""
    return head(length=len(body), **options) + body


def chunks(body: bytes, size: int = 65536, *, end: bool = True) -> bytes:
    """A body in chunks (RFC 9112, section 7.1)."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    return framed + b"0\r\n\r\n" if end else framed


@dataclass(frozen=True)
class Reply:
    """What came over a connection until the service closed it."""

    raw: bytes

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def body(self) -> bytes:
        body = self.raw.partition(b"\r\n\r\n")[2]
        assert len(body) == int(self.headers["content-length"]), "one whole answer and nothing behind it"
        return body

    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def connection(port: int, seconds: float = 2 * PATIENCE) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as made:
        yield made


def read_reply(made: socket.socket) -> Reply:
    """Read until the service has sent all that it will."""
    raw = b""
    while data := made.recv(65536):
        raw += data
    return Reply(raw)


def exchange(port: int, sent: bytes) -> Reply:
    """Send everything, then read the answer."""
    with connection(port) as made:
        made.sendall(sent)
        return read_reply(made)
