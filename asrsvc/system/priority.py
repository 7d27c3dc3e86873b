"""The priority of one thread: what gives way to others on a busy machine."""

from __future__ import annotations

import os
import threading
from contextlib import suppress


def lower_thread(niceness: int) -> None:
    """Lower the priority of the calling thread, and of threads that it starts later.

    A thread that has a lower one already keeps it: to raise a priority takes a right (setpriority(2)), and
    an operator may have started the whole service at nice 19. Nothing depends on it, so nothing fails if
    the kernel or a container refuses.

    Args:
        niceness: at least this, 0 to 19.
    """
    thread = threading.get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, max(niceness, os.getpriority(os.PRIO_PROCESS, thread)))
