"""Waiting for what another process or thread does: until it is so, and never for a time alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 180.0
"""seconds: how long something may take that takes a moment; the machine may be busy, or pause"""
_LOOK_SECONDS = 0.02


def wait_for(what: str, condition: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """Poll until the condition gives something true.

    Args:
        what: is waited for; told if it does not come.
        condition: asked again and again.
        seconds: to wait at most, where it may take longer than `PATIENCE`. A shorter time is none: it
            would tell how busy this machine is.

    Raises:
        TimeoutError: it did not come in time; says what was waited for.
    """
    seconds = max(seconds, PATIENCE)
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(_LOOK_SECONDS)


def wait_until_holds(check: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Run a check again and again until none of its assertions fails; what it gives.

    Raises:
        AssertionError: of the last try, when the time is over.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_LOOK_SECONDS)
