"""Ogg, byte by byte: pages and the packets in them (RFC 3533)."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

CAPTURE: Final = b"OggS"
"""what each page begins with"""

_HEAD: Final = struct.Struct("<4sBBqIIIB")
_CONTINUED, _FIRST, _LAST = 1, 2, 4  # bits of a page's type
_BUFFER: Final = 2**17
_MAX_PACKET: Final = 16 * 2**20  # bytes; pictures stand in comments
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Page:
    """One page; of one that the end of the file cuts, what is there."""

    serial: int
    """of the logical stream that it belongs to"""
    granule: int | None
    """where the stream stands behind the last packet that ends here; None: none ends here"""
    first: bool
    """whether it is the first of its logical stream"""
    last: bool
    """whether it is the last of its logical stream"""
    whole: bool
    """whether the file does not end inside it"""
    continued: bool
    """whether its first piece goes on with the last one of the page before"""
    pieces: list[bytes]
    """the packets, whole but for the first and the last of them"""
    open: bool
    """whether its last piece goes on in the next page"""


@dataclass(slots=True)
class Pages:
    """The pages of a file, in order. What is no page, or a damaged one, is passed over."""

    file: io.RawIOBase
    """open for reading and seekable"""
    damaged: int = 0
    """pages with a wrong checksum so far"""
    cut: bool = False
    """whether the file ends in the middle of a page"""

    def __iter__(self) -> Iterator[Page]:
        """Give each page once."""
        self.file.seek(0)
        reader = io.BufferedReader(self.file, _BUFFER)
        try:
            while _find(reader):
                start = reader.tell()
                page = self._page(reader)
                if page is None:
                    reader.seek(start + len(CAPTURE))
                else:
                    yield page
        finally:
            reader.detach()

    def _page(self, reader: io.BufferedReader[io.RawIOBase]) -> Page | None:
        head = reader.read(_HEAD.size)
        if len(head) < _HEAD.size:
            self.cut = True
            return None
        _mark, version, kind, granule, serial, _sequence, checksum, count = _HEAD.unpack(head)
        if version != 0:
            return None
        lacing = reader.read(count)
        length = sum(lacing)
        body = reader.read(length)
        whole = len(lacing) == count and len(body) == length
        if whole and page_checksum(head[:22] + bytes(4) + head[26:] + lacing + body) != checksum:
            self.damaged += 1
            return None
        pieces, is_open = _pieces(lacing, body)
        self.cut = not whole
        return Page(
            serial=serial,
            granule=granule if granule >= 0 else None,
            first=bool(kind & _FIRST),
            last=bool(kind & _LAST),
            whole=whole,
            continued=bool(kind & _CONTINUED),
            pieces=pieces,
            open=is_open,
        )


@dataclass(slots=True)
class Packets:
    """Joins the pieces of one logical stream's pages."""

    _begun: bytearray | None = field(default=None)

    def of(self, page: Page) -> list[bytes]:
        """The packets that end in this page."""
        found = []
        for number, piece in enumerate(page.pieces):
            begun = self._begun if number == 0 and page.continued else bytearray()
            self._begun = None
            if begun is None or len(begun) + len(piece) > _MAX_PACKET:
                continue  # its beginning was lost, or it is no packet of sound
            begun += piece
            if page.open and number == len(page.pieces) - 1:
                self._begun = begun
            else:
                found.append(bytes(begun))
        return found


def last_granule(file: io.RawIOBase, serial: int) -> int | None:
    """The granule of the last page, if it is of this logical stream."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2**16))
    tail = file.read(2**16) or b""
    at = tail.rfind(CAPTURE)
    if at < 0 or len(tail) - at < _HEAD.size:
        return None
    _mark, _version, _kind, granule, found, *_ = _HEAD.unpack_from(tail, at)
    return granule if found == serial and granule > 0 else None


def _find(reader: io.BufferedReader[io.RawIOBase]) -> bool:
    """Go to where the next page may begin."""
    while True:
        start = reader.tell()
        chunk = reader.read(_BUFFER)
        at = chunk.find(CAPTURE)
        if at >= 0:
            reader.seek(start + at)
            return True
        if len(chunk) < _BUFFER:
            return False
        reader.seek(start + len(chunk) - len(CAPTURE) + 1)


def _pieces(lacing: bytes, body: bytes) -> tuple[list[bytes], bool]:
    """The pieces that a page's table of lengths makes of its body; the last may go on in the next page."""
    pieces: list[bytes] = []
    start = end = 0
    for length in lacing:
        end += length
        if end > len(body):
            return pieces, False  # what the end of the file cuts is no packet
        if length < 255:
            pieces.append(body[start:end])
            start = end
    is_open = lacing[-1:] == b"\xff"
    if is_open:
        pieces.append(body[start:end])
    return pieces, is_open


def page_checksum(page: bytes) -> int:
    """CRC-32 of the polynomial 0x04c11db7, highest bit first; zlib's is the mirror image of it.

    Args:
        page: with zeros in the place of its checksum.
    """
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
