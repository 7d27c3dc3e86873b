"""Giving up root: a program of root's becomes the user whom the folders belong to, before it touches them.

Otherwise that user could have root write, empty or remove any file, with a symbolic link in a folder of
theirs. Where root alone can change the folders, root stays root. Where neither is so, the program ends.
"""

from __future__ import annotations

import errno
import importlib
import os
import pwd
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asrsvc.errors import RootRefused
from asrsvc.release.ownership import Way, first_of_others, look

_UMASK: Final = 0o022
"""what is made is readable for the service, whoever it runs as"""
_LOADED_LATE: Final = ("_strptime", "encodings.idna", "encodings.unicode_escape", "linecache", "tokenize")
"""modules that Python loads when it first needs them: its own folder may be one that only root can enter"""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder or a file that a program works with."""

    setting: str
    """what names it, as ASR_STORE"""
    path: Path
    is_file: bool = False
    """made and replaced by a rename; else a folder, in which other names are made too"""

    def __str__(self) -> str:
        return f"{self.setting}={self.path}"


@dataclass(frozen=True, slots=True)
class User:
    """A user of this machine."""

    uid: int
    gid: int
    name: str
    """or its number, where it has no name"""
    home: str
    known: bool
    """whether passwd(5) has it: then it has its groups, else none"""


def is_root() -> bool:
    """Whether this process acts with root's rights."""
    return os.geteuid() == 0


def open_to_readers() -> None:
    """Have what root makes from now on be readable for all: the service does not run as root."""
    os.umask(_UMASK)


def heir(place: Place, others: Sequence[Place] = (), careful: Sequence[Place] = ()) -> User | None:
    """The user who a process of root's must become before it touches these places; None: it stays root.

    Args:
        place: whose owner it is.
        others: which must be that user's, or root's alone.
        careful: the same, but root trusts nothing that is there, and so may stay root whosever they are.

    Raises:
        RootRefused: more than one user, or a group, can change them.
    """
    way = _look(place)
    if not way.owners:
        _refuse_open(place, way)
        for other in others:
            _refuse_others(place, other)
        return None
    if len(way.owners) > 1:
        raise RootRefused(
            f"{place} is in the hands of more than one user: {_owners(way)}. Root becomes none of them"
        )
    ((uid, folder),) = way.owners.items()
    try:
        user = user_of(uid, folder)
    except OSError as error:
        raise RootRefused(f"root cannot see whom {folder} belongs to: {error.strerror}") from error
    for other in (*others, *careful):
        _refuse_strangers(place, user, other)
    return user


def user_of(uid: int, folder: Path) -> User:
    """A user by its number.

    Args:
        uid: its number.
        folder: of that user; where passwd(5) has no such number, its group counts, unless it is root's.

    Raises:
        OSError: the folder is gone.
    """
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return User(uid, folder.lstat().st_gid or uid, str(uid), "/", known=False)
    return User(uid, entry.pw_gid, entry.pw_name, entry.pw_dir or "/", known=True)


def become(user: User, place: Place, *, starts_processes: bool) -> None:
    """Become another user for good: first the groups, then the group, then the user.

    Args:
        user: see `heir`.
        place: that belongs to this user.
        starts_processes: whether that user must be able to run this program too.

    Raises:
        RootRefused: it cannot be done, or that user can reach neither the place nor the program.
    """
    for module in _LOADED_LATE:
        importlib.import_module(module)
    try:
        os.setgroups(_groups(user))
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        raise RootRefused(
            f"root cannot become {user.name}, whom {place} belongs to: {error.strerror}"
        ) from error
    open_to_readers()
    if _is_still_root(user):
        raise RootRefused(f"root has become {user.name}, whom {place} belongs to, and is root still")
    _check_place(user, place)
    if starts_processes:
        _check_program(user, place)


@contextmanager
def acting_as(user: User | None) -> Iterator[None]:
    """Have the kernel judge by another user's rights for the time of a block; for a process of root's.

    Args:
        user: whose rights count; None: root's own.

    Raises:
        RootRefused: it cannot be done.
    """
    if user is None:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    try:
        os.setgroups(_groups(user))
        os.setegid(user.gid)
        os.seteuid(user.uid)
    except OSError as error:
        raise RootRefused(f"root cannot act as {user.name}: {error.strerror}") from error
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def explained(error: BaseException, message: str) -> str:
    """The message of an error; where rights are wanting, with the user who lacks them."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PermissionError) and cause.errno == errno.EACCES:
            return f"{message} (as {_name(os.geteuid())})"
        cause = cause.__cause__ or cause.__context__
    return message


def _look(place: Place) -> Way:
    try:
        return look(place.path)
    except OSError as error:
        raise RootRefused(
            f"root cannot see whom {place} belongs to: {error.filename or place.path}: {error.strerror}"
        ) from error


def _refuse_open(place: Place, way: Way) -> None:
    """Root may stay root where nobody else can put anything.

    Raises:
        RootRefused: a group or everybody can.
    """
    makes_anew = place.is_file and way.sticky and not way.whole
    if way.open is not None and not makes_anew:
        if way.sticky:
            raise RootRefused(
                f"everybody may make something in {way.open}, and so choose what {place} is: make that folder"
                " first, or name another one"
            )
        raise RootRefused(
            f"others than root may write to {way.open}, and so choose what {place} is: forbid it (chmod"
            " go-w), or give that place to a user of its own (chown -R), whom root then becomes"
        )
    if not way.whole or place.is_file:
        return
    try:
        inner = first_of_others(way.end)
    except NotADirectoryError:
        return  # a file where a folder should be has nothing in it: whoever wants the folder says so
    except OSError as error:
        raise RootRefused(f"root cannot look through {place}: {error.filename}: {error.strerror}") from error
    if inner is not None:
        raise RootRefused(
            f"{place} is root's, and others than root may write to {inner}: give all of it to one user"
            " (chown -R)"
        )


def _refuse_others(place: Place, other: Place) -> None:
    way = _look(other)
    if way.owners:
        raise RootRefused(
            f"{place} is root's and {other} is not ({_owners(way)}): give both to one user (chown -R)"
        )
    _refuse_open(other, way)


def _refuse_strangers(place: Place, user: User, other: Place) -> None:
    way = _look(other)
    if set(way.owners) - {user.uid}:
        raise RootRefused(
            f"{place} belongs to {user.name}, and {other} does not ({_owners(way)}): give both to one user"
            " (chown -R)"
        )


def _owners(way: Way) -> str:
    return ", ".join(f"{folder} belongs to {_name(uid)}" for uid, folder in way.owners.items())


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _groups(user: User) -> list[int]:
    """As initgroups(3) sets them."""
    return os.getgrouplist(user.name, user.gid) if user.known else []


def _is_still_root(user: User) -> bool:
    """Whether anything of root's is left, or could be had again."""
    if os.getresuid() != (user.uid,) * 3 or os.getresgid() != (user.gid,) * 3:
        return True
    if set(os.getgroups()) != set(_groups(user)):
        return True
    try:
        os.setresuid(0, 0, 0)
    except PermissionError:
        return False
    return True


def _check_place(user: User, place: Place) -> None:
    """Whether that user may enter the place.

    Raises:
        RootRefused: that user may not.
    """
    folder = place.path.parent if place.is_file else place.path
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not os.access(nearest, os.R_OK | os.X_OK):
        raise RootRefused(f"{user.name}, whom {place} belongs to, may not enter {nearest}")


def _check_program(user: User, place: Place) -> None:
    """Whether that user can run this program.

    Raises:
        RootRefused: that user cannot.
    """
    for path, mode in ((sys.executable, os.X_OK), (os.__file__, os.R_OK), (__file__, os.R_OK)):
        if not os.access(path, mode):
            raise RootRefused(
                f"{user.name}, whom {place} belongs to, cannot read {path}: install asrsvc and its Python"
                " where that user can, as in /opt/asr"
            )
