"""Requests of very different length, one after the other, and the memory that workers keep after them."""

from __future__ import annotations

import asyncio
import io
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from load import CLIPS, Clip, Load, multipart

from asrsvc.serving.memory import GIVE_BACK_SECONDS

SHORTEST, LONGEST = 0.5, 30.0
"""seconds of a recording"""
VARIETY = 40


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


class _Client(Load):
    """Sends one request after the other; what is said is not compared."""

    def _check(self, *answer: Any) -> None:
        _clip, record, status, *_ = answer
        record.error = "" if status == 200 else f"status {status}"


def send(port: int, clips: list[Clip], requests: int, *, clients: int = 4) -> None:
    """Send so many requests, each client one after the other.

    Raises:
        AssertionError: one was not answered.
    """

    async def one(load: Load) -> None:
        for _ in range(requests // clients):
            await load.run(requests=1)

    async def all_of_them() -> list[Load]:
        loads: list[Load] = [
            _Client([port], clips, rate=1, keep_alive_share=0, early_share=0, seed=seed)
            for seed in range(clients)
        ]
        await asyncio.gather(*map(one, loads))
        return loads

    for load in asyncio.run(all_of_them()):
        assert not load.report.failures(), load.report.summary()


def anonymous_kib(pid: int) -> int:
    """Anonymous memory of a process (proc(5), smaps_rollup)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Anonymous:"))


def wait_for_rest() -> None:
    """Let workers that have nothing to do give back what is free in their memory."""
    time.sleep(GIVE_BACK_SECONDS + 2)
