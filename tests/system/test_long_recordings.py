"""An hour of speech: right words at right times, in memory that does not grow with the length."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
from mixed import anonymous_kib
from recordings import write_recording
from service import Service, running


class Peak:
    """The highest anonymous memory of a process during a `with` block."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.bytes = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            self.bytes = max(self.bytes, anonymous_kib(self.pid) * 1024)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)


def transcribe(service: Service, path: Path) -> dict[str, Any]:
    with path.open("rb") as file, service.client() as client:
        answer = client.post(
            "/api/transcribe", files={"file": file}, data={"timestamps": "word"}, timeout=1500
        )
    assert answer.status_code == 200, answer.text
    return answer.json()


def peak_of(folder: Path, recording: Path) -> tuple[int, dict[str, Any]]:
    """Peak memory of a fresh worker over one recording, and the answer."""
    with running(folder, ASR_WORKERS="1", ASR_THREADS="2") as service:
        (worker,) = service.workers()
        with Peak(worker.pid) as peak:
            body = transcribe(service, recording)
        assert psutil.pid_exists(worker.pid)
        return peak.bytes, body


@pytest.mark.timeout(2400)
def test_an_hour_is_right_and_takes_no_more_memory_than_ten_minutes(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    said = write_recording(tmp_path / "hour.flac", 60, seed=1)
    write_recording(tmp_path / "ten.flac", 10, seed=2)
    hour, body = peak_of(tmp_path / "a", tmp_path / "hour.flac")
    ten, _ = peak_of(tmp_path / "b", tmp_path / "ten.flac")

    segments = body["segments"]
    texts = [(s["language"], s["text"]) for s in segments]
    assert texts == [(s.language, s.text) for s in said]
    late = [
        (truth, segment["start"], segment["end"])
        for truth, segment in zip(said, segments, strict=True)
        if abs(segment["start"] - truth.start) > 0.3 or abs(segment["end"] - truth.end) > 0.3
    ]
    assert not late
    times = [time for s in segments for time in (s["start"], s["end"])]
    assert times == sorted(times)
    for segment in segments:
        for word in segment["words"]:
            assert segment["start"] - 0.3 <= word["start"] <= word["end"] <= segment["end"] + 0.3
    record_property("peak_mib_60_min", round(hour / 2**20, 1))
    record_property("peak_mib_10_min", round(ten / 2**20, 1))
    assert hour <= 1.15 * ten
