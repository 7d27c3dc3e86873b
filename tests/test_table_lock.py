"""The lock of a table that several processes, and several threads of each, change."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from asrsvc.serving import table_lock
from asrsvc.serving.table_lock import TableLock

ROUNDS = 300


@pytest.fixture
def table() -> Iterator[int]:
    descriptor = os.memfd_create("table")
    os.ftruncate(descriptor, mmap.PAGESIZE)
    yield descriptor
    os.close(descriptor)


COUNTER = f"""
import mmap, sys, threading
from asrsvc.serving import table_lock
from asrsvc.serving.table_lock import TableLock
table_lock._SECONDS = 280
descriptor = int(sys.argv[1])
lock, words = TableLock(descriptor, "the table"), memoryview(mmap.mmap(descriptor, 0)).cast("q")
def count():
    for _ in range({ROUNDS}):
        with lock.held() as held:
            assert held
            seen = words[0]
            for _ in range(20):
                pass
            words[0] = seen + 1
threads = [threading.Thread(target=count) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_processes_and_their_threads_take_turns(table: int) -> None:
    command = [sys.executable, "-c", f"import sys\nsys.setswitchinterval(1e-6)\n{COUNTER}", str(table)]
    children = [subprocess.Popen(command, pass_fds=[table]) for _ in range(3)]
    assert [child.wait(300) for child in children] == [0, 0, 0]
    with mmap.mmap(table, 0) as memory:
        assert memoryview(memory).cast("q")[0] == 3 * 3 * ROUNDS


HOLDER = """
import sys, time
from asrsvc.serving.table_lock import TableLock
with TableLock(int(sys.argv[1]), "the table").held():
    print("held", flush=True)
    time.sleep(300)
"""


def test_one_that_is_not_let_go_is_waited_for_once(
    table: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_lock, "_SECONDS", 0.5)
    monkeypatch.setattr(table_lock, "_FORGO_SECONDS", 300)
    lock = TableLock(table, "the table")
    command = [sys.executable, "-c", HOLDER, str(table)]
    with subprocess.Popen(command, pass_fds=[table], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        began = time.monotonic()
        with lock.held() as held:
            assert not held
        assert time.monotonic() - began >= 0.5
        for _ in range(1000):
            with lock.held() as held:
                assert not held
        assert caplog.text.count("the table is held by a process that does not let it go") == 1
        child.kill()
    with lock.held() as held:
        assert held, "a lock goes with its process"


def test_a_thread_that_does_not_let_it_go_delays_another_no_longer(
    table: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_lock, "_SECONDS", 0.2)
    lock = TableLock(table, "the table")
    end, begun = threading.Event(), threading.Event()

    def hold() -> None:
        with lock.held():
            begun.set()
            end.wait(300)

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait(300)
    with lock.held() as held:
        assert not held
    end.set()
    thread.join(300)
    with lock.held() as held:
        assert held
