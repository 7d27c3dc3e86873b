"""Jobs over HTTP: what comes back, what is refused, and who goes first."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import soundfile
from job_client import ENDED, JobClient, each_has_ended_once, ends
from recordings import RATE, write_recording
from rolling import Operated, operated
from service import CLIPS, PROJECT, Service, manifest, running, wait_for
from waiting import PATIENCE

from asrsvc.serving.keys import Key, digest_of, new_secret, write_keys

MINUTES = 8.0
LIMIT = 4
KEEP_SECONDS = 3600
"""until a job of the narrow service expires"""
NOBODYS = "0" * 32
TRIES = 5
"""to do something before a job has ended, on a machine that pauses"""


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A recording that a worker has to do with for a while."""
    path = tmp_path_factory.mktemp("long") / "long.flac"
    write_recording(path, MINUTES, seed=1)
    return path.read_bytes()


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has little room, one worker, and a short memory."""
    with running(
        tmp_path_factory.mktemp("narrow"),
        ASR_WORKERS="1",
        ASR_THREADS="1",
        ASR_JOBS_PER_CLIENT=str(LIMIT),
        ASR_JOBS_KEEP_SECONDS=str(KEEP_SECONDS),
        ASR_JOBS_DISK_MB="12",
        ASR_MAX_UPLOAD_MB="12",
        ASR_MAX_AUDIO_SECONDS="600",
    ) as started:
        yield started


def clip(name: str) -> bytes:
    return (CLIPS / name).read_bytes()


def silence(seconds: float) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(round(seconds * RATE), np.int16), RATE, format="FLAC")
    return buffer.getvalue()


def clear(service: Service) -> None:
    """Remove all jobs."""
    jobs = JobClient(service)
    while found := jobs.all():
        for job in found:
            assert jobs.delete(job["id"]).status_code in {200, 204}


def goes_on(jobs: JobClient, job: str) -> bool:
    """Whether a job has not ended: then it had not ended before either."""
    return jobs.job(job)["status"] not in ENDED


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_job_gives_what_a_request_gives_in_every_format(service: Service) -> None:
    jobs = JobClient(service)
    ids = {c["file"]: jobs.begin(clip(c["file"])) for c in manifest()}
    for said in manifest():
        job = ids[said["file"]]
        body = jobs.wait_ended(job)
        assert body["status"] == "succeeded", body
        assert body["progress"]["duration"] == pytest.approx(said["seconds"], abs=0.01)
        asked = service.transcribe("sound", clip(said["file"]), timestamps="word").json()
        result = jobs.result(job, timestamps="word")
        own = {"job": job, "model_versions": body["model_versions"], "request_id": result["request_id"]}
        assert result == asked | own
        assert jobs.get(f"/{job}/result", format="text").text == said["withitn"]
        srt, vtt = (jobs.get(f"/{job}/result", format=form).text for form in ("srt", "vtt"))
        assert vtt.startswith("WEBVTT\n")
        for text in (srt, vtt):
            assert ("-->" in text) == bool(said["withitn"])
        verbose = jobs.result(job, format="verbose_json")
        assert (verbose["text"], verbose["task"]) == (said["withitn"], "transcribe")
        assert [s["text"] for s in verbose["segments"]] == [s["text"] for s in asked["segments"]]
        assert [w["word"] for w in verbose["words"]] == [
            w["word"] for s in asked["segments"] for w in s["words"]
        ]
    each_has_ended_once(service, ids.values())


def test_language_and_itn_are_those_of_the_request(service: Service) -> None:
    jobs = JobClient(service)
    job = jobs.begin(clip("zh_1.flac"), language="zh", use_itn="false")
    body = jobs.wait_ended(job)
    assert (body["language"], body["use_itn"]) == ("zh", False)
    said = next(c for c in manifest() if c["file"] == "zh_1.flac")
    assert jobs.result(job)["text"] == said["woitn"]


def test_a_job_leaves_punctuation_out_and_knows_the_languages(service: Service) -> None:
    jobs = JobClient(service)
    job = jobs.begin(clip("en_1.flac"), punctuation="false")
    assert jobs.wait_ended(job)["punctuation"] is False
    result = jobs.result(job, timestamps="segment")
    assert result["text"] == "Book a table at 1:25 am"
    for body in (result, *result["segments"], jobs.result(job, format="verbose_json")):
        found = body["language_probabilities"]
        assert list(found) == ["zh", "en", "yue", "ja", "ko"]
        assert body["language_probability"] == found["en"] > 0.9


def test_the_events_of_a_job_come_as_it_goes_on_and_again_from_any_place(
    service: Service, long: bytes
) -> None:
    jobs = JobClient(service)
    job = jobs.begin(long)
    seen = list(jobs.events(job))
    segments = [data for name, _number, data in seen if name == "segment"]
    assert [number for name, number, _ in seen if name == "segment"] == [
        str(n) for n in range(1, len(segments) + 1)
    ]
    assert seen[-1][0] == "end"
    assert seen[-1][2] == jobs.job(job)
    stations = [data["audio_seconds"] for name, _, data in seen if name == "progress"]
    assert stations == sorted(stations)
    assert stations[-1] == jobs.job(job)["progress"]["duration"] > 60 * MINUTES - 10
    running = [data for name, _, data in seen if name == "progress" and data["status"] == "running"]
    assert {data["duration"] for data in running if data["segments"]} <= {stations[-1]}
    result = jobs.result(job, timestamps="word")
    assert [{**s, "model_version": result["model_version"]} for s in result["segments"]] == segments
    for last in (0, 3, len(segments), len(segments) + 5):
        rest = [data for name, _, data in jobs.events(job, last) if name == "segment"]
        assert rest == segments[last:]


def test_what_is_no_sound_fails_with_the_reason(service: Service) -> None:
    jobs = JobClient(service)
    job = jobs.begin(b"no sound at all" * 100)
    body = jobs.wait_ended(job)
    assert body["status"] == "failed"
    assert body["error"]["code"] == "audio_undecodable"
    refused = jobs.get(f"/{job}/result")
    assert code(refused) == (409, "job_failed")
    assert body["error"]["message"] in refused.json()["error"]["message"]
    assert "Retry-After" not in refused.headers
    (end,) = (data for name, _, data in jobs.events(job) if name == "end")
    assert end == body


def test_a_job_that_is_not_done_has_no_result_yet(narrow: Service, long: bytes) -> None:
    jobs = JobClient(narrow)
    for _ in range(TRIES):
        clear(narrow)
        first, second = jobs.begin(long), jobs.begin(clip("en_1.flac"))
        answers = [jobs.get(f"/{job}/result") for job in (second, first)]
        if goes_on(jobs, first):
            break
    for refused in answers:
        assert code(refused) == (409, "job_not_finished")
        assert refused.headers["Retry-After"]
    assert jobs.wait_ended(second)["status"] == "succeeded"


def test_a_running_job_is_cancelled_then_removed_then_unknown(narrow: Service, long: bytes) -> None:
    jobs = JobClient(narrow)
    for _ in range(TRIES):
        clear(narrow)
        job = jobs.begin(long)
        wait_for("a job that runs", lambda job=job: jobs.job(job)["status"] != "queued", 20)
        answer = jobs.delete(job)
        if answer.status_code != 204:
            break  # else it had ended, and has been removed
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert code(jobs.get(f"/{job}/result")) == (409, "job_cancelled")
    assert [name for name, _, _ in jobs.events(job)][-1] == "end"
    wait_for("its end", lambda: (job, "lost") in outcomes(narrow), 20)
    assert jobs.job(job)["status"] == "cancelled"
    assert not (narrow.folder / "state" / "jobs" / "uploads" / job).exists()
    answer = jobs.delete(job)
    assert (answer.status_code, answer.content) == (204, b"")
    assert code(jobs.delete(job)) == (404, "unknown_job")
    assert code(jobs.get(f"/{job}")) == (404, "unknown_job")
    assert job not in ends(narrow)


def outcomes(service: Service) -> list[tuple[str, str]]:
    """Jobs that a worker has let go, and how that ended."""
    lines = (line for line in service.log_lines() if line["message"] == "job let go")
    return [(line["job"], line["outcome"]) for line in lines]


def test_a_waiting_job_is_cancelled_and_never_begun(narrow: Service, long: bytes) -> None:
    jobs = JobClient(narrow)
    for _ in range(TRIES):
        clear(narrow)
        first, waiting = jobs.begin(long), jobs.begin(clip("en_1.flac"))
        answer = jobs.delete(waiting)
        if goes_on(jobs, first):
            break
    assert answer.json()["status"] == "cancelled"
    assert jobs.wait_ended(first)["status"] == "succeeded"
    assert jobs.job(waiting)["started"] is None
    assert jobs.job(waiting)["status"] == "cancelled"
    assert waiting not in ends(narrow)


def test_too_many_jobs_are_refused_until_one_is_removed(narrow: Service) -> None:
    clear(narrow)
    jobs = JobClient(narrow)
    ids = [jobs.begin(clip("en_1.flac")) for _ in range(LIMIT)]
    refused = jobs.submit(clip("en_1.flac"))
    assert code(refused) == (429, "too_many_jobs")
    assert refused.headers["Retry-After"]
    assert str(LIMIT) in refused.json()["error"]["message"]
    jobs.wait_ended(ids[0])
    assert jobs.delete(ids[0]).status_code == 204
    jobs.begin(clip("en_1.flac"))


def test_uploads_over_a_limit_are_refused_and_leave_nothing(narrow: Service, long: bytes) -> None:
    clear(narrow)
    jobs = JobClient(narrow)
    assert code(jobs.submit(bytes(13 * 2**20))) == (413, "upload_too_large")

    def endless() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(13):
            yield bytes(2**20)

    with narrow.client() as client:
        answer = client.post(
            "/api/jobs", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=x"}
        )
    assert code(answer) == (413, "upload_too_large")
    assert jobs.all() == []
    for _ in range(TRIES):
        clear(narrow)
        first = jobs.begin(long)
        refused = jobs.submit(bytes(12 * 2**20 - 1000))
        if goes_on(jobs, first):
            break
    assert code(refused) == (507, "no_space")
    assert refused.headers["Retry-After"]
    jobs.wait_ended(first)
    assert [job["id"] for job in jobs.all()] == [first]
    uploads = narrow.folder / "state" / "jobs" / "uploads"
    wait_for("no upload is kept", lambda: not any(uploads.iterdir()), 20)
    too_long = jobs.begin(silence(601))
    assert jobs.wait_ended(too_long)["error"]["code"] == "audio_too_long"


def test_an_ended_job_expires(narrow: Service) -> None:
    clear(narrow)
    jobs = JobClient(narrow)
    job = jobs.begin(clip("en_1.flac"))
    body = jobs.wait_ended(job)
    kept = datetime.fromisoformat(body["expires"]) - datetime.fromisoformat(body["ended"])
    assert kept.total_seconds() == pytest.approx(KEEP_SECONDS, abs=0.01)
    path = narrow.folder / "state" / "jobs" / "jobs.sqlite3"
    table = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
    table.execute("UPDATE jobs SET ended = ended - ? WHERE id = ?", (KEEP_SECONDS + 1, job))
    table.close()
    refused = jobs.get(f"/{job}/result")
    assert code(refused) == (404, "unknown_job")
    assert f"{KEEP_SECONDS} s" in refused.json()["error"]["message"]
    assert jobs.all() == []


@pytest.mark.parametrize("tail", ["", "/events", "/result"])
@pytest.mark.parametrize("job", [NOBODYS, "x", "%00", "a" * 300, "..%2f..%2fetc%2fpasswd"])
def test_an_id_of_no_job_is_unknown(service: Service, job: str, tail: str) -> None:
    answer = JobClient(service).get(f"/{job}{tail}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] in {"unknown_job", "not_found"}


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?limit=many", "limit"),
        ("?limit=1&limit=2", "limit"),
        ("?limit=%F0%9D%9F%99", "limit"),
        ("?before=-1", "before"),
        ("?before=", "before"),
        ("?page=2", "page"),
        ("/{job}?full=1", "full"),
        ("/{job}/result?format=docx", "format"),
        ("/{job}/result?format=", "format"),
        ("/{job}/result?format=srt&format=vtt", "format"),
        ("/{job}/result?timestamps=syllable", "timestamps"),
        ("/{job}/result?response_format=srt", "response_format"),
    ],
)
def test_a_wrong_parameter_is_named(service: Service, path: str, param: str) -> None:
    jobs = JobClient(service)
    job = jobs.all()[-1]["id"] if "{job}" in path and jobs.all() else jobs.begin(clip("en_1.flac"))
    with service.client() as client:
        answer = client.get("/api/jobs" + path.format(job=job))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("last", ["x", "-1", "1e3", "9" * 30])
def test_a_wrong_last_event_id_is_named(service: Service, last: str) -> None:
    job = JobClient(service).begin(clip("en_1.flac"))
    with service.client() as client:
        answer = client.get(f"/api/jobs/{job}/events", headers={"Last-Event-ID": last})
    assert code(answer) == (400, "invalid_value")
    assert answer.json()["error"]["param"] == "Last-Event-ID"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"language": "xx"}, (400, "invalid_value")),
        ({"use_itn": "perhaps"}, (400, "invalid_value")),
        ({"timestamps": "word"}, (400, "unknown_field")),
        ({"": "x"}, (400, "unknown_field")),
    ],
)
def test_a_wrong_form_is_refused_and_makes_no_job(
    service: Service, fields: dict[str, str], expected: tuple[int, str]
) -> None:
    jobs = JobClient(service)
    before = len(jobs.all())
    assert code(jobs.submit(clip("en_1.flac"), **fields)) == expected
    with service.client() as client:
        assert code(client.post("/api/jobs", data={"language": "zh"})) == (415, "unsupported_media_type")
        missing = client.post("/api/jobs", files={"language": (None, "zh")})
        assert code(missing) == (400, "missing_field")
        assert code(client.post("/api/jobs", files={"file": ("a", b"")})) == (400, "file_empty")
        assert code(client.put("/api/jobs")) == (405, "method_not_allowed")
    assert len(jobs.all()) == before


def test_pages_hold_all_jobs_the_newest_first(service: Service) -> None:
    jobs = JobClient(service)
    clear(service)
    ids = [jobs.begin(clip("en_1.flac")) for _ in range(5)]
    found: list[str] = []
    query = {"limit": "2"}
    for size, more in ((2, True), (2, True), (1, False)):
        page = jobs.get("", **query).json()
        assert len(page["jobs"]) == size
        assert (page["next"] is not None) == more
        found += [job["id"] for job in page["jobs"]]
        query["before"] = str(page["next"])
    assert found == ids[::-1]


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(service: Service) -> None:
    jobs = JobClient(service)
    clear(service)
    uploads = service.folder / "state" / "jobs" / "uploads"

    def halting() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(10_000)
        wait_for("the upload's file", lambda: any(uploads.iterdir()), 20)
        raise ConnectionAbortedError

    with service.client() as client, pytest.raises(ConnectionAbortedError):
        client.post(
            "/api/jobs", content=halting(), headers={"Content-Type": "multipart/form-data; boundary=x"}
        )
    wait_for("an empty folder", lambda: not any(uploads.iterdir()), 20)
    assert jobs.all() == []


def test_keys_see_their_own_jobs_alone(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    service = Service(tmp_path / "service", ASR_WORKERS="1", ASR_THREADS="1", ASR_API_KEYS=str(keys))

    def add(name: str) -> httpx.Client:
        command = [sys.executable, "-m", "asrsvc.serving.keys_tool", "add", name]
        done = subprocess.run(
            command, env=service.environ, cwd=PROJECT, capture_output=True, text=True, check=True
        )
        return service.client(headers={"Authorization": f"Bearer {done.stdout.strip()}"})

    with add("alice") as alice, add("bob") as bob, service.client() as nobody:
        try:
            service.start()
            made = alice.post("/api/jobs", files={"file": ("a", clip("en_1.flac"))})
            assert made.status_code == 202
            path = made.headers["Location"]
            for tail in ("", "/events", "/result"):
                assert code(bob.get(path + tail)) == (404, "unknown_job")
                assert nobody.get(path + tail).status_code == 401
            assert code(bob.delete(path)) == (404, "unknown_job")
            assert bob.get("/api/jobs").json()["jobs"] == []
            wait_for("its end", lambda: alice.get(path).json()["status"] == "succeeded", 20)
            assert alice.get(f"{path}/result").status_code == 200
            assert [job["id"] for job in alice.get("/api/jobs").json()["jobs"]] == [path.split("/")[-1]]
            assert alice.delete(path).status_code == 204
        finally:
            service.stop()


def test_a_name_that_is_given_again_is_another_client_and_another_secret_is_the_same(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    service = Service(tmp_path / "service", ASR_WORKERS="1", ASR_THREADS="1", ASR_API_KEYS=str(keys))

    def tool(*arguments: str) -> str:
        command = [sys.executable, "-m", "asrsvc.serving.keys_tool", *arguments]
        done = subprocess.run(
            command, env=service.environ, cwd=PROJECT, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def ask(secret: str, method: str, path: str, **more: Any) -> httpx.Response:
        with service.client(headers={"Authorization": f"Bearer {secret}"}) as client:
            return client.request(method, path, **more)

    def names(secret: str) -> list[str]:
        return [job["id"] for job in ask(secret, "GET", "/api/jobs").json()["jobs"]]

    first = tool("add", "carol")
    try:
        service.start()
        made = ask(first, "POST", "/api/jobs", files={"file": ("a", clip("en_1.flac"))})
        assert made.status_code == 202
        path = made.headers["Location"]
        wait_for("its end", lambda: ask(first, "GET", path).json()["status"] == "succeeded")

        second = tool("rotate", "carol")
        assert ask(first, "GET", path).status_code == 401
        assert names(second) == [path.split("/")[-1]]
        assert ask(second, "GET", f"{path}/result").status_code == 200

        tool("revoke", "carol")
        another = tool("add", "carol")
        assert names(another) == []
        for tail in ("", "/events", "/result"):
            assert code(ask(another, "GET", path + tail)) == (404, "unknown_job")
        assert code(ask(another, "DELETE", path)) == (404, "unknown_job")
    finally:
        service.stop()


def test_a_key_from_before_keys_had_identities_finds_the_jobs_of_its_name(tmp_path: Path) -> None:
    """As after an upgrade: an entry of whole seconds, and a table in which the name owns the jobs."""
    keys = tmp_path / "keys.json"
    secret = new_secret()
    write_keys(keys, [Key("carol", digest_of(secret), "2026-01-01T00:00:00+00:00")])
    service = Service(tmp_path / "service", ASR_WORKERS="1", ASR_THREADS="1", ASR_API_KEYS=str(keys))
    try:
        service.start()
        with service.client(headers={"Authorization": f"Bearer {secret}"}) as client:
            made = client.post("/api/jobs", files={"file": ("a", clip("en_1.flac"))})
            path = made.headers["Location"]
            wait_for("its end", lambda: client.get(path).json()["status"] == "succeeded")
        path = tmp_path / "service" / "state" / "jobs" / "jobs.sqlite3"
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as table:
            assert table.execute("SELECT client FROM jobs").fetchall() == [("key:carol",)]
    finally:
        service.stop()


def test_the_work_on_jobs_is_counted(tmp_path: Path) -> None:
    # Not the service of the others: what they have begun may be counted at any time.
    with running(tmp_path, ASR_WORKERS="1", ASR_THREADS="1") as service:

        def sound() -> float:
            with service.client() as client:
                lines = client.get("/metrics").text.splitlines()
            return sum(
                float(line.split()[-1]) for line in lines if line.startswith("asr_audio_seconds_total{")
            )

        jobs = JobClient(service)
        said = next(c for c in manifest() if c["file"] == "en_1.flac")
        jobs.wait_ended(jobs.begin(clip("en_1.flac")))
        wait_for("the sound of the job", lambda: sound() == pytest.approx(said["seconds"], abs=0.1))


def test_the_ops_listener_knows_no_jobs(service: Service) -> None:

    transport = httpx.HTTPTransport(uds=str(service.folder / "run" / "ops.sock"))
    with httpx.Client(transport=transport, base_url="http://ops", timeout=2 * PATIENCE) as client:
        assert client.get("/api/jobs").status_code == 404


def test_requests_are_answered_while_jobs_fill_the_engine(long: bytes, tmp_path: Path) -> None:
    with running(tmp_path, ASR_WORKERS="1", ASR_THREADS="1", ASR_JOBS_RUNNING="8") as service:
        jobs = JobClient(service)
        ids = [jobs.begin(long) for _ in range(8)]
        wait_for("eight jobs", lambda: {j["status"] for j in jobs.all()} == {"running"}, 30)
        said = next(c for c in manifest() if c["file"] == "en_1.flac")
        for _ in range(5):
            assert service.transcribe("a", clip("en_1.flac")).json()["text"] == said["withitn"]
        assert any(job["status"] == "running" for job in jobs.all()), "the requests waited for the jobs"
        for job in ids:
            assert jobs.delete(job).status_code in {200, 204}


def test_a_job_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    with operated(tmp_path, ASR_JOBS_ATTEMPTS="2", ASR_JOBS_RUNNING="1") as service:
        jobs = JobClient(service)
        hour = silence(3600)  # nothing is found in it for seconds
        for _ in range(TRIES):
            job = jobs.begin(hour)
            other = jobs.begin(clip("en_1.flac"))
            if all(kill_who_has(service, jobs, job, turn) for turn in (1, 2)):
                body = jobs.wait_ended(job)
                if body["status"] != "succeeded":
                    break  # else the second worker had done it before it was killed
        else:
            pytest.fail(f"each of {TRIES} jobs had ended before its workers were killed")
        assert (body["status"], body["error"]["code"]) == ("failed", "job_kills_workers")
        assert "2 workers" in body["error"]["message"]
        assert jobs.wait_ended(other)["status"] == "succeeded"


def kill_who_has(service: Operated, jobs: JobClient, job: str, turn: int) -> bool:
    """SIGKILL for the worker that begins a job for the so manieth time; False: it had ended without that."""

    def beginning() -> dict[str, Any] | None:
        lines = (line for line in service.log_lines() if line["message"] == "job begun")
        return next((line for line in lines if (line["job"], line["turn"]) == (job, turn)), None)

    wait_for(f"turn {turn}", lambda: beginning() or not goes_on(jobs, job), 30)
    found = beginning()
    if found is None or not goes_on(jobs, job):
        return False
    worker = psutil.Process(found["pid"])
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(PATIENCE)  # until then it may take a connection with it
    return True
