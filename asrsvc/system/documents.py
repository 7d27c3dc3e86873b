"""Files that strangers have written, read at a bounded cost: so many bytes, values and levels.

A reader of a general format builds whatever a file asks for. These build what the caller wants or say,
with the place, what is wrong; they need the standard library alone.
"""

from __future__ import annotations

import codecs
import errno
import json
import math
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

MOST_DEPTH: Final = 32
"""levels of lists and objects in each other"""
_MOST_DIGITS: Final = 20
"""of a whole number: 64 bits have no more"""
# An unfinished string goes to the end, so that each byte is looked at once.
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[\]{}]")


class DocumentError(ValueError):
    """What is wrong with a document: the end of a sentence that begins with its name."""


def check_file(path: Path, most_bytes: int) -> None:
    """Whether another program's reader may be let at a file.

    Args:
        path: of the file.
        most_bytes: of it.

    Raises:
        OSError: there is none.
        DocumentError: it is no plain file, or has more bytes.
    """
    found = path.stat()
    _check_kind(found.st_mode)
    if found.st_size > most_bytes:
        raise DocumentError(f"has {found.st_size} bytes; {most_bytes} is the limit")


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """A file's content.

    Args:
        path: of the file.
        most_bytes: of it.

    Raises:
        OSError: it cannot be read.
        DocumentError: it is no plain file, or has more bytes.
    """
    content = read_head(path, most_bytes + 1)
    if len(content) > most_bytes:
        raise DocumentError(f"has more than {most_bytes} bytes, which is the limit")
    return content


def read_head(path: Path, most_bytes: int) -> bytes:
    """The first bytes of a file.

    Raises:
        OSError: it cannot be read.
        DocumentError: it is no plain file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would be waited for
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise DocumentError("is no plain file") from error
        raise
    try:
        _check_kind(os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as reader:
        return reader.read(most_bytes)


def parse_json(content: bytes, *, most_values: int) -> Any:
    """What a JSON text says (RFC 8259).

    Args:
        content: UTF-8.
        most_values: values in it, those in lists and objects too. Each comma, bracket and brace counts as
            one, wherever it stands: so many are never built.

    Returns:
        None, bool, int, float (finite), str, list, or dict with a name once.

    Raises:
        DocumentError: it is no such text, or is over a limit: `most_values`, `MOST_DEPTH`, 20 digits.
    """
    opened = content.count(b"[") + content.count(b"{")
    if opened + content.count(b",") > most_values:
        raise DocumentError(f"has more than {most_values} values, which is the limit")
    if opened > MOST_DEPTH and _depth(content) > MOST_DEPTH:
        raise DocumentError(f"has more than {MOST_DEPTH} levels, which is the limit")
    try:
        return json.loads(
            content.removeprefix(codecs.BOM_UTF8).decode(),
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
    except DocumentError:
        raise
    except UnicodeDecodeError as error:
        raise DocumentError(f"is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise DocumentError(f"has more than {MOST_DEPTH} levels, which is the limit") from None
    except ValueError as error:
        raise DocumentError(f"is no JSON: {error}") from None


def _check_kind(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise DocumentError("is no plain file")


def _depth(content: bytes) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", content)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise DocumentError(f"has {name[:60]!r} twice in one object")
        found[name] = value
    return found


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise DocumentError(f"has a number of {len(text)} digits; {_MOST_DIGITS} is the limit")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise DocumentError(f"has the number {text[:40]}, which no float holds")
    return value


def _no_constant(name: str) -> float:
    raise DocumentError(f"has {name}, which is no JSON")
