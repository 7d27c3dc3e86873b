"""Reading a multipart/form-data body: the file to a spool without a name, the fields to text.

Limits hold while the body arrives. What is over them stops the reading at once.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
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
from asrsvc.web.fields import Field
from asrsvc.web.form import Form
from asrsvc.web.form_reader import FormReader
from asrsvc.web.multipart import MalformedError, MultipartParser

Receive = Callable[[], Awaitable[Any]]

SHORT_BYTES: Final = 8 * 2**20
"""of a short recording, at most: 4 minutes of 16-bit WAV at 16 kHz"""
MEMORY_BYTES: Final = 2**20
"""a request that declares no more than this is kept in memory"""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What a request body may be at most."""

    bytes: int
    """size of the whole body"""
    seconds: float
    """time for the whole body to arrive"""
    idle_seconds: float
    """silence in the middle of the body"""
    least_rate: int
    """bytes a second that come on average over `idle_seconds`, at least; 0: any"""
    spool_dir: Path
    """folder for bodies that do not fit into memory"""


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
    fields: Sequence[Field],
    *,
    open_file: Callable[[], int] | None = None,
    hold: Callable[[int], Awaitable[None]] | None = None,
) -> Form:
    """Read the whole body.

    Where `url` is among the fields, it may stand instead of the file, which is not fetched here.

    Args:
        headers: of the request; `check_head` has passed them.
        receive: the ASGI callable.
        limits: of the body.
        fields: that may come beside `file`.
        open_file: gives the descriptor of what the file is written to; else it is a file without a name.
        hold: told the bytes that the file is about to have on disk; raises NoSpace where there is no room.

    Raises:
        BadRequest, TooLarge, RequestTimeout, NoSpace, OutOfDescriptors: what is wrong; nothing is left.
        Cancelled: the client has gone.
    """
    boundary = check_head(headers, limits.bytes)
    length = declared_length(headers)
    in_memory = open_file is None and length is not None and length <= MEMORY_BYTES
    if open_file is None:
        open_file = _memory_file if in_memory else partial(spool_file, limits.spool_dir)
    form = Form()
    reader = FormReader(form, fields, open_file)
    try:
        parser = MultipartParser(boundary, reader)
        async for chunk in _chunks(receive, limits):
            parser.write(chunk)
            if reader.full:
                await reader.flush(in_thread=not in_memory, hold=hold)
        parser.finish()
        await reader.flush(in_thread=not in_memory, hold=hold)
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
    pace = _Pace(limits)
    while True:
        asked = time.monotonic()
        wait = min(limits.idle_seconds, deadline - asked)
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
        pace.note(len(chunk), time.monotonic() - asked)
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


class _Pace:
    """Sees that a body goes on: a client that trickles would hold a connection and memory for long."""

    def __init__(self, limits: UploadLimits) -> None:
        self._window = limits.idle_seconds
        self._least = limits.least_rate
        self._waited = 0.0
        self._bytes = 0

    def note(self, size: int, waited: float) -> None:
        """Bytes have come, after so many seconds of waiting for them; what was spent otherwise is ours.

        Raises:
            RequestTimeout: too few of them in the last window.
        """
        self._waited += waited
        self._bytes += size
        if self._waited < self._window:
            return
        if self._bytes < self._least * self._waited:
            raise RequestTimeout(
                f"the body comes too slowly: {self._bytes} bytes in {self._waited:.0f} s;"
                f" {self._least} bytes a second are the least (ASR_BODY_LEAST_RATE)"
            )
        self._waited, self._bytes = 0.0, 0


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
