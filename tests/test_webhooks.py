"""Webhooks in the table: when one is due, who has it, what becomes of it with its job."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import wait_for
from test_jobs_store import CHECKOUT, LIMITS, OPTIONS, Place, another
from waiting import PATIENCE

from asrsvc.jobs import webhooks as module
from asrsvc.jobs.claims import Findings
from asrsvc.jobs.database import Database
from asrsvc.jobs.types import Job, JobError, Webhook
from asrsvc.jobs.webhooks import Delivery, Webhooks

URL = "https://app.example.org:8443/told?token=1"
LEASE = 100.0


def render(job: Job) -> bytes:
    return f"{job.id} {job.state}".encode()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "state")
    yield place
    place.store.close()


def webhooks(place: Place) -> Webhooks:
    return Webhooks(place.storage, render)


def begin(place: Place, url: str = URL, client: str = "") -> Job:
    arrival = place.store.receive(client, 5)
    return place.store.queue(arrival, OPTIONS, url)


def ended(place: Place, url: str = URL) -> Job:
    job = begin(place, url)
    place.finish(place.take())
    return place.store.read(job.id, "")


def told(place: Place, job: Job) -> Webhook:
    found = place.store.read(job.id, "").webhook
    assert found is not None
    return found


def take(place: Place, seconds: float = LEASE) -> Delivery:
    found = webhooks(place).take(seconds)
    assert found is not None
    return found


def test_a_webhook_is_due_when_its_job_has_ended_and_goes_to_one(place: Place) -> None:
    assert webhooks(place).take(LEASE) is None
    job = begin(place)
    assert job.webhook == Webhook(URL, "pending", 0, None, None)
    assert webhooks(place).take(LEASE) is None
    claim = place.take()
    assert webhooks(place).take(LEASE) is None
    place.finish(claim)
    delivery = take(place)
    assert (delivery.job, delivery.url, delivery.attempt) == (job.id, URL, 1)
    assert delivery.body == f"{job.id} succeeded".encode()
    assert delivery.ended == place.store.read(job.id, "").ended
    with another(place) as other:
        assert webhooks(other).take(LEASE) is None
    assert told(place, job) == Webhook(URL, "pending", 1, None, None)
    webhooks(place).delivered(delivery)
    assert told(place, job) == Webhook(URL, "delivered", 1, None, None)
    assert webhooks(place).take(LEASE) is None


def test_a_job_without_one_tells_nobody(place: Place) -> None:
    job = place.begin()
    assert job.webhook is None
    place.finish(place.take())
    assert webhooks(place).take(LEASE) is None


def test_of_a_job_that_failed_is_told_too(place: Place) -> None:
    job = begin(place)
    claim = place.take()
    assert place.claims.fail(claim, JobError("audio_undecodable", "no sound"))
    claim.lock.close()
    assert take(place).body == f"{job.id} failed".encode()


def test_of_a_job_that_was_given_up_is_told_too(place: Place) -> None:
    job = begin(place)
    for _ in range(LIMITS.deaths):
        place.take().lock.close()
    assert place.claims.take(beside=0) is None
    assert take(place).body == f"{job.id} failed".encode()


def test_a_repeat_is_the_same_event_with_the_same_body(place: Place) -> None:
    job = ended(place)
    first = take(place)
    soon = time.time() + 0.2
    webhooks(place).failed(first, "it answered 500", soon)
    assert told(place, job) == Webhook(URL, "pending", 1, pytest.approx(soon, abs=0.001), "it answered 500")
    # Code of after this one would say it otherwise: what was told stays.
    later = Webhooks(place.storage, lambda _job: b"something else")
    second = wait_for("its time", lambda: later.take(LEASE), 20)
    assert (second.event, second.body, second.attempt) == (first.event, first.body, 2)
    webhooks(place).failed(second, "it answered 410", None)
    assert told(place, job) == Webhook(URL, "failed", 2, None, "it answered 410")
    assert webhooks(place).take(LEASE) is None


def test_what_a_worker_leaves_when_it_dies_goes_to_another(place: Place) -> None:
    job = ended(place)
    first = take(place, 0.2)
    with another(place) as other:
        second = wait_for("the end of its time", lambda: webhooks(other).take(LEASE), 20)
        assert (second.event, second.attempt) == (first.event, 2)
        # It was not dead: what it says now of its failure is void, of its success not.
        webhooks(place).failed(first, "late", None)
        assert told(place, job).state == "pending"
        webhooks(place).delivered(first)
        assert told(place, job).state == "delivered"
        webhooks(other).failed(second, "later", None)
        assert told(place, job).state == "delivered"


def test_few_go_to_one_host_at_a_time_and_others_go_by(place: Place) -> None:
    slow = [ended(place, "https://slow.example/a"), ended(place, "https://SLOW.example/b?c"), ended(place)]
    third = ended(place, "https://slow.example/d")
    taken = [take(place) for _ in range(module.AT_ONE_HOST)]
    assert [delivery.job for delivery in taken] == [job.id for job in slow[:2]]
    assert take(place).job == slow[2].id
    assert webhooks(place).take(LEASE) is None
    webhooks(place).failed(taken[0], "it hangs", time.time() + LEASE)
    assert take(place).job == third.id


def test_a_cancelled_job_tells_nobody(place: Place) -> None:
    job = begin(place)
    cancelled = place.store.end(job.id, "")
    assert cancelled is not None
    assert cancelled.webhook == Webhook(URL, "cancelled", 0, None, None)
    assert webhooks(place).take(LEASE) is None


def test_a_removed_job_tells_nobody_also_in_the_middle_of_an_attempt(place: Place) -> None:
    job = ended(place)
    delivery = take(place)
    assert place.store.end(job.id, "") is None
    webhooks(place).failed(delivery, "it answered 500", time.time() - 1)
    assert webhooks(place).take(LEASE) is None
    webhooks(place).delivered(delivery)
    again = ended(place)
    assert told(place, again).attempts == 0


def test_a_job_is_forgotten_when_it_is_known_what_became_of_its_webhook(place: Place) -> None:
    job = ended(place)
    plain = place.begin()
    place.finish(place.take())
    with another(place, keep_seconds=0.0) as later:
        time.sleep(0.01)
        later.store.sweep()
        numbers = "SELECT number FROM jobs"
        with later.storage.database.transaction(writes=False) as table:
            assert table.execute(numbers).fetchall() == [(job.number,)]
        assert plain.number != job.number
        webhooks(later).failed(take(later), "too late", None)
        later.store.sweep()
        with later.storage.database.transaction(writes=False) as table:
            assert table.execute(numbers).fetchall() == []
            assert table.execute("SELECT count(*) FROM webhooks").fetchone() == (0,)


def test_jobs_of_code_without_webhooks_go_on(place: Place) -> None:
    job = place.begin()
    with place.storage.database.transaction() as table:
        table.execute("DROP TABLE webhooks")
        table.execute("UPDATE about SET schema = 2")
    with another(place) as newer:
        assert newer.store.read(job.id, "").webhook is None
        assert begin(newer).webhook is not None


def test_each_goes_to_one_of_many_processes(place: Place) -> None:
    jobs = {ended(place, f"https://host-{n % 7}.example/{n}").id for n in range(24)}
    code = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, "tests")
from asrsvc.jobs import database
from test_webhooks import Place, Webhooks, render
database._BUSY_SECONDS = 600  # a slow disk leaves little time between the transactions of the others
place = Place(Path({str(place.folder)!r}))
mine = Webhooks(place.storage, render)
misses = 0
while misses < 5:
    delivery = mine.take(100)
    if delivery is None:
        misses += 1
        time.sleep(0.05)
        continue
    print(delivery.job, delivery.attempt)
    mine.delivered(delivery)
"""
    environ = {"PYTHONPATH": f"{CHECKOUT}:{CHECKOUT}/tests:{CHECKOUT}/tests/integration"}
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=CHECKOUT, env=environ, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    lines = [line for taker in takers for line in taker.communicate(timeout=2 * PATIENCE)[0].splitlines()]
    assert [taker.returncode for taker in takers] == [0] * 3
    assert sorted(lines) == sorted(f"{job} 1" for job in jobs)


def test_findings_of_a_job_with_one_are_kept_as_ever(place: Place) -> None:
    begin(place)
    claim = place.take()
    assert place.claims.give_back(claim, Findings("v1", (), 1, None))
    claim.lock.close()
    assert place.take().job.webhook == Webhook(URL, "pending", 0, None, None)


def test_a_database_is_made_by_two_connections_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "jobs.sqlite3"
    both = [Database(path), Database(path)]
    for database in both:
        with database.transaction() as table:
            assert table.execute("SELECT count(*) FROM webhooks").fetchone() == (0,)
    for database in both:
        database.close()
