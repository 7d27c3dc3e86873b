"""The shared queue: order, limit, count, and what a killed reader takes with it."""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from service import wait_for
from waiting import PATIENCE

from asrsvc.serving.lanes import AHEAD, Lane, Waiting, has_gone, listens


def descriptors() -> set[tuple[str, int, int]]:
    """What this process has open, each told from whatever else had its number before."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own
            seen = path.stat()
            found.add((path.name, seen.st_dev, seen.st_ino))
    return found


def close(lane: Lane) -> None:
    while (waiting := lane.take()) is not None:
        waiting.close()
    lane.close()


@pytest.fixture(autouse=True, scope="module")
def no_garbage_of_others() -> None:
    """What other modules left would be closed at any time, and these tests count descriptors."""
    gc.collect()


@pytest.fixture
def lane() -> Iterator[Lane]:
    made = Lane.create(100)
    yield made
    close(made)


@pytest.fixture
def clients() -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    for client in made:
        client.close()


def put(lane: Lane, clients: list[socket.socket], number: int) -> bool:
    client, server = socket.socketpair()
    clients.append(client)
    client.sendall(b"%d" % number)
    spool = os.memfd_create("request")
    try:
        with server:
            return lane.put(Waiting(server, spool, float(number)))
    finally:
        os.close(spool)


def test_first_come_first_served_with_the_time_of_arrival(lane: Lane, clients: list[socket.socket]) -> None:
    for number in range(20):
        assert put(lane, clients, number)
    for number in range(20):
        waiting = lane.take()
        assert waiting is not None
        assert (waiting.arrived, waiting.connection.recv(10)) == (float(number), b"%d" % number)
        waiting.close()
    assert lane.take() is None


def test_the_count_is_that_of_those_who_wait(lane: Lane, clients: list[socket.socket]) -> None:
    for number in range(3):
        put(lane, clients, number)
        assert len(lane) == number + 1
    waiting = lane.take()
    assert waiting is not None
    waiting.close()
    assert len(lane) == 2


def test_a_full_lane_takes_nobody_in(clients: list[socket.socket]) -> None:
    lane = Lane.create(3)
    assert [put(lane, clients, number) for number in range(5)] == [True, True, True, False, False]
    lane.set_limit(4)
    assert [put(lane, clients, number) for number in range(2)] == [True, False]
    close(lane)


def test_a_lane_whose_buffer_is_full_takes_nobody_in(clients: list[socket.socket]) -> None:
    lane = Lane.create(5)
    lane.set_limit(10_000)
    accepted = 0
    while put(lane, clients, accepted):
        accepted += 1
    assert 5 <= accepted == len(lane)
    close(lane)


def test_the_buffer_holds_as_many_as_the_limit_says(clients: list[socket.socket]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 1000
    if hard < 4 * limit:
        pytest.skip(f"only {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    lane = Lane.create(limit)
    try:
        enough = sum(put(lane, clients, number) for number in range(limit + 1))
        # without the right to go above net.core.wmem_max the kernel has the last word
        assert enough == limit if os.geteuid() == 0 else enough >= 200
    finally:
        close(lane)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_waits_keeps_no_descriptor_of_who_let_it_in(lane: Lane, clients: list[socket.socket]) -> None:
    before = descriptors()
    for number in range(50):
        put(lane, clients, number)
    assert len(descriptors() - before) == 50, "the clients' own"
    while (waiting := lane.take()) is not None:
        waiting.close()
    assert len(descriptors() - before) == 50


def test_a_connection_lives_as_long_as_it_waits(lane: Lane, clients: list[socket.socket]) -> None:
    put(lane, clients, 1)
    assert not has_gone(clients[0]), "the lane holds the other side"
    waiting = lane.take()
    assert waiting is not None
    waiting.close()
    assert has_gone(clients[0])


def test_a_client_that_left_is_told_apart() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        for leave in ("close", "reset", "half"):
            client = socket.create_connection(listener.getsockname())
            connection, _ = listener.accept()
            with connection:
                client.sendall(b"unread")
                assert not has_gone(connection)
                if leave == "half":
                    client.shutdown(socket.SHUT_WR)
                elif leave == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                if leave != "half":
                    client.close()
                wait_for("the end", lambda connection=connection: has_gone(connection))
                client.close()


def test_one_that_has_only_shut_down_its_half_still_listens() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        for leaves in (False, True):
            client = socket.create_connection(listener.getsockname())
            connection, _ = listener.accept()
            with connection, client:
                client.sendall(b"a whole request")
                if leaves:
                    client.close()
                else:
                    client.shutdown(socket.SHUT_WR)
                wait_for("the end", lambda connection=connection: has_gone(connection))
                if leaves:
                    wait_for("the reset", lambda connection=connection: not listens(connection))
                else:
                    assert listens(connection)
                    assert client.recv(100) == AHEAD
    near, far = socket.socketpair()
    with far:
        near.close()
        assert not listens(far)


READER = """
import sys, time
from asrsvc.serving.lanes import Lane
lane = Lane.inherit((int(sys.argv[1]), int(sys.argv[2])), 100)
while True:
    waiting = lane.take()
    if waiting is None:
        time.sleep(0.001)
        continue
    waiting.connection.settimeout(None)
    number = waiting.connection.recv(10)
    if int(number) == int(sys.argv[3]):
        waiting.connection.sendall(b"begun")
        time.sleep(60)
    waiting.connection.sendall(b"done")
    waiting.close()
"""


def start_reader(lane: Lane, stuck_at: int) -> subprocess.Popen[bytes]:
    numbers = lane.descriptors()
    command = [sys.executable, "-c", READER, *map(str, numbers), str(stuck_at)]
    return subprocess.Popen(command, pass_fds=numbers)


def test_a_killed_reader_loses_only_what_it_had_begun(lane: Lane, clients: list[socket.socket]) -> None:
    for number in range(40):
        assert put(lane, clients, number)
    for client in clients:
        client.settimeout(PATIENCE)
    for stuck_at in (10, 20):
        with start_reader(lane, stuck_at) as reader:
            assert clients[stuck_at].recv(10) == b"begun"
            reader.send_signal(signal.SIGKILL)
    with start_reader(lane, -1) as reader:
        answers = [client.recv(10) for client in clients]
        reader.kill()
    assert [number for number, answer in enumerate(answers) if answer != b"done"] == [10, 20]
    assert not any(answers[number] for number in (10, 20)), "their clients see the end"


def test_two_readers_share_one_line(lane: Lane, clients: list[socket.socket]) -> None:
    with start_reader(lane, -1) as one, start_reader(lane, -1) as other:
        for number in range(60):
            deadline = time.monotonic() + PATIENCE
            while not put(lane, clients, number):
                assert time.monotonic() < deadline
        for client in clients:
            client.settimeout(PATIENCE)
            assert client.recv(10) == b"done"
        one.kill()
        other.kill()


WITHOUT_DESCRIPTORS = """
import os, resource, sys
from asrsvc.serving.lanes import Lane
lane = Lane.inherit((int(sys.argv[1]), int(sys.argv[2])), 100)
free, alone = int(sys.argv[3]), bool(int(sys.argv[4]))
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
first_free = os.dup(0)
os.close(first_free)
resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + free, hard))
print(*(lane.take(alone=alone) for _ in range(3)), len(lane), flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + 2, hard))
while (waiting := lane.take(alone=alone)) is not None:
    waiting.connection.sendall(b"done")
    waiting.close()
"""


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("free", [0, 1])
def test_a_request_waits_on_where_a_process_has_no_descriptors_free(
    lane: Lane, clients: list[socket.socket], free: int, *, alone: bool
) -> None:
    """The limit is lowered in a child process; when it has two descriptors again, all are answered."""
    for number in range(3):
        assert put(lane, clients, number)
    numbers = lane.descriptors()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS, *map(str, (*numbers, free, int(alone)))],
        pass_fds=numbers,
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == b"None None None 3\n"
    for client in clients:
        client.settimeout(PATIENCE)
        assert client.recv(10) == b"done"


def test_one_that_is_taken_alone_is_taken_once_and_leaves_no_descriptor(
    lane: Lane, clients: list[socket.socket]
) -> None:
    for number in range(20):
        put(lane, clients, number)
    before = descriptors()
    for number in range(20):
        assert len(lane) == 20 - number
        waiting = lane.take(alone=number % 2 == 0)
        assert waiting is not None
        assert waiting.connection.recv(10) == b"%d" % number
        waiting.close()
    assert lane.take(alone=True) is None
    assert descriptors() <= before
