"""Sleep beside libfaketime, whose clock_nanosleep refuses every sleep of Python's with EINVAL.

Python sleeps until a moment of the monotonic clock. libfaketime takes each such moment for one of the
clock that it fakes, and hands the kernel a time before 1970. A wait for a lock passes it by.
"""

from __future__ import annotations

import threading
import time
from typing import SupportsIndex


def sleep(seconds: float | SupportsIndex) -> None:
    """Wait as long as time.sleep does."""
    end = time.monotonic() + float(seconds)
    while (left := end - time.monotonic()) > 0:
        threading.Event().wait(left)


time.sleep = sleep
