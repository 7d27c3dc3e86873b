"""Elements of EBML, which Matroska and WebM are made of (RFC 8794)."""

from __future__ import annotations

import io
from typing import Final

SEGMENT: Final = 0x18538067
INFO: Final = 0x1549A966
CLUSTER: Final = 0x1F43B675
TIMESTAMP_SCALE: Final = 0x2AD7B1
DURATION: Final = 0x4489
"""ids of Matroska's elements (RFC 9559)"""

_MOST_BYTES: Final = 16  # of an element's id and size


def element(file: io.RawIOBase, place: int) -> tuple[int, int, int | None]:
    """Read what an element begins with: its id, where its content begins, its size; None: unknown."""
    file.seek(place)
    head = file.read(_MOST_BYTES) or b""
    id_length = _length(head)
    mark = int.from_bytes(head[:id_length], "big")
    length = _length(head[id_length:])
    limit = (1 << 7 * length) - 1
    size = int.from_bytes(head[id_length : id_length + length], "big") & limit
    return mark, place + id_length + length, None if size == limit else size


def _length(head: bytes) -> int:
    """Bytes of a number, by the zeros that its first byte begins with."""
    return 9 - head[0].bit_length() if head else 1
