"""The parts of a form as they arrive: the file to a descriptor, the text fields into a `Form`.

The header of a part decides whether its content is read: a field that is unknown or given once too often is
refused before a byte of it is kept; one that is not supported, unless it is empty, at its first bytes. All
text of a form together has a limit, and a value is decoded once, when it is whole and known to be small.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from python_multipart.multipart import parse_options_header

from asrsvc.errors import BadRequest
from asrsvc.web.fields import Field, unsupported
from asrsvc.web.form import Form
from asrsvc.web.multipart import PartHeaders
from asrsvc.web.structured import is_absent, is_empty_list

TEXT_BYTES: Final = 2**20
"""of the names and values of all text fields of a form, at most; fields of kind `bytes` are apart"""
MOST_PARTS: Final = 1000
"""of a form, the file among them"""
_WAITING_BYTES: Final = 2**20
_WAITING_PIECES: Final = 256
"""what waits to be written, at most, beside the chunk that came last: each write is a way through a thread"""
_INDEXED: Final = re.compile(r"(.+)\[\d{0,4}\]")
"""how the values of a list are named: with brackets, which may hold a number"""
_UNCODED: Final = frozenset({b"", b"7bit", b"8bit", b"binary"})
"""values of Content-Transfer-Encoding that change nothing (RFC 7578, section 4.7)"""
_CHARSETS: Final = {
    *("us-ascii", "iso-8859-1", "iso-8859-15", "windows-1252"),
    *("gb2312", "gbk", "gb18030", "big5", "shift_jis", "euc-jp", "euc-kr"),
}
"""beside UTF-8, that a text field may be in if its part says so"""
_SHOWN: Final = 60  # characters of a wrong name that a message repeats
_EMPTY_BYTES: Final = 16
"""of a field that is not supported: what counts as empty, `undefined` for example, has no more"""


class FormReader:
    """Takes the parser's events; what belongs to the file waits in `pending` until `flush`."""

    def __init__(self, form: Form, fields: Sequence[Field], open_file: Callable[[], int]) -> None:
        """Prepare.

        Args:
            form: that is filled.
            fields: that may stand beside `file`.
            open_file: gives the descriptor of what the file is written to.
        """
        self.pending: list[memoryview] = []
        """views of the chunks that came, which nobody copies"""
        self._waiting = 0
        self._form = form
        self._fields = {field.name: field for field in fields}
        self._open_file = open_file
        self._field: Field | None = None  # of the part that is read; None: it is the file
        self._charset = ""
        self._value = bytearray()
        self._parts = 0
        self._text_bytes = 0

    @property
    def full(self) -> bool:
        """Whether what waits should be written before more comes."""
        return self._waiting >= _WAITING_BYTES or len(self.pending) >= _WAITING_PIECES

    async def flush(self, *, in_thread: bool, hold: Callable[[int], Awaitable[None]] | None) -> None:
        """Write what waits; on disk in a thread, since it may let it wait.

        Raises:
            NoSpace: see `read_form`.
        """
        data, self.pending, self._waiting = self.pending, [], 0
        if not data:
            return
        if in_thread:
            if hold is not None:
                await hold(self._form.size)
            await asyncio.to_thread(self._write, data)
        else:
            self._write(data)

    def _write(self, data: list[memoryview]) -> None:
        assert self._form.descriptor is not None
        for view in data:
            rest = view
            while rest:
                rest = rest[os.write(self._form.descriptor, rest) :]

    def on_part(self, headers: PartHeaders) -> None:
        """A part begins (MultipartParser).

        Raises:
            BadRequest: it may not stand in this form.
        """
        self._value = bytearray()
        _kind, options = parse_options_header(headers.get(b"content-disposition"))
        raw = options.get(b"name", b"")
        name = raw.decode("utf-8", errors="replace")
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise BadRequest(
                f"the form has more than {MOST_PARTS} parts: field {name[:_SHOWN]!r} is one more",
                param=name[:_SHOWN],
            )
        _kind, of_content = parse_options_header(headers.get(b"content-type"))
        self._charset = of_content.get(b"charset", b"").decode("latin-1").lower()
        coded = headers.get(b"content-transfer-encoding", b"").lower()
        if coded not in _UNCODED:
            raise BadRequest(
                f"Content-Transfer-Encoding of field {name[:_SHOWN]} is {coded[:60].decode('latin-1')!r};"
                " in multipart/form-data a part comes as it is (binary)",
                param=name[:_SHOWN],
            )
        if name == "file":
            self._field = None
            if self._form.descriptor is not None:
                raise BadRequest("field file is given twice; one file is right", param="file")
            self._form.descriptor = self._open_file()
            return
        self._field = field = self._find(name)
        self._check_count(field)
        self._count_text(field, len(raw))

    def on_data(self, data: bytes, start: int, end: int) -> None:
        """A stretch of its content (MultipartParser).

        Raises:
            BadRequest: it is larger than the field may be, or than all fields together, or not supported.
        """
        field = self._field
        if field is None:
            self._form.size += end - start
            self._waiting += end - start
            self.pending.append(memoryview(data)[start:end])
            return
        if field.unsupported and len(self._value) + end - start > _EMPTY_BYTES:
            raise unsupported(field)
        if len(self._value) + end - start > field.most_bytes:
            raise BadRequest(f"field {field.name} is over {field.most_bytes} bytes", param=field.name)
        self._count_text(field, end - start)
        self._value += data[start:end]

    def on_part_end(self) -> None:
        """Its content is whole (MultipartParser).

        Raises:
            BadRequest: it is no text in its charset, or something in a field that is not supported.
        """
        field = self._field
        if field is None:
            return
        if field.kind == "bytes":
            self._form.blobs.setdefault(field.name, []).append(bytes(self._value))
            self._value = bytearray()
            return
        charset = self._charset if self._charset in _CHARSETS else "utf-8"
        try:
            text = self._value.decode(charset)
        except UnicodeDecodeError:
            called = "UTF-8" if charset == "utf-8" else charset
            raise BadRequest(f"field {field.name} is not {called}", param=field.name) from None
        if field.unsupported and not (is_absent(text) or is_empty_list(text)):
            raise unsupported(field)
        if field.many:
            self._form.lists.setdefault(field.name, []).append(text)
        else:
            self._form.fields[field.name] = text

    def _find(self, name: str) -> Field:
        """The field that a part names.

        Raises:
            BadRequest: it is unknown.
        """
        indexed = _INDEXED.fullmatch(name)
        several = self._fields.get(indexed[1]) if indexed else None
        field = several if several is not None and several.many else self._fields.get(name)
        if field is None:
            taken = sorted(one.name for one in self._fields.values() if not one.unsupported)
            raise BadRequest(
                f"field {name[:_SHOWN]!r} is unknown; the fields are {', '.join(['file', *taken])}",
                param=name[:_SHOWN],
                code="unknown_field",
            )
        return field

    def _check_count(self, field: Field) -> None:
        most = field.most_values if field.many else 1
        values = (self._form.blobs if field.kind == "bytes" else self._form.lists).get(field.name, ())
        given = len(values) or int(field.name in self._form.fields)
        if given >= most:
            often = "twice" if most == 1 else f"more than {most} times"
            raise BadRequest(f"field {field.name} is given {often}", param=field.name)

    def _count_text(self, field: Field, size: int) -> None:
        if field.kind == "bytes":
            return
        self._text_bytes += size
        if self._text_bytes > TEXT_BYTES:
            raise BadRequest(
                f"the text fields of the form, field {field.name} the last of them, are over {TEXT_BYTES}"
                " bytes together",
                param=field.name,
            )
