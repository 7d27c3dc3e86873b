"""Who, beside root, decides what a path leads to: the owners of the folders and links on its way.

Whoever may write to a folder can put a symbolic link into it, or rename what is in it, at any moment. So a
process of root's may follow a path only as long as nobody else can change it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_ROOT: Final = 0
_MOST_LINKS: Final = 40
"""as the kernel follows; path_resolution(7)"""


@dataclass(frozen=True, slots=True)
class Way:
    """A path as it is now, every folder and every link on it looked at."""

    path: Path
    end: Path
    """its last part that exists, absolute and without links"""
    whole: bool
    """whether that is all of it"""
    owners: Mapping[int, Path]
    """users beside root who can change it → the first folder, link or file of theirs"""
    open: Path | None
    """the first place on it that a group or everybody may write to"""
    sticky: bool
    """whether that is its end, where everybody may make something, and rename nothing of another user's"""

    @property
    def of_root_alone(self) -> bool:
        """Whether only root can change what it leads to."""
        return not self.owners and self.open is None


@dataclass
class _Found:
    """What has been seen so far."""

    owners: dict[int, Path] = field(default_factory=dict)
    open: Path | None = None
    sticky: Path | None = None
    """the folder that was entered last, if everybody may make something there"""

    def note(self, place: Path, status: os.stat_result) -> None:
        self.sticky = None  # what is in such a folder already, its owner alone renames or removes
        if status.st_uid != _ROOT:
            self.owners.setdefault(status.st_uid, place)
        if not _others_may_write(status):
            return
        if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
            self.sticky = place
        elif self.open is None:
            self.open = place

    def way(self, path: Path, end: Path, *, whole: bool) -> Way:
        sticky = self.open is None and self.sticky is not None
        return Way(path, end, whole, self.owners, self.open or self.sticky, sticky)


def look(path: Path) -> Way:
    """Look at each folder and each link from / to the end of a path; nothing is opened.

    Args:
        path: absolute; its end may be missing.

    Raises:
        OSError: a part of it cannot be looked at, or its links go round in circles.
    """
    found, here, links = _Found(), Path("/"), 0
    found.note(here, here.lstat())
    waiting = [*reversed(path.parts[1:])]
    while waiting:
        name = waiting.pop()
        place = here.parent if name == ".." else here / name
        try:
            status = place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return found.way(path, here, whole=False)
        if not stat.S_ISLNK(status.st_mode):
            found.note(place, status)
            here = place
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        if status.st_uid != _ROOT:
            found.owners.setdefault(status.st_uid, place)
        target = place.readlink()
        if target.is_absolute():
            here = Path("/")
        waiting += [part for part in reversed(target.parts) if part != "/"]
    return found.way(path, here, whole=True)


def first_of_others(folder: Path) -> Path | None:
    """The first folder in a folder, at any depth, in which another than root may make something.

    Args:
        folder: which only root can change itself; folders that links in it lead to are looked at too.

    Raises:
        OSError: something in it cannot be looked at.
    """
    waiting, seen = [folder], set()
    while waiting:
        place = waiting.pop()
        status = place.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(place) as entries:
            for entry in entries:
                if not entry.is_dir():
                    continue
                inner = Path(entry.path)
                way = look(inner) if entry.is_symlink() else None
                if way is not None and not way.of_root_alone:
                    return inner
                if way is None and _is_of_others(entry.stat(follow_symlinks=False)):
                    return inner
                waiting.append(inner if way is None else way.end)
    return None


def _is_of_others(status: os.stat_result) -> bool:
    return status.st_uid != _ROOT or _others_may_write(status)


def _others_may_write(status: os.stat_result) -> bool:
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid != _ROOT
    return bool(by_group or status.st_mode & stat.S_IWOTH)
