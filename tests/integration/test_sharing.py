"""Long recordings and short ones on the same workers, and loads beside all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from recordings import write_recording
from rolling import operated
from service import CLIPS, Service, running, wait_for
from waiting import PATIENCE

TRIES = 5
"""of what a machine that pauses may spoil"""


def helped_ticks(service: Service) -> dict[int, dict[str, int]]:
    """CPU time of each thread of low priority that each worker has, clock ticks (proc(5), stat)."""
    found: dict[int, dict[str, int]] = {}
    for worker in service.worker_pids():
        found[worker] = {}
        for task in Path(f"/proc/{worker}/task").iterdir():
            try:
                fields = (task / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # a thread that has just ended
            utime, stime, niceness = int(fields[11]), int(fields[12]), int(fields[16])
            if niceness > usual_niceness():
                found[worker][task.name] = utime + stime
    return found


def usual_niceness() -> int:
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[16])


def send(service: Service, path: Path) -> str:
    answer = service.transcribe(path.name, path.read_bytes())
    assert answer.status_code == 200, answer.text
    return str(answer.json()["text"])


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("long") / "long.flac"
    write_recording(path, 12, seed=3)
    assert path.stat().st_size > 8 * 2**20, "it is to wait in the lane of the long ones"
    return path


@pytest.mark.skipif(usual_niceness() >= 10, reason="here all have the priority that helpers have")
def test_a_long_recording_is_spread_over_an_idle_machine_and_says_the_same(
    tmp_path: Path, long: Path
) -> None:
    with running(tmp_path / "two", ASR_WORKERS="2", ASR_THREADS="1") as service:
        before = helped_ticks(service)
        said = send(service, long)
        # A load is of low priority too: its thread may still be there at first, and is gone by now.
        helped = [
            any(now > before[worker].get(thread, now) for thread, now in ticks.items())
            for worker, ticks in helped_ticks(service).items()
        ]
    assert sorted(helped) == [False, True], "one worker, with help inside it"
    with running(tmp_path / "one", ASR_WORKERS="1", ASR_THREADS="1") as service:
        assert send(service, long) == said


def test_short_requests_are_answered_while_a_long_one_goes_on(tmp_path: Path, long: Path) -> None:
    with running(tmp_path, ASR_WORKERS="1", ASR_THREADS="1") as service, ThreadPoolExecutor(1) as threads:
        for _ in range(TRIES):
            promised = threads.submit(send, service, long)
            wait_for("the long one's beginning", lambda made=promised: made.done() or _busy(service))
            texts = [send(service, CLIPS / "en_1.flac") for _ in range(3)]
            waited_for_the_long_one = promised.done()
            assert promised.result(3 * PATIENCE)
            assert len(set(texts)) == 1
            if not waited_for_the_long_one:
                return
            # Where this process paused, the long one may have been done before they were sent.
        pytest.fail(f"{TRIES} times they were answered after the long one")


def _busy(service: Service) -> bool:
    """Whether the worker has an uploaded file open: it has begun."""
    (worker,) = service.workers()
    return any("upload" in name or "spool" in name for name in _open_files(worker.pid))


def _open_files(pid: int) -> Iterator[str]:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            yield str(entry.readlink())


@contextmanager
def no_core_idle() -> Iterator[None]:
    """A process for each core that does nothing, all the time."""
    hogs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(len(os.sched_getaffinity(0)))
    ]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait(PATIENCE)


def test_a_version_is_changed_though_no_core_is_ever_idle(tmp_path: Path) -> None:
    """A load waits for idle cores, but not for ever."""
    with operated(tmp_path, ASR_READY_TIMEOUT="600") as service:
        target = service.other
        with no_core_idle():
            roll = service.roll_to(target)
        assert (roll.result, roll.error) == ("succeeded", None)
        service.wait_whole(target)
