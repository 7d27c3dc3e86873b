"""Work that gives way to those who serve: done when a core is idle, and hurried when none is for long.

A low priority alone is not enough. Linux wakes a thread on a core that is idle, and one that runs something
of a low priority is not: two engines then share one core while the other is loading, for tens of
milliseconds. What has the policy SCHED_IDLE (sched(7)) leaves its core idle in the scheduler's eyes. But it
can starve: it has that policy for a while only, and a low priority then. Who may not leave the policy again
(it takes a right that systemd gives, LimitNICE=) has the low priority from the start.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from asrsvc.system.priority import lower_thread

T = TypeVar("T")

NICENESS: Final = 10
HURRY_SECONDS: Final = 2.0
"""from the begin of such a work until another process is to call `hurry`: this one may starve"""

_CAP_SYS_NICE: Final = 23  # capabilities(7), linux/capability.h


def in_gentle_thread(work: Callable[[], T]) -> Future[T]:
    """Run in a thread of its own, which gives way; threads that the work starts do so too.

    Args:
        work: its result or exception is the future's.
    """
    future: Future[T] = Future()

    def run() -> None:
        _give_way()
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - passed on to who waits
            future.set_exception(error)

    threading.Thread(target=run, name="asr-gentle", daemon=True).start()
    return future


def hurry(pid: int) -> None:
    """Give the threads of a process that wait for an idle core a low priority instead.

    Args:
        pid: of a process of this user's.
    """
    with suppress(OSError):  # it has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            thread = int(task.name)
            with suppress(ProcessLookupError):  # this thread has: the others go on
                if os.sched_getscheduler(thread) == os.SCHED_IDLE:
                    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def may_hurry() -> bool:
    """Whether this process may take a thread from SCHED_IDLE back (sched_setscheduler(2), RLIMIT_NICE)."""
    if resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20 - NICENESS:
        return True
    fields: dict[str, Any] = dict(
        line.split(":\t") for line in Path("/proc/self/status").read_text("utf-8").splitlines()
    )
    return bool(int(fields["CapEff"], 16) >> _CAP_SYS_NICE & 1)


def _give_way() -> None:
    lower_thread(NICENESS)
    with suppress(OSError):
        if may_hurry():
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
