"""Delivering webhooks over real sockets: signed, tried again, given up, and nobody held up by others."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import Authority, Machine, content, endless, machine, make_authority, redirect, silence
from test_jobs_store import Place
from test_signing import SECRET, checker
from test_webhooks import ended, render, told
from waiting import PATIENCE

from asrsvc.errors import FetchTimeout
from asrsvc.jobs import delivery as module
from asrsvc.jobs.delivery import Deliverer, Result, Schedule, Send
from asrsvc.jobs.types import Job
from asrsvc.jobs.webhooks import Delivery, Webhooks
from asrsvc.remote import connection
from asrsvc.remote.client import Client
from asrsvc.remote.hosts import HostList

PATIENT = 30.0
IMPATIENT = 0.5
DAY = 86_400.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    connection._trust.cache_clear()
    yield
    connection._trust.cache_clear()


@pytest.fixture
def receiver(authority: Authority) -> Iterator[Machine]:
    with machine(authority) as made:
        yield made


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "state")
    yield place
    place.store.close()


class Worker:
    """A worker's part in webhooks."""

    def __init__(
        self,
        place: Place,
        *machines: Machine,
        schedule: Schedule | None = None,
        secrets: tuple[str, ...] = (SECRET,),
        send: Send | None = None,
        timeout: float = PATIENT,
    ) -> None:
        client = Client(HostList.of([f"localhost:{machine.port}" for machine in machines]))

        async def post(url: str, headers: Any, body: bytes) -> int:
            return await client.post(url, headers, body, seconds=timeout)

        self.results: Counter[str] = Counter()
        self.deliverer = Deliverer(
            Webhooks(place.storage, render_event),
            send=send or post,
            secrets=secrets,
            timeout=timeout,
            schedule=schedule or Schedule(DAY, first_seconds=0.05, longest_seconds=0.2),
            count=self._count,
        )

    def _count(self, result: Result) -> None:
        self.results[result] += 1

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        async with asyncio.timeout(PATIENCE):
            self.deliverer.start()
            yield
            self.deliverer.leave()
            await until(lambda: self.deliverer.idle)


def render_event(job: Job) -> bytes:
    return json.dumps({"state": render(job).decode()}).encode()


async def until(condition: Callable[[], object]) -> None:
    """The caller's deadline is its own."""
    while not condition():  # noqa: ASYNC110 - other threads
        await asyncio.sleep(0.01)


def states(place: Place, *jobs: Job) -> list[str]:
    return [told(place, job).state for job in jobs]


def test_an_event_arrives_once_and_its_signature_is_right(place: Place, receiver: Machine) -> None:
    receiver.answers["/told?a=b"] = content(b"thanks", "text/html")
    job = ended(place, receiver.url("/told?a=b"))
    worker = Worker(place, receiver)

    async def main() -> None:
        async with worker.working():
            await until(lambda: states(place, job) == ["delivered"])

    asyncio.run(main())
    (asked,) = receiver.asked
    assert (asked.method, asked.headers["content-type"]) == ("POST", "application/json")
    assert asked.headers["webhook-attempt"] == "1"
    assert asked.headers["webhook-id"].startswith("msg_")
    assert checker(SECRET)(asked.headers, asked.body) == {"state": f"{job.id} succeeded"}
    assert worker.results == {"delivered": 1}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (content(b"", status="500 No"), "answered with status 500"),
        (content(b"", status="404 No"), "answered with status 404"),
        (redirect("https://localhost/"), "answered with status 302"),
        (silence(), "did not answer|no answer|said nothing"),
        (endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.05), "did not answer|no answer"),
        (lambda _machine, _made: None, "broke off"),
    ],
)
def test_what_fails_is_tried_again_until_it_succeeds(
    place: Place, receiver: Machine, answer: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers["/told"] = answer
    job = ended(place, receiver.url("/told"))
    worker = Worker(place, receiver, timeout=IMPATIENT)

    def lines() -> list[str]:
        records = [record for record in caplog.records if record.name == "asrsvc.jobs.delivery"]
        return [record.getMessage() for record in records]

    def is_said() -> bool:
        """On a slow machine, the first attempts may come to no answer."""
        return any(re.match(f"webhook failed: .*({said})", line) for line in lines())

    async def main() -> None:
        async with worker.working():
            await until(lambda: worker.results["retried"] >= 2 and is_said())
            assert told(place, job).error
            receiver.answers["/told"] = content(b"")
            await until(lambda: states(place, job) == ["delivered"])

    with caplog.at_level("INFO"):
        asyncio.run(main())
    # One that came too late to be heard of is missing; two that came at the same time may be in any order.
    sent = sorted(
        (int(a.headers["webhook-timestamp"]), int(a.headers["webhook-attempt"])) for a in receiver.asked
    )
    numbers = [number for _, number in sent]
    assert numbers == sorted(set(numbers))
    assert len({(asked.headers["webhook-id"], asked.body) for asked in receiver.asked}) == 1
    assert lines()[-1] == "webhook delivered"


def test_what_fails_for_too_long_is_given_up_and_said(
    place: Place, receiver: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    for patience in (3.0, 10.0, 30.0):  # a machine that pauses as long has one attempt only
        path = f"/told/{patience}"
        receiver.answers[path] = content(b"secret", status="500 No")
        job = ended(place, receiver.url(path))
        worker = Worker(place, receiver, schedule=Schedule(patience, first_seconds=0.05, longest_seconds=0.5))

        async def main(worker: Worker = worker, job: Job = job) -> None:
            async with worker.working():
                await until(lambda: states(place, job) == ["failed"])

        asyncio.run(main())
        tries = len(receiver.of(path))
        if tries >= 2:
            break
    assert tries >= 2
    assert worker.results == {"retried": tries - 1, "given_up": 1}
    found = told(place, job)
    assert (found.attempts, found.next) == (tries, None)
    assert found.error == "answered with status 500; 200 to 299 is right"
    assert "webhook given up: answered with status 500" in caplog.text


def test_410_ends_it_at_once(place: Place, receiver: Machine) -> None:
    receiver.answers["/told"] = content(b"", status="410 Gone")
    job = ended(place, receiver.url("/told"))
    worker = Worker(place, receiver)

    async def main() -> None:
        async with worker.working():
            await until(lambda: states(place, job) == ["failed"])

    asyncio.run(main())
    assert len(receiver.asked) == 1


def test_an_answer_of_500_for_a_day_is_a_bounded_number_of_attempts() -> None:
    for seed in range(50):
        schedule = Schedule(DAY)
        now, attempts = 0.0, 0
        pauses = []
        while True:
            attempts += 1
            again = schedule.next(
                Delivery(1, "a", 0.0, "m", "u", attempts, b""), now, (seed * attempts % 10) / 10
            )
            if again is None:
                break
            pauses.append(again - now)
            now = again
        assert 20 < attempts < 60
        assert now <= DAY
        assert 4.0 <= pauses[0] <= 6.0
        assert max(pauses) <= 3600 * 1.2


@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0, 2 * DAY))
def test_a_pause_is_never_longer_than_the_longest(attempt: int, chance: float, now: float) -> None:
    schedule = Schedule(DAY)
    again = schedule.next(Delivery(1, "a", 0.0, "m", "u", attempt, b""), now, chance)
    if again is None:
        assert now + 3600 * 1.2 > DAY
    else:
        assert now + 4 <= again <= min(now + 3600 * 1.2, DAY)


def test_a_receiver_that_hangs_holds_up_nobody_else(
    place: Place, receiver: Machine, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LETTING_GO_SECONDS", 0.1)
    receiver.answers["/told"] = silence()
    hung = [ended(place, receiver.url("/told")) for _ in range(30)]
    with machine(authority) as quick:
        quick.answers["/told"] = content(b"")
        others = [ended(place, quick.url("/told")) for _ in range(10)]
        worker = Worker(place, receiver, quick, timeout=PATIENT)

        async def main() -> None:
            async with worker.working():
                await until(lambda: states(place, *others) == ["delivered"] * 10)
                # Not one after the other: two at a time would take longer than this test may.
                assert receiver.connections < len(hung)

        asyncio.run(main())
        assert set(states(place, *hung)) == {"pending"}
        assert len({asked.headers["webhook-id"] for asked in quick.asked}) == 10


def test_no_more_than_a_few_wait_at_one_host(place: Place) -> None:
    url = "https://silent.example/told"
    for _ in range(20):
        ended(place, url)
    under_way = most = sent = 0

    async def silent(_url: str, _headers: Any, _body: bytes) -> int:
        nonlocal under_way, most, sent
        under_way, sent = under_way + 1, sent + 1
        most = max(most, under_way)
        try:
            await until(lambda: most >= 2)  # however long the next one takes to come
            await asyncio.sleep(0.2)
        finally:
            under_way -= 1
        raise FetchTimeout("silent.example does not answer")

    workers = [Worker(place, send=silent) for _ in range(3)]

    async def main() -> None:
        for worker in workers:
            worker.deliverer.start()
        async with asyncio.timeout(PATIENCE):
            await until(lambda: sent >= 6)
            for worker in workers:
                worker.deliverer.leave()
            await until(lambda: all(worker.deliverer.idle for worker in workers))

    asyncio.run(main())
    assert most == 2


def test_a_worker_that_leaves_gives_up_what_hangs_and_another_goes_on(
    place: Place, receiver: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LETTING_GO_SECONDS", 0.1)
    job = ended(place, receiver.url("/told"))

    async def never(_url: str, _headers: Any, _body: bytes) -> int:
        await asyncio.sleep(1000)
        return 200

    leaving = Worker(place, receiver, send=never, timeout=1000.0, schedule=Schedule(DAY, first_seconds=0.05))

    async def main() -> None:
        async with leaving.working():
            await until(lambda: leaving.deliverer._hand)
        assert leaving.results == {"retried": 1}
        assert told(place, job).error == "the worker left in the middle of it"
        receiver.answers["/told"] = content(b"")
        async with Worker(place, receiver).working():
            await until(lambda: states(place, job) == ["delivered"])

    asyncio.run(main())
    (asked,) = receiver.asked
    assert asked.headers["webhook-attempt"] == "2"


def test_a_host_that_is_listed_no_more_and_a_secret_that_is_gone_are_failures_like_others(
    place: Place, receiver: Machine
) -> None:
    job = ended(place, receiver.url("/told"))
    for worker, said in (
        (Worker(place), "none of the hosts in ASR_URL_HOSTS"),
        (Worker(place, receiver, secrets=()), "no secret"),
    ):

        async def main(worker: Worker = worker) -> None:
            async with worker.working():
                await until(lambda: worker.results["retried"])

        asyncio.run(main())
        assert said in (told(place, job).error or "")
    assert receiver.connections == 0


def test_a_store_that_cannot_be_used_is_looked_at_again(
    place: Place, receiver: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_TROUBLE_SECONDS", 0.05)
    receiver.answers["/told"] = content(b"")
    job = ended(place, receiver.url("/told"))
    path = place.folder / "jobs" / "jobs.sqlite3"
    place.store.close()
    hidden = path.rename(path.with_suffix(".away"))
    path.write_bytes(b"no database at all, but as long as one is" * 100)
    worker = Worker(place, receiver)

    async def main() -> None:
        async with worker.working():
            await until(lambda: "webhooks cannot be delivered" in caplog.text)
            hidden.rename(path)
            await until(lambda: worker.results["delivered"])

    asyncio.run(main())
    assert states(place, job) == ["delivered"]
