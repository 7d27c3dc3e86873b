"""Gathers the spans of all requests of a worker and runs the engine on a thread of its own.

Spans wait in one line, first come, first served, and a request has one span in it at a time: so the
spans of a long recording take turns with those of short ones.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from asrsvc.errors import AsrError, InferenceFailed, NotReady
from asrsvc.speech.engine import Engine
from asrsvc.speech.frames import Frames
from asrsvc.speech.types import FloatArray

log = logging.getLogger(__name__)

# Spans that differ in length by more than this share are not padded to one length: the padding
# would cost more than a run of their own.
_LENGTH_RATIO: Final = 0.8


@dataclass(frozen=True, slots=True)
class Inference:
    """What the engine gave for one span, and what it took."""

    frames: Frames
    """4 + T of them"""
    seconds: float
    """time of the run that the span was part of"""


@dataclass(slots=True)
class _Job:
    features: FloatArray
    language: str
    use_itn: bool
    future: Future[Inference] = field(default_factory=Future)


class Batcher:
    """One line of spans before one engine."""

    def __init__(self, engine: Engine, *, batch_size: int, queue_limit: int) -> None:
        """Start the thread.

        Args:
            engine: runs the batches.
            batch_size: spans in one run, at most.
            queue_limit: spans that may wait, at most.
        """
        self._engine = engine
        self._batch_size = batch_size
        self._queue: queue.Queue[_Job | None] = queue.Queue(queue_limit)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="asr-engine", daemon=True)
        self._thread.start()

    def infer(self, features: FloatArray, language: str, *, use_itn: bool, timeout: float) -> Inference:
        """Run one span and wait for it; call it from a request's own thread.

        Args:
            features: shape (T, 560), float32, T >= 1.
            language: a name of `engine.LANGUAGE_QUERIES`.
            use_itn: punctuation and digits, or plain words.
            timeout: seconds to wait, at most.

        Raises:
            InferenceFailed: the engine failed on this span.
            NotReady: the line is full, the wait took too long, or the batcher is closed.
        """
        job = _Job(features, language, use_itn)
        deadline = time.monotonic() + timeout
        try:
            self._queue.put(job, timeout=timeout)
            if self._ended.is_set():
                self._refuse_rest()
            return job.future.result(timeout=max(0.0, deadline - time.monotonic()))
        except (queue.Full, TimeoutError):
            job.future.cancel()
            raise NotReady(f"the engine was not free for {timeout:g} s", code="queue_timeout") from None

    def close(self, timeout: float) -> None:
        """Finish what waits and end the thread; spans put in later are refused.

        Args:
            timeout: seconds to wait for it, at most.
        """
        if self._ended.is_set():
            return
        deadline = time.monotonic() + timeout
        with contextlib.suppress(queue.Full):  # the thread is a daemon: it does not hold up the exit
            self._queue.put(None, timeout=timeout)
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _loop(self) -> None:
        try:
            self._serve()
        finally:
            # Whoever puts a span in after this sees that the thread has ended.
            self._ended.set()
            self._refuse_rest()

    def _refuse_rest(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._queue.get_nowait()
                if job is not None and job.future.set_running_or_notify_cancel():
                    job.future.set_exception(NotReady("the engine's line is closed"))

    def _serve(self) -> None:
        held: _Job | None = None
        closing = False
        while not closing or held:
            job = held or self._queue.get()
            held = None
            if job is None:
                return
            batch = [job]
            while len(batch) < self._batch_size:
                try:
                    candidate = self._queue.get_nowait()
                except queue.Empty:
                    break
                if candidate is None:
                    closing = True
                    break
                if not _similar(job.features, candidate.features):
                    held = candidate
                    break
                batch.append(candidate)
            self._run(batch)

    def _run(self, batch: list[_Job]) -> None:
        live = [job for job in batch if job.future.set_running_or_notify_cancel()]
        if live:
            self._answer(live)

    def _answer(self, jobs: list[_Job]) -> None:
        started = time.monotonic()
        try:
            results = self._engine.run(
                [job.features for job in jobs],
                [job.language for job in jobs],
                [job.use_itn for job in jobs],
            )
            if len(results) != len(jobs):
                raise InferenceFailed(f"the engine gave {len(results)} results for {len(jobs)} spans")
        except Exception as error:  # the thread must outlive whatever a span does to the engine
            if len(jobs) > 1:
                # One bad span must not fail its neighbours: each is run again, alone.
                for job in jobs:
                    self._answer([job])
                return
            if not isinstance(error, AsrError):
                log.exception("the engine failed unexpectedly")
                error = InferenceFailed(f"the engine failed: {type(error).__name__}")
            jobs[0].future.set_exception(error)
            return
        seconds = time.monotonic() - started
        for job, frames in zip(jobs, results, strict=True):
            job.future.set_result(Inference(frames, seconds))


def _similar(one: FloatArray, other: FloatArray) -> bool:
    short, long = sorted((len(one), len(other)))
    return short >= _LENGTH_RATIO * long
