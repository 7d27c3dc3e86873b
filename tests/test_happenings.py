"""What the master counts of workers and rolls."""

from __future__ import annotations

import signal

import pytest

from asrsvc.serving.happenings import Happenings, reason_of_end
from asrsvc.serving.status import Count, Counters


@pytest.mark.parametrize(
    ("code", "hung", "loading", "reason"),
    [
        (signal.SIGKILL, False, False, "killed"),
        (signal.SIGSEGV | 0x80, False, False, "killed"),  # with a core dump
        (70 << 8, False, False, "exited"),
        (0, False, False, "exited"),
        (signal.SIGABRT, True, False, "hung"),
        (70 << 8, False, True, "not_loaded"),
        (signal.SIGABRT, True, True, "hung"),
    ],
)
def test_why_a_worker_has_ended(code: int, hung: bool, loading: bool, reason: str) -> None:
    assert reason_of_end(code, hung=hung, loading=loading) == reason


def test_a_master_that_takes_over_counts_on() -> None:
    first, second = Happenings(), Happenings()
    for one in (first, second):
        one.restarts += 1
        one.lost_requests += 2
        one.replaced("killed")
        one.replaced("something new")
        one.rolled("failed")
    second.rolled("succeeded")
    second.go_on_from(first.counters())
    assert second.counters() == Counters(
        restarts=2,
        killed_draining=0,
        lost_requests=4,
        reasons=(Count("exited", 2), Count("killed", 2)),
        rolls=(Count("failed", 2), Count("succeeded", 1)),
    )
