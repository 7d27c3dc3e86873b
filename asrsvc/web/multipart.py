"""python-multipart's parser, behind a filter that gives it the one form of a body that it takes.

RFC 2046 (section 5.1) allows more than the parser reads: text in front of the first boundary, blanks behind
a boundary, header lines that are folded (RFC 822, section 3.1.1); some clients end lines with LF alone. The
filter writes boundaries and headers anew and leaves the content of the parts as it is. Only bytes whose
meaning cannot be told yet are kept, and they have a limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from python_multipart import multipart
from python_multipart.exceptions import FormParserError

PREAMBLE_BYTES: Final = 16 * 1024
"""in front of the first boundary, at most"""
HEAD_BYTES: Final = 8 * 1024
"""of the header of one part, with its folded lines, at most"""
HEAD_FIELDS: Final = 16
"""of the header of one part, at most"""
HEADS_BYTES: Final = 256 * 1024
"""of the headers of all parts together, at most"""
_PADDING_BYTES: Final = 256  # blanks behind a boundary, at most; with more it is no boundary
_SHOWN: Final = 60  # bytes of a wrong header that a message repeats

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


@dataclass(frozen=True, slots=True)
class _Boundary:
    """Where one stands."""

    start: int
    """where the end of the line in front of it begins"""
    end: int
    """where what is behind it begins"""
    newline: bytes | None
    """that ends its own line; None: it is the last one"""


class MultipartParser:
    """Takes a body as it comes."""

    def __init__(self, boundary: bytes, events: Events) -> None:
        """Prepare.

        Args:
            boundary: between the parts, as Content-Type names it.
            events: is told of the parts.

        Raises:
            MalformedError: a boundary that no parser takes.
        """
        self.ended = False
        """whether the last boundary has come"""
        self._events = events
        self._boundary = b"--" + boundary
        self._name = self._value = b""
        self._headers: PartHeaders = {}
        try:
            self._parser = multipart.MultipartParser(
                boundary, self._callbacks(), max_header_count=HEAD_FIELDS, max_header_size=HEAD_BYTES
            )
        except FormParserError as error:
            raise MalformedError(str(error)) from None
        # Behind its name a boundary has two hyphens, or blanks and the end of its line.
        self._behind = re.compile(rb"--|[ \t]{0,%d}(\r?\n)" % _PADDING_BYTES)
        self._newline = b""  # as the first boundary has it
        self._skipped = 0
        self._heads_bytes = 0
        self._empty = False  # nothing of the part's content has come yet
        self._step: Callable[[bytes, int], int] = self._preamble
        self._rest = b"\n"  # so that a boundary at the very beginning stands behind a line

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
        begun = self._rest.lstrip(b"\r\n")  # of what may be a boundary
        if self._step == self._preamble and self._skipped and not begun:
            raise MalformedError("the boundary of its Content-Type is not in it")

    # The steps: each takes what it can from `at` on, and returns where it has come to.

    def _preamble(self, data: bytes, at: int) -> int:
        found = self._find(data, at)
        end = found.start if found else self._undecided(data, at)
        self._skipped += end - at
        if self._skipped > PREAMBLE_BYTES:
            raise MalformedError(
                f"the boundary of its Content-Type is not in its first {PREAMBLE_BYTES} bytes"
            )
        if found is None:
            return end
        if found.newline is None and self._skipped:
            raise MalformedError("the boundary of its Content-Type begins no part")
        self._newline = found.newline or b"\r\n"
        return self._after(found, self._boundary)

    def _head(self, data: bytes, at: int) -> int:
        newline = self._newline
        if data.startswith(newline, at):  # a part without a header
            end = at
        else:
            end = data.find(newline + newline, at, at + HEAD_BYTES + 2 * len(newline))
            if end < 0:
                if len(data) - at >= HEAD_BYTES + 2 * len(newline):
                    raise MalformedError(f"the header size of a part is over {HEAD_BYTES} bytes")
                return at
            end += len(newline)
        self._heads_bytes += end - at
        if self._heads_bytes > HEADS_BYTES:
            raise MalformedError(f"the headers of its parts are over {HEADS_BYTES} bytes together")
        lines = re.sub(re.escape(newline) + rb"[ \t]+", b" ", data[at:end]).split(newline)
        for line in filter(None, lines):
            self._feed_line(line)
        self._feed(b"\r\n")
        self._step, self._empty = self._content, True
        return end

    def _feed_line(self, line: bytes) -> None:
        try:
            self._parser.write(line + b"\r\n")
        except FormParserError as error:
            if "count" in str(error):
                raise MalformedError(f"the header count of a part is over {HEAD_FIELDS}") from None
            shown = line[:_SHOWN].decode("utf-8", errors="replace")
            raise MalformedError(
                f"the header of a part has the line {shown!r}; `name: value` is right"
            ) from None

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise MalformedError(str(error)) from None

    def _content(self, data: bytes, at: int) -> int:
        # The empty line behind the header may be the end of the line in front of a boundary, too.
        begin = at + len(self._newline) if self._empty else at
        found = self._find(data, at)
        end = found.start if found else self._undecided(data, at)
        if found is None and end < begin:
            return at
        if end > begin:
            self._feed(data if end - begin == len(data) else data[begin:end])
        self._empty = False
        return self._after(found, b"\r\n" + self._boundary) if found else end

    def _epilogue(self, data: bytes, _at: int) -> int:
        return len(data)

    def _find(self, data: bytes, at: int) -> _Boundary | None:
        """The first boundary; where lines end with CR and LF, it stands behind both."""
        mark = (b"\r\n" if self._newline == b"\r\n" else b"\n") + self._boundary
        while (start := data.find(mark, at)) >= 0:
            if behind := self._behind.match(data, start + len(mark)):
                return _Boundary(start, behind.end(), behind[1])
            at = start + 1
        return None

    def _after(self, found: _Boundary, written: bytes) -> int:
        """Pass a boundary on; returns where what is behind it begins."""
        self.ended = found.newline is None
        self._step = self._epilogue if self.ended else self._head
        self._feed(written + (b"--\r\n" if self.ended else b"\r\n"))
        return found.end

    def _undecided(self, data: bytes, at: int) -> int:
        """Where bytes at the end begin that may be a boundary once more have come; else the end."""
        begin = max(at, len(data) - len(self._boundary) - _PADDING_BYTES - len(b"\r\n\r\n"))
        while (line := data.find(b"\n", begin)) >= 0:
            tail = data[line + 1 :]
            behind = tail[len(self._boundary) :].removesuffix(b"\r").strip(b" \t")
            if self._boundary.startswith(tail) or (tail.startswith(self._boundary) and behind in {b"", b"-"}):
                return line - 1 if line > at and data[line - 1 : line] == b"\r" else line
            begin = line + 1
        return len(data) - 1 if data.endswith(b"\r") and len(data) > at else len(data)

    # What python-multipart tells.

    def _callbacks(self) -> Any:
        names = "part_begin part_data part_end header_field header_value header_end headers_finished"
        return {f"on_{name}": getattr(self, f"_on_{name}") for name in names.split()}

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._name = self._value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value.strip(b" \t")
        self._name = self._value = b""

    def _on_headers_finished(self) -> None:
        self._events.on_part(self._headers)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.on_data(data, start, end)

    def _on_part_end(self) -> None:
        self._events.on_part_end()
