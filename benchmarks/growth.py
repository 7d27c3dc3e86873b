"""Whether a worker's memory stays as it is: its anonymous memory over many requests of mixed lengths.

    python benchmarks/growth.py [--model full] [--requests 10000] [--workers 2] [--json FILE] [--chart FILE]

Recordings of 0.5 to 30 s, WAV, FLAC and MP3, from four clients that each send one after the other; the
memory of each worker (`Anonymous` of /proc/PID/smaps_rollup) after each tenth of the requests: at once, and
when it has given back what is free, as it does every few seconds.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from report import Panel, add_targets, finish
from stage import Service, describe, machine, staged, wait_for

import mixed  # isort: skip - stage says where it is

STEPS: Final = 10
BUSY, AT_REST = KINDS = ("at once", "at rest")
ALONE_SHARE: Final = 5
"""of the first step, one in so many are sent by one client: the spans of a recording run side by side then"""


def look(service: Service) -> dict[str, float]:
    """MB of each worker, by its process id."""
    return {str(pid): mixed.anonymous_kib(pid) * 1024 / 1e6 for pid in sorted(service.worker_pids())}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run it; the figures.

    Raises:
        RuntimeError: a worker was replaced.
    """
    clips = mixed.recordings(random.Random(0))
    each = options.requests // STEPS
    settings = {"ASR_WORKERS": str(options.workers), "ASR_SOAK_SECONDS": "0.1"}
    with (
        tempfile.TemporaryDirectory(prefix="asrsvc-growth-") as folder,
        staged(Path(folder), options.model, changes=False, **settings) as stage,
    ):
        service = stage.service
        # Those of the model before may still be leaving.
        wait_for("the workers", lambda: len(service.worker_pids()) == options.workers, 30)
        history: dict[str, list[dict[str, float]]] = {kind: [look(service)] for kind in KINDS}
        seconds = 0.0
        for step in range(STEPS):
            alone = each // ALONE_SHARE if step == 0 else 0
            started = time.monotonic()
            mixed.send(service.port, clips, alone, clients=1)
            mixed.send(service.port, clips, each - alone)
            seconds += time.monotonic() - started
            history[BUSY].append(look(service))
            mixed.wait_for_rest()
            history[AT_REST].append(look(service))
            print((step + 1) * each, {kind: row[-1] for kind, row in history.items()}, file=sys.stderr)
    pids = history[BUSY][0].keys()
    if history[AT_REST][-1].keys() != pids:
        raise RuntimeError("a worker was replaced")
    # Process ids say nothing to who reads the figures.
    rows = {
        f"worker {index}": {kind: [step[pid] for step in history[kind]] for kind in KINDS}
        for index, pid in enumerate(pids, 1)
    }
    return {
        "machine": machine(),
        "model": options.model,
        "requests": each * STEPS,
        "seconds": seconds,
        "anonymous_mb": rows,
        "growth": {name: row[AT_REST][-1] / row[AT_REST][1] for name, row in rows.items()},
    }


def report(result: dict[str, Any]) -> str:
    """The figures for people."""
    each = result["requests"] // STEPS
    lines = [
        describe(result["machine"]),
        (
            f"{result['model']} model, {result['requests']} requests of {mixed.SHORTEST:g} to"
            f" {mixed.LONGEST:g} s in {result['seconds']:.0f} s; own MB of a worker after so many"
        ),
        f"{'':18}" + "".join(f"{count:>8}" for count in range(0, result["requests"] + 1, each)),
    ]
    for name, by_kind in result["anonymous_mb"].items():
        for kind, row in by_kind.items():
            lines.append(f"{name + ', ' + kind:18}" + "".join(f"{mb:>8.1f}" for mb in row))
    grown = ", ".join(f"{growth - 1:+.1%}" for growth in result["growth"].values())
    lines.append(f"at rest, the last figure against that after the first tenth of the requests: {grown}")
    return "\n".join(lines)


def panels(result: dict[str, Any]) -> list[Panel]:
    """The chart."""
    each = result["requests"] // STEPS
    rows: dict[str, dict[str, float]] = {}
    for name, by_kind in result["anonymous_mb"].items():
        for step in (1, 2, 5, STEPS):
            for kind, row in by_kind.items():
                rows.setdefault(f"{step * each}", {})[f"{name}, {kind}"] = row[step]
    return [Panel("memory of each worker's own, after so many requests", "MB", rows)]


def main(arguments: list[str] | None = None) -> int:
    """Command line: the report on stdout, progress on stderr."""
    parser = argparse.ArgumentParser(description="Memory of workers over many requests of mixed lengths.")
    parser.add_argument("--model", choices=("full", "nano"), default="full", help="default: %(default)s")
    parser.add_argument("--requests", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    add_targets(parser)
    options = parser.parse_args(arguments)
    if options.requests < STEPS * ALONE_SHARE:
        parser.error(f"--requests: {options.requests} are too few; {STEPS * ALONE_SHARE} is the least")
    result = measure(options)
    finish(result, report(result), options, *panels(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
