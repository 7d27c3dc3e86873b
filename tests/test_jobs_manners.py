from __future__ import annotations

import threading

import pytest

from asrsvc.jobs import manners as module
from asrsvc.jobs.manners import Manners

DEADLINE = 90.0


def test_nobody_waits_while_no_request_is_in_hand() -> None:
    manners = Manners()
    manners.give_way()
    manners.note_requests(2)
    manners.note_requests(0)
    manners.give_way()


def test_a_job_waits_until_the_last_request_has_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TURN_SECONDS", 10 * DEADLINE)
    manners = Manners()
    manners.note_requests(2)
    job = threading.Thread(target=manners.give_way)
    job.start()
    manners.note_requests(1)
    job.join(0.1)
    assert job.is_alive()
    manners.note_requests(0)
    job.join(DEADLINE)
    assert not job.is_alive()


def test_a_job_has_a_turn_though_requests_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TURN_SECONDS", 0.05)
    manners = Manners()
    manners.note_requests(1)
    job = threading.Thread(target=manners.give_way)
    job.start()
    job.join(DEADLINE)
    assert not job.is_alive()
