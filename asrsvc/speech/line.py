"""What a request puts its spans into, and what it has back: a promise of what the engine will say."""

from __future__ import annotations

import time
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from asrsvc.errors import NotReady
from asrsvc.speech.frames import Frames
from asrsvc.speech.types import FloatArray


@dataclass(frozen=True, slots=True)
class Inference:
    """What the engine gave for one span, and what it took."""

    frames: Frames
    """4 + T of them"""
    seconds: float
    """time of the run that the span was part of"""
    cpu_seconds: float
    """CPU time that the run took of the thread that asked for it"""


class Promise:
    """A span that waits for the engine, or has been there."""

    def __init__(self, future: Future[Inference], deadline: float, timeout: float) -> None:
        self._future = future
        self._deadline = deadline
        self._timeout = timeout

    def done(self) -> bool:
        """Whether `result` would not wait."""
        return self._future.done()

    def cancel(self) -> bool:
        """Nobody wants it any more; False: it has been run, or is, and that to its end."""
        return self._future.cancel()

    def result(self) -> Inference:
        """Wait for the engine.

        Raises:
            InferenceFailed: the engine failed on this span.
            NotReady: the wait took too long, or the batcher was closed.
        """
        try:
            return self._future.result(timeout=max(0.0, self._deadline - time.monotonic()))
        except TimeoutError:
            self._future.cancel()
            raise too_late(self._timeout) from None


class Line(Protocol):
    """What a request puts its spans into."""

    @property
    def width(self) -> int:
        """Spans that are run at the same time, at most; one request may well have more than that waiting."""

    def submit(
        self, features: FloatArray, language: str, *, use_itn: bool, timeout: float, asker: Hashable
    ) -> Promise:
        """Put a span in; see `asrsvc.speech.batch.Batcher`."""

    def infer(self, features: FloatArray, language: str, *, use_itn: bool, timeout: float) -> Inference:
        """Run one span and wait for it; see `asrsvc.speech.batch.Batcher`."""


def too_late(timeout: float) -> NotReady:
    """The engine had no time for a span within so many seconds."""
    return NotReady(f"the engine was not free for {timeout:g} s", code="queue_timeout")
