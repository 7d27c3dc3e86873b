"""Parsing a multipart/form-data body in pieces (RFC 7578; RFC 2046, section 5.1).

What RFC 2046 allows is read: a preamble, an epilogue, blanks behind a boundary, folded header lines, a part
without content. A body whose first boundary ends its line with LF alone is read with LF throughout. Only
bytes whose meaning cannot be told yet are kept, and they have a limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

PREAMBLE_BYTES: Final = 16 * 1024
"""in front of the first boundary, at most"""
HEAD_BYTES: Final = 8 * 1024
"""of the header of one part, with its folded lines, at most"""
HEAD_FIELDS: Final = 16
"""of the header of one part, at most"""
_PADDING_BYTES: Final = 256  # blanks behind a boundary, at most; with more it is no boundary
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SHOWN: Final = 60  # bytes of a wrong line that a message repeats

# What stands behind a boundary, where it does not begin a part.
_LAST: Final = -1
_CONTENT: Final = -2
"""it was no boundary"""
_UNKNOWN: Final = -3
"""more must come before that can be told"""

PartHeaders = dict[bytes, bytes]
"""values by names in lower case; the last one where a name comes twice"""


class MalformedError(ValueError):
    """The body is no multipart/form-data; the message says why."""


class Events(Protocol):
    """Is told of the parts, in order."""

    def on_part(self, headers: PartHeaders) -> None:
        """A part begins."""

    def on_data(self, data: bytes, start: int, end: int) -> None:
        """A stretch of its content."""

    def on_part_end(self) -> None:
        """Its content is whole."""


class MultipartParser:
    """Takes a body as it comes."""

    def __init__(self, boundary: bytes, events: Events) -> None:
        """Prepare.

        Args:
            boundary: between the parts, as Content-Type names it.
            events: is told of the parts.
        """
        self._events = events
        self._mark = b"--" + boundary
        self._first = re.compile(rb"\n%s(?:--|[ \t]{0,%d}(\r?\n))" % (re.escape(self._mark), _PADDING_BYTES))
        self._newline = b"\r\n"
        self._delimiter = b""
        self._skipped = 0
        self._empty = False  # nothing of the part's content has come yet
        self._step: Callable[[bytes, int], int] = self._preamble
        self._rest = b"\n"  # so that a boundary at the very beginning stands behind a line

    @property
    def ended(self) -> bool:
        """Whether the last boundary has come."""
        return self._step == self._epilogue

    def write(self, chunk: bytes) -> None:
        """Take what comes next.

        Raises:
            MalformedError: this is no multipart/form-data.
        """
        data = self._rest + chunk if self._rest else chunk
        at = 0
        while at < len(data):
            step = self._step
            at = step(data, at)
            if self._step == step:
                break  # it wants more
        self._rest = data[at:]

    def finish(self) -> None:
        """The body has come to its end.

        Raises:
            MalformedError: there was no boundary in it.
        """
        begun = self._rest[1:]  # of what may be a boundary
        if self._step == self._preamble and self._skipped and not begun:
            raise MalformedError("the boundary of its Content-Type is not in it")

    # The steps: each takes what it can from `at` on, and returns where it has come to.

    def _preamble(self, data: bytes, at: int) -> int:
        found = self._first.search(data, at)
        self._skipped += (found.start() if found else len(data)) - at
        if self._skipped > PREAMBLE_BYTES:
            raise MalformedError(
                f"the boundary of its Content-Type is not in its first {PREAMBLE_BYTES} bytes"
            )
        if found is None:
            line = data.rfind(b"\n", at)
            begun = data[line + 1 :]
            if line < 0 or not (begun.startswith(self._mark) or self._mark.startswith(begun)):
                return len(data)
            self._skipped -= len(data) - line
            return line
        if found[1] is None:
            if self._skipped:
                raise MalformedError("the boundary of its Content-Type begins no part")
            self._step = self._epilogue
        else:
            self._newline = found[1]
            self._delimiter = self._newline + self._mark
            self._step = self._head
        return found.end()

    def _head(self, data: bytes, at: int) -> int:
        newline = self._newline
        if data.startswith(newline, at):  # a part without a header
            end, content = at, at + len(newline)
        else:
            end = data.find(newline + newline, at, at + HEAD_BYTES + 2 * len(newline))
            content = end + 2 * len(newline)
            if end < 0:
                if len(data) - at >= HEAD_BYTES + 2 * len(newline):
                    raise MalformedError(f"the header size of a part is over {HEAD_BYTES} bytes")
                return at
        self._events.on_part(_headers(data[at:end], newline))
        self._step, self._empty = self._content, True
        return content

    def _content(self, data: bytes, at: int) -> int:
        if self._empty:
            # The empty line behind the header may be the line end in front of the boundary, too.
            if self._mark.startswith(data[at : at + len(self._mark)]):
                if len(data) - at < len(self._mark):
                    return at
                behind = self._behind(data, at + len(self._mark))
                if behind != _CONTENT:
                    return at if behind == _UNKNOWN else self._end_part(at + len(self._mark), behind)
            self._empty = False
        delimiter, search = self._delimiter, at
        while (found := data.find(delimiter, search)) >= 0:
            behind = self._behind(data, found + len(delimiter))
            if behind == _CONTENT:
                search = found + 1
                continue
            self._tell(data, at, found)
            return found if behind == _UNKNOWN else self._end_part(found + len(delimiter), behind)
        # The last bytes may be the beginning of a boundary.
        kept = data.rfind(delimiter[:1], max(search, len(data) - len(delimiter) + 1))
        if kept < 0 or not delimiter.startswith(data[kept:]):
            kept = len(data)
        self._tell(data, at, kept)
        return kept

    def _epilogue(self, data: bytes, _at: int) -> int:
        return len(data)

    def _tell(self, data: bytes, start: int, end: int) -> None:
        if end > start:
            self._events.on_data(data, start, end)

    def _end_part(self, at: int, behind: int) -> int:
        self._events.on_part_end()
        self._step = self._epilogue if behind == _LAST else self._head
        return at if behind == _LAST else behind

    def _behind(self, data: bytes, at: int) -> int:
        """What is behind a boundary that ends at `at`: where the next part begins, or one of the above."""
        if data.startswith(b"--", at):
            return _LAST
        newline = self._newline
        end = data.find(newline, at, at + _PADDING_BYTES + len(newline))
        line = data[at : end if end >= 0 else at + _PADDING_BYTES + len(newline)]
        if end >= 0:
            return end + len(newline) if not line.strip(b" \t") else _CONTENT
        may_be = line == b"-" or line.strip(b" \t") in {b"", newline[:1]}
        return _UNKNOWN if may_be and len(line) < _PADDING_BYTES + len(newline) else _CONTENT


def _headers(block: bytes, newline: bytes) -> PartHeaders:
    """The fields of a part's header; a line that begins with a blank goes on with the one before.

    Raises:
        MalformedError: a line is none of a header.
    """
    found: PartHeaders = {}
    fields = 0
    name = b""
    for line in block.split(newline) if block else ():
        if line[:1] in {b" ", b"\t"} and name:
            found[name] += b" " + line.strip(b" \t")
            continue
        given, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(given) or b"\r" in value:
            shown = line[:_SHOWN].decode("utf-8", errors="replace")
            raise MalformedError(f"the header of a part has the line {shown!r}; `name: value` is right")
        fields += 1
        if fields > HEAD_FIELDS:
            raise MalformedError(f"the header count of a part is over {HEAD_FIELDS}")
        name = given.lower()
        found[name] = value.strip(b" \t")
    return found
