"""The files of a model in a folder that an operator names: found, and opened for reading."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

from asrsvc.errors import SourceError
from asrsvc.release.files import open_plain
from asrsvc.release.manifest import is_model_name
from asrsvc.release.ownership import look
from asrsvc.release.privileges import User, acting_as, user_of
from asrsvc.release.sources import Folder

_MOST_FILES: Final = 64
"""that may be called as files of a model are"""


def open_files(folder: Path) -> dict[str, BinaryIO]:
    """The files of a model in a folder, open, by name.

    Args:
        folder: without symbolic links on its way.

    Raises:
        SourceError: one is no file, leads out of the folder, or there are too many.
        OSError: one cannot be read.
    """
    names = sorted(path.name for path in folder.iterdir() if is_model_name(path.name))
    if len(names) > _MOST_FILES:
        raise SourceError(
            f"{folder} has {len(names)} files that are called as a model's; {_MOST_FILES} are the limit"
        )
    with ExitStack() as opened:
        found = {name: opened.enter_context(_open_inside(folder, name)) for name in names}
        opened.pop_all()
        return found


def opened_by_root(source: Folder, user: User) -> Folder:
    """The same folder with its files open, for root to call before it becomes the user who stores them.

    They are opened with the rights of the folder's own owner: root reads for nobody what that one could not.
    Where it cannot be said who that is, and where it is the user who stores them, they are not opened yet.

    Args:
        source: the folder.
        user: who is going to store them.

    Raises:
        SourceError: see `open_files`.
        OSError: a file cannot be read.
        RootRefused: root cannot act as the folder's owner.
    """
    way = look(source.path)
    if user.uid in way.owners or len(way.owners) > 1 or (not way.owners and way.open is not None):
        return source
    owner = next((user_of(uid, folder) for uid, folder in way.owners.items()), None)
    with acting_as(owner):
        return replace(source, opened=open_files(source.path))


def close(opened: Mapping[str, BinaryIO]) -> None:
    """Close what was opened."""
    for reader in opened.values():
        reader.close()


def _open_inside(folder: Path, name: str) -> BinaryIO:
    try:
        path = Path(os.path.realpath(folder / name, strict=True))
    except OSError as error:
        raise SourceError(f"{folder / name} leads nowhere: {error.strerror}") from error
    if not path.is_relative_to(folder):
        raise SourceError(f"{folder / name} leads out of its folder, to {path}: copy the file itself")
    if not path.is_file():
        raise SourceError(f"{folder / name} is no file that can be read")
    return open_plain(path, follow=False)
