"""A worker's memory stays as it is, however many requests it answers."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from load import CLIPS, Clip, Load, multipart
from service import Service, running

REQUESTS = 10_000
SHORTEST, LONGEST = 0.5, 30.0
"""seconds of a recording"""
VARIETY = 40
GROWTH = 1.05


def recordings(chance: random.Random) -> list[Clip]:
    """Speech of very different length, for libsndfile and for FFmpeg."""
    manifest = json.loads((CLIPS / "manifest.json").read_text(encoding="utf-8"))
    spoken = np.concatenate(
        [soundfile.read(CLIPS / c["file"], dtype="int16")[0] for c in manifest if c["language"] != "nospeech"]
    )
    found = []
    for index in range(VARIETY):
        # log-uniform: half of them are below 4 s, and every length is there early
        seconds = SHORTEST * (LONGEST / SHORTEST) ** (index / (VARIETY - 1))
        start = chance.randrange(len(spoken))
        target = io.BytesIO()
        kind = ("WAV", "FLAC", "MP3")[index % 3]
        sound = np.resize(np.roll(spoken, -start), round(seconds * 16_000))
        soundfile.write(target, sound, 16_000, format=kind)
        body = multipart(target.getvalue(), f"{index}.{kind.lower()}", timestamps="word")
        found.append(Clip(str(index), body, frozenset(), {}))
    return found


class Client(Load):
    """Sends one request after the other; what is said is not compared."""

    def _check(self, *answer: Any) -> None:
        _clip, record, status, *_ = answer
        record.error = "" if status == 200 else f"status {status}"


def send(service: Service, clips: list[Clip], requests: int, clients: int = 4) -> None:
    async def one(load: Load) -> None:
        for _ in range(requests // clients):
            await load.run(requests=1)

    async def all_of_them() -> list[Load]:
        loads: list[Load] = [
            Client([service.port], clips, rate=1, keep_alive_share=0, early_share=0, seed=seed)
            for seed in range(clients)
        ]
        await asyncio.gather(*map(one, loads))
        return loads

    for load in asyncio.run(all_of_them()):
        assert not load.report.failures(), load.report.summary()


def anonymous_kib(service: Service) -> dict[int, int]:
    """Anonymous memory of each worker (proc(5), smaps_rollup)."""
    found = {}
    for pid in service.worker_pids():
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Anonymous:"):
                found[pid] = int(line.split()[1])
    return found


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_ten_thousand_requests_leave_a_workers_memory_as_it_was(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    clips = recordings(random.Random(0))
    with running(tmp_path, ASR_WORKERS="2", ASR_THREADS="1") as service:
        # One after the other too: on an idle machine the spans of one recording are run side by side.
        send(service, clips, REQUESTS // 50, clients=1)
        send(service, clips, REQUESTS // 10 - REQUESTS // 50)
        history = [anonymous_kib(service)]
        for _ in range(9):
            send(service, clips, REQUESTS // 10)
            history.append(anonymous_kib(service))
    assert history[0].keys() == history[-1].keys(), "a worker was replaced"
    for pid, early in history[0].items():
        record_property(f"anonymous KiB of worker {pid}", [step[pid] for step in history])
        assert history[-1][pid] <= GROWTH * early, [step[pid] for step in history]
