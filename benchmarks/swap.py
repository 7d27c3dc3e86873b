"""What a change of the model costs the requests that come meanwhile.

    python benchmarks/swap.py [--model full] [--workers 2] [--load 0.7] [--seconds 300] [--json FILE]

A real service on a store of its own takes open-loop load (requests come at their times whatever the
answers do) at a share of the capacity that was measured before. Phases without a swap and phases with one
swap after the other take turns, so that both have the same minutes of the machine. Every answer is compared
with the first of its version to the same clip. Load and service share the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from stage import (
    CLIPS,
    MeasuredLoad,
    Record,
    Stage,
    as_clip,
    describe,
    machine,
    measure_capacity,
    quantile,
    staged,
)

NAMES: Final = ("control", "swap")
_LOOK_SECONDS: Final = 0.02


@dataclass
class Watch:
    """What is seen while the load runs."""

    phases: list[tuple[str, float, float]] = field(default_factory=list)
    """name, begin and end, time.monotonic()"""
    rolls: list[float] = field(default_factory=list)
    """seconds from SIGHUP to the end of each swap"""
    fewest: int | None = None
    """workers that served at the same time, at least"""


def direct(stage: Stage, watch: Watch, seconds: float, phase_seconds: float) -> None:
    """Let the phases take turns until the time is over; a swap that has begun is ended."""
    end = time.monotonic() + seconds
    target = 1
    while time.monotonic() < end:
        name = NAMES[len(watch.phases) % 2]
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
        watch.phases.append((name, began, time.monotonic()))
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
            measure_capacity(port, clips, 2, 2 * options.workers)  # the first runs are slow
            capacity = measure_capacity(port, clips, options.capacity_seconds, 2 * options.workers)
            print(f"capacity {capacity:.1f} requests/s", file=sys.stderr)
            load = MeasuredLoad([port], clips, rate=options.load * capacity)
            watch = Watch()
            errors: list[BaseException] = []
            thread = threading.Thread(target=_watched, args=(stage, watch, options, load, errors))
            thread.start()
            report = load.run_forever()
            thread.join()
            if errors:
                raise errors[0]
            counters = stage.status().counters
    return {
        "machine": found,
        "model": options.model,
        "workers": options.workers,
        "load": options.load,
        "capacity_per_second": capacity,
        "requests": len(report.records),
        "failed": len(report.failures()),
        "errors": sorted({record.error for record in report.failures()}),
        "phases": {name: _figures(report.records, watch, name) for name in NAMES},
        "ratio_p99": _p99(report.records, watch, "swap") / _p99(report.records, watch, "control"),
        "ratio_p50": _p50(report.records, watch, "swap") / _p50(report.records, watch, "control"),
        "swaps": len(watch.rolls),
        "swap_seconds": {
            "median": quantile(watch.rolls, 0.5),
            "longest": max(watch.rolls, default=float("nan")),
        },
        "fewest_workers_serving": watch.fewest,
        "workers_killed": counters.killed_draining,
    }


def _watched(
    stage: Stage, watch: Watch, options: argparse.Namespace, load: MeasuredLoad, errors: list[BaseException]
) -> None:
    try:
        direct(stage, watch, options.seconds, options.phase_seconds)
    except Exception as error:  # noqa: BLE001 - raised where the load ends
        errors.append(error)
    finally:
        load.stop()


def _times(records: list[Record], watch: Watch, name: str) -> list[float]:
    """Seconds of the good requests that were sent in phases of this name."""
    spans = [(began, ended) for phase, began, ended in watch.phases if phase == name]
    return [
        record.seconds
        for record in records
        if not record.error and any(began <= record.sent < ended for began, ended in spans)
    ]


def _p50(records: list[Record], watch: Watch, name: str) -> float:
    return quantile(_times(records, watch, name), 0.5)


def _p99(records: list[Record], watch: Watch, name: str) -> float:
    return quantile(_times(records, watch, name), 0.99)


def _figures(records: list[Record], watch: Watch, name: str) -> dict[str, float]:
    return {
        "phases": sum(phase == name for phase, _, _ in watch.phases),
        "requests": len(_times(records, watch, name)),
        "p50_ms": _p50(records, watch, name) * 1000,
        "p99_ms": _p99(records, watch, name) * 1000,
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
    parser = argparse.ArgumentParser(description="Latency while the model is changed, against without.")
    parser.add_argument("--model", choices=("full", "nano"), default="full", help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--load", type=float, default=0.7, help="share of the capacity (default: 0.7)")
    parser.add_argument("--seconds", type=float, default=300, help="of load (default: %(default)s)")
    parser.add_argument("--phase-seconds", type=float, default=30, help="default: %(default)s")
    parser.add_argument("--capacity-seconds", type=float, default=15, help="default: %(default)s")
    parser.add_argument("--soak-seconds", type=float, default=10, help="default: %(default)s, the service's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    options = parser.parse_args(arguments)
    result = measure(options)
    print(report(result))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
