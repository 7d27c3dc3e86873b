"""Memory of this process: how much is its own, and what is free in it given back to the machine."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Final

KEPT_BYTES: Final = 16 << 20
"""of free memory at the end of the heap: what a recording of 10 s takes, so that the next need not ask"""
GIVE_BACK_SECONDS: Final = 10.0
"""so often a worker gives back what is free; the next recording takes up to 10 ms more for it"""


def anonymous_mebibytes() -> int:
    """Memory that is this process's own (proc(5), smaps_rollup)."""
    for line in Path("/proc/self/smaps_rollup").read_text("ascii").splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) // 1024
    return 0


def give_back() -> None:
    """Return free memory to the machine (malloc_trim(3)); takes milliseconds, and leaves Python's lock free.

    malloc keeps what is freed between pieces that are in use. After two recordings of 30 s side by side a
    worker had 150 MB of it, for ever.
    """
    trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(ctypes.c_size_t(KEPT_BYTES))
