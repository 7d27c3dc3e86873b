"""What connections that mean nothing cost the requests of others.

    python benchmarks/crowd.py [--model nano] [--workers 2] [--load 0.4] [--seconds 300] [--json FILE]

A real service takes open-loop load at a share of its capacity. Phases without a crowd and phases with one
take turns: connections that never send a byte, and some that send a byte of a header every second, each
made again as soon as the service closes it. A crowd is on other machines, with cores of their own. Here it is
a process that the kernel runs where a core is idle (SCHED_IDLE, sched(7)), whose core counts as idle: with a
low priority alone it would hold a core each time it runs, and two engines would share the other. What it
did is shown too: it is as large, and sends as much, as it should.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from stage import (
    CLIPS,
    ROOT,
    Background,
    MeasuredLoad,
    Phases,
    as_clip,
    describe,
    finish,
    latency_panel,
    machine,
    measured_capacity,
    parser,
    staged,
)

NAMES: Final = ("control", "crowd")
QUANTILES: Final = ("p50", "p95", "p99")
_SETTLE_SECONDS: Final = 2.0


@contextmanager
def crowd(port: int, silent: int, trickling: int, done: list[dict[str, float]]) -> Iterator[None]:
    """So many connections for the time of a `with` block; what they did is added to `done`."""
    program = ROOT / "tests" / "integration" / "crowd.py"
    command = ["chrt", "--idle", "0", sys.executable, str(program), str(port), str(silent), str(trickling)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"open\n":
                raise RuntimeError("the crowd did not come together")
            yield
        finally:
            said, _ = process.communicate(timeout=20)
        done.append(json.loads(said))


def direct(phases: Phases, port: int, options: argparse.Namespace, done: list[dict[str, float]]) -> None:
    """Let the phases take turns until the time is over."""
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        _phase(phases, "control", options.phase_seconds)
        with crowd(port, options.silent, options.trickling, done):
            _phase(phases, "crowd", options.phase_seconds)


def _phase(phases: Phases, name: str, seconds: float) -> None:
    time.sleep(_SETTLE_SECONDS)  # what the change itself costs belongs to neither
    began = time.monotonic()
    time.sleep(seconds)
    phases.spans.append((name, began, time.monotonic()))
    print(f"{name} phase of {seconds:.0f} s", file=sys.stderr)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run it all; the figures."""
    found = machine()
    clips = [as_clip(path.name, path.read_bytes()) for path in sorted(CLIPS.glob("??_?.flac"))]
    with (
        tempfile.TemporaryDirectory(prefix="asrsvc-crowd-") as folder,
        staged(Path(folder), options.model, ASR_WORKERS=str(options.workers)) as stage,
    ):
        port = stage.service.port
        capacity = measured_capacity(port, clips, options)
        load = MeasuredLoad([port], clips, rate=options.load * capacity)
        phases = Phases()
        done: list[dict[str, float]] = []
        report = Background(load, lambda: direct(phases, port, options, done)).run()
    figures = {name: phases.figures(report.records, name) for name in NAMES}
    return {
        "machine": found,
        "model": options.model,
        "workers": options.workers,
        "load": options.load,
        "silent": options.silent,
        "trickling": options.trickling,
        "crowds": done,
        "capacity_per_second": capacity,
        "requests": len(report.records),
        "failed": len(report.failures()),
        "phases": figures,
        **{
            f"ratio_{key}": figures["crowd"][f"{key}_ms"] / figures["control"][f"{key}_ms"]
            for key in QUANTILES
        },
    }


def quotient(figures: dict[str, dict[str, float]], key: str) -> float:
    """A figure with the crowd against the one without."""
    return figures["crowd"][key] / figures["control"][key]


def report(result: dict[str, Any]) -> str:
    """The figures for people."""
    crowds = result["crowds"]
    seconds = sum(one["seconds"] for one in crowds)
    lines = [
        describe(result["machine"]),
        (
            f"{result['model']} model, {result['workers']} workers of 1 thread, capacity "
            f"{result['capacity_per_second']:.1f} requests/s, load {result['load']:.0%} of it; a crowd of "
            f"{result['silent']} silent and {result['trickling']} trickling connections"
        ),
        (
            f"{result['requests']} requests, {result['failed']} failed; at least"
            f" {min(one['open'] for one in crowds):.0f} connections at the end of a phase, "
            f"{sum(one['closed'] for one in crowds) / seconds:.1f} closed and made again a second, "
            f"{sum(one['trickled'] for one in crowds) / seconds:.0f} bytes a second"
        ),
        f"{'':10}{'requests':>10}" + "".join(f"{key + ' ms':>10}" for key in QUANTILES),
    ]
    for name, row in result["phases"].items():
        lines.append(
            f"{name:10}{row['requests']:>10}" + "".join(f"{row[f'{key}_ms']:>10.1f}" for key in QUANTILES)
        )
    lines.append(f"{'ratio':20}" + "".join(f"{result[f'ratio_{key}']:>10.2f}" for key in QUANTILES))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line: the report on stdout, progress on stderr; 1 if a request failed."""
    made = parser(
        "Latency beside connections that mean nothing, against without.", load=0.4, capacity_seconds=15
    )
    made.add_argument("--phase-seconds", type=float, default=20, help="default: %(default)s")
    made.add_argument("--silent", type=int, default=1000, help="connections (default: %(default)s)")
    made.add_argument("--trickling", type=int, default=200, help="connections (default: %(default)s)")
    options = made.parse_args(arguments)
    result = measure(options)
    finish(result, report(result), options, latency_panel(result))
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
