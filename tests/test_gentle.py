"""Work that gives way: its policy, its priority, and what becomes of it when it is hurried."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from waiting import PATIENCE

from asrsvc.serving.gentle import NICENESS, hurry, in_gentle_thread, may_hurry

THREAD = threading.get_native_id


def priority() -> tuple[int, int]:
    """Policy and niceness of this thread."""
    return os.sched_getscheduler(THREAD()), os.getpriority(os.PRIO_PROCESS, THREAD())


def wanted(policy: int) -> tuple[int, int]:
    return policy, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))


def test_the_result_and_the_error_are_those_of_the_work() -> None:
    assert in_gentle_thread(lambda: 3).result(PATIENCE) == 3
    with pytest.raises(ZeroDivisionError):
        in_gentle_thread(lambda: 1 / 0).result(PATIENCE)


def test_it_waits_for_an_idle_core_if_it_may_go_back() -> None:
    before = priority()
    policy = os.SCHED_IDLE if may_hurry() else os.SCHED_OTHER
    assert in_gentle_thread(priority).result(PATIENCE) == wanted(policy)
    assert priority() == before


def test_what_it_starts_gives_way_too() -> None:
    found = []

    def work() -> None:
        thread = threading.Thread(target=lambda: found.append(priority()))
        thread.start()
        thread.join(PATIENCE)

    in_gentle_thread(work).result(PATIENCE)
    assert found == [wanted(os.SCHED_IDLE if may_hurry() else os.SCHED_OTHER)]


def test_hurried_it_has_a_low_priority_and_nothing_else_changes() -> None:
    before, begun, go_on = priority(), threading.Event(), threading.Event()

    def work() -> tuple[int, int]:
        begun.set()
        assert go_on.wait(PATIENCE)
        return priority()

    future = in_gentle_thread(work)
    assert begun.wait(PATIENCE)
    hurry(os.getpid())
    go_on.set()
    assert future.result(PATIENCE) == wanted(os.SCHED_OTHER)
    assert priority() == before


def test_a_thread_that_ends_meanwhile_keeps_none_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    scheduler, main = os.sched_getscheduler, THREAD()

    def ended(thread: int) -> int:
        if thread == main:  # the first one of the process
            raise ProcessLookupError
        return scheduler(thread)

    def work() -> tuple[int, int]:
        begun.set()
        assert go_on.wait(PATIENCE)
        return scheduler(THREAD()), os.getpriority(os.PRIO_PROCESS, THREAD())

    future = in_gentle_thread(work)
    assert begun.wait(PATIENCE)
    monkeypatch.setattr(os, "sched_getscheduler", ended)
    hurry(os.getpid())
    go_on.set()
    assert future.result(PATIENCE) == wanted(os.SCHED_OTHER)


def test_one_that_has_ended_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(PATIENCE)
        hurry(process.pid)


PROGRAM = """
import ctypes, os, resource, struct, sys, threading
from asrsvc.serving.gentle import _CAP_SYS_NICE, hurry, in_gentle_thread, may_hurry
by_capability = False
try:
    resource.setrlimit(resource.RLIMIT_NICE, (int(sys.argv[1]),) * 2)
except ValueError:  # above the limit of root itself, where root has not all rights, as in many containers
    by_capability = True
    if os.getuid() != 0:
        raise
libc = ctypes.CDLL(None)
if by_capability:
    libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS, linux/prctl.h
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
if by_capability:
    only = 1 << _CAP_SYS_NICE
    # capset(2), _LINUX_CAPABILITY_VERSION_3: effective, permitted, inheritable, twice 32 bits
    assert libc.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", only, only, 0, 0, 0, 0)) == 0
begun, go_on = threading.Event(), threading.Event()
def work():
    first = os.sched_getscheduler(0)
    begun.set(); go_on.wait(90)
    return first == os.SCHED_IDLE, os.sched_getscheduler(0) == os.SCHED_IDLE
future = in_gentle_thread(work)
begun.wait(90); hurry(os.getpid()); go_on.set()
print(may_hurry(), *future.result(90))
"""


@pytest.mark.parametrize(("right", "found"), [(0, "False False False"), (20 - NICENESS, "True True False")])
def test_nobody_waits_for_an_idle_core_for_ever(right: int, found: str, checkout: Path) -> None:
    """Without the right to go back it is not begun; with it, it ends.

    The right is the limit that systemd gives, or the capability where that limit cannot be raised.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(right)],
        env={"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    if "not allowed to raise maximum limit" in done.stderr:
        pytest.skip("this user may not give a process that right")
    assert done.stdout.strip() == found, done.stderr
