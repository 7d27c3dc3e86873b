"""The files that workers count in: nothing is lost or counted twice, whoever dies when."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from kill_points import KILLED, failing_from, fork, in_child, killed_at
from prometheus_client import values

from asrsvc.web.meter import Meter
from asrsvc.web.metric_files import MOST_VERSIONS, MetricFiles

NOTE = {
    "bytes": 10,
    "audio_seconds": 2.0,
    "decode_ms": 10.0,
    "inference_ms": 90.0,
    "empty": False,
    "warnings": ["audio_incomplete"],
}


@pytest.fixture
def files(tmp_path: Path) -> MetricFiles:
    folder = tmp_path / "metrics"
    folder.mkdir()
    return MetricFiles(folder)


def worker(files: MetricFiles, version: str = "v", requests: int = 1) -> None:
    """A process that answers so many requests, has one more in hand, and is killed."""
    pid = fork()
    if pid == 0:
        try:
            meter = Meter(files, version, load_seconds=1.5, twin="damaged")
            for _ in range(requests):
                meter.begin()
                meter.end("/api/transcribe", 200, 0.2, NOTE)
            meter.begin()
        except BaseException:  # noqa: BLE001 - the parent sees the exit code
            os._exit(1)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def samples(files: MetricFiles) -> dict[str, float]:
    """Name with labels → value."""
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for metric in files.collect()
        for sample in metric.samples
    }


def answered(files: MetricFiles) -> float:
    return samples(files).get("asr_requests_total route=/api/transcribe status=200", 0)


def test_what_killed_workers_have_counted_is_summed(files: MetricFiles) -> None:
    for requests in (1, 2, 3):
        worker(files, requests=requests)
    found = samples(files)
    assert found["asr_requests_total route=/api/transcribe status=200"] == 6
    assert found["asr_audio_seconds_total version=v"] == 12
    assert found["asr_transcripts_total result=text version=v"] == 6
    assert found["asr_warnings_total code=audio_incomplete"] == 6
    assert found["asr_request_duration_seconds_bucket le=0.1 route=/api/transcribe"] == 0
    assert found["asr_request_duration_seconds_bucket le=0.25 route=/api/transcribe"] == 6
    assert found["asr_request_duration_seconds_count route=/api/transcribe"] == 6
    assert found["asr_real_time_factor_sum version=v"] == pytest.approx(0.3)
    assert found["asr_model_loads_total twin=damaged version=v"] == 3
    assert found["asr_model_loads_total twin=ready version=v"] == 0
    # What a dead process had in hand, or had loaded, is not there any more.
    assert "asr_requests_in_progress" not in found
    assert not any(name.startswith("model_load_time") for name in found)


def test_many_generations_need_no_more_room_than_one(files: MetricFiles) -> None:
    for generation in range(1, 61):
        worker(files)
        if generation % 20 == 0:
            assert answered(files) == generation
        assert len(list(files.folder.iterdir())) <= 10
    MetricFiles(files.folder).absorb_dead()
    assert sorted(path.name.partition("_")[0] for path in files.folder.glob("*.db")) == [
        "counter",
        "histogram",
    ]
    assert sum(path.stat().st_size for path in files.folder.iterdir()) < 64 * 1024
    assert samples(files)["asr_request_duration_seconds_count route=/api/transcribe"] == 60


def test_only_the_newest_versions_are_remembered(files: MetricFiles) -> None:
    for number in range(MOST_VERSIONS + 5):
        worker(files, version=f"v{number}")
    files.absorb_dead()
    found = samples(files)
    kept = {name.rpartition("=")[2] for name in found if name.startswith("asr_audio_seconds_total")}
    assert kept == {f"v{number}" for number in range(5, MOST_VERSIONS + 5)}
    assert answered(files) == MOST_VERSIONS + 5  # this has no version


def test_an_old_version_that_serves_again_is_a_new_one(files: MetricFiles) -> None:
    for number in range(MOST_VERSIONS):
        worker(files, version=f"v{number}")
    for version in ("v0", "another"):
        worker(files, version=version)
    files.absorb_dead()
    found = samples(files)
    assert found["asr_audio_seconds_total version=v0"] == 4
    assert "asr_audio_seconds_total version=v1" not in found


def every_step(kill: Callable[[int], int], check: Callable[[], None]) -> int:
    """Let it end at each step in turn; how many there were."""
    for step in range(1, 200):
        code = kill(step)
        check()
        if code == 0:
            return step
    raise AssertionError("it does not end")


def test_whoever_adds_up_may_die_at_any_step(files: MetricFiles) -> None:
    workers = 0

    def kill(step: int) -> int:
        nonlocal workers
        for _ in range(2):
            worker_without_absorbing(files)
        workers += 2
        code = killed_at(step, files.absorb_dead)
        assert code in {0, KILLED}
        return code

    def check() -> None:
        assert answered(files) == workers
        files.absorb_dead()
        assert answered(files) == workers

    assert every_step(kill, check) > 8


def test_a_full_disk_loses_nothing(files: MetricFiles) -> None:
    workers = 0

    def fail(step: int) -> int:
        nonlocal workers
        worker_without_absorbing(files)
        workers += 1
        code = failing_from(step, files.absorb_dead, OSError)
        assert code in {0, 2}
        return code

    def check() -> None:
        assert answered(files) == workers

    assert every_step(fail, check) > 5


def worker_without_absorbing(files: MetricFiles) -> None:
    class Idle(MetricFiles):
        def absorb_dead(self) -> int:
            return 0

    worker(Idle(files.folder))


def test_a_damaged_file_does_not_hide_the_others(
    files: MetricFiles, caplog: pytest.LogCaptureFixture
) -> None:
    worker(files)
    for name, content in (
        ("counter_1-1.db", b"\0\x10\0\0" + b"\xff" * 4092),
        ("histogram_2-2.db", b""),
        ("x.db", b"abc"),
    ):
        (files.folder / name).write_bytes(content)
    assert answered(files) == 1
    assert "counter_1-1.db is left out" in caplog.text
    files.absorb_dead()
    assert answered(files) == 1
    assert not (files.folder / "counter_1-1.db").exists()
    (files.folder / "merged.json").write_text("{")
    samples(files)  # what has been added up is gone with it; nothing breaks
    worker(files)
    assert answered(files) >= 1


def test_a_worker_without_room_serves_and_does_not_count(tmp_path: Path) -> None:
    def serve() -> None:
        meter = Meter(MetricFiles(tmp_path / "missing"), "v")
        meter.begin()
        meter.end("/x", 200, 0.1, NOTE)
        assert values.ValueClass is values.MutexValue

    assert in_child(serve) == 0


def test_the_space_is_reserved_before_it_is_written_to(files: MetricFiles) -> None:
    def reserve() -> None:
        files.reserve()
        for path in files.folder.glob("*.db"):
            found = path.stat()
            assert found.st_blocks * 512 >= found.st_size > 0

    assert in_child(reserve) == 0
