"""Reading a multipart/form-data body: the file to a spool without a name, the fields to text.

Limits hold while the body arrives. What is over them stops the reading at once.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers

from asrsvc.errors import (
    BadRequest,
    Cancelled,
    RequestTimeout,
    TooLarge,
    UnsupportedMediaType,
)
from asrsvc.system.disk import storage_error
from asrsvc.web.multipart import MalformedError, MultipartParser, PartHeaders

Receive = Callable[[], Awaitable[Any]]

_FIELD_BYTES: Final = 1024
"""bytes of a text field, at most, unless it is said otherwise"""
SHORT_BYTES: Final = 8 * 2**20
"""of a short recording, at most: 4 minutes of 16-bit WAV at 16 kHz"""
MOST_VALUES: Final = 100
"""values of a field that may come several times"""
_MEMORY_BYTES: Final = 2**20
"""a request that declares no more than this is kept in memory"""
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


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What a request body may be at most."""

    bytes: int
    """size of the whole body"""
    seconds: float
    """time for the whole body to arrive"""
    idle_seconds: float
    """silence in the middle of the body"""
    spool_dir: Path
    """folder for bodies that do not fit into memory"""


@dataclass(slots=True)
class Form:
    """A parsed body. The descriptor of its file is closed by `close`."""

    fields: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    """what may come several times, by the name without brackets and number"""
    descriptor: int | None = None
    """of the uploaded file, which has no name in any folder; None if there was none"""
    size: int = 0
    """bytes of the uploaded file"""
    begun: float = field(default_factory=time.monotonic)
    """when the reading of the body began, of time.monotonic()"""

    def take(self) -> int:
        """Hand the file's descriptor over; whoever takes it closes it."""
        if self.descriptor is None:
            raise ValueError("the form holds no file")
        descriptor, self.descriptor = self.descriptor, None
        return descriptor

    def close(self) -> None:
        """Let the file go; its space is free at once."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def check_head(headers: Headers, limit_bytes: int) -> bytes:
    """Check what the header alone decides, before a byte of the body is read.

    Returns:
        the boundary between the parts.

    Raises:
        UnsupportedMediaType: not multipart/form-data.
        BadRequest: no boundary, or a Content-Length that is no number.
        TooLarge: the declared length is over the limit.
    """
    kind, parameters = parse_options_header(headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        shown = headers.get("content-type", "")[:100] or "none"
        raise UnsupportedMediaType(
            f"Content-Type is {shown!r}; multipart/form-data is right", param="Content-Type"
        )
    boundary = parameters.get(b"boundary", b"")
    if not 0 < len(boundary) <= 200:
        raise BadRequest("Content-Type has no usable boundary", param="Content-Type")
    length = declared_length(headers)
    if length is not None and length > limit_bytes:
        raise _too_large(limit_bytes, f"{length} bytes")
    return boundary


def declared_length(headers: Headers) -> int | None:
    """Content-Length, or None for a body that is sent in chunks.

    Raises:
        BadRequest: it is no number.
    """
    text = headers.get("content-length")
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise BadRequest(f"Content-Length is {text[:40]!r}; a number is right", param="Content-Length")
    return int(text)


async def read_form(
    headers: Headers,
    receive: Receive,
    limits: UploadLimits,
    fields: frozenset[str],
    *,
    open_file: Callable[[], int] | None = None,
    lists: frozenset[str] = frozenset(),
    most_bytes: Mapping[str, int] | None = None,
) -> Form:
    """Read the whole body.

    Where `url` is among the fields, it may stand instead of the file, which is not fetched here.

    Args:
        headers: of the request; `check_head` has passed them.
        receive: the ASGI callable.
        limits: of the body.
        fields: names of the text fields that may come beside `file`.
        open_file: gives the descriptor of what the file is written to; else it is a file without a name.
        lists: names of those that may come several times, as `name`, `name[]` or `name[0]`.
        most_bytes: size of a field by its name, where it may be larger than others.

    Raises:
        BadRequest, TooLarge, RequestTimeout, NoSpace, OutOfDescriptors: what is wrong; nothing is left.
        Cancelled: the client has gone.
    """
    boundary = check_head(headers, limits.bytes)
    length = declared_length(headers)
    in_memory = open_file is None and length is not None and length <= _MEMORY_BYTES
    if open_file is None:
        open_file = _memory_file if in_memory else partial(spool_file, limits.spool_dir)
    form = Form()
    reader = _Reader(form, fields, open_file)
    reader.lists, reader.most_bytes = lists, most_bytes or {}
    try:
        parser = MultipartParser(boundary, reader)
        async for chunk in _chunks(receive, limits):
            parser.write(chunk)
            if reader.full:
                await reader.flush(in_thread=not in_memory)
        parser.finish()
        await reader.flush(in_thread=not in_memory)
        if not parser.ended:
            raise BadRequest("the body ends in the middle of the form", code="body_incomplete")
        _check_recording(form)
    except MalformedError as error:
        form.close()
        raise BadRequest(f"the body is not multipart/form-data: {error}", code="body_malformed") from None
    except OSError as error:
        form.close()
        raise storage_error("the upload cannot be stored", error, param="file") from error
    except BaseException:
        form.close()
        raise
    return form


def _check_recording(form: Form) -> None:
    named = bool(form.fields.get("url", "").strip())
    if form.descriptor is None and not named:
        raise BadRequest("field file is missing", param="file", code="missing_field")
    if form.descriptor is not None and named:
        raise BadRequest("file and url are both given; one of them is right", param="url")
    if form.descriptor is not None and form.size == 0:
        raise BadRequest("file is empty: 0 bytes", param="file", code="file_empty")


async def _chunks(receive: Receive, limits: UploadLimits) -> AsyncIterator[bytes]:
    deadline = time.monotonic() + limits.seconds
    size = 0
    while True:
        wait = min(limits.idle_seconds, deadline - time.monotonic())
        try:
            async with asyncio.timeout(max(wait, 0.0)):
                message = await receive()
        except TimeoutError:
            raise RequestTimeout(
                f"the body did not arrive in time: {size} bytes came, then nothing for "
                f"{limits.idle_seconds:g} s, or not all within {limits.seconds:g} s"
            ) from None
        if message["type"] == "http.disconnect":
            raise Cancelled("the client has gone")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limits.bytes:
            raise _too_large(limits.bytes, f"over {limits.bytes} bytes")
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


def _too_large(limit: int, found: str) -> TooLarge:
    return TooLarge(
        f"the request body is too large: {found}; the limit is {limit // 2**20} MiB ({limit} bytes)",
        param="file",
    )


def _memory_file() -> int:
    return os.memfd_create("upload")


def spool_file(folder: Path) -> int:
    """The descriptor of a new file without a name.

    Raises:
        OSError: the disk refuses.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.dup(file.fileno())


class _Reader:
    """Takes the parser's events; what belongs to the file waits in `pending` until `flush`."""

    def __init__(self, form: Form, fields: frozenset[str], open_file: Callable[[], int]) -> None:
        self.pending: list[memoryview] = []
        """views of the chunks that came, which nobody copies"""
        self._waiting = 0
        self._form = form
        self._fields = fields
        self._open_file = open_file
        self.lists: frozenset[str] = frozenset()
        self.most_bytes: Mapping[str, int] = {}
        self._name = ""
        self._charset = ""
        self._text = bytearray()

    @property
    def full(self) -> bool:
        """Whether what waits should be written before more comes."""
        return self._waiting >= _WAITING_BYTES or len(self.pending) >= _WAITING_PIECES

    async def flush(self, *, in_thread: bool) -> None:
        """Write what waits; in a thread where the disk may let it wait."""
        data, self.pending, self._waiting = self.pending, [], 0
        if not data:
            return
        if in_thread:
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
        """A part begins (MultipartParser)."""
        self._text = bytearray()
        _kind, options = parse_options_header(headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("utf-8", errors="replace")
        indexed = _INDEXED.fullmatch(name)
        plain = indexed[1] if indexed else name
        self._name = plain if plain in self.lists else name
        _kind, of_content = parse_options_header(headers.get(b"content-type"))
        self._charset = of_content.get(b"charset", b"").decode("latin-1").lower()
        coded = headers.get(b"content-transfer-encoding", b"").lower()
        if coded not in _UNCODED:
            raise BadRequest(
                f"Content-Transfer-Encoding of field {name[:60]} is {coded[:60].decode('latin-1')!r};"
                " in multipart/form-data a part comes as it is (binary)",
                param=name[:60],
            )
        if name == "file":
            if self._form.descriptor is not None:
                raise BadRequest("field file is given twice; one file is right", param="file")
            self._form.descriptor = self._open_file()
        elif self._name in self.lists:
            if len(self._form.lists.get(self._name, ())) == MOST_VALUES:
                raise BadRequest(
                    f"field {self._name} is given more than {MOST_VALUES} times", param=self._name
                )
        elif name not in self._fields:
            known = ", ".join(["file", *sorted(self._fields | self.lists)])
            raise BadRequest(
                f"field {name[:60]!r} is unknown; the fields are {known}",
                param=name[:60],
                code="unknown_field",
            )
        elif name in self._form.fields:
            raise BadRequest(f"field {name} is given twice", param=name)

    def on_data(self, data: bytes, start: int, end: int) -> None:
        """A stretch of its content (MultipartParser)."""
        if self._name == "file":
            self._form.size += end - start
            self._waiting += end - start
            self.pending.append(memoryview(data)[start:end])
            return
        self._text += data[start:end]
        most = self.most_bytes.get(self._name, _FIELD_BYTES)
        if len(self._text) > most:
            raise BadRequest(f"field {self._name} is over {most} bytes", param=self._name)

    def on_part_end(self) -> None:
        """Its content is whole (MultipartParser)."""
        if self._name == "file":
            return
        charset = self._charset if self._charset in _CHARSETS else "utf-8"
        try:
            text = self._text.decode(charset)
        except UnicodeDecodeError:
            called = "UTF-8" if charset == "utf-8" else charset
            raise BadRequest(f"field {self._name} is not {called}", param=self._name) from None
        if self._name in self.lists:
            self._form.lists.setdefault(self._name, []).append(text)
        else:
            self._form.fields[self._name] = text
