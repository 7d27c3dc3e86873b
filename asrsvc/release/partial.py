"""A file on its way from a hub: what has arrived, and what is needed to go on where it was cut."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from asrsvc.errors import StoreFull, WrongDigest
from asrsvc.release.files import (
    give_file_to_owner,
    open_descriptor,
    open_plain,
    read_plain,
    sync_folder,
    write_file,
)
from asrsvc.release.manifest import FileRecord, measure
from asrsvc.release.writing import finish

_MARGIN_BYTES: Final = 1 << 20
"""left free on the disk: manifests, records and pointers are written there too"""
_MOST_NOTE_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file of a hub, and what is known of it beforehand."""

    name: str
    url: str
    size: int | None = None
    """bytes"""
    sha256: str | None = None
    """hex digits"""
    git_sha1: str | None = None
    """hex digits; git's name for these bytes, which Hugging Face lists for small files"""

    @property
    def is_certain(self) -> bool:
        """Whether the right bytes can be told from wrong ones."""
        return self.sha256 is not None or self.git_sha1 is not None

    def check(self, path: Path) -> FileRecord:
        """Size and digest of the file at this path.

        Raises:
            WrongDigest: it is not the wanted one.
        """
        found = measure(path)
        if self.size is not None and found.size != self.size:
            raise WrongDigest(f"{self.name} has {found.size} bytes, not {self.size}")
        if self.sha256 is not None and found.sha256 != self.sha256:
            raise WrongDigest(f"{self.name} has the SHA-256 {found.sha256}, not {self.sha256}")
        if self.git_sha1 is not None and _git_sha1(path, found.size) != self.git_sha1:
            raise WrongDigest(f"{self.name} is not the file that git calls {self.git_sha1}")
        return found


class Partial:
    """One such file on disk. A power cut may have put holes into it: its digest is checked at the end."""

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        known = json.dumps([wanted.name, wanted.url, wanted.size, wanted.sha256, wanted.git_sha1])
        key = hashlib.sha256(known.encode()).hexdigest()[:16]
        self.path = folder / f"{key}.part"
        self._note = folder / f"{key}.json"
        self.wanted = wanted

    @property
    def size(self) -> int:
        """Bytes that are there."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def validator(self) -> str | None:
        """What the server called this state of the file: an ETag or a date."""
        try:
            found = json.loads(read_plain(self._note, _MOST_NOTE_BYTES))["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, str) else None

    @property
    def names(self) -> tuple[str, str]:
        """Of its files on disk."""
        return self.path.name, self._note.name

    def begin(self, validator: str | None) -> None:
        """Throw away what is there, and remember the validator of what will come.

        Raises:
            OSError: the disk refuses.
        """
        self.path.unlink(missing_ok=True)
        write_file(self._note, json.dumps({"validator": validator}).encode())

    def discard(self) -> None:
        """Throw away all of it."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    @contextmanager
    def appended(self, expected: int | None) -> Iterator[BinaryIO]:
        """A writer at its end, without a buffer: what was written survives a kill.

        Args:
            expected: bytes that are still to come.

        Raises:
            StoreFull: there is no space for them.
            OSError: the disk refuses.
        """
        require_space(self.path.parent, expected or 0)
        with os.fdopen(self._append(), "ab", buffering=0) as writer:
            give_file_to_owner(writer.fileno(), self.path.parent)
            yield writer

    def _append(self) -> int:
        return open_descriptor(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW)

    def complete(self, target: Path | None) -> FileRecord:
        """Check the whole file and put it in its place; a wrong one is thrown away.

        Args:
            target: its place; None: it stays here, and can still be gone on with.

        Raises:
            WrongDigest: it is not the wanted one.
            OSError: the disk refuses.
        """
        with os.fdopen(self._append(), "ab") as writer:  # an empty file may not be there yet
            if target is None:
                os.fsync(writer.fileno())
            else:
                finish(writer)
        try:
            record = self.wanted.check(self.path)
        except WrongDigest:
            self.discard()
            raise
        if target is not None:
            self.path.rename(target)
            sync_folder(target.parent)
            self._note.unlink(missing_ok=True)
        return record


def require_space(folder: Path, size: int) -> None:
    """Whether so many bytes fit on the disk of this folder.

    Raises:
        StoreFull: they don't.
    """
    free = shutil.disk_usage(folder).free
    if free < size + _MARGIN_BYTES:
        raise StoreFull(f"{folder} has {free / 2**20:.0f} MiB free; {size / 2**20:.0f} MiB more are needed")


def _git_sha1(path: Path, size: int) -> str:
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with open_plain(path) as reader:
        while block := reader.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
