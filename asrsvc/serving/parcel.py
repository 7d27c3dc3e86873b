"""A request that has been read, as one file: its recording, and behind it what is known of the rest.

The file travels through the queue with the request's connection. Whoever takes it answers the request from
the file alone: the header, without a body, is given to the HTTP server as if it had just come, and the
application finds its form in the request's state.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

_END: Final = struct.Struct("!8sqq")  # mark, bytes of the recording, bytes of what follows it
_MARK: Final = b"asrsvc 1"
_MOST_BYTES: Final = 16 * 2**20
"""of what stands behind the recording: the header and the text of a form are far smaller"""
# They describe a body that does not come again; the connection's own are made anew.
_OF_THE_BODY: Final = frozenset({b"content-length", b"transfer-encoding", b"expect", b"trailer", b"upgrade"})


class Read(Protocol):
    """A form that has been read."""

    fields: dict[str, str]
    lists: dict[str, list[str]]
    descriptor: int | None
    size: int
    begun: float


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is known of a request beside its recording."""

    head: bytes
    """its header as it is to be read again, without a body"""
    fields: dict[str, str]
    lists: dict[str, list[str]]
    size: int
    """bytes of the recording"""
    has_file: bool
    """whether there is a recording"""
    begun: float
    """when its body began to be read, of time.monotonic()"""
    started: float
    """when its header was whole, of time.monotonic()"""
    request_id: str
    note: dict[str, Any] = field(default_factory=dict)
    """what its log line will say"""


def head_of(scope: Mapping[str, Any]) -> bytes:
    """The header of a request, from its ASGI scope, as that of one without a body."""
    target = scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    lines = [b"%s %s HTTP/%s" % (scope["method"].encode(), target, scope["http_version"].encode())]
    lines += [b"%s: %s" % header for header in scope["headers"] if header[0] not in _OF_THE_BODY]
    return b"\r\n".join([*lines, b"content-length: 0", b"", b""])


def pack(parcel: Parcel, descriptor: int | None) -> int:
    """Put it behind its recording; the descriptor to hand on, which the caller closes if it is a new one.

    Args:
        parcel: what to put there.
        descriptor: of the recording; None: there is none.

    Raises:
        OSError: there is no room.
    """
    content = asdict(parcel)
    head = content.pop("head")
    data = json.dumps(content, separators=(",", ":")).encode()
    rest = struct.pack("!q", len(data)) + data + head
    written = descriptor if descriptor is not None else os.memfd_create("request")
    try:
        view = memoryview(rest + _END.pack(_MARK, parcel.size, len(rest)))
        at = parcel.size
        while view:
            done = os.pwrite(written, view, at)
            view, at = view[done:], at + done
    except BaseException:
        if descriptor is None:
            os.close(written)
        raise
    return written


def unpack(descriptor: int) -> Parcel:
    """Read what is behind the recording, and cut it off.

    Raises:
        ValueError: it is not as `pack` writes it.
        OSError: it cannot be read.
    """
    length = os.fstat(descriptor).st_size
    mark, size, behind = _END.unpack(os.pread(descriptor, _END.size, length - _END.size))
    if mark != _MARK or size + behind + _END.size != length or not 8 <= behind <= _MOST_BYTES:
        raise ValueError("no request is in the file")
    rest = os.pread(descriptor, behind, size)
    (end,) = struct.unpack_from("!q", rest)
    content = json.loads(rest[8 : 8 + end])
    os.ftruncate(descriptor, size)
    return Parcel(head=rest[8 + end :], **content)
