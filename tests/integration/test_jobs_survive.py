"""Jobs through what happens to a service: a worker is killed, the model changes, all stops and starts."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from job_client import JobClient, each_has_ended_once
from recordings import write_recording
from rolling import Operated, operated
from service import wait_for
from test_new_code import renewable
from waiting import PATIENCE

JOBS = 20
WORK_SECONDS = 30.0
"""that twenty jobs take two workers: long enough for what is done to them meanwhile, and for pauses"""
TRIES = 3
"""to do something before a job has ended"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    with operated(tmp_path_factory.mktemp("jobs"), ASR_JOBS_RUNNING=str(JOBS)) as started:
        yield started


@pytest.fixture(scope="module")
def sounds(service: Operated) -> list[bytes]:
    """Two recordings, as long as this machine's speed asks for."""
    path = service.folder / "sound.flac"
    write_recording(path, 1.0, seed=0)
    for _ in range(3):
        segments(service, path.read_bytes())

    def lines() -> list[dict[str, Any]] | None:
        found = [line for line in service.log_lines() if "inference_ms" in line]
        return found if len(found) >= 3 else None

    told = wait_for("the lines of the three", lines)
    minute = min(line["decode_ms"] + line["inference_ms"] for line in told) / 1000
    minutes = max(3.0, WORK_SECONDS / (JOBS / 2) / minute)
    found = []
    for seed in (1, 2):
        write_recording(path, minutes, seed)
        found.append(path.read_bytes())
    return found


def chained(sound: bytes, path: Path, *, times: int) -> bytes:
    """A recording several times, one after the other."""
    samples, rate = soundfile.read(io.BytesIO(sound), dtype="int16")
    soundfile.write(path, np.tile(samples, times), rate)
    return path.read_bytes()


def segments(service: Operated, sound: bytes) -> list[dict[str, Any]]:
    """What a request is told of a recording."""
    answer = service.transcribe("sound", sound, timestamps="word")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["segments"]
    return found


def begun(jobs: JobClient) -> bool:
    """Whether all run, and something has been found in each."""
    found = jobs.all()
    running = [job for job in found if job["status"] == "running"]
    assert len(found) == JOBS
    assert all(job["status"] in {"queued", "running"} for job in found), "all were done too early"
    return len(running) == JOBS and all(job["progress"]["segments"] for job in running)


@pytest.mark.timeout(1200)
def test_twenty_jobs_outlive_a_killed_worker_a_roll_to_another_model_and_a_restart(
    service: Operated, sounds: list[bytes]
) -> None:
    jobs = JobClient(service)
    before = [segments(service, sound) for sound in sounds]
    ids = [jobs.begin(sounds[n % 2]) for n in range(JOBS)]
    wait_for("twenty jobs with something found", lambda: begun(jobs), 60)

    victim = service.workers()[0]
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait(PATIENCE)
    service.wait_whole(service.good)

    service.end_of_roll(service.wish(service.other))
    service.wait_whole(service.other)
    found = jobs.all()
    assert {"queued", "running"} & {job["status"] for job in found}, "all were done too early"

    service.stop()
    service.start()
    service.wait_whole(service.other)
    ended = jobs.wait_all(JOBS, "succeeded", seconds=2 * PATIENCE)

    assert all(job["error"] is None for job in ended)
    assert sum(j["progress"]["segments"] for j in ended) > sum(j["progress"]["segments"] for j in found)
    each_has_ended_once(service, ids)
    after = [segments(service, sound) for sound in sounds]
    changed = 0
    for n, job in enumerate(ids):
        result = jobs.result(job, timestamps="word")
        versions = [segment.pop("model_version", result["model_version"]) for segment in result["segments"]]
        first = versions.count(service.good.id)
        assert versions == [service.good.id] * first + [service.other.id] * (len(versions) - first)
        assert result["model_versions"] == list(dict.fromkeys(versions))
        changed += len(result["model_versions"]) == 2
        assert result["segments"][:first] == before[n % 2][:first]
        assert result["segments"][first:] == after[n % 2][first:]
        assert len(versions) == len(after[n % 2])
    assert changed, "no job was in the middle while the model changed"
    assert not any((service.folder / "state" / "jobs" / "uploads").iterdir())


@pytest.mark.timeout(1200)
def test_jobs_outlive_a_power_cut_and_go_on_from_where_they_were(tmp_path: Path, sounds: list[bytes]) -> None:
    if not any(outlives_a_power_cut(tmp_path / f"try-{number}", sounds) for number in range(TRIES)):
        pytest.fail(f"each of {TRIES} jobs had ended before the power was cut")


def outlives_a_power_cut(folder: Path, sounds: list[bytes]) -> bool:
    """Check it; False: the job had ended before."""
    with operated(folder, ASR_WORKERS="1") as service:
        jobs = JobClient(service)
        sound = chained(sounds[0], folder / "long.flac", times=3)
        job = jobs.begin(sound)
        wait_for("something found", lambda: jobs.job(job)["progress"]["segments"] > 5, 30)
        service.kill_all()
        service.start()
        body = jobs.wait_ended(job)
        assert body["status"] == "succeeded"
        assert body["progress"]["audio_seconds"] == body["progress"]["duration"]
        begun, *more = (line for line in service.log_lines() if line["message"] == "job begun")
        if not more:
            return False
        (again,) = more
        assert (begun["turn"], begun["audio_seconds"]) == (1, 0)
        assert again["turn"] == 2
        assert again["audio_seconds"] > 0
        each_has_ended_once(service, [job])
        (end,) = (line for line in service.log_lines() if line["message"] == "job ended")
        assert end["spans"] < body["progress"]["segments"], "all was recognised again"
        assert jobs.result(job, timestamps="word")["segments"] == segments(service, sound)
    return True


@pytest.mark.timeout(1200)
def test_a_worker_that_leaves_gives_its_job_up_at_the_next_span_and_ends_the_streams_of_events(
    tmp_path: Path, sounds: list[bytes]
) -> None:
    if not any(gives_its_job_up(tmp_path / f"try-{number}", sounds) for number in range(TRIES)):
        pytest.fail(f"each of {TRIES} workers had done its job before it heard that it leaves")


def gives_its_job_up(folder: Path, sounds: list[bytes]) -> bool:
    """Check it; False: the last job, or the one in hand, had ended before the worker heard that it leaves."""
    with operated(folder, ASR_WORKERS="1", ASR_SOAK_SECONDS="0") as service:
        jobs = JobClient(service)
        waiting = [jobs.begin(sound) for sound in [*sounds, *sounds]]
        wait_for("a job that runs", lambda: any(j["status"] == "running" for j in jobs.all()), 30)
        (old,) = service.worker_pids()
        seen: list[tuple[str, str, Any]] = []

        def listen() -> None:
            for event in jobs.events(waiting[-1]):
                seen.append(event)  # noqa: PERF402 - each as it comes

        listener = threading.Thread(target=listen)
        listener.start()
        wait_for("its first event", lambda: seen, 20)
        service.reload()
        wait_for("the end of the old worker", lambda: old not in service.worker_pids(), 30)
        listener.join(PATIENCE)
        assert not listener.is_alive()
        let_go = [line for line in service.log_lines() if line["message"] == "job let go"]
        if seen[-1][0] == "end" or not let_go:
            return False
        assert {name for name, _, _ in seen} <= {"progress", "segment"}
        assert [line["outcome"] for line in let_go] == ["given back"]
        last = max((int(number) for _, number, _ in seen if number), default=0)
        rest = list(jobs.events(waiting[-1], last))
        assert rest[-1][0] == "end"
        total = rest[-1][2]["progress"]["segments"]
        assert [number for name, number, _ in rest if name == "segment"] == [
            str(number) for number in range(last + 1, total + 1)
        ]
        jobs.wait_all(len(waiting), "succeeded", seconds=120)
        each_has_ended_once(service, waiting)
    return True


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_jobs_go_on_while_new_code_takes_over(tmp_path: Path, sounds: list[bytes]) -> None:
    with renewable(tmp_path, ASR_JOBS_RUNNING="4") as service:
        jobs = JobClient(service)
        ids = [jobs.begin(sound) for sound in sounds for _ in range(2)]
        wait_for("a job that runs", lambda: any(j["status"] == "running" for j in jobs.all()), 30)
        service.renew()
        jobs.wait_all(len(ids), "succeeded", seconds=120)
        each_has_ended_once(service, ids)
        expected = [found for found in [segments(service, sound) for sound in sounds] for _ in range(2)]
        assert [jobs.result(job, timestamps="word")["segments"] for job in ids] == expected


def test_a_state_folder_that_cannot_be_used_stops_jobs_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "a file"
    place.write_text("")
    with operated(tmp_path / "service", ASR_STATE_DIR=str(place), ASR_WORKERS="1") as service:
        jobs = JobClient(service)
        answer = jobs.submit(b"RIFF")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "jobs_unavailable"
        # Everybody reads the answer; where the folder is, and what is wrong with it, stands in the log.
        assert "ASR_STATE_DIR" in answer.json()["error"]["message"]
        assert str(tmp_path) not in answer.text
        wait_for("the log says it", lambda: f"jobs_unavailable: {place}" in service.log())
        assert "Retry-After" in answer.headers
        assert jobs.get("").status_code == 503
        with service.client() as client:
            assert client.get("/health").json()["status"] == "healthy"
        place.unlink()
        assert jobs.submit(b"RIFF").status_code == 202, "it is looked for again"
