"""Which cores are idle: every worker writes how many runs of its engine are under way, and reads the sum."""

from __future__ import annotations

import threading

from asrsvc.serving.scoreboard import Column, Row


class SharedCores:
    """The cores that all workers share, as one of them sees them; used by several threads."""

    def __init__(self, row: Row, runs: int) -> None:
        """Take part.

        Args:
            row: this worker's.
            runs: of engines that have a core each, in all workers together.
        """
        self._row = row
        self._runs = runs
        self._lock = threading.Lock()

    def began(self, *, background: bool) -> None:
        """A run of the engine begins; one of the background is in nobody's way."""
        with self._lock:
            self._row.add(_column(background=background), 1)

    def ended(self, *, background: bool) -> None:
        """It has ended."""
        with self._lock:
            self._row.add(_column(background=background), -1)

    def idle(self, *, background: bool) -> bool:
        """Whether there is a core for one more run; what runs in the background leaves its core to others."""
        running = self._row.total(Column.RUNNING)
        if background:
            running += self._row.total(Column.IN_BACKGROUND)
        return running < self._runs


def _column(*, background: bool) -> Column:
    return Column.IN_BACKGROUND if background else Column.RUNNING
