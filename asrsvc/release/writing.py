"""Files of a version on their way to disk: written once, flushed, read-only from then on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Final

from asrsvc.release.files import open_plain
from asrsvc.release.manifest import FileRecord

_BLOCK_BYTES: Final = 1 << 20


def copy_file(source: Path, target: Path) -> FileRecord:
    """Copy a file; what was copied.

    Raises:
        OSError: it cannot be read, or the disk refuses.
    """
    with open_plain(source) as reader:
        return copy_stream(reader, target)


def copy_stream(reader: BinaryIO, target: Path) -> FileRecord:
    """Write what a reader gives into a new file; what was written.

    Raises:
        OSError: the disk refuses.
    """
    digest = hashlib.sha256()
    size = 0
    with target.open("xb") as writer:
        while block := reader.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
            writer.write(block)
        finish(writer)
    return FileRecord(size, digest.hexdigest())


def write_new(target: Path, content: bytes) -> None:
    """Write a new file.

    Raises:
        OSError: the disk refuses.
    """
    with target.open("xb") as writer:
        writer.write(content)
        finish(writer)


def finish(writer: BinaryIO) -> None:
    """Make an open file read-only and put its bytes on disk."""
    writer.flush()
    os.fchmod(writer.fileno(), 0o444)  # workers map it: it must never be written again
    os.fsync(writer.fileno())
