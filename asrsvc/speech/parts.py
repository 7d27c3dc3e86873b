"""Files that are several Matroska, WebM or FLV files, one behind the other.

libavformat reads on into the second with the codec parameters and the clock of the first, or stops there.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from typing import Final

from asrsvc.speech.ebml import SEGMENT, element

_MARK: Final = b"\x1a\x45\xdf\xa3"  # the id of EBML's head, which begins a file (RFC 8794, section 11.2.1)
_EBML: Final = re.compile(re.escape(_MARK))
_TYPES: Final = (b"matroska", b"webm")
# FLV: its mark, version 1, sound or pictures or both, the length of this head, no tag before the first
# (Video File Format Specification 10.1, annex E.2).
_FLV: Final = re.compile(rb"FLV\x01[\x01\x04\x05]\0\0\0\x09\0\0\0\0")
_FLV_HEAD: Final = 13  # bytes
_HEAD_BYTES: Final = 100  # in which the type stands
_STEP: Final = 2**20


class Part(io.RawIOBase):
    """Some of the bytes of a file, as a file."""

    def __init__(self, file: io.RawIOBase, start: int, end: int, *, head: bytes = b"") -> None:
        """Take the bytes from `start` to `end` (exclusive) of a seekable file, which stays the caller's.

        Args:
            file: another one.
            start: position in it.
            end: position in it.
            head: bytes in front of these.
        """
        self._file = file
        self._head = head
        self._start = start
        self._size = len(head) + end - start
        self._place = 0

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether it has places to go to."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes, fewer at the end; all that are left if negative."""
        left = max(0, self._size - self._place)
        wanted = left if size < 0 else min(size, left)
        content = self._head[self._place : self._place + wanted]
        if wanted > len(content):
            self._file.seek(self._start + self._place + len(content) - len(self._head))
            content += self._file.read(wanted - len(content)) or b""
        self._place += len(content)
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        """The place in the part."""
        return self._place


def parts(file: io.RawIOBase) -> Iterator[io.RawIOBase]:
    """The files that a file consists of; mostly it is one, and given as it is."""
    starts = list(_starts(file))
    if len(starts) < 2:
        yield file
        return
    ends = [*starts[1:], file.seek(0, os.SEEK_END)]
    for start, end in zip(starts, ends, strict=True):
        yield Part(file, start, end)


def rest_of(file: io.RawIOBase, container: str, packet: int) -> io.RawIOBase | None:
    """What is behind a packet, as a file of its own.

    Args:
        file: seekable.
        container: name of FFmpeg's demuxer for it.
        packet: where the packet begins.

    Returns:
        a file; None: there is none, or nothing of this container can be read on its own.
    """
    end = file.seek(0, os.SEEK_END)
    start, head = packet + 1, b""
    if container == "flv":
        # A tag has a head of 11 bytes, with the length of its content behind its type, and its own length
        # behind it; in front of all tags stands the file's head.
        file.seek(0)
        head = file.read(_FLV_HEAD) or b""
        file.seek(packet + 1)
        start = packet + 11 + int.from_bytes(file.read(3) or b"", "big") + 4
    elif container not in {"mpegts", "mpeg"}:
        return None
    return Part(file, start, end, head=head) if start < end else None


def _starts(file: io.RawIOBase) -> Iterator[int]:
    file.seek(0)
    head = file.read(_FLV_HEAD) or b""
    start: int | None = 0
    if _FLV.match(head):
        while start is not None:
            yield start
            start = next(_matches(file, start + 1, _FLV, _FLV_HEAD), None)
    elif head.startswith(_MARK):
        while start is not None:
            yield start
            start = _next_matroska(file, _behind(file, start))


def _behind(file: io.RawIOBase, start: int) -> int:
    """Where the file that starts here ends, if it says so; a place inside it if not."""
    _mark, place, size = element(file, start)
    inside = place + (size or 0)
    mark, place, size = element(file, inside)
    return inside if mark != SEGMENT or size is None else place + size


def _next_matroska(file: io.RawIOBase, place: int) -> int | None:
    for found in _matches(file, place, _EBML, len(_MARK)):
        file.seek(found)
        head = file.read(_HEAD_BYTES) or b""
        if any(kind in head for kind in _TYPES):
            return found
    return None


def _matches(file: io.RawIOBase, place: int, mark: re.Pattern[bytes], length: int) -> Iterator[int]:
    """Where a mark of so many bytes stands, from a place on."""
    while True:
        file.seek(place)
        chunk = file.read(_STEP) or b""
        yield from (place + match.start() for match in mark.finditer(chunk))
        if len(chunk) < _STEP:
            return
        place += len(chunk) - length + 1
