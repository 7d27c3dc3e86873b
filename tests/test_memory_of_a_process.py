"""Memory that is free in a process, given back to the machine."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys

from waiting import PATIENCE

from asrsvc.serving.memory import anonymous_mebibytes

PIECES = 4000
BLOCK_BYTES = 64 << 20
PIECE_BYTES = 64_000  # below what malloc takes from the machine one by one

LINE = f"""
from asrsvc.serving.memory import KEPT_BYTES, anonymous_mebibytes, give_back
pieces = [bytearray(b"x") * {PIECE_BYTES} for _ in range({PIECES})]
full = anonymous_mebibytes()
del pieces[:-1]  # the last one lies behind all that is free
freed = anonymous_mebibytes()
give_back()
print(full, freed, anonymous_mebibytes(), KEPT_BYTES >> 20)
"""


def test_what_is_free_between_used_pieces_goes_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LINE],
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=True,
    )
    full, freed, given_back, kept = map(int, done.stdout.split())
    size = PIECES * PIECE_BYTES >> 20
    assert full >= size
    assert freed > 0.9 * full, "malloc gave it back by itself: nothing was tested"
    assert given_back < full - size + kept + 5


def test_a_process_knows_its_own_memory() -> None:
    gc.collect()  # what other tests left might go meanwhile
    before = anonymous_mebibytes()
    with mmap.mmap(-1, BLOCK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(b"x" * BLOCK_BYTES)
        added = anonymous_mebibytes() - before
    assert 0.9 * (BLOCK_BYTES >> 20) <= added <= 2.2 * (BLOCK_BYTES >> 20)  # with what was written, at most
