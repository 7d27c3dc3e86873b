"""The queue of one size: whose turn it is, how many may wait, and what a killed worker leaves."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import PATIENCE, wait_for

import asrsvc.serving.queue as queue_module
from asrsvc.serving.lanes import Lane, Waiting, has_gone
from asrsvc.serving.queue import Ends, Queue, Turn


class Line:
    """A queue, and the clients whose requests were put in."""

    def __init__(self, limit: int = 50, lanes: int = 16) -> None:
        self.queue = Queue.create(limit, lanes)
        self._clock = 0.0
        self._clients: list[socket.socket] = []

    def put(self, client: int) -> bool:
        self._clock += 1
        near, far = socket.socketpair()
        spool = os.memfd_create("request")
        try:
            return self.queue.put(Waiting(far, spool, self._clock, client=client))
        finally:
            self._clients.append(near)
            far.close()
            os.close(spool)

    def put_from_afar(self, client: int, leave: str | None) -> bool:
        """A request over TCP whose client leaves at once: `close`, `reset`, or `half` of the connection."""
        self._clock += 1
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
        spool = os.memfd_create("request")
        with far:
            try:
                return self.queue.put(Waiting(far, spool, self._clock, client=client))
            finally:
                os.close(spool)
                if leave == "half":
                    near.shutdown(socket.SHUT_WR)
                elif leave == "reset":
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                if leave in ("close", "reset"):
                    near.close()
                else:
                    self._clients.append(near)
                if leave is not None:
                    wait_for("the client's end is seen", lambda: has_gone(far))

    def take(self, spent: float | None = None) -> int:
        """The client whose turn it is; its request costs so many microseconds."""
        turn = self.queue.take()
        assert turn is not None
        client = self.drop(turn)
        if spent is not None:
            self.queue.settle(client, turn.charged, round(spent))
        return client

    def serve(self, costs: dict[int, int]) -> int:
        """The client whose turn it is; what its request costs depends on who it is."""
        turn = self.queue.take()
        assert turn is not None
        client = self.drop(turn)
        self.queue.settle(client, turn.charged, costs[client])
        return client

    @staticmethod
    def drop(turn: Turn) -> int:
        turn.waiting.close()
        return turn.waiting.client

    def close(self) -> None:
        while (turn := self.queue.take()) is not None:
            self.drop(turn)
        for client in self._clients:
            client.close()
        self.queue.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def test_of_one_client_first_come_is_first_served(line: Line) -> None:
    for _ in range(20):
        assert line.put(7)
    arrived = []
    while (turn := line.queue.take()) is not None:
        arrived.append(turn.waiting.arrived)
        line.drop(turn)
    assert arrived == sorted(arrived)
    assert len(arrived) == 20


def test_clients_take_turns_however_many_each_has(line: Line) -> None:
    for _ in range(30):
        line.put(1)
    for _ in range(3):
        line.put(2)
    line.put(3)
    order = [line.take(1000) for _ in range(8)]
    assert sorted(order[:3]) == [1, 2, 3]
    assert order.count(2) == 3


def test_turns_go_by_what_requests_cost(line: Line) -> None:
    """One client's requests cost thirty times those of the other: each gets half of what is served."""
    costs = {1: 300_000, 2: 10_000}
    served: Counter[int] = Counter()
    for client in (1, 2):
        for _ in range(40):
            line.put(client)
    for _ in range(200):
        client = line.serve(costs)
        served[client] += costs[client]
        line.put(client)
    assert served[1] + served[2] > 1_000_000
    assert 0.4 <= served[1] / (served[1] + served[2]) <= 0.6


def test_who_was_away_has_saved_nothing_up(line: Line) -> None:
    line.put(2)
    line.take(1000)
    for _ in range(20):
        line.put(1)
        line.take(1_000_000)
    for _ in range(10):
        line.put(1)
        line.put(2)
    first = [line.take(1_000_000) for _ in range(10)]
    assert 4 <= first.count(2) <= 6


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 1000)), min_size=1, max_size=60))
def test_nothing_is_lost_and_each_client_is_served_in_order(requests: list[tuple[int, int]]) -> None:
    made = Line()
    try:
        accepted = [client for client, _ in requests if made.put(client)]
        taken: list[tuple[int, float]] = []
        for _, cost in requests[: len(accepted)]:
            turn = made.queue.take()
            assert turn is not None
            taken.append((turn.waiting.client, turn.waiting.arrived))
            made.queue.settle(made.drop(turn), turn.charged, cost)
        assert Counter(client for client, _ in taken) == Counter(accepted)
        for client in set(accepted):
            arrived = [at for one, at in taken if one == client]
            assert arrived == sorted(arrived)
        assert made.queue.take() is None
    finally:
        made.close()


def test_one_client_alone_may_have_the_limit_and_others_find_room_beside_it() -> None:
    made = Line(limit=10)
    try:
        assert [made.put(1) for _ in range(12)] == [True] * 10 + [False] * 2
        assert not made.queue.has_room(1)
        assert made.queue.has_room(2)
        assert sum(made.put(2) for _ in range(12)) == 5
        assert sum(made.put(3) for _ in range(12)) >= 2
        assert len(made.queue) <= 20
        made.queue.set_limit(20)
        assert made.queue.has_room(1)
    finally:
        made.close()


def test_more_clients_than_lanes_share_them() -> None:
    made = Line(lanes=4)
    try:
        for client in range(100, 120):
            assert made.put(client)
        assert Counter(made.take(1000) for _ in range(20)) == Counter(range(100, 120))
    finally:
        made.close()


def test_a_client_that_may_not_be_served_here_is_passed_over(line: Line) -> None:
    for client in (1, 2, 1):
        line.put(client)
    turn = line.queue.take(lambda client: client == 2)
    assert turn is not None
    assert line.drop(turn) == 2
    assert line.queue.take(lambda client: client == 2) is None
    assert len(line.queue) == 2


def test_who_has_waited_too_long_is_found_whoever_he_is(line: Line) -> None:
    for client in (1, 2, 3):
        line.put(client)
    assert line.queue.oldest() == 1.0
    found = []
    while (turn := line.queue.take_oldest(before=2.5)) is not None:
        found.append(line.drop(turn))
    assert sorted(found) == [1, 2]


def test_its_descriptor_is_readable_while_somebody_waits(line: Line) -> None:
    def readable() -> bool:
        return bool(select.select([line.queue], [], [], 0)[0])

    assert not readable()
    line.put(1)
    line.put(2)
    line.take()
    assert readable()
    line.take()
    assert not readable()


HOLDER = """
import fcntl, sys, time
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def test_a_process_that_is_killed_while_it_holds_the_table_holds_nobody_up(line: Line) -> None:
    table = line.queue.descriptors().table
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(table)], pass_fds=[table], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert line.put(1), "it goes on without the lock"
        assert line.take(1000) == 1
        holder.send_signal(signal.SIGKILL)
        holder.wait(PATIENCE)
    assert line.put(1)
    assert line.take(1000) == 1


def test_another_program_takes_it_over_as_it_is(line: Line) -> None:
    for client in (1, 1, 2):
        line.put(client)
    ends = line.queue.descriptors()
    other = Queue.inherit(Ends(tuple((os.dup(a), os.dup(b)) for a, b in ends.lanes), os.dup(ends.table)), 50)
    found = []
    while (turn := other.take()) is not None:
        found.append(line.drop(turn))
    assert sorted(found) == [1, 1, 2]
    assert len(line.queue) == 0
    other.close()


def drop_all_dead(queue: Queue, count: int) -> list[Waiting]:
    """Wait until so many have been dropped: that a client has gone is seen a moment after it went."""
    dropped: list[Waiting] = []

    def are_dropped() -> bool:
        dropped.extend(queue.drop_dead(1))
        return len(dropped) >= count

    wait_for("those who have gone are dropped", are_dropped)
    return dropped


@pytest.mark.parametrize("leave", ["reset", "close"])
def test_clients_that_have_gone_keep_nobody_out(leave: str) -> None:
    made = Line(limit=20)
    try:
        for client in (1, 2, 3):
            while made.put_from_afar(client, leave):
                pass
        assert not any(made.queue.has_room(client) for client in (1, 2, 3))
        waited = len(made.queue)
        assert len(drop_all_dead(made.queue, waited)) == waited
        assert len(made.queue) == 0
        assert all(made.put(client) for client in (1, 2, 3) for _ in range(10))
    finally:
        made.close()


def test_those_who_are_there_wait_on_in_their_order(line: Line) -> None:
    """A client that has shut down its half after its request may want its answer."""
    there = [None, "half", "reset", None, "close", "half", "reset", None, None, "close"]
    for leave in there:
        for client in (1, 2):
            assert line.put_from_afar(client, leave)
    dropped = drop_all_dead(line.queue, 8)
    assert sorted(waiting.client for waiting in dropped) == [1] * 4 + [2] * 4
    assert line.queue.drop_dead() == []
    taken: dict[int, list[float]] = {1: [], 2: []}
    ahead = 0
    while (turn := line.queue.take()) is not None:
        taken[turn.waiting.client].append(turn.waiting.arrived)
        ahead += turn.waiting.ahead
        line.drop(turn)
    assert ahead == 4, "the first bytes of the answer have gone to those who send no more"
    for client, arrived in taken.items():
        stay = [n for n, leave in enumerate(there) if leave not in ("close", "reset")]
        assert arrived == [2 * n + client for n in stay]


def test_the_dead_are_looked_for_a_tenth_of_the_time_at_most(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause of this machine in the middle makes the wait for the next time longer too."""
    looks: list[tuple[float, float]] = []
    sweep = queue_module._sweep

    def timed(lane: Lane, count: int) -> list[Waiting]:
        begun = time.monotonic()
        try:
            return sweep(lane, count)
        finally:
            if count:
                looks.append((begun, time.monotonic()))

    monkeypatch.setattr(queue_module, "_sweep", timed)
    for _ in range(50):
        line.put(1)
    calls = 0
    while len(looks) < 20:
        calls += 1
        assert line.queue.drop_dead(1) == []
    spent = sum(ended - begun for begun, ended in looks[:-1])
    assert spent <= (looks[-1][0] - looks[0][0]) / 10
    assert calls > len(looks)


def test_a_process_without_descriptors_loses_none_of_those_who_wait(line: Line) -> None:
    for client in (1, 1, 2):
        line.put(client)
    ends = line.queue.descriptors()
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS, json.dumps([ends.lanes, ends.table])],
        pass_fds=ends.all(),
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=True,
    )
    assert found.stdout == b"None None [] 3\n"
    assert sorted(line.take(1000) for _ in range(3)) == [1, 1, 2]


WITHOUT_DESCRIPTORS = """
import json, os, resource, sys, time
from asrsvc.serving.queue import Ends, Queue
lanes, table = json.loads(sys.argv[1])
queue = Queue.inherit(Ends(tuple(map(tuple, lanes)), table), 50)
first_free = os.dup(0)
os.close(first_free)
resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + 1, 4096))
print(queue.take(), queue.take_oldest(time.monotonic()), queue.drop_dead(1), len(queue), flush=True)
os._exit(0)
"""
