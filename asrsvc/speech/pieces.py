"""A file put together from stretches of another file and from bytes, to be read without a copy."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Piece: TypeAlias = bytes | range
"""bytes as they are, or positions of bytes in the other file"""


def size_of(descriptor: int) -> int:
    """Bytes of an open file; its position stays. Unlike fstat(3), it makes no call that takes a path."""
    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    size = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, position, os.SEEK_SET)
    return size


class Pieces(io.RawIOBase):
    """A seekable file for reading; the other file's own position is neither used nor moved."""

    def __init__(self, descriptor: int, pieces: Sequence[Piece]) -> None:
        """Put the pieces together in this order.

        Args:
            descriptor: of the other file, open for reading; it stays the caller's.
            pieces: what the file consists of.
        """
        self._descriptor = descriptor
        self._pieces = [piece for piece in pieces if len(piece)]
        self._starts = [0, *accumulate(len(piece) for piece in self._pieces)]
        self._position = 0

    @classmethod
    def whole(cls, descriptor: int) -> Pieces:
        """The other file as it is, with a position of its own."""
        return cls(descriptor, [range(size_of(descriptor))])

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position; as `io.IOBase.seek`."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._starts[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer as far as there are bytes; the number of bytes."""
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and self._position < self._starts[-1]:
            number = bisect_right(self._starts, self._position) - 1
            piece, inside = self._pieces[number], self._position - self._starts[number]
            count = min(len(view) - filled, len(piece) - inside)
            if isinstance(piece, range):
                part = os.pread(self._descriptor, count, piece[inside])
            else:
                part = piece[inside : inside + count]
            if not part:
                break
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._position += len(part)
        return filled
