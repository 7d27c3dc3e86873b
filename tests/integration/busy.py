"""Both cores of the machine held by others: processes that do nothing but compute, for a bounded time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from waiting import PATIENCE

_LOOP = """
import ctypes, signal, sys, time
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it does not outlive the tests
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    sum(range(10_000))
"""


@contextmanager
def busy_cores(seconds: float) -> Iterator[None]:
    """One busy loop for each core, for the time of a `with` block.

    Args:
        seconds: after which they end in any case.
    """
    loops = [
        subprocess.Popen([sys.executable, "-c", _LOOP, str(seconds)])
        for _ in range(len(os.sched_getaffinity(0)))
    ]
    try:
        yield
        ended = [loop.returncode for loop in loops if loop.poll() is not None]
        assert not ended, f"busy loops had ended after {seconds:g} s: {ended}"
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.wait(PATIENCE)
