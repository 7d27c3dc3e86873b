"""The pool of decoder processes: what a file does to one of them ends there."""

from __future__ import annotations

import gc
import io
import math
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from formats import SECONDS, clip, make
from waiting import PATIENCE, wait_for

from asrsvc.errors import AsrError, BadAudio
from asrsvc.speech import ffmpeg
from asrsvc.speech.decoded import FileLimits
from asrsvc.speech.ffmpeg import HelperPool
from asrsvc.speech.helper import Helper, Request


@contextmanager
def opened(content: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("upload")
    try:
        os.write(descriptor, content)
        yield descriptor
    finally:
        os.close(descriptor)


def blocks(pool: HelperPool, descriptor: int, cpu_seconds: float = 100) -> Iterator[np.ndarray]:
    decoded = pool.decode(descriptor, max_rate=384_000, max_channels=16, cpu_seconds=cpu_seconds)
    for _rate, block in decoded:
        yield block


def seconds(pool: HelperPool, content: bytes, **options: float) -> float:
    with opened(content) as descriptor:
        return sum(len(block) for block in blocks(pool, descriptor, **options)) / 16_000


_others: set[psutil.Process] = set()
"""processes that other tests, in this process before, keep for themselves"""


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child not in _others]


def descriptors() -> set[tuple[str, str]]:
    """Numbers, and what they are of."""
    found = set()
    for link in list(Path("/proc/self/fd").iterdir()):
        with suppress(FileNotFoundError):  # that of the list itself
            found.add((link.name, str(link.readlink())))
    return found


@pytest.fixture(autouse=True, scope="module")
def no_garbage_of_others() -> None:
    """What other modules left would be closed at any time, and these tests count descriptors."""
    gc.collect()


@pytest.fixture(autouse=True, scope="module")
def others() -> None:
    _others.update(psutil.Process().children())


@pytest.fixture
def good(tmp_path: Path) -> bytes:
    return make("mkv-float", tmp_path)


@pytest.fixture
def pool() -> Iterator[HelperPool]:
    """A pool whose test must leave no process and no descriptor behind."""
    before = descriptors()
    made = HelperPool(memory_bytes=2**30, block_timeout=PATIENCE)
    yield made
    made.close()
    assert not children()
    assert descriptors() <= before


def pcm(samples: np.ndarray, rate: int = 16_000, codec: str = "pcm_s16le") -> bytes:
    """In Matroska; samples of shape (n,), int16."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        for start in range(0, len(samples), 4096):
            piece = np.ascontiguousarray(samples[None, start : start + 4096])
            frame = av.AudioFrame.from_ndarray(piece, "s16", "mono")
            frame.sample_rate, frame.pts = rate, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def long_recording(minutes: int) -> bytes:
    """More than fits into the socket between the two processes, so that the helper waits for us."""
    minute = np.round(np.tile(clip()[:, 0], 22)[: 60 * 16_000] * 32767).astype(np.int16)
    return pcm(np.tile(minute, minutes), codec="flac")


def test_one_warm_helper_serves_file_after_file(pool: HelperPool, good: bytes) -> None:
    pool.warm_up()
    (pid,) = pool.pids()
    for _ in range(5):
        assert seconds(pool, good) == pytest.approx(SECONDS, abs=0.05)
    assert pool.pids() == [pid]


def test_a_refused_file_costs_no_helper(pool: HelperPool) -> None:
    pool.warm_up()
    pids = pool.pids()
    with pytest.raises(BadAudio, match="no audio or video format"):
        seconds(pool, b"not a sound" * 1000)
    assert pool.pids() == pids


def test_as_many_helpers_as_files_and_few_are_kept(pool: HelperPool, good: bytes) -> None:
    running = []
    with opened(good) as descriptor:
        for _ in range(4):
            running.append(blocks(pool, descriptor))
            next(running[-1])
        assert len(children()) == 4
        for one in running:
            assert list(one) == []
    assert len(pool.pids()) == len(children()) == 2


def test_a_helper_that_dies_at_work_fails_its_file_alone(pool: HelperPool, good: bytes) -> None:
    with opened(long_recording(5)) as descriptor:
        running = blocks(pool, descriptor)
        next(running)
        (helper,) = children()
        helper.kill()
        with pytest.raises(BadAudio, match="SIGKILL") as caught:
            list(running)
    assert (caught.value.code, caught.value.param) == ("audio_decoder_died", "file")
    assert not children(), "no zombie either"
    assert seconds(pool, good) == pytest.approx(SECONDS, abs=0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_an_idle_helper_that_dies_is_replaced(pool: HelperPool, good: bytes, number: int) -> None:
    pool.warm_up()
    (pid,) = pool.pids()
    os.kill(pid, number)
    wait_for("it is dead", lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert seconds(pool, good) == pytest.approx(SECONDS, abs=0.05)
    assert pid not in pool.pids()
    assert pid not in [child.pid for child in children()]


def test_a_helper_that_hangs_is_ended(good: bytes) -> None:
    pool = HelperPool(memory_bytes=2**30, block_timeout=1.0)
    pool.warm_up()
    (pid,) = pool.pids()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(BadAudio, match="gave nothing for 1 s") as caught:
        seconds(pool, good)
    assert caught.value.code == "audio_decoder_hung"
    assert not children()
    assert not pool.pids()
    pool.close()


def test_a_file_that_needs_more_memory_than_allowed_is_refused(good: bytes) -> None:
    """Ten seconds at 384 kHz, in a helper that may have 24 MB more than at its start."""
    pool = HelperPool(memory_bytes=24 * 2**20, block_timeout=PATIENCE)
    try:
        assert seconds(pool, good) == pytest.approx(SECONDS, abs=0.05)
        with pytest.raises(BadAudio, match="more memory than it may have"):
            seconds(pool, pcm(np.zeros(11 * 384_000, np.int16), 384_000))
        assert seconds(pool, good) == pytest.approx(SECONDS, abs=0.05)
    finally:
        pool.close()
    assert not children()


def test_a_file_that_needs_more_time_than_allowed_is_refused(pool: HelperPool, good: bytes) -> None:
    content = long_recording(30)

    def over_and_over() -> None:  # the limit is a whole second, and the file may take less
        for _ in range(200):
            seconds(pool, content, cpu_seconds=-1)

    with pytest.raises(BadAudio) as caught:
        over_and_over()
    assert caught.value.code == "audio_decoder_died"
    assert "SIGXCPU" in caught.value.message
    assert seconds(pool, good) == pytest.approx(SECONDS, abs=0.05)


def test_a_file_that_nobody_wants_any_more_ends_its_helper(pool: HelperPool) -> None:
    with opened(long_recording(5)) as descriptor:
        running = blocks(pool, descriptor)
        next(running)
        assert len(children()) == 1
        running.close()
    wait_for("the helper is gone", lambda: not children())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_helper_ignores_what_its_process_group_is_sent(
    pool: HelperPool, good: bytes, number: signal.Signals
) -> None:
    pool.warm_up()
    assert seconds(pool, good) == pytest.approx(SECONDS, abs=0.05)  # so it has come to set its signals
    pids = pool.pids()
    os.kill(pids[0], number)
    assert seconds(pool, good) == pytest.approx(SECONDS, abs=0.05)
    assert pool.pids() == pids


@pytest.mark.parametrize("gently", [False, True])
def test_a_helper_that_still_starts_ignores_it_too(good: bytes, gently: bool) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    helper = Helper(2**30, gently=gently)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(helper.pid, number)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    with opened(good) as descriptor:
        helper.request(descriptor, Request(FileLimits(384_000, 16, math.inf), 100))
        kinds = []
        while not kinds or kinds[-1] not in {b"E", b"X"}:
            kinds.append(helper.receive(PATIENCE)[0])
    assert kinds[-1] == b"E"
    assert helper.end(PATIENCE) == "it exited with 0"
    assert helper.said() == ""


def test_a_helper_leaves_when_its_socket_closes() -> None:
    helper = Helper(2**30)
    helper._socket.close()
    assert helper._process.wait(PATIENCE) == 0
    assert helper.said() == ""


def test_a_helper_at_work_leaves_when_its_socket_closes() -> None:
    helper = Helper(2**30)
    with opened(long_recording(5)) as descriptor:
        helper.request(descriptor, Request(FileLimits(384_000, 16, math.inf), 100))
        helper.receive(PATIENCE)
        helper._socket.close()
        assert helper._process.wait(PATIENCE) == 0
        assert helper.said() == ""


def test_a_hundred_bad_files_leave_no_descriptor(pool: HelperPool, tmp_path: Path) -> None:
    whole = make("m4a-moov-last", tmp_path)
    for size in range(1, 20_000, 200):
        with pytest.raises(AsrError):
            seconds(pool, whole[:size])
    assert len(children()) == 1
    (helper,) = children()
    assert helper.num_fds() < 10


def test_a_spare_is_ready_while_a_long_file_is_decoded(good: bytes) -> None:
    pool = HelperPool(memory_bytes=2**30, block_timeout=PATIENCE, spare=True)
    try:
        with opened(long_recording(5)) as descriptor:
            running = blocks(pool, descriptor)
            next(running)
            (spare,) = pool.pids()
            assert seconds(pool, good) == pytest.approx(SECONDS, abs=0.05)
            assert spare in pool.pids()
            running.close()
    finally:
        pool.close()


def test_a_short_file_that_nobody_wants_any_more_costs_no_helper(
    pool: HelperPool, good: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffmpeg, "_LEFT_SECONDS", PATIENCE)  # a busy machine takes longer for what is left
    pool.warm_up()
    pids = pool.pids()
    for _ in range(5):
        with opened(good) as descriptor:
            running = blocks(pool, descriptor)
            next(running)
            running.close()
    assert pool.pids() == pids
