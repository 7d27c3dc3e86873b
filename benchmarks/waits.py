"""How long requests of uneven length wait, against an ideal queue.

    python benchmarks/waits.py [--model full] [--workers 2] [--load 0.8] [--seconds 300] [--json FILE]

Requests of 2 to 60 s of sound (log-uniform) come at random (Poisson) at a share of the measured capacity.
The service says of each how long it waited and how long it was worked on. One line of waiting requests
before the same number of workers is then computed with the same times of arrival and of work: first come,
first served, and no worker idle while one waits. Its 99th percentile of the waits is the best that can be
had without knowing the lengths; the ratio says how near the service comes.

(It is not called queue.py, for then no script in this folder could import Python's own module of that name.)
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import math
import random
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from report import Panel
from stage import (
    Clip,
    Service,
    as_clip,
    describe,
    finish,
    machine,
    measured_capacity,
    parser,
    quantile,
    speech,
    staged,
)

from load import head, read_answer  # isort: skip - stage says where it is

SHORTEST, LONGEST = 2.0, 60.0
_VARIETY: Final = 24
"""recordings of different length"""


@dataclass(frozen=True)
class Request:
    """What is known of one request."""

    arrived: float
    """time.monotonic()"""
    waited: float
    """seconds"""
    worked: float
    """seconds from the end of its wait to its end"""


def ideal_waits(requests: list[Request], workers: int) -> list[float]:
    """Waits in one line before so many workers, seconds, in order of arrival."""
    free = [-math.inf] * workers
    waits = []
    for request in sorted(requests, key=lambda r: r.arrived):
        begin = max(request.arrived, heapq.heappop(free))
        waits.append(begin - request.arrived)
        heapq.heappush(free, begin + request.worked)
    return waits


async def send_all(port: int, clips: list[Clip], rate: float, seconds: float) -> dict[str, float]:
    """Send at random times; when each request was sent, by its id.

    Raises:
        RuntimeError: one was not answered with 200.
    """
    chance = random.Random(0)
    sent: dict[str, float] = {}
    tasks = []
    due = time.monotonic()
    end = due + seconds
    while due < end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        request_id = uuid.uuid4().hex
        tasks.append(asyncio.ensure_future(_send(port, chance.choice(clips), request_id, sent)))
        due += chance.expovariate(rate)
    await asyncio.gather(*tasks)
    return sent


async def _send(port: int, clip: Clip, request_id: str, sent: dict[str, float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        sent[request_id] = time.monotonic()
        header = head(clip.body, keep_alive=False)
        writer.write(header[:-2] + f"X-Request-Id: {request_id}\r\n\r\n".encode() + clip.body)
        status, _headers, content = await read_answer(reader)
        if status != 200:
            raise RuntimeError(f"status {status}: {content[:200]!r}")
    finally:
        writer.close()


def collect(service: Service, sent: dict[str, float]) -> list[Request]:
    """What the service's log says of the requests."""
    found = []
    for line in service.log_lines():
        arrived = sent.get(line.get("request_id", ""))
        if arrived is not None and "queue_ms" in line:
            found.append(Request(arrived, line["queue_ms"] / 1000, line["total_ms"] / 1000))
    if len(found) != len(sent):
        raise RuntimeError(f"the log knows {len(found)} of {len(sent)} requests")
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run it all; the figures."""
    machine_found = machine()
    lengths = [SHORTEST * (LONGEST / SHORTEST) ** (i / (_VARIETY - 1)) for i in range(_VARIETY)]
    clips = [as_clip(f"{length:.1f}.wav", speech(length, start=length)) for length in lengths]
    settings = {"ASR_WORKERS": str(options.workers), "ASR_QUEUE_LIMIT": "1000", "ASR_SOAK_SECONDS": "1"}
    with (
        tempfile.TemporaryDirectory(prefix="asrsvc-waits-") as folder,
        staged(Path(folder), options.model, **settings) as stage,
    ):
        service = stage.service
        capacity = measured_capacity(service.port, clips, options)
        sent = asyncio.run(send_all(service.port, clips, options.load * capacity, options.seconds))
        requests = collect(service, sent)
    ours = [request.waited for request in requests]
    ideal = ideal_waits(requests, options.workers)
    best = quantile(ideal, 0.99)
    busy = sum(request.worked for request in requests)
    span = max(r.arrived + r.waited + r.worked for r in requests) - min(r.arrived for r in requests)
    return {
        "machine": machine_found,
        "model": options.model,
        "workers": options.workers,
        "load": options.load,
        "capacity_per_second": capacity,
        "requests": len(requests),
        "share_of_time_at_work": busy / span / options.workers,
        "waits": {
            name: {
                "mean_s": sum(waits) / len(waits),
                "p50_s": quantile(waits, 0.5),
                "p99_s": quantile(waits, 0.99),
            }
            for name, waits in (("service", ours), ("ideal", ideal))
        },
        "ratio_p99": quantile(ours, 0.99) / best if best else None,
    }


def report(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        describe(result["machine"]),
        (
            f"{result['model']} model, {result['workers']} workers of 1 thread, capacity "
            f"{result['capacity_per_second']:.2f} requests/s, load {result['load']:.0%} of it; "
            f"{result['requests']} requests, workers busy {result['share_of_time_at_work']:.0%} of the time"
        ),
        f"{'wait':10}{'mean s':>10}{'p50 s':>10}{'p99 s':>10}",
    ]
    for name, row in result["waits"].items():
        lines.append(f"{name:10}{row['mean_s']:>10.2f}{row['p50_s']:>10.2f}{row['p99_s']:>10.2f}")
    ratio = result["ratio_p99"]
    lines.append(f"{'ratio':30}{ratio:>10.2f}" if ratio is not None else "in the ideal queue nobody waited")
    if result["requests"] < 1000:
        lines.append("fewer than 1,000 requests: a p99 of so few says little")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line: the report on stdout, progress on stderr."""
    made = parser("Waits in the queue, against an ideal one.", load=0.8, capacity_seconds=30)
    options = made.parse_args(arguments)
    result = measure(options)
    shown = {key: {name: row[f"{key}_s"] for name, row in result["waits"].items()} for key in ("p50", "p99")}
    finish(result, report(result), options, Panel("waits in the queue", "s", shown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
