"""Folders for copies and downloads under way: one for each change, held by the process at work.

    root/staging/<key>/
      lock     flock, held as long as the process lives
      files/   what becomes a version by a rename
      parts/   files that have not arrived whole, and what is known of them

A folder that nobody holds belongs to a process that has ended. The next change removes it, but for
its own: a download goes on where the last one was cut. All here is done under the store's lock, so
that nobody takes a folder that another one is about to remove.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

from asrsvc.errors import StoreError
from asrsvc.release.files import make_folder, open_lock

_LOCK: Final = "lock"


class Stage:
    """One folder below staging, held until `release`; made by `claim`."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self._folder = folder
        self._descriptor = descriptor
        self.files = folder / "files"
        self.parts = folder / "parts"

    @property
    def has_bytes(self) -> bool:
        """Whether there is anything that a later download could go on with."""
        found = [*self.files.glob("*"), *self.parts.glob("*.part")]
        return any(path.stat().st_size > 0 for path in found)

    def release(self, *, keep: bool) -> None:
        """Let go of the folder; for the holder of the store's lock.

        Args:
            keep: whether the next change of the same key shall find what is there.
        """
        try:
            if not keep:
                shutil.rmtree(self._folder, ignore_errors=True)
                _remove_if_empty(self._folder.parent)
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Leave everything as it is to whoever comes next."""
        os.close(self._descriptor)


def claim(staging: Path, key: str) -> Stage:
    """Take the folder of this key, with what a process that has ended left there; remove all others.

    Args:
        staging: the folder of all such folders.
        key: a file name; the same for changes that can go on with each other's files.

    Raises:
        StoreError: a living process has it.
        OSError: the disk refuses.
    """
    _sweep(staging, key)
    folder = staging / key
    for path in (staging, folder):
        if path.is_symlink():
            raise StoreError(f"{path} is a symbolic link: remove it")
    make_folder(folder)
    descriptor = _held(folder / _LOCK, make=True)
    if descriptor is None:
        raise StoreError(f"{folder} is in use: the same source is being pulled already")
    try:
        for inner in ("files", "parts"):
            make_folder(folder / inner)
    except BaseException:
        os.close(descriptor)
        raise
    return Stage(folder, descriptor)


def keep_only(folder: Path, names: Collection[str]) -> None:
    """Remove files that an earlier download has left and this one does not need.

    Raises:
        OSError: the disk refuses.
    """
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()


def sweep(staging: Path) -> None:
    """Remove what processes that have ended left behind; for the holder of the store's lock.

    Raises:
        OSError: the disk refuses.
    """
    _sweep(staging, None)


def _sweep(staging: Path, own: str | None) -> None:
    if staging.is_symlink():
        return  # what it leads to is none of ours
    try:
        left = [path for path in staging.iterdir() if path.name != own]
    except OSError:
        return  # there is none, or whoever writes next will say what is wrong with it
    for path in left:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            continue
        try:
            descriptor = _held(path / _LOCK, make=False)
        except FileNotFoundError:  # killed before it had a lock, under the store's
            shutil.rmtree(path, ignore_errors=True)
            continue
        except OSError:
            continue  # another user's
        if descriptor is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)
    _remove_if_empty(staging)


def _held(path: Path, *, make: bool) -> int | None:
    """The lock file, locked and open; None if another process has it."""
    descriptor = open_lock(path, make=make)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        pass  # another change is under way, or there is none
