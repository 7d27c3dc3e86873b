"""Limits of clients over all workers: counted from tickets, kept when processes die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from waiting import PATIENCE

from asrsvc.serving import limits
from asrsvc.serving.limits import NO_TICKET, Allowance, ClientTable, Refused, Standing

SECOND = 1_000_000_000


@pytest.fixture
def table() -> ClientTable:
    return ClientTable.create(tickets=8)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time, in nanoseconds, that the table sees; to be moved by hand."""
    now = [1_000 * SECOND]
    monkeypatch.setattr(limits.time, "monotonic_ns", lambda: now[0])
    return now


def ticket(found: int | Refused) -> int:
    assert isinstance(found, int)
    return found


def reason(found: int | Refused) -> str:
    assert isinstance(found, Refused)
    return found.reason


def test_who_has_no_limits_is_counted_too(table: ClientTable) -> None:
    held = [ticket(table.enter(Allowance("a"))) for _ in range(4)]
    assert len(set(held)) == 4
    table.leave(NO_TICKET)
    assert table.under_way("a") == 4
    assert table.standing(Allowance("a", concurrency=3)) is None


def test_one_client_may_have_as_many_as_are_left_for_others(table: ClientTable) -> None:
    """Of eight: four, then half of the rest, and so on; the next client always finds one."""
    for number, count in enumerate((4, 2, 1, 1)):
        held = [table.enter(Allowance(f"client {number}")) for _ in range(8)]
        assert sum(isinstance(one, int) for one in held) == count
        assert reason(held[-1]) == ("share" if number < 3 else "full")


def test_bytes_in_the_spool_are_shared_out_too(table: ClientTable) -> None:
    one, two = ticket(table.enter(Allowance("a"))), ticket(table.enter(Allowance("a")))
    other = ticket(table.enter(Allowance("b")))
    assert table.hold(one, 800, 1000), "four fifths"
    assert not table.hold(one, 801, 1000)
    assert table.hold(one, 400, 1000)
    assert table.hold(two, 400, 1000)
    assert not table.hold(two, 401, 1000)
    assert table.hold(other, 160, 1000), "four fifths of what is left"
    assert not table.hold(other, 161, 1000)
    assert table.spooled() == 960
    table.leave(one)
    assert table.spooled() == 560
    assert table.hold(NO_TICKET, 10**9, 1000), "what cannot be counted is not held up"


def test_so_many_at_the_same_time_and_no_more(table: ClientTable) -> None:
    two = Allowance("a", concurrency=2)
    first, second = ticket(table.enter(two)), ticket(table.enter(two))
    assert first != second
    assert reason(table.enter(two)) == "concurrency"
    assert ticket(table.enter(Allowance("b", concurrency=1))) not in {first, second, NO_TICKET}
    table.leave(first)
    assert table.under_way("a") == 1
    assert ticket(table.enter(two)) == first
    assert reason(table.enter(two)) == "concurrency"


def test_a_full_table_lets_nobody_in_that_it_could_not_count(table: ClientTable) -> None:
    for number in range(8):
        ticket(table.enter(Allowance(f"client {number}", concurrency=1)))
    assert reason(table.enter(Allowance("another", concurrency=1))) == "full"


@pytest.mark.parametrize("rate", [1, 3, 7, 600, 1_000_000])
def test_a_minutes_requests_at_once_then_one_for_each_that_time_makes_good(
    table: ClientTable, clock: list[int], rate: int
) -> None:
    allowed = Allowance("a", rate=rate)
    at_once = min(rate, 700)
    for used in range(at_once):
        standing = table.standing(allowed)
        assert standing is not None
        assert standing.remaining == rate - used
        table.leave(ticket(table.enter(allowed)))
    if rate > at_once:
        return
    refused = table.enter(allowed)
    assert isinstance(refused, Refused)
    assert refused.reason == "rate"
    assert refused.retry_seconds == pytest.approx(60 / rate, rel=1e-6)
    clock[0] += round(refused.retry_seconds * SECOND) - 1000
    assert reason(table.enter(allowed)) == "rate"
    clock[0] += 2000
    table.leave(ticket(table.enter(allowed)))
    assert reason(table.enter(allowed)) == "rate"
    clock[0] += 60 * SECOND
    assert table.standing(allowed) == Standing(rate, 0.0)


@pytest.mark.usefixtures("clock")
def test_what_was_not_done_is_given_back(table: ClientTable) -> None:
    allowed = Allowance("a", rate=1)
    table.leave(ticket(table.enter(allowed)))
    table.refund(allowed)
    table.leave(ticket(table.enter(allowed)))
    assert reason(table.enter(allowed)) == "rate"


@pytest.mark.usefixtures("clock")
def test_a_refused_request_costs_nothing(table: ClientTable) -> None:
    allowed = Allowance("a", rate=2, concurrency=1)
    held = ticket(table.enter(allowed))
    assert reason(table.enter(allowed)) == "concurrency"
    table.leave(held)
    held = ticket(table.enter(allowed))
    table.leave(held)
    assert reason(table.enter(allowed)) == "rate"
    assert table.under_way("a") == 0


@pytest.mark.usefixtures("clock")
def test_more_clients_than_rows_forget_the_quietest_alone(table: ClientTable) -> None:
    busy = Allowance("busy", rate=2)
    for _ in range(2):
        table.leave(ticket(table.enter(busy)))
    for number in range(limits._CLIENTS + 50):
        table.leave(ticket(table.enter(Allowance(f"passer-by {number}", rate=1_000_000))))
    assert reason(table.enter(busy)) == "rate"


# Processes.

CHILD = """
import os, signal, sys
from asrsvc.serving.limits import Allowance, ClientTable
table = ClientTable(int(sys.argv[1]))
tickets = [table.enter(Allowance("a", concurrency=5)) for _ in range(3)]
if sys.argv[2] == "queue":
    table.hand_on(tickets[0])
if sys.argv[2] == "locked":
    with table._locked():
        os.kill(os.getpid(), signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_a_holder(table: ClientTable, how: str) -> int:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(table.descriptor), how], pass_fds=[table.descriptor]
    )
    assert child.wait(PATIENCE) == -signal.SIGKILL
    return child.pid


def test_what_a_killed_process_had_in_hand_counts_no_more(table: ClientTable) -> None:
    kill_a_holder(table, "hand")
    assert table.under_way("a") == 3
    assert table.sweep(longest_wait=60) == 3
    assert table.under_way("a") == 0


def test_a_process_that_is_known_to_be_dead_is_not_asked_for(table: ClientTable) -> None:
    ticket(table.enter(Allowance("a", concurrency=5)))
    assert table.sweep(longest_wait=60) == 0  # this process lives
    assert table.sweep(dead=os.getpid(), longest_wait=60) == 1


def test_a_request_in_the_queue_outlives_who_put_it_there(table: ClientTable) -> None:
    kill_a_holder(table, "queue")
    assert table.sweep(longest_wait=60) == 2
    assert table.under_way("a") == 1
    assert table.sweep(longest_wait=0) == 1


def test_a_process_killed_with_the_lock_frees_it(table: ClientTable) -> None:
    kill_a_holder(table, "locked")
    before = time.monotonic()
    assert isinstance(table.enter(Allowance("a", concurrency=9)), int)
    assert time.monotonic() - before < 30


HOLDER = """
import os, sys, time
from asrsvc.serving.limits import ClientTable
with ClientTable(int(sys.argv[1]))._locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_that_is_not_let_go_holds_up_nobody(
    table: ClientTable, caplog: pytest.LogCaptureFixture
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(table.descriptor)],
        pass_fds=[table.descriptor],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    with child, child.stdout:
        assert child.stdout.readline() == b"held\n"
        assert table.enter(Allowance("a", concurrency=1)) == NO_TICKET
        assert "does not let it go" in caplog.text
        child.kill()


COUNTER = """
import sys, time
from asrsvc.serving import table_lock
from asrsvc.serving.limits import Allowance, ClientTable, Refused
table_lock._SECONDS = 30  # one that is paused while it holds the lock delays, and no more
table = ClientTable(int(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
got = [table.enter(Allowance("a", rate=200, concurrency=100)) for _ in range(100)]
print(sum(not isinstance(one, Refused) for one in got), flush=True)
sys.stdin.readline()
"""


def test_processes_together_get_what_one_would_get() -> None:
    table = ClientTable.create(tickets=1000)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", COUNTER, str(table.descriptor)],
            pass_fds=[table.descriptor],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        with ThreadPoolExecutor(4) as threads:
            got = list(threads.map(lambda child: int(child.stdout.readline()), children))  # type: ignore[union-attr]
        assert sum(got) == 100
        assert table.under_way("a") == 100
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert table.sweep(longest_wait=60) == 100


def test_a_table_of_another_kind_is_refused() -> None:
    descriptor = os.memfd_create("other")
    os.ftruncate(descriptor, 4096)
    with pytest.raises(ValueError, match="no table"):
        ClientTable(descriptor)
    os.close(descriptor)
