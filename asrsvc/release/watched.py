"""A version that a command watches: shown on disk, so that anybody may have that command take it back.

    pointers/watched -> versions/<id>   while it is watched, by the holder of the store's lock

Who takes the link away calls the version off: the command sees that, and goes back as if the numbers were
bad. So there is one who changes the pointers, and nobody waits for the end of the watch.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from asrsvc.release.files import write_link
from asrsvc.release.versions import Version

NAME: Final = "watched"


class Watched:
    """The link, for the command that watches."""

    def __init__(self, pointers: Path, version: Version) -> None:
        """Show it, as far as the disk allows: it is watched all the same.

        Args:
            pointers: folder of this host's pointers.
            version: that is watched.
        """
        self._path = pointers / NAME
        self._shown = False
        with suppress(OSError):
            write_link(self._path, Path(os.path.relpath(version.path, pointers)))
            self._shown = True

    @property
    def called_off(self) -> bool:
        """Whether somebody has taken it away."""
        return self._shown and not os.path.lexists(self._path)

    def end(self) -> bool:
        """Show it no more; whether somebody had taken it away."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return self._shown
        except OSError:
            pass  # the next holder of the lock removes it
        return False


def take_away(pointers: Path) -> str | None:
    """Call off the version that is watched; its id, or None if none is.

    A link that a killed command left means nothing: who holds the store's lock sweeps it.
    """
    path = pointers / NAME
    try:
        version = path.readlink().name
        path.unlink()
    except OSError:
        return None
    return version


def sweep(pointers: Path) -> None:
    """Remove what a killed command left; for the holder of the lock, before it watches."""
    with suppress(OSError):
        (pointers / NAME).unlink(missing_ok=True)
