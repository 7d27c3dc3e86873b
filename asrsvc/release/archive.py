"""The files of a model out of a .tar.gz that may be hostile.

One pass, nothing of the archive's own names, modes or owners reaches the disk, and all that it can
make us do is bounded: entries, bytes behind the compression, bytes of one header.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

from asrsvc.errors import SourceError
from asrsvc.release.manifest import FileRecord, is_model_name
from asrsvc.release.partial import require_space
from asrsvc.release.progress import Limits
from asrsvc.release.writing import copy_stream

_HEADER_BYTES: Final = 1 << 16
"""tarfile reads a header of any length into memory, and the next one inside it"""
_BLOCK_BYTES: Final = 1 << 20


def unpack(archive: Path, target: Path, *, label: str, limits: Limits) -> dict[str, FileRecord]:
    """Write the files of a model from an archive into an empty folder; what was written.

    They may stand in a folder of the archive, all in the same one.

    Args:
        archive: a gzipped tar.
        target: the folder.
        label: what the archive is called in a message.
        limits: of entries and bytes.

    Raises:
        SourceError: it is no such archive, or holds what no archive of a model holds.
        StoreFull: there is no space.
        OSError: the disk refuses.
    """
    found: dict[str, FileRecord] = {}
    folder: str | None = None
    with _read(archive, label, limits.total_bytes) as (reader, tar):
        for number, member in enumerate(_members(tar), start=1):
            if number > limits.members:
                raise SourceError(f"{label} has more than {limits.members} entries")
            _check(member, label)
            inner, _, name = member.name.rpartition("/")
            if not member.isreg() or not is_model_name(name):
                continue
            if folder not in {None, inner}:
                raise SourceError(f"{label} has files of a model in {folder or '.'} and in {inner or '.'}")
            if name in found:
                raise SourceError(f"{label} has {member.name} twice")
            require_space(target, member.size)
            content = tar.extractfile(member)
            if content is None:
                raise SourceError(f"{label}: {member.name} cannot be read")
            reader.most_at_once = _BLOCK_BYTES
            found[name] = copy_stream(cast("BinaryIO", content), target / name)
            reader.most_at_once = _HEADER_BYTES
            folder = inner
        reader.drain()  # gzip's own checksum is at the end
    return found


@contextmanager
def _read(archive: Path, label: str, most: int) -> Iterator[tuple[_Bounded, tarfile.TarFile]]:
    try:
        with gzip.open(archive, "rb") as plain:
            reader = _Bounded(plain, label, most)
            with tarfile.open(fileobj=cast("IO[bytes]", reader), mode="r:") as tar:
                yield reader, tar
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError) as error:
        raise SourceError(f"{label} is no whole .tar.gz: {error}") from error
    except RecursionError as error:
        raise SourceError(f"{label} has more headers in front of one entry than a .tar.gz needs") from error


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """One entry after the other; tarfile itself keeps all, with whatever their headers say."""
    while (member := tar.next()) is not None:
        yield member
        tar.members.clear()  # type: ignore[attr-defined] # the list that next() adds to


def _check(member: tarfile.TarInfo, label: str) -> None:
    name = member.name[:200]
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise SourceError(f"{label} has {name!r}, which leads out of its folder")
    if not (member.isreg() or member.isdir()):
        raise SourceError(f"{label} has {name!r}, which is no file and no folder but a link or a device")
    if member.issparse():
        raise SourceError(f"{label} has {name!r}, a sparse file: pack it without --sparse")


class _Bounded:
    """A reader that goes forward only, up to a limit, and never gives much at once."""

    def __init__(self, plain: gzip.GzipFile, label: str, most: int) -> None:
        self._plain = plain
        self._label = label
        self._most = most
        self._position = 0
        self.most_at_once = _HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.most_at_once:
            raise SourceError(f"{self._label} has a header of {size} bytes")
        return self._read(size)

    def _read(self, size: int) -> bytes:
        block = self._plain.read(size)
        self._position += len(block)
        if self._position > self._most:
            raise SourceError(f"{self._label} holds more than {self._most} bytes")
        return block

    def seek(self, position: int) -> int:
        if position < self._position or position > self._most:
            raise SourceError(f"{self._label} holds more than {self._most} bytes, or is damaged")
        while self._position < position:
            if not self._read(min(_BLOCK_BYTES, position - self._position)):
                break
        return self._position

    def tell(self) -> int:
        return self._position

    def drain(self) -> None:
        """Read to the end."""
        while self._read(_BLOCK_BYTES):
            pass
