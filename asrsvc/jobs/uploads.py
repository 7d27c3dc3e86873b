"""The uploads of jobs, a file each; who holds the lock of one (flock(2)) works on its job.

The kernel lets a lock go when its process ends, whichever way: a job that is said to be worked on and
whose lock is free has lost its worker. A lock belongs to an open file description, so whatever else
reads the file, in this process or another, opens it anew.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from asrsvc.release.files import sync_folder


class Lock:
    """The lock of one upload, held until `close`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def open(self) -> int:
        """The file for reading, or for writing while it is being received; the caller closes it."""
        return os.open(self._path, os.O_RDWR | os.O_CLOEXEC)

    def sync(self) -> int:
        """Put the file on disk, and its name; its size in bytes.

        Raises:
            OSError: the disk refuses.
        """
        os.fsync(self._descriptor)
        sync_folder(self._path.parent)
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Let it go; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Uploads:
    """The folder of uploads; a file is called as its job."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, job: str) -> Lock:
        """An empty file, locked.

        Raises:
            OSError: the disk refuses.
        """
        make_private_folder(self._folder)
        path = self._folder / job
        lock = Lock(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._take(lock)
        return lock

    def lock(self, job: str) -> Lock | None:
        """The lock, if nobody holds it.

        Raises:
            FileNotFoundError: there is no such upload.
            OSError: it cannot be opened.
        """
        path = self._folder / job
        lock = Lock(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
        try:
            self._take(lock)
        except BlockingIOError:
            lock.close()
            return None
        return lock

    def remove(self, job: str) -> None:
        """Remove a file, if it is there; who reads it may go on."""
        with suppress(OSError):
            (self._folder / job).unlink()

    def names(self) -> set[str]:
        """The jobs that have a file."""
        return {path.name for path in self._folder.iterdir()} if self._folder.exists() else set()

    def free_bytes(self) -> int:
        """What a user who is not root may still write to this disk."""
        make_private_folder(self._folder)
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    @staticmethod
    def _take(lock: Lock) -> None:
        try:
            fcntl.flock(lock._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            lock.close()
            raise


def make_private_folder(folder: Path) -> None:
    """Make a folder that its owner alone may enter, its parents too; it is there after a power cut.

    Raises:
        OSError: the disk refuses.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)
