"""Runs the engine off the event loop, for the spans of all requests and jobs of a worker.

The spans of requests wait in turns (`asrsvc.speech.turns`): those of a long recording and those of short
ones come one after the other. One thread runs the engine. Others help while the machine has cores that
nobody needs: so a long recording is spread over an idle machine. They run at low priority, and look before
each span whether there is a core: a request that comes meanwhile has its own worker's first thread, and
hardly notices what is still under way.

The spans of jobs, which nobody waits for, have turns and threads of their own, all of low priority. A span
of half a minute keeps a core for seconds: a request would wait for its end if both shared a thread, and jobs
would begin the next one in each moment between two requests. So the kernel gives each core to whoever is
waited for, within the millisecond, and to jobs what is left, in the middle of their spans.

Several spans can be run at once (`ASR_BATCH_SIZE`). On CPUs that does not pay: see docs/performance.md.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Protocol

from asrsvc.errors import AsrError, Cancelled, InferenceFailed, NotReady
from asrsvc.speech.engine import Engine, Stop
from asrsvc.speech.line import Inference, Line, Promise, too_late
from asrsvc.speech.turns import Turns
from asrsvc.speech.types import FloatArray
from asrsvc.system.priority import lower_thread

log = logging.getLogger(__name__)

# Spans that differ in length by more than this share are not padded to one length: the padding
# would cost more than a run of their own.
_LENGTH_RATIO: Final = 0.8
_HELPER_NICENESS: Final = 10
_BACKGROUND_NICENESS: Final = 19  # at 10, jobs took 8 % of two cores that requests had use for
_LOOK_SECONDS: Final = 0.02  # how often a helper looks for an idle core while spans wait
_CLOSED: Final = "the engine's line is closed"
_ABANDONED: Final = "the worker leaves, and lets its jobs go"


class Cores(Protocol):
    """The cores of the machine, which all workers share."""

    def began(self, *, background: bool) -> None:
        """A run of the engine begins; one of the background is in nobody's way."""

    def ended(self, *, background: bool) -> None:
        """It has ended."""

    def idle(self, *, background: bool) -> bool:
        """Whether there is a core for one more run."""


@dataclass(slots=True)
class _Job:
    features: FloatArray
    language: str
    use_itn: bool
    future: Future[Inference] = field(default_factory=Future)


class _Side:
    """Spans of one kind, and those who run them: a first thread, and others that help it."""

    def __init__(self, *, background: bool) -> None:
        self.background: Final = background
        self.turns: Turns[_Job] = Turns()
        self.first_is_busy = False


class _Background:
    """The line as one sees it who is in no hurry."""

    def __init__(self, batcher: Batcher) -> None:
        self.width: Final = batcher.width
        self._batcher = batcher

    def submit(
        self, features: FloatArray, language: str, *, use_itn: bool, timeout: float, asker: Hashable
    ) -> Promise:
        return self._batcher.submit(
            features, language, use_itn=use_itn, timeout=timeout, asker=asker, background=True
        )

    def infer(self, features: FloatArray, language: str, *, use_itn: bool, timeout: float) -> Inference:
        return self.submit(features, language, use_itn=use_itn, timeout=timeout, asker=object()).result()


class Batcher:
    """The spans of one worker before its engine."""

    def __init__(
        self,
        engine: Engine,
        *,
        batch_size: int,
        queue_limit: int,
        helpers: int = 0,
        cores: Cores | None = None,
    ) -> None:
        """Start the threads.

        Args:
            engine: runs the batches.
            batch_size: spans in one run, at most.
            queue_limit: spans that may wait, at most.
            helpers: runs of each kind beside the first one, at most, while cores are idle.
            cores: is told of all runs, and asked before a helper runs; None: helpers always may.
        """
        self.width: Final = 1 + helpers
        """spans of one kind that are run at the same time, at most; a request may well have more waiting"""
        self._engine = engine
        self._batch_size = batch_size
        self._queue_limit = queue_limit
        self._cores = cores
        self._requests = _Side(background=False)
        self._jobs = _Side(background=True)
        self._changed = threading.Condition()
        self._closing = False
        self._abandoned = Stop()
        self._threads = [
            threading.Thread(target=self._loop, args=(side, number > 0), name=name + str(number), daemon=True)
            for side, name in ((self._requests, "asr-engine-"), (self._jobs, "asr-engine-jobs-"))
            for number in range(self.width)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Spans that wait."""
        return len(self._requests.turns) + len(self._jobs.turns)

    def in_background(self) -> Line:
        """The same line for spans that nobody waits for: they let the others go first."""
        return _Background(self)

    def infer(self, features: FloatArray, language: str, *, use_itn: bool, timeout: float) -> Inference:
        """Run one span and wait for it; arguments and errors are those of `submit` and `Promise.result`."""
        return self.submit(features, language, use_itn=use_itn, timeout=timeout, asker=object()).result()

    def submit(
        self,
        features: FloatArray,
        language: str,
        *,
        use_itn: bool,
        timeout: float,
        asker: Hashable,
        background: bool = False,
    ) -> Promise:
        """Put a span in; call it from a request's own thread.

        Args:
            features: shape (T, 560), float32, T >= 1.
            language: a name of `engine.LANGUAGE_QUERIES`.
            use_itn: punctuation and digits, or plain words.
            timeout: seconds to wait for a place and for the result, at most.
            asker: the request; spans of one request are served in their order.
            background: whether nobody waits for it.

        Raises:
            NotReady: there was no place in time, or the batcher is closed.
            Cancelled: nobody waits for it, and `abandon` was called.
        """
        job = _Job(features, language, use_itn)
        deadline = time.monotonic() + timeout
        with self._changed:
            if not self._changed.wait_for(lambda: self._closing or self._has_room(), timeout):
                raise too_late(timeout)
            if self._closing:
                raise NotReady(_CLOSED)
            if background and self._abandoned.is_set:
                raise Cancelled(_ABANDONED)
            (self._jobs if background else self._requests).turns.put(asker, job)
            self._changed.notify_all()
        return Promise(job.future, deadline, timeout)

    def close(self, timeout: float) -> None:
        """Finish what waits and end the threads; spans put in later are refused.

        Args:
            timeout: seconds to wait for it, at most; the threads are daemons, and do not hold up the exit.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def abandon(self) -> None:
        """Let go of all spans that nobody waits for, also in the middle of a run: their promises say so."""
        with self._changed:
            self._abandoned.set()
            _fail_all(self._jobs.turns, Cancelled(_ABANDONED))
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return len(self) < self._queue_limit

    def _loop(self, side: _Side, helps: bool) -> None:  # noqa: FBT001 - an argument of the thread
        low = side.background or helps
        if low:
            lower_thread(_BACKGROUND_NICENESS if side.background else _HELPER_NICENESS)
        try:
            while batch := self._wait(side, helps=helps):
                self._run(batch, side, low=low)
        finally:
            if not helps:
                self._refuse_rest(side)

    def _refuse_rest(self, side: _Side) -> None:
        """Nobody is left who would run them."""
        with self._changed:
            self._closing = True
            _fail_all(side.turns, NotReady(_CLOSED))
            self._changed.notify_all()

    def _wait(self, side: _Side, *, helps: bool) -> list[_Job]:
        """The next batch, once this thread may run it; none when the batcher is closed and empty."""
        with self._changed:
            if not helps:
                side.first_is_busy = False
            while True:
                if side.turns and (not helps or (side.first_is_busy and self._may_help(side))):
                    side.first_is_busy = side.first_is_busy or not helps
                    batch = self._take(side.turns)
                    if self._cores is not None:  # here, so that whoever looks for an idle core next sees it
                        self._cores.began(background=side.background)
                    self._changed.notify_all()
                    return batch
                if self._closing and not side.turns:
                    return []
                self._changed.wait(_LOOK_SECONDS if helps and side.turns else None)

    def _may_help(self, side: _Side) -> bool:
        return self._cores is None or self._cores.idle(background=side.background)

    def _take(self, turns: Turns[_Job]) -> list[_Job]:
        first = turns.take()
        assert first is not None
        batch = [first]
        while len(batch) < self._batch_size:
            more = turns.take(lambda job: _similar(first, job))
            if more is None:
                break
            batch.append(more)
        return batch

    def _run(self, batch: list[_Job], side: _Side, *, low: bool) -> None:
        try:
            live = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if live:
                self._answer(live, self._abandoned if side.background else None, low=low)
        finally:
            if self._cores is not None:
                self._cores.ended(background=side.background)

    def _answer(self, jobs: list[_Job], stop: Stop | None, *, low: bool) -> None:
        # Wall time at low priority would say how busy the others were.
        clock = time.thread_time if low else time.monotonic
        started, started_cpu = clock(), time.thread_time()
        try:
            results = self._engine.run(
                [job.features for job in jobs],
                [job.language for job in jobs],
                [job.use_itn for job in jobs],
                stop=stop,
            )
            if len(results) != len(jobs):
                raise InferenceFailed(f"the engine gave {len(results)} results for {len(jobs)} spans")
        except Exception as error:  # noqa: BLE001 - the thread must outlive whatever a span does to the engine
            if len(jobs) > 1:
                # One bad span must not fail its neighbours: each is run again, alone.
                for job in jobs:
                    self._answer([job], stop, low=low)
                return
            jobs[0].future.set_exception(_reason(error, stop))
            return
        seconds, cpu_seconds = clock() - started, time.thread_time() - started_cpu
        for job, frames in zip(jobs, results, strict=True):
            job.future.set_result(Inference(frames, seconds, cpu_seconds))


def _reason(error: Exception, stop: Stop | None) -> AsrError:
    if stop is not None and stop.is_set:
        return Cancelled(_ABANDONED)
    if isinstance(error, AsrError):
        return error
    log.error("the engine failed unexpectedly", exc_info=error)
    return InferenceFailed(f"the engine failed: {type(error).__name__}")


def _fail_all(turns: Turns[_Job], error: AsrError) -> None:
    for job in turns.drain():
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(error)


def _similar(one: _Job, other: _Job) -> bool:
    """Whether two spans may share a run."""
    short, long = sorted((len(one.features), len(other.features)))
    return short >= _LENGTH_RATIO * long
