"""What a change of the model costs the requests that come meanwhile.

    python benchmarks/swap.py [--model full] [--workers 2] [--load 0.7] [--seconds 300] [--json FILE]

A real service on a store of its own takes open-loop load (requests come at their times whatever the
answers do) at a share of the capacity that was measured before. Phases without a swap and phases with one
swap after the other take turns, so that both have the same minutes of the machine. Every answer is compared
with the first of its version to the same clip. Load and service share the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from stage import (
    CLIPS,
    Background,
    MeasuredLoad,
    Phases,
    Stage,
    as_clip,
    describe,
    finish,
    latency_panel,
    machine,
    measured_capacity,
    parser,
    quantile,
    staged,
)

NAMES: Final = ("control", "swap")
_LOOK_SECONDS: Final = 0.02


@dataclass
class Watch:
    """What is seen while the load runs."""

    phases: Phases = field(default_factory=Phases)
    rolls: list[float] = field(default_factory=list)
    """seconds from SIGHUP to the end of each swap"""
    fewest: int | None = None
    """workers that served at the same time, at least"""


def direct(stage: Stage, watch: Watch, seconds: float, phase_seconds: float) -> None:
    """Let the phases take turns until the time is over; a swap that has begun is ended."""
    end = time.monotonic() + seconds
    target = 1
    while time.monotonic() < end:
        name = NAMES[len(watch.phases.spans) % 2]
        began = time.monotonic()
        while time.monotonic() < began + phase_seconds:
            if name == "control":
                look_until(stage, watch, lambda began=began: time.monotonic() >= began + phase_seconds)
                continue
            started = time.monotonic()
            before = stage.start_roll(stage.versions[target])
            look_until(stage, watch, lambda before=before: stage.ended(before))
            done = stage.ended(before)
            if done is None or done.result != "succeeded":
                raise RuntimeError(f"a swap {done.result}: {done.error}" if done else "a swap did not end")
            watch.rolls.append(time.monotonic() - started)
            target = 1 - target
        watch.phases.spans.append((name, began, time.monotonic()))
        print(f"{name} phase of {time.monotonic() - began:.1f} s", file=sys.stderr)


def look_until(stage: Stage, watch: Watch, condition: Any) -> None:
    """Count the workers that serve until the condition holds."""
    deadline = time.monotonic() + 300
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the phase did not end within 300 s")
        ready = stage.ready()
        if ready is not None:
            watch.fewest = ready if watch.fewest is None else min(ready, watch.fewest)
        time.sleep(_LOOK_SECONDS)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run it all; the figures."""
    found = machine()
    clips = [as_clip(path.name, path.read_bytes()) for path in sorted(CLIPS.glob("??_?.flac"))]
    with tempfile.TemporaryDirectory(prefix="asrsvc-swap-") as folder:
        settings = {"ASR_WORKERS": str(options.workers), "ASR_SOAK_SECONDS": str(options.soak_seconds)}
        with staged(Path(folder), options.model, **settings) as stage:
            port = stage.service.port
            capacity = measured_capacity(port, clips, options)
            load = MeasuredLoad([port], clips, rate=options.load * capacity)
            watch = Watch()
            report = Background(
                load, lambda: direct(stage, watch, options.seconds, options.phase_seconds)
            ).run()
            counters = stage.status().counters
    phases = {name: watch.phases.figures(report.records, name) for name in NAMES}
    return {
        "machine": found,
        "model": options.model,
        "workers": options.workers,
        "load": options.load,
        "capacity_per_second": capacity,
        "requests": len(report.records),
        "failed": len(report.failures()),
        "errors": sorted({record.error for record in report.failures()}),
        "phases": phases,
        "ratio_p99": phases["swap"]["p99_ms"] / phases["control"]["p99_ms"],
        "ratio_p50": phases["swap"]["p50_ms"] / phases["control"]["p50_ms"],
        "swaps": len(watch.rolls),
        "swap_seconds": {
            "median": quantile(watch.rolls, 0.5),
            "longest": max(watch.rolls, default=float("nan")),
        },
        "fewest_workers_serving": watch.fewest,
        "workers_killed": counters.killed_draining,
    }


def report(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        describe(result["machine"]),
        (
            f"{result['model']} model, {result['workers']} workers of 1 thread, capacity "
            f"{result['capacity_per_second']:.1f} requests/s, load {result['load']:.0%} of it"
        ),
        f"{result['requests']} requests, {result['failed']} failed {result['errors'] or ''}".rstrip(),
        f"{'':10}{'requests':>10}{'p50 ms':>10}{'p99 ms':>10}",
    ]
    for name, row in result["phases"].items():
        lines.append(f"{name:10}{row['requests']:>10}{row['p50_ms']:>10.0f}{row['p99_ms']:>10.0f}")
    lines += [
        f"{'ratio':10}{'':>10}{result['ratio_p50']:>10.2f}{result['ratio_p99']:>10.2f}",
        (
            f"{result['swaps']} swaps, median {result['swap_seconds']['median']:.1f} s, longest "
            f"{result['swap_seconds']['longest']:.1f} s; fewest workers serving: "
            f"{result['fewest_workers_serving']}; workers killed: {result['workers_killed']}"
        ),
    ]
    if min(row["requests"] for row in result["phases"].values()) < 1000:
        lines.append("fewer than 1,000 requests on one side: a p99 of so few says little")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line: the report on stdout, progress on stderr; 1 if a request failed."""
    made = parser("Latency while the model is changed, against without.", load=0.7, capacity_seconds=15)
    made.add_argument("--phase-seconds", type=float, default=30, help="default: %(default)s")
    made.add_argument("--soak-seconds", type=float, default=10, help="default: %(default)s, the service's")
    options = made.parse_args(arguments)
    result = measure(options)
    finish(result, report(result), options, latency_panel(result))
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
