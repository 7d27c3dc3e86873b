"""The disk that uploads take while they arrive, wait and are worked on, of all workers and clients together.

What has come counts, not what is said: a client that says much and sends nothing takes nothing from others.
What is said is looked at before a byte is read, since an upload that cannot fit is better refused at once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from asrsvc.errors import NoSpace
from asrsvc.serving.limits import ClientTable

_STEP_BYTES: Final = 2**20
"""that are held in advance: the table of all uploads is not looked through for each chunk"""
_SPARE_BYTES: Final = 16 * 2**20
"""of the disk, at most, that are left to others"""
_SPARE_PART: Final = 64
"""one part in so many of a small disk is left to others"""


class Spool:
    """The budget; shared by all workers through the table of clients."""

    def __init__(self, table: ClientTable, folder: Path, most: int | None) -> None:
        """Prepare.

        Args:
            table: where the bytes of each request stand.
            folder: where the files are, without names.
            most: bytes of all uploads together; None: what the disk has.
        """
        self._table = table
        self._folder = folder
        self._most = most

    def expect(self, ticket: int, size: int) -> None:
        """See whether an upload could fit, of which nothing has come.

        Raises:
            NoSpace: it could not.
        """
        if not self._table.hold(ticket, size, self._budget()):
            raise self._full(size)
        self._table.hold(ticket, 0, self._budget())

    def holder(self, ticket: int) -> Callable[[int], Awaitable[None]]:
        """What `read_form` calls as the upload of a request grows."""
        held = 0

        async def hold(size: int) -> None:
            nonlocal held
            if size <= held:
                return
            for wanted in (size + _STEP_BYTES, size):
                if await asyncio.to_thread(self._hold, ticket, wanted):
                    held = wanted
                    return
            raise self._full(size)

        return hold

    def _hold(self, ticket: int, size: int) -> bool:
        return self._table.hold(ticket, size, self._budget())

    def _budget(self) -> int:
        """Bytes that all uploads together may have; what they have already is not free any more.

        Raises:
            NoSpace: the folder is not there.
        """
        try:
            found = os.statvfs(self._folder)
        except OSError as error:
            raise NoSpace(f"the upload cannot be stored: {error.strerror}", param="file") from error
        spare = min(_SPARE_BYTES, found.f_blocks * found.f_frsize // _SPARE_PART)
        free = max(0, found.f_bavail * found.f_frsize - spare) + self._table.spooled()
        return free if self._most is None else min(free, self._most)

    def _full(self, size: int) -> NoSpace:
        budget = self._budget()
        limit = "ASR_SPOOL_MB" if budget == self._most else "the disk of ASR_SPOOL_DIR"
        return NoSpace(
            f"no room for an upload of {size} bytes: uploads take {self._table.spooled() // 2**20} of"
            f" {budget // 2**20} MiB ({limit}), and one client may not have all of them",
            param="file",
        )
