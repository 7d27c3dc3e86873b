"""Shared memory in which each worker writes its own numbers and the master reads all of them.

A worker that is killed cannot say what it had in hand; here it stands. Each number has one writer
and is one aligned machine word, so that a reader sees an old value or a new one.
"""

from __future__ import annotations

import mmap
import os
from enum import IntEnum
from typing import Final

from asrsvc.release.numbers import NOTHING, Numbers, trimmed
from asrsvc.release.speed import COST_CLASSES

__all__ = ["NOTHING", "ROWS", "Column", "Numbers", "Row", "Scoreboard"]

ROWS: Final = 512
"""workers that can be told apart; a row is used again after so many starts"""


class Column(IntEnum):
    """What a row holds."""

    IN_HAND = 0  # requests begun and not answered
    REQUESTS = 1  # answered by the engine
    ERRORS = 2  # of these, with a 5xx
    EMPTY = 3  # of these, without text
    AUDIO_MS = 4  # recognised, milliseconds of sound
    BUSY_MS = 5  # spent on it in the engine, milliseconds
    ARRIVING = 6  # requests that have begun to come and are not whole
    STOPPING = 7  # row 0 only: the whole service is being stopped
    LEAVE = 8  # written by the master: this worker has been told to leave
    RUNNING = 9  # runs of the engine that are under way; the master takes back those of one that has ended
    SHORT_AT_WORK = 10  # requests of the short lane that hold a turn; taken back likewise
    IN_BACKGROUND = 11  # runs of the engine for jobs; taken back likewise


_COSTS: Final = len(Column)  # behind the columns: requests in each class of `cost_class`
_WIDTH: Final = _COSTS + COST_CLASSES
_BYTES: Final = ROWS * _WIDTH * 8


class Scoreboard:
    """The table; made by the master, mapped by whoever inherits its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _BYTES)
        self._words = memoryview(self._memory).cast("q")

    @classmethod
    def create(cls) -> Scoreboard:
        """An empty table."""
        descriptor = os.memfd_create("asrsvc-scoreboard", 0)
        os.ftruncate(descriptor, _BYTES)
        return cls(descriptor)

    def row(self, worker: int) -> Row:
        """The row that a worker writes; row 0 is the master's own."""
        return Row(self._words, (worker % (ROWS - 1) + 1 if worker else 0) * _WIDTH)


class Row:
    """One worker's numbers."""

    def __init__(self, words: memoryview[int], start: int) -> None:
        self._words = words
        self._start = start

    def clear(self) -> None:
        """Begin anew, for another worker."""
        for column in range(_WIDTH):
            self._words[self._start + column] = 0

    def __getitem__(self, column: Column) -> int:
        """One number."""
        return self._words[self._start + column]

    def __setitem__(self, column: Column, value: int) -> None:
        """Write one number; only the row's own worker does."""
        self._words[self._start + column] = value

    def add(self, column: Column, value: int = 1) -> None:
        """Add to one number; only the row's own worker does, from one thread."""
        self._words[self._start + column] += value

    def add_cost(self, cost_class: int) -> None:
        """Count a request in its class of cost; only the row's own worker does, from one thread."""
        self._words[self._start + _COSTS + cost_class] += 1

    def total(self, column: Column) -> int:
        """The sum of one number over all rows."""
        return sum(self._words[column::_WIDTH])

    def numbers(self) -> Numbers:
        """The numbers that rolls compare."""
        costs = trimmed(self._words[self._start + _COSTS : self._start + _WIDTH])
        return Numbers(
            in_hand=self[Column.IN_HAND],
            requests=self[Column.REQUESTS],
            errors=self[Column.ERRORS],
            empty=self[Column.EMPTY],
            audio_ms=self[Column.AUDIO_MS],
            busy_ms=self[Column.BUSY_MS],
            costs=costs,
        )
