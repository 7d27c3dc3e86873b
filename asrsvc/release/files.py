"""Writing to disk so that a power cut leaves the old state or the new one, never half of either.

A new file or link is made beside its place, flushed, renamed into it, and its folder is flushed.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from io import BufferedReader
from pathlib import Path
from typing import Final

from asrsvc.errors import StoreError, StoreFull

# What a killed writer left; a younger one may belong to a writer at work.
_LEFT_OVER_SECONDS: Final = 60.0
_TEMPORARY: Final = re.compile(r"\..+-[0-9a-f]{8}")


def write_file(target: Path, content: bytes) -> None:
    """Put a file with this content in the place of another, if there is one.

    Raises:
        OSError: the disk refuses; what was there is there still.
    """
    temporary = _beside(target)
    try:
        with temporary.open("xb") as writer:
            writer.write(content)
            writer.flush()
            give_file_to_owner(writer.fileno(), target.parent)
            os.fsync(writer.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def write_link(link: Path, target: Path) -> None:
    """Let a symbolic link point there, in one step.

    Raises:
        OSError: the disk refuses; the link points to where it pointed.
    """
    temporary = _beside(link)
    try:
        temporary.symlink_to(target)
        give_to_owner(temporary)
        temporary.replace(link)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(link.parent)


@dataclass(frozen=True, slots=True)
class Link:
    """One symbolic link: another one that points to the same place differs."""

    target: Path
    inode: int
    mtime_ns: int


def look_at(link: Path) -> Link | None:
    """The symbolic link that is there now; None where there is none.

    Raises:
        OSError: it is no symbolic link, or the disk refuses.
    """
    try:
        # If it is replaced between the two, this is no link that ever was: it equals none.
        found = link.lstat()
        return Link(link.readlink(), found.st_ino, found.st_mtime_ns)
    except FileNotFoundError:
        return None


def remove_link(link: Path, seen: Link) -> bool:
    """Remove a symbolic link if it is still the one that was looked at; whether it was.

    Another process may replace it at any time: it is moved aside first and looked at there, and
    one that turns out to be new is put back, unless there is an even newer one.

    Raises:
        OSError: the disk refuses.
    """
    aside = _beside(link)
    try:
        if look_at(link) != seen:
            return False
        link.rename(aside)
    except FileNotFoundError:
        return False
    same = look_at(aside) == seen
    if not same:
        try:
            os.link(aside, link, follow_symlinks=False)
        except FileExistsError:
            pass  # the newest counts
        except OSError:  # a file system that cannot link to links
            aside.replace(link)
    aside.unlink(missing_ok=True)
    sync_folder(link.parent)
    return same


def make_folder(folder: Path) -> None:
    """Make a folder, its parents too, so that a power cut cannot take it away again."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        give_to_owner(path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put on disk which names a folder holds."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_descriptor(path: Path, flags: int) -> int:
    """A descriptor of a plain file; a pipe in its place is not waited for.

    Args:
        path: of the file.
        flags: as for `os.open`; with O_NOFOLLOW, a symbolic link is an error.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise OSError(errno.ELOOP, "it is a symbolic link", str(path)) from error
        if error.errno == errno.ENXIO:  # a socket, or a pipe that nobody reads
            raise OSError(errno.EINVAL, "no plain file", str(path)) from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no plain file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_plain(path: Path, *, follow: bool = True) -> BufferedReader:
    """Open a plain file for reading; a pipe that somebody has put in its place is not waited for.

    Args:
        path: of the file.
        follow: whether the last part of the path may be a symbolic link.

    Raises:
        OSError: it cannot be read, or is no plain file.
    """
    descriptor = open_descriptor(path, os.O_RDONLY | (0 if follow else os.O_NOFOLLOW))
    return os.fdopen(descriptor, "rb")


def read_plain(path: Path, most_bytes: int, *, follow: bool = True) -> bytes:
    """The content of a plain file.

    Args:
        path: of the file.
        most_bytes: that it may have.
        follow: whether the last part of the path may be a symbolic link.

    Raises:
        OSError: it cannot be read, is no plain file, or is longer.
    """
    with open_plain(path, follow=follow) as reader:
        content = reader.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"longer than {most_bytes} bytes", str(path))
    return content


def open_lock(path: Path, *, make: bool = True) -> int:
    """A descriptor of a file that is locked, for reading and writing.

    Args:
        path: of the file; never a symbolic link.
        make: whether it is made if it is missing.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    descriptor = open_descriptor(path, os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if make else 0))
    try:
        give_file_to_owner(descriptor, path.parent)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def give_to_owner(path: Path) -> None:
    """Give what root has made to the owner of its folder: the service does not run as root.

    For links and folders; files have `give_file_to_owner`.
    """
    if os.geteuid() == 0:
        owner = path.parent.stat()
        if (owner.st_uid, owner.st_gid) != (0, 0):
            os.lchown(path, owner.st_uid, owner.st_gid)


def give_file_to_owner(descriptor: int, folder: Path) -> None:
    """Give an open file that root has made to the owner of its folder, whatever its name leads to by now."""
    if os.geteuid() == 0:
        owner = folder.stat()
        if (owner.st_uid, owner.st_gid) != (0, 0):
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def disk_error(what: str, error: OSError) -> StoreError:
    """What an operator is told when the disk refuses.

    Args:
        what: which could not be done, as "x cannot be written".
        error: the refusal.
    """
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreFull(f"{what}: {error.strerror}")
    return StoreError(f"{what}: {error.strerror or error}")


def sweep(folder: Path) -> None:
    """Remove the temporaries that killed writers left in a folder, if they are old enough to be that."""
    try:
        names = [path for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name)]
    except OSError:
        return  # it is not there, or cannot be read
    for path in names:
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > _LEFT_OVER_SECONDS:
                path.unlink()


def _beside(path: Path) -> Path:
    """A name for a temporary in the same folder; old ones of the same kind are removed."""
    prefix = f".{path.name}-"
    for left_over in path.parent.glob(f"{escape(prefix)}*"):
        try:
            if time.time() - left_over.lstat().st_mtime > _LEFT_OVER_SECONDS:
                left_over.unlink()
        except FileNotFoundError:
            pass  # another writer was faster
    return path.with_name(prefix + secrets.token_hex(4))
