"""Runs the engine off the event loop, for the spans of all requests of a worker.

Spans wait in turns (`asrsvc.speech.turns`): those of a long recording and those of short ones come one
after the other, and those that nobody waits for behind them. One thread runs the engine. Others help
while the machine has cores that nobody needs: so a long recording is spread over an idle machine. They
run at low priority, and look before each span whether there is a core: a request that comes meanwhile
has its own worker's first thread, and hardly notices what is still under way.

Several spans can be run at once (`ASR_BATCH_SIZE`). On CPUs that does not pay: see docs/performance.md.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Protocol

from asrsvc.errors import AsrError, InferenceFailed, NotReady
from asrsvc.speech.engine import Engine
from asrsvc.speech.line import Inference, Line, Promise, too_late
from asrsvc.speech.turns import Precedence
from asrsvc.speech.types import FloatArray

log = logging.getLogger(__name__)

# Spans that differ in length by more than this share are not padded to one length: the padding
# would cost more than a run of their own.
_LENGTH_RATIO: Final = 0.8
# How long a span for which nobody waits lets those go first that come after it.
_BACKGROUND_SECONDS: Final = 5.0
_HELPER_NICENESS: Final = 10
_LOOK_SECONDS: Final = 0.02  # how often a helper looks for an idle core while spans wait
_CLOSED: Final = "the engine's line is closed"


class Cores(Protocol):
    """The cores of the machine, which all workers share."""

    def began(self) -> None:
        """A run of the engine begins."""

    def ended(self) -> None:
        """It has ended."""

    def idle(self) -> bool:
        """Whether there is a core for one more run."""


@dataclass(slots=True)
class _Job:
    features: FloatArray
    language: str
    use_itn: bool
    background: bool
    future: Future[Inference] = field(default_factory=Future)


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
            helpers: runs beside the first one, at most, while cores are idle.
            cores: is told of all runs, and asked before a helper runs; None: helpers always may.
        """
        self.width: Final = 1 + helpers
        """spans that are run at the same time, at most; one request may well have more than that waiting"""
        self._engine = engine
        self._batch_size = batch_size
        self._queue_limit = queue_limit
        self._cores = cores
        self._turns: Precedence[_Job] = Precedence(_BACKGROUND_SECONDS)
        self._changed = threading.Condition()
        self._first_is_busy = False
        self._closing = False
        self._threads = [
            threading.Thread(target=self._loop, args=(number > 0,), name=f"asr-engine-{number}", daemon=True)
            for number in range(self.width)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Spans that wait."""
        return len(self._turns)

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
            background: whether it lets others go first.

        Raises:
            NotReady: there was no place in time, or the batcher is closed.
        """
        job = _Job(features, language, use_itn, background)
        deadline = time.monotonic() + timeout
        with self._changed:
            if not self._changed.wait_for(lambda: self._closing or self._has_room(), timeout):
                raise too_late(timeout)
            if self._closing:
                raise NotReady(_CLOSED)
            self._turns.put(asker, job, background=background)
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

    def _has_room(self) -> bool:
        return len(self._turns) < self._queue_limit

    def _loop(self, helps: bool) -> None:  # noqa: FBT001 - an argument of the thread
        if helps:
            with contextlib.suppress(OSError):
                thread = threading.get_native_id()
                low = max(_HELPER_NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
                os.setpriority(os.PRIO_PROCESS, thread, low)
        try:
            while batch := self._wait(helps):
                self._run(batch, helps)
        finally:
            if not helps:
                self._refuse_rest()

    def _refuse_rest(self) -> None:
        """Nobody is left who would run them."""
        with self._changed:
            self._closing = True
            for job in self._turns.drain():
                if job.future.set_running_or_notify_cancel():
                    job.future.set_exception(NotReady(_CLOSED))
            self._changed.notify_all()

    def _wait(self, helps: bool) -> list[_Job]:  # noqa: FBT001 - as above
        """The next batch, once this thread may run it; none when the batcher is closed and empty."""
        with self._changed:
            if not helps:
                self._first_is_busy = False
            while True:
                if self._turns and (not helps or (self._first_is_busy and self._may_help())):
                    self._first_is_busy = self._first_is_busy or not helps
                    batch = self._take()
                    self._changed.notify_all()
                    return batch
                if self._closing and not self._turns:
                    return []
                self._changed.wait(_LOOK_SECONDS if helps and self._turns else None)

    def _may_help(self) -> bool:
        return self._cores is None or self._cores.idle()

    def _take(self) -> list[_Job]:
        first = self._turns.take()
        assert first is not None
        batch = [first]
        while len(batch) < self._batch_size:
            more = self._turns.take(lambda job: _similar(first, job))
            if more is None:
                break
            batch.append(more)
        return batch

    def _run(self, batch: list[_Job], helps: bool) -> None:  # noqa: FBT001 - as above
        live = [job for job in batch if job.future.set_running_or_notify_cancel()]
        if not live:
            return
        if self._cores is not None:
            self._cores.began()
        try:
            self._answer(live, helps)
        finally:
            if self._cores is not None:
                self._cores.ended()

    def _answer(self, jobs: list[_Job], helps: bool) -> None:  # noqa: FBT001 - as above
        # Wall time of a helper would say how busy the others were.
        clock = time.thread_time if helps else time.monotonic
        started = clock()
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
                    self._answer([job], helps)
                return
            if not isinstance(error, AsrError):
                log.exception("the engine failed unexpectedly")
                error = InferenceFailed(f"the engine failed: {type(error).__name__}")
            jobs[0].future.set_exception(error)
            return
        seconds = clock() - started
        for job, frames in zip(jobs, results, strict=True):
            job.future.set_result(Inference(frames, seconds))


def _similar(one: _Job, other: _Job) -> bool:
    """Whether two spans may share a run; one that is waited for is not made to wait for the other kind."""
    short, long = sorted((len(one.features), len(other.features)))
    return one.background == other.background and short >= _LENGTH_RATIO * long
