"""The line before the engine, with an engine that notes what it is asked and waits when it is told to."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from broken_models import NANO
from hypothesis import given, settings
from hypothesis import strategies as st

from asrsvc.errors import AsrError, Cancelled, InferenceFailed, NotReady
from asrsvc.speech.batch import Batcher
from asrsvc.speech.engine import Engine, Stop
from asrsvc.speech.features import FEATURE_SIZE
from asrsvc.speech.line import Inference, Promise
from asrsvc.speech.line import Line as Queue
from asrsvc.speech.types import FloatArray

DEADLINE = 90.0
"""seconds that a test waits for anything"""
LONG = 60.0
"""seconds that a span may wait where a test is not about waiting"""


class NotedEngine:
    """Answers each span with its first value; `run` waits for the gate."""

    def __init__(self, fail: Callable[[list[float]], BaseException | None] = lambda _marks: None) -> None:
        self.batches: list[list[tuple[float, int]]] = []
        """mark and length of each span of each run"""
        self.asked: list[tuple[tuple[str, ...], tuple[bool, ...]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        """released once at the start of each run"""
        self._fail = fail

    def run(
        self,
        batch: Sequence[FloatArray],
        languages: Sequence[str],
        use_itn: Sequence[bool],
        *,
        stop: Stop | None = None,
    ) -> list[FloatArray]:
        marks = [float(features[0, 0]) for features in batch]
        self.batches.append(list(zip(marks, map(len, batch), strict=True)))
        self.asked.append((tuple(languages), tuple(use_itn)))
        self.entered.release()
        deadline = time.monotonic() + DEADLINE
        while not self.gate.wait(0.01):
            assert time.monotonic() < deadline
            if stop is not None and stop.is_set:
                raise InferenceFailed("stopped")
        error = self._fail(marks)
        if error is not None:
            raise error
        return [features[:1, :1] for features in batch]


class Line:
    """A batcher, and threads that put marked spans into it in a known order."""

    def __init__(self, stack: ExitStack, engine: NotedEngine, batch_size: int, queue_limit: int) -> None:
        self.engine = engine
        self.batcher = Batcher(engine, batch_size=batch_size, queue_limit=queue_limit)  # type: ignore[arg-type]
        stack.callback(self.batcher.close, DEADLINE)
        self._threads = stack.enter_context(ThreadPoolExecutor(32))
        stack.callback(engine.gate.set)

    def put(self, mark: float, length: int = 10, timeout: float = LONG, **ask: object) -> Future[Inference]:
        """Put a span in, and return when it is in the line."""
        before = len(self.batcher)
        promised = self._threads.submit(self.infer, mark, length, timeout, **ask)
        eventually(lambda: len(self.batcher) > before or promised.done())
        return promised

    def infer(
        self,
        mark: float,
        length: int,
        timeout: float,
        *,
        language: str = "auto",
        use_itn: bool = True,
        background: bool = False,
    ) -> Inference:
        features = np.full((length, FEATURE_SIZE), mark, np.float32)
        line = self.batcher.in_background() if background else self.batcher
        return line.infer(features, language, use_itn=use_itn, timeout=timeout)

    def infer_aside(self, mark: float, *, background: bool = True) -> Future[Inference]:
        """Put a span in that may be run at once."""
        return self._threads.submit(self.infer, mark, 10, LONG, background=background)

    def block(self) -> Future[Inference]:
        """Keep the engine busy with a span of its own until the gate opens; its mark is -1."""
        self.engine.gate.clear()
        promised = self._threads.submit(self.infer, -1.0, 1, LONG)
        assert self.engine.entered.acquire(timeout=DEADLINE)
        return promised


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def marks(batches: list[list[tuple[float, int]]]) -> list[list[float]]:
    return [[mark for mark, _length in batch] for batch in batches]


def test_who_comes_first_is_served_first(stack: ExitStack) -> None:
    line = Line(stack, NotedEngine(), batch_size=1, queue_limit=20)
    first = line.block()
    promised = [line.put(mark) for mark in range(12)]
    line.engine.gate.set()
    assert [future.result(DEADLINE).frames.item() for future in [first, *promised]] == [-1, *range(12)]
    assert marks(line.engine.batches) == [[-1], *([mark] for mark in range(12))]


def test_a_span_that_is_waited_for_does_not_wait_for_one_that_is_not(stack: ExitStack) -> None:
    engine = NotedEngine()
    line = Line(stack, engine, 1, 20)
    engine.gate.clear()
    job = line.infer_aside(11.0)
    assert engine.entered.acquire(timeout=DEADLINE)
    request = line.infer_aside(1.0, background=False)
    assert engine.entered.acquire(timeout=DEADLINE), "it waits for the job's span"
    engine.gate.set()
    assert [span.result(DEADLINE).frames.item() for span in (job, request)] == [11, 1]


def test_who_is_waited_for_shares_no_run_with_who_is_not(stack: ExitStack) -> None:
    engine = NotedEngine()
    line = Line(stack, engine, 4, 20)
    engine.gate.clear()
    blocked = [line.infer_aside(-1.0, background=background) for background in (False, True)]
    for _ in blocked:
        assert engine.entered.acquire(timeout=DEADLINE)
    spans = [line.put(mark, background=mark > 10) for mark in (1.0, 11.0, 2.0, 12.0)]
    engine.gate.set()
    for span in [*blocked, *spans]:
        span.result(DEADLINE)
    assert sorted(marks(engine.batches)[2:]) == [[1.0, 2.0], [11.0, 12.0]]


def test_what_is_abandoned_says_so_and_requests_go_on(stack: ExitStack) -> None:
    engine = NotedEngine()
    line = Line(stack, engine, 1, 20)
    engine.gate.clear()
    running = line.infer_aside(11.0)
    assert engine.entered.acquire(timeout=DEADLINE)
    waiting = line.put(12.0, background=True)
    request = line.infer_aside(1.0, background=False)
    line.batcher.abandon()
    for span in (running, waiting):
        with pytest.raises(Cancelled):
            span.result(DEADLINE)
    with pytest.raises(Cancelled):
        line.infer(13.0, 10, LONG, background=True)
    engine.gate.set()
    assert request.result(DEADLINE).frames.item() == 1
    assert line.infer(2.0, 10, LONG).frames.item() == 2
    line.batcher.abandon()
    assert [11.0] in marks(engine.batches)
    assert [12.0] not in marks(engine.batches)


def test_the_real_engine_is_stopped_in_the_middle_of_a_run(stack: ExitStack) -> None:
    batcher = Batcher(Engine.load(NANO, threads=1), batch_size=1, queue_limit=20)
    stack.callback(batcher.close, DEADLINE)
    features = np.zeros((3_000, FEATURE_SIZE), np.float32)  # three minutes: to its end it takes seconds
    promise = batcher.in_background().submit(features, "auto", use_itn=True, timeout=LONG, asker=1)
    eventually(promise._future.running)
    time.sleep(0.1)
    assert not promise.done()
    batcher.abandon()
    with pytest.raises(Cancelled):
        promise.result()
    short = np.zeros((5, FEATURE_SIZE), np.float32)
    assert len(batcher.infer(short, "auto", use_itn=True, timeout=LONG).frames) == 9


def test_the_engine_is_asked_for_what_each_span_asked_for(stack: ExitStack) -> None:
    line = Line(stack, NotedEngine(), batch_size=3, queue_limit=20)
    line.block()
    asks = [("zh", True), ("auto", False), ("ko", True)]
    promised = [line.put(n, language=language, use_itn=itn) for n, (language, itn) in enumerate(asks)]
    line.engine.gate.set()
    assert [future.result(DEADLINE).frames.item() for future in promised] == [0, 1, 2]
    assert line.engine.asked[1:] == [(("zh", "auto", "ko"), (True, False, True))]


def test_the_time_of_a_run_is_told(stack: ExitStack) -> None:
    line = Line(stack, NotedEngine(), batch_size=1, queue_limit=20)
    assert line.put(1).result(DEADLINE).seconds >= 0


def expected_batches(lengths: list[int], size: int) -> list[list[int]]:
    """Neighbours in the line whose lengths are within a fifth of the first one's, `size` at most."""
    batches: list[list[int]] = []
    for index, length in enumerate(lengths):
        if batches and len(batches[-1]) < size:
            short, long = sorted((lengths[batches[-1][0]], length))
            if short >= 0.8 * long:
                batches[-1].append(index)
                continue
        batches.append([index])
    return batches


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12), size=st.integers(1, 4))
def test_only_neighbours_of_similar_length_share_a_run(lengths: list[int], size: int) -> None:
    with ExitStack() as stack:
        line = Line(stack, NotedEngine(), batch_size=size, queue_limit=20)
        # Of a length that no other span is similar to.
        line.engine.gate.clear()
        first = line._threads.submit(line.infer, -1.0, 1000, LONG)
        assert line.engine.entered.acquire(timeout=DEADLINE)
        promised = [line.put(mark, length) for mark, length in enumerate(lengths)]
        line.engine.gate.set()
        assert [future.result(DEADLINE).frames.item() for future in promised] == [*range(len(lengths))]
        first.result(DEADLINE)
    assert marks(line.engine.batches)[1:] == expected_batches(lengths, size)


def test_a_span_that_fails_in_a_batch_fails_alone(stack: ExitStack) -> None:
    engine = NotedEngine(lambda marks: InferenceFailed("the engine failed: 2") if 2 in marks else None)
    line = Line(stack, engine, batch_size=4, queue_limit=20)
    line.block()
    promised = [line.put(mark) for mark in range(4)]
    engine.gate.set()
    with pytest.raises(InferenceFailed, match="the engine failed: 2"):
        promised[2].result(DEADLINE)
    assert [promised[mark].result(DEADLINE).frames.item() for mark in (0, 1, 3)] == [0, 1, 3]


@pytest.mark.parametrize(
    "error",
    [ValueError("a surprise"), MemoryError(), TimeoutError("not the line's"), KeyError(3), StopIteration()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_engine_that_raises_something_unexpected_fails_the_span_and_goes_on(
    batch_size: int, error: Exception, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    engine = NotedEngine(lambda marks: error if 1 in marks else None)
    line = Line(stack, engine, batch_size=batch_size, queue_limit=20)
    line.block()
    promised = [line.put(mark) for mark in range(3)]
    engine.gate.set()
    with pytest.raises(InferenceFailed, match=f"the engine failed: {type(error).__name__}"):
        promised[1].result(DEADLINE)
    assert [promised[mark].result(DEADLINE).frames.item() for mark in (0, 2)] == [0, 2]
    assert line.put(7).result(DEADLINE).frames.item() == 7
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]


@pytest.mark.parametrize("more", [-1, 1])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_other_than_as_many_results_as_spans_is_a_failure_and_the_line_goes_on(
    batch_size: int, more: int, stack: ExitStack
) -> None:
    class Miscounting(NotedEngine):
        def run(self, batch: Sequence[FloatArray], *ask: Any, **stop: Any) -> list[FloatArray]:
            results = super().run(batch, *ask, **stop)
            return [*results, *results][: len(results) + more] if len(batch) == batch_size else results

    engine = Miscounting()
    line = Line(stack, engine, batch_size=batch_size, queue_limit=20)
    line.block()
    promised = [line.put(mark) for mark in range(batch_size)]
    engine.gate.set()
    for future in promised:
        if batch_size == 1:
            with pytest.raises(InferenceFailed):
                future.result(DEADLINE)
        else:  # each is tried again alone, and that goes well
            assert future.result(DEADLINE).frames.shape == (1, 1)
    assert line.batcher._threads[0].is_alive()


def test_a_span_that_waits_too_long_is_not_run(stack: ExitStack) -> None:
    line = Line(stack, NotedEngine(), batch_size=1, queue_limit=20)
    line.block()
    waiting = [line.put(0), line.put(1, timeout=0.05), line.put(2)]
    with pytest.raises(NotReady, match="the engine was not free for 0.05 s") as caught:
        waiting[1].result(DEADLINE)
    assert caught.value.code == "queue_timeout"
    line.engine.gate.set()
    assert [waiting[n].result(DEADLINE).frames.item() for n in (0, 2)] == [0, 2]
    assert marks(line.engine.batches) == [[-1], [0], [2]]


def test_a_batch_leaves_out_who_no_longer_waits(stack: ExitStack) -> None:
    line = Line(stack, NotedEngine(), batch_size=4, queue_limit=20)
    line.block()
    waiting = [line.put(mark, timeout=0.05 if mark in (0, 2) else LONG) for mark in range(4)]
    for mark in (0, 2):
        with pytest.raises(NotReady):
            waiting[mark].result(DEADLINE)
    line.engine.gate.set()
    assert [waiting[mark].result(DEADLINE).frames.item() for mark in (1, 3)] == [1, 3]
    assert marks(line.engine.batches) == [[-1], [1, 3]]


def test_a_span_that_is_run_already_when_its_time_is_over_harms_nobody(stack: ExitStack) -> None:
    line = Line(stack, NotedEngine(), batch_size=1, queue_limit=20)
    line.engine.gate.clear()
    with pytest.raises(NotReady):
        line.infer(1, 10, 0.05)
    line.engine.gate.set()
    assert line.put(2).result(DEADLINE).frames.item() == 2


def test_a_full_line_is_refused_when_the_time_is_over(stack: ExitStack) -> None:
    line = Line(stack, NotedEngine(), batch_size=1, queue_limit=2)
    line.block()
    waiting = [line.put(0), line.put(1)]
    with pytest.raises(NotReady) as caught:
        line.infer(2, 10, 0.05)
    assert caught.value.code == "queue_timeout"
    line.engine.gate.set()
    assert [future.result(DEADLINE).frames.item() for future in waiting] == [0, 1]
    assert marks(line.engine.batches) == [[-1], [0], [1]]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_closing_finishes_what_waits(batch_size: int, stack: ExitStack) -> None:
    line = Line(stack, NotedEngine(), batch_size=batch_size, queue_limit=20)
    line.block()
    promised = [line.put(mark, length) for mark, length in enumerate([10, 10, 3, 3, 3, 20])]
    closing = line._threads.submit(line.batcher.close, DEADLINE)
    eventually(lambda: line.batcher._closing)
    line.engine.gate.set()
    closing.result(DEADLINE)
    assert not line.batcher._threads[0].is_alive()
    assert [future.result(DEADLINE).frames.item() for future in promised] == [*range(6)]


def test_a_closed_line_takes_nothing(stack: ExitStack) -> None:
    line = Line(stack, NotedEngine(), batch_size=1, queue_limit=20)
    line.batcher.close(DEADLINE)
    with pytest.raises(NotReady, match="closed"):
        line.infer(1, 10, LONG)
    assert line.engine.batches == []


def test_closing_twice_is_closing(stack: ExitStack) -> None:
    line = Line(stack, NotedEngine(), batch_size=1, queue_limit=1)
    for _ in range(4):
        line.batcher.close(DEADLINE)
    assert not line.batcher._threads[0].is_alive()


def test_what_comes_while_the_line_closes_is_refused_or_run_but_never_lost(stack: ExitStack) -> None:
    line = Line(stack, NotedEngine(), batch_size=2, queue_limit=4)
    promised = [line._threads.submit(line.infer, mark, 10, LONG) for mark in range(20)]
    line.batcher.close(DEADLINE)
    answered = 0
    for future in promised:
        try:
            future.result(DEADLINE)
        except AsrError as error:
            assert isinstance(error, NotReady)  # noqa: PT017 - the others were answered
        else:
            answered += 1
    assert answered == sum(map(len, line.engine.batches))


def test_closing_gives_up_on_an_engine_that_hangs(stack: ExitStack) -> None:
    line = Line(stack, NotedEngine(), batch_size=1, queue_limit=1)
    line.block()
    line.put(1)
    line.batcher.close(0.05)
    assert line.batcher._threads[0].is_alive()


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=8), size=st.integers(1, 4))
def test_the_real_engine_gives_each_its_own_frames(lengths: list[int], size: int) -> None:
    batcher = Batcher(Engine.load(NANO, threads=1), batch_size=size, queue_limit=20)
    try:
        with ThreadPoolExecutor(len(lengths)) as threads:
            promised = [
                threads.submit(
                    batcher.infer,
                    np.zeros((length, FEATURE_SIZE), np.float32),
                    "auto",
                    use_itn=True,
                    timeout=LONG,
                )
                for length in lengths
            ]
            lengths_heard = [len(future.result(DEADLINE).frames) for future in promised]
    finally:
        batcher.close(DEADLINE)
    assert lengths_heard == [length + 4 for length in lengths]


class CountedCores:
    """Cores of which so many are there; what runs in the background leaves its core to others."""

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self.runs = {False: 0, True: 0}
        self.most = 0
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        return sum(self.runs.values())

    def began(self, *, background: bool) -> None:
        with self._lock:
            self.runs[background] += 1
            self.most = max(self.most, self.running)

    def ended(self, *, background: bool) -> None:
        with self._lock:
            self.runs[background] -= 1

    def idle(self, *, background: bool) -> bool:
        return (self.running if background else self.runs[False]) < self.cores


def gather(batcher: Queue, asker: object, marks: Sequence[float]) -> list[Promise]:
    return [
        batcher.submit(
            np.full((10, FEATURE_SIZE), mark, np.float32), "auto", use_itn=True, timeout=LONG, asker=asker
        )
        for mark in marks
    ]


@pytest.fixture
def helped(stack: ExitStack) -> Callable[[int, int], tuple[NotedEngine, CountedCores, Batcher]]:
    def make(helpers: int, cores: int) -> tuple[NotedEngine, CountedCores, Batcher]:
        engine, counted = NotedEngine(), CountedCores(cores)
        batcher = Batcher(
            engine,  # type: ignore[arg-type]
            batch_size=1,
            queue_limit=20,
            helpers=helpers,
            cores=counted,
        )
        stack.callback(batcher.close, DEADLINE)
        stack.callback(engine.gate.set)
        return engine, counted, batcher

    return make


Helped = Callable[[int, int], tuple[NotedEngine, CountedCores, Batcher]]


def test_the_spans_of_one_request_are_spread_over_idle_cores(helped: Helped) -> None:
    engine, cores, batcher = helped(3, 3)
    engine.gate.clear()
    promised = gather(batcher, "long", range(6))
    eventually(lambda: cores.running == 3)
    assert len(batcher) == 3
    engine.gate.set()
    assert [promise.result().frames.item() for promise in promised] == [*range(6)]
    eventually(lambda: cores.running == 0)


def test_without_an_idle_core_nobody_helps_until_there_is_one(helped: Helped) -> None:
    engine, cores, batcher = helped(2, 1)
    engine.gate.clear()
    promised = gather(batcher, "long", range(3))
    eventually(lambda: cores.running == 1)
    time.sleep(0.1)  # that many looks of the helpers
    assert cores.running == 1
    cores.cores = 2
    eventually(lambda: cores.running == 2)
    engine.gate.set()
    assert [promise.result().frames.item() for promise in promised] == [0, 1, 2]
    assert cores.most == 2


def test_a_span_counts_from_the_moment_at_which_it_is_taken(stack: ExitStack) -> None:
    """A thread that loses its core just then leaves no idle one for the others to see."""
    paused = threading.Event()

    class Paused(Batcher):
        def _run(self, *arguments: Any, **more: Any) -> None:
            paused.wait(DEADLINE)
            super()._run(*arguments, **more)

    cores = CountedCores(2)
    batcher = Paused(NotedEngine(), batch_size=1, queue_limit=20, helpers=3, cores=cores)  # type: ignore[arg-type]
    stack.callback(batcher.close, DEADLINE)
    promised = gather(batcher, "long", range(6))
    eventually(lambda: cores.running == 2)
    time.sleep(0.1)  # that many looks of the helpers
    assert (cores.most, len(batcher)) == (2, 4)
    paused.set()
    assert [promise.result().frames.item() for promise in promised] == [*range(6)]
    eventually(lambda: cores.running == 0)


def test_whoever_helps_has_low_priority_and_whoever_works_for_jobs_the_lowest(helped: Helped) -> None:
    engine, cores, batcher = helped(1, 4)
    engine.gate.clear()
    promised = [*gather(batcher, "long", range(2)), *gather(batcher.in_background(), "job", range(2))]
    eventually(lambda: cores.running == 4)
    usual = os.getpriority(os.PRIO_PROCESS, os.getpid())
    nice = [os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) for thread in batcher._threads]
    engine.gate.set()
    assert [promise.result().frames.item() for promise in promised] == [0, 1, 0, 1]
    assert nice == [usual, min(19, max(usual, 10)), 19, 19]


def test_a_short_request_waits_for_one_span_of_a_long_one_at_most(helped: Helped) -> None:
    engine, cores, batcher = helped(0, 1)
    engine.gate.clear()
    long = gather(batcher, "long", range(4))
    eventually(lambda: cores.running == 1)
    (short,) = gather(batcher, "short", [9])
    engine.gate.set()
    assert short.result().frames.item() == 9
    assert [promise.result().frames.item() for promise in long] == [*range(4)]
    assert marks(engine.batches) == [[0], [9], [1], [2], [3]]


def test_spans_that_nobody_waits_for_are_spread_over_cores_that_nobody_uses(helped: Helped) -> None:
    engine, cores, batcher = helped(2, 2)
    engine.gate.clear()
    job = batcher.in_background()
    assert job.width == batcher.width == 3
    promised = gather(job, "job", range(4))
    eventually(lambda: cores.runs == {False: 0, True: 2})
    short = gather(batcher, "short", [7, 8, 9])
    eventually(lambda: cores.runs[False] == 2)
    time.sleep(0.1)  # that many looks of the helpers
    assert cores.runs == {False: 2, True: 2}
    engine.gate.set()
    assert [promise.result().frames.item() for promise in short] == [7, 8, 9]
    assert [promise.result().frames.item() for promise in promised] == [*range(4)]


def test_jobs_go_on_in_one_thread_where_requests_use_all_cores(helped: Helped) -> None:
    engine, cores, batcher = helped(1, 1)
    engine.gate.clear()
    request = gather(batcher, "request", [1])
    eventually(lambda: cores.runs[False] == 1)
    job = gather(batcher.in_background(), "job", [2, 3])
    eventually(lambda: cores.runs[True] == 1)
    engine.gate.set()
    assert [promise.result().frames.item() for promise in [*request, *job]] == [1, 2, 3]


def test_a_failing_span_of_a_request_fails_alone_beside_helpers(stack: ExitStack) -> None:
    engine = NotedEngine(lambda marks: InferenceFailed("bad") if 2 in marks else None)
    batcher = Batcher(engine, batch_size=1, queue_limit=20, helpers=2)  # type: ignore[arg-type]
    stack.callback(batcher.close, DEADLINE)
    promised = gather(batcher, "long", range(5))
    with pytest.raises(InferenceFailed, match="bad"):
        promised[2].result()
    assert [promised[mark].result().frames.item() for mark in (0, 1, 3, 4)] == [0, 1, 3, 4]


def test_what_was_cancelled_is_not_run(helped: Helped) -> None:
    engine, cores, batcher = helped(0, 1)
    engine.gate.clear()
    promised = gather(batcher, "long", range(3))
    eventually(lambda: cores.running == 1)
    promised[1].cancel()
    engine.gate.set()
    assert promised[2].result().frames.item() == 2
    assert marks(engine.batches) == [[0], [2]]
