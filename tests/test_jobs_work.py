"""One stretch of a job, with the embedded model: what it finds, where it stops, how it ends."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Generator, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from broken_models import NANO
from recordings import write_recording

from asrsvc.errors import InferenceFailed, NotReady, OutOfDescriptors
from asrsvc.jobs import work as jobs_work
from asrsvc.jobs.claims import Claims
from asrsvc.jobs.storage import Storage
from asrsvc.jobs.store import JobStore
from asrsvc.jobs.types import Job, Limits
from asrsvc.jobs.work import Stretch, work
from asrsvc.speech.batch import Batcher
from asrsvc.speech.decode import Limits as SoundLimits
from asrsvc.speech.ffmpeg import HelperPool
from asrsvc.speech.line import Inference, Line, Promise
from asrsvc.speech.model import Model
from asrsvc.speech.segment import Segmenter
from asrsvc.speech.transcribe import Options, Transcriber
from asrsvc.speech.types import FloatArray, Segment

DEADLINE = 180.0
MODEL = Model.load(NANO, version="nano", threads=1)
SEGMENTER = Segmenter()
OPTIONS = Options(words=True, tokens=True)


class Noted:
    """A line to the engine that counts its spans, and does something at one of them."""

    def __init__(self, line: Line) -> None:
        self.spans = 0
        self.at: dict[int, Any] = {}
        """number of a span → what is called when it has been run"""
        self.width = line.width
        self._line = line

    def submit(
        self, features: FloatArray, language: str, *, use_itn: bool, timeout: float, asker: Hashable
    ) -> Promise:
        self.spans += 1
        promise = self._line.submit(features, language, use_itn=use_itn, timeout=timeout, asker=asker)
        if self.spans in self.at:
            promise.result()
            self.at[self.spans]()
        return promise

    def infer(self, features: FloatArray, language: str, *, use_itn: bool, timeout: float) -> Inference:
        return self.submit(features, language, use_itn=use_itn, timeout=timeout, asker=self).result()


@pytest.fixture(scope="module")
def batcher() -> Iterator[Batcher]:
    batcher = Batcher(MODEL.engine, batch_size=1, queue_limit=8)
    yield batcher
    batcher.close(DEADLINE)


class Desk:
    """A store with one job in it, and what works on it."""

    def __init__(self, folder: Path, batcher: Batcher, sound: bytes) -> None:
        limits = Limits(running=1, kept=9, kept_of_client=9, bytes=2**30, keep_seconds=3600, deaths=3)
        self.storage = Storage.at(folder, limits)
        self.store = JobStore(self.storage)
        self.claims = Claims(self.storage)
        self._helpers = HelperPool(memory_bytes=2**30, block_timeout=DEADLINE)
        self.line = Noted(batcher.in_background())
        self.transcriber = self.transcriber_of(Transcriber)
        arrival = self.store.receive("", len(sound))
        descriptor = arrival.lock.open()
        os.write(descriptor, sound)
        os.close(descriptor)
        self.id = self.store.queue(arrival, OPTIONS).id

    def transcriber_of(self, kind: type[Transcriber]) -> Transcriber:
        return kind(
            MODEL,
            segmenter=SEGMENTER,
            helpers=self._helpers,
            limits=SoundLimits(max_seconds=120),
            batcher=self.line,
            queue_timeout=DEADLINE,
        )

    def close(self) -> None:
        self.store.close()
        self._helpers.close()

    def take(self) -> Stretch:
        claim = self.claims.take(beside=0)
        assert claim is not None
        return Stretch(claim)

    def work(self, stretch: Stretch) -> Job:
        work(stretch, self.claims, self.transcriber)
        return self.store.read(self.id, "")

    @property
    def segments(self) -> list[Segment]:
        return [one.segment for one in self.store.look(self.id, "")[1]]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "a.flac"
    write_recording(path, 0.7, seed=3)
    return path.read_bytes()


@pytest.fixture
def desk(tmp_path: Path, batcher: Batcher, sound: bytes) -> Iterator[Desk]:
    desk = Desk(tmp_path / "state", batcher, sound)
    yield desk
    desk.close()


def whole(desk: Desk) -> list[Segment]:
    """What one run over the whole recording finds."""
    lock = desk.storage.uploads.lock(desk.id)
    assert lock is not None
    with lock:
        descriptor = lock.open()
        try:
            return list(desk.transcriber.segments(descriptor, OPTIONS))
        finally:
            os.close(descriptor)


def test_a_job_ends_with_what_a_request_would_get(desk: Desk) -> None:
    expected = whole(desk)
    stretch = desk.take()
    job = desk.work(stretch)
    assert (job.state, stretch.outcome, stretch.status) == ("succeeded", "succeeded", 200)
    assert job.duration == pytest.approx(job.audio_seconds)
    assert desk.segments == expected
    assert len(expected) > 5


def test_a_job_that_is_stopped_after_any_span_goes_on_there_and_nothing_is_heard_twice(desk: Desk) -> None:
    expected = whole(desk)
    spans = desk.line.spans
    for number in range(1, spans + 1):
        stretch = desk.take()
        desk.line.at = {spans + number: stretch.stop.set}
        job = desk.work(stretch)
        assert (job.state, stretch.outcome) == ("queued", "given back")
        assert desk.line.spans == spans + number, "one span a stretch"
        assert job.duration == pytest.approx(stretch.progress.declared_seconds)
    assert desk.work(desk.take()).state == "succeeded"
    assert desk.line.spans == 2 * spans
    assert desk.segments == expected


class Wordless(Transcriber):
    """Hears what there is and has nothing to say of it, as of an hour of wind."""

    def hear(self, *arguments: Any, **options: Any) -> Generator[Segment | None, None, None]:
        for _segment in super().hear(*arguments, **options):
            yield None


def test_what_is_done_is_kept_where_nothing_is_said_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_work, "_KEEP_EVERY_SECONDS", 0.0)
    desk.transcriber = desk.transcriber_of(Wordless)
    reached: list[float] = []
    for number in (3, 6):
        desk.line.at[number] = lambda: reached.append(desk.store.read(desk.id, "").audio_seconds)
    job = desk.work(desk.take())
    assert (job.state, job.segments) == ("succeeded", 0)
    assert 0 < reached[0] < reached[1] < job.audio_seconds


def test_a_job_whose_worker_cannot_wait_for_its_span_is_given_back(tmp_path: Path, sound: bytes) -> None:
    leaving = Batcher(MODEL.engine, batch_size=1, queue_limit=8)
    desk = Desk(tmp_path / "state", leaving, sound)
    desk.line.at = {4: leaving.abandon}
    stretch = desk.take()
    job = desk.work(stretch)
    assert (job.state, stretch.outcome, stretch.status) == ("queued", "given back", 0)
    assert job.audio_seconds > 0
    assert job.segments == len(desk.segments) > 0
    leaving.close(DEADLINE)
    desk.close()


def test_a_cancelled_job_is_dropped(desk: Desk) -> None:
    stretch = desk.take()

    def cancel() -> None:
        desk.store.end(desk.id, "")
        stretch.stop.set()

    desk.line.at = {2: cancel}
    job = desk.work(stretch)
    assert (job.state, stretch.outcome, stretch.status) == ("cancelled", "lost", 0)
    assert desk.line.spans == 2


def test_what_cannot_be_decoded_fails_with_the_reason(tmp_path: Path, batcher: Batcher) -> None:
    desk = Desk(tmp_path / "state", batcher, b"no sound" * 100)
    stretch = desk.take()
    job = desk.work(stretch)
    assert (job.state, stretch.status) == ("failed", 400)
    assert job.error is not None
    assert job.error.code == "audio_undecodable"
    desk.close()


def raising(error: Exception) -> Any:
    def fail() -> None:
        raise error

    return fail


def test_an_engine_that_fails_fails_the_job_and_one_that_is_busy_does_not(desk: Desk) -> None:
    stretch = desk.take()
    desk.line.at = {2: raising(NotReady("busy"))}
    assert desk.work(stretch).state == "queued"
    assert stretch.status == 0
    desk.line.at = {4: raising(InferenceFailed("not finite"))}
    stretch = desk.take()
    job = desk.work(stretch)
    assert (job.state, stretch.status) == ("failed", 500)
    assert job.error is not None
    assert (job.error.code, job.error.message) == ("inference_failed", "not finite")


def test_what_nobody_foresaw_fails_the_job_and_is_logged(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.line.at = {1: raising(KeyError("secret"))}
    job = desk.work(desk.take())
    assert job.state == "failed"
    assert job.error is not None
    assert job.error.code == "internal_error"
    assert "secret" not in job.error.message
    assert "secret" in caplog.text


def test_a_full_disk_is_waited_for(desk: Desk) -> None:
    expected = whole(desk)
    stretch = desk.take()
    table = desk.storage.database._open()
    full = threading.Event()

    def fill() -> None:
        (pages,) = table.execute("PRAGMA page_count").fetchone()
        table.execute(f"PRAGMA max_page_count = {pages}")
        full.set()

    desk.line.at = {desk.line.spans + 2: fill}
    thread = threading.Thread(target=desk.work, args=(stretch,))
    thread.start()
    assert full.wait(DEADLINE)
    thread.join(1.5)
    assert thread.is_alive()
    table.execute("PRAGMA max_page_count = 1000000")
    thread.join(DEADLINE)
    assert desk.store.read(desk.id, "").state == "succeeded"
    assert desk.segments == expected


def test_a_full_disk_holds_nobody_up_who_leaves(desk: Desk) -> None:
    stretch = desk.take()
    table = desk.storage.database._open()

    def fill_and_leave() -> None:
        (pages,) = table.execute("PRAGMA page_count").fetchone()
        table.execute(f"PRAGMA max_page_count = {pages}")
        stretch.segments += [Segment(0, 1, "x" * 100_000, "en", "unknown", (), 1, ())]
        stretch.stop.set()

    desk.line.at = {2: fill_and_leave}
    assert desk.work(stretch).state == "running"
    assert stretch.outcome == "left"
    table.execute("PRAGMA max_page_count = 1000000")
    assert desk.take().claim.turn == 2


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """What is open stays so; nothing else can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_job_whose_upload_cannot_be_opened_for_want_of_descriptors_is_put_back(desk: Desk) -> None:
    stretch = desk.take()
    with no_more_descriptors():
        job = desk.work(stretch)
    assert (job.state, stretch.outcome, job.error) == ("queued", "given back", None)
    again = desk.take()
    assert again.claim.turn == stretch.claim.turn + 1
    assert desk.work(again).state == "succeeded"


def test_a_decoder_that_cannot_be_started_for_want_of_descriptors_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"no sound")
    pool = HelperPool(memory_bytes=2**30, block_timeout=DEADLINE)
    with (tmp_path / "a").open("rb") as file, no_more_descriptors():
        found = pool.decode(file.fileno(), max_rate=1, max_channels=1, cpu_seconds=1)
        with pytest.raises(
            OutOfDescriptors, match="no decoder can be started: Too many open files"
        ) as caught:
            next(found)
    assert caught.value.status == 503
