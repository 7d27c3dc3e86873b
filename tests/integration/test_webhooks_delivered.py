"""Webhooks of a real service: through the end of a job, a killed worker and a restart."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_client import JobClient
from machines import Asked, Authority, Machine, content, machine, make_authority, redirect, silence
from service import CLIPS, Service, running, wait_for
from test_signing import SECRET, checker
from waiting import PATIENCE

SOUND = (CLIPS / "en_1.flac").read_bytes()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def receiver(authority: Authority) -> Iterator[Machine]:
    with machine(authority) as made:
        yield made


def telling(receiver: Machine, authority: Authority, **more: str) -> dict[str, str]:
    return {
        "ASR_WORKERS": "2",
        "ASR_THREADS": "1",
        "ASR_URL_HOSTS": f"localhost:{receiver.port}",
        "ASR_WEBHOOK_SECRET": SECRET,
        "SSL_CERT_FILE": str(authority.certificate),
        **more,
    }


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, receiver: Machine, authority: Authority
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("told")
    # Longer than this process, which answers, may pause: each attempt is counted.
    with running(folder, **telling(receiver, authority, ASR_WEBHOOK_TIMEOUT="300")) as started:
        yield started


def status(jobs: JobClient, job: str) -> str:
    return str(jobs.job(job)["webhook"]["status"])


def test_the_end_of_a_job_is_told_once_and_signed(told: Service, receiver: Machine) -> None:
    jobs = JobClient(told)
    receiver.answers["/told"] = content(b"")
    good = jobs.begin(SOUND, webhook=receiver.url("/told"))
    bad = jobs.begin(b"no sound at all" * 100, webhook=receiver.url("/told"))
    wait_for("two events", lambda: {status(jobs, job) for job in (good, bad)} == {"delivered"}, 60)
    events = [checker(SECRET)(asked.headers, asked.body) for asked in receiver.of("/told")]
    assert len(events) == 2
    assert {(event["type"], event["data"]["id"]) for event in events} == {
        ("job.succeeded", good),
        ("job.failed", bad),
    }
    for event in events:
        job = jobs.job(event["data"]["id"])
        webhook = job.pop("webhook")
        assert event["data"] == job
        assert event["timestamp"] == job["ended"]
        assert webhook == {
            "url": receiver.url("/told"),
            "status": "delivered",
            "attempts": 1,
            "next": None,
            "error": None,
        }

    def page() -> str:
        with told.client() as client:
            return client.get("/metrics").text

    # A worker counts an attempt a moment after it has written how it went.
    wait_for("both are counted", lambda: 'asr_webhook_attempts_total{result="delivered"} 2.0' in page())
    assert 'asr_webhook_attempts_total{result="given_up"} 0.0' in page()


@pytest.mark.parametrize(
    ("webhook", "code"),
    [
        ("https://elsewhere.example/told", "url_refused"),
        ("https://127.0.0.1/told", "url_refused"),
        ("http://localhost/told", "url_refused"),
        ("https://a:b@localhost/told", "invalid_value"),
        ("told", "invalid_value"),
        ("https://[", "invalid_value"),
    ],
)
def test_an_address_that_may_not_be_told_is_refused_with_its_job(
    told: Service, webhook: str, code: str
) -> None:
    answer = JobClient(told).submit(SOUND, webhook=webhook)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, "webhook")


def test_without_the_settings_no_webhook_is_taken(
    service: Service, tmp_path: Path, receiver: Machine, authority: Authority
) -> None:
    answer = JobClient(service).submit(SOUND, webhook=receiver.url("/told"))
    assert answer.json()["error"]["code"] == "webhook_off"
    assert "ASR_URL_HOSTS" in answer.json()["error"]["message"]
    unsigned = telling(receiver, authority, ASR_WORKERS="1", ASR_WEBHOOK_SECRET="")
    with running(tmp_path, **unsigned) as started:
        answer = JobClient(started).submit(SOUND, webhook=receiver.url("/told"))
        assert answer.json()["error"]["code"] == "webhook_off"
        assert "ASR_WEBHOOK_SECRET" in answer.json()["error"]["message"]


def test_a_job_that_is_cancelled_or_removed_is_not_told_again(told: Service, receiver: Machine) -> None:
    jobs = JobClient(told)
    receiver.answers["/removed"] = content(b"", status="500 No")
    job = jobs.begin(SOUND, webhook=receiver.url("/removed"))
    wait_for("a failure", lambda: jobs.job(job)["webhook"]["next"], 60)
    assert jobs.job(job)["webhook"]["error"].startswith("answered with status 500")
    assert jobs.delete(job).status_code == 204
    assert jobs.get(f"/{job}").status_code == 404


def each_is_a_repeat_of_the_first(attempts: list[Asked]) -> None:
    numbers = [int(asked.headers["webhook-attempt"]) for asked in attempts]
    assert numbers == sorted(set(numbers))
    assert len({(asked.headers["webhook-id"], asked.body) for asked in attempts}) == 1


def test_a_killed_worker_and_a_restart_lose_no_event(
    tmp_path: Path, receiver: Machine, authority: Authority
) -> None:
    receiver.answers["/killed"] = silence()
    receiver.answers["/restart"] = redirect("/killed")
    # Who dies over a webhook is waited for so long, and a while.
    with running(tmp_path, **telling(receiver, authority, ASR_WEBHOOK_TIMEOUT="2")) as service:
        jobs = JobClient(service)
        killed = jobs.begin(SOUND, webhook=receiver.url("/killed"))
        wait_for("the first attempt", lambda: receiver.of("/killed"), 60)
        workers = service.workers()
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
        for worker in workers:
            worker.wait(PATIENCE)  # until then it may take a connection with it
        receiver.answers["/killed"] = content(b"")
        wait_for("another worker's", lambda: status(jobs, killed) == "delivered", 60)
        killed_attempts = receiver.of("/killed")
        each_is_a_repeat_of_the_first(killed_attempts)
        assert len(killed_attempts) >= 2
        checker(SECRET)(killed_attempts[-1].headers, killed_attempts[-1].body)

        restarted = jobs.begin(SOUND, webhook=receiver.url("/restart"))
        wait_for("a failure", lambda: jobs.job(restarted)["webhook"]["next"], 60)
        assert len(receiver.of("/killed")) == len(killed_attempts), "a redirect is not followed"
        service.stop()
        receiver.answers["/restart"] = content(b"")
        service.start()
        wait_for("the event", lambda: status(jobs, restarted) == "delivered", 60)
        each_is_a_repeat_of_the_first(receiver.of("/restart"))
