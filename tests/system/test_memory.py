"""A worker's memory stays as it is, however many requests it answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from mixed import anonymous_kib, recordings, send, wait_for_rest
from service import running

REQUESTS = 10_000
GROWTH = 1.05


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_ten_thousand_requests_leave_a_workers_memory_as_it_was(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    clips = recordings(random.Random(0))
    with running(tmp_path, ASR_WORKERS="2", ASR_THREADS="1") as service:

        def look() -> dict[int, int]:
            wait_for_rest()
            return {pid: anonymous_kib(pid) for pid in service.worker_pids()}

        # One after the other too: on an idle machine the spans of one recording are run side by side.
        send(service.port, clips, REQUESTS // 50, clients=1)
        send(service.port, clips, REQUESTS // 10 - REQUESTS // 50)
        history = [look()]
        for _ in range(9):
            send(service.port, clips, REQUESTS // 10)
            history.append(look())
    assert history[0].keys() == history[-1].keys(), "a worker was replaced"
    for pid, early in history[0].items():
        record_property(f"anonymous KiB of worker {pid}", [step[pid] for step in history])
        assert history[-1][pid] <= GROWTH * early, [step[pid] for step in history]
