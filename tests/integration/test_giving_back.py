"""A worker that has nothing to do gives back what long recordings took."""

from __future__ import annotations

import random
import time
from pathlib import Path

from mixed import anonymous_kib, recordings, send
from service import running

from asrsvc.serving.memory import GIVE_BACK_SECONDS

LEAST_KIB = 2048
TRIES = 12
"""it may give back just before it is looked at"""
PATIENCE_SECONDS = 1.5 * GIVE_BACK_SECONDS
"""no multiple of it: the next look comes at another time between two returns"""


def test_memory_is_given_back_after_long_recordings(tmp_path: Path) -> None:
    longest = recordings(random.Random(0))[-6:]
    with running(tmp_path, ASR_WORKERS="1", ASR_THREADS="1") as service:
        (pid,) = service.worker_pids()
        given = []
        for _ in range(TRIES):
            send(service.port, longest, 16)
            busy = anonymous_kib(pid)
            end = time.monotonic() + PATIENCE_SECONDS
            while (at_rest := anonymous_kib(pid)) > busy - LEAST_KIB and time.monotonic() < end:
                time.sleep(0.1)
            given.append(busy - at_rest)
            if given[-1] >= LEAST_KIB:
                break
        assert given[-1] >= LEAST_KIB, given
        assert service.worker_pids() == {pid}
