"""What jobs cost the requests of others, and what requests leave for them.

    python benchmarks/job_load.py [--model full] [--workers 2] [--load 0.4] [--seconds 200] [--json FILE]

A real service takes open-loop load at a share of its capacity. Phases without jobs and phases with a long
job for each worker take turns. A request can't stop the span of a job that is in the engine when it comes, so
what a job may cost it is one such span; what it costs is the ratio of the times.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import soundfile
from stage import (
    CLIPS,
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
    speech,
    staged,
)

NAMES: Final = ("control", "jobs")
QUANTILES: Final = ("p50", "p95", "p99")
_SETTLE_SECONDS: Final = 4.0


class Jobs:
    """Long jobs for the time of a phase."""

    def __init__(self, port: int, number: int, minutes: float) -> None:
        self._url = f"http://127.0.0.1:{port}/api/jobs"
        self._number = number
        samples, rate = soundfile.read(io.BytesIO(speech(minutes * 60)), dtype="int16")
        flac = io.BytesIO()  # smaller: how long an upload takes is another question
        soundfile.write(flac, samples, rate, format="FLAC")
        self._sound = flac.getvalue()
        self.audio_seconds = 0.0
        """of sound that jobs have done in phases"""

    @contextmanager
    def running(self) -> Iterator[None]:
        """So many jobs; called off at the end."""
        with httpx.Client(timeout=120, trust_env=False) as client:
            paths = [
                client.post(self._url, files={"file": ("a.flac", self._sound)})
                .raise_for_status()
                .headers["Location"]
                for _ in range(self._number)
            ]
            time.sleep(_SETTLE_SECONDS)
            before = self._done(client)
            yield
            self.audio_seconds += self._done(client) - before
            for path in paths:
                job = client.get(self._url.removesuffix("/api/jobs") + path).raise_for_status().json()
                if job["status"] != "running":
                    raise RuntimeError(f"a job was {job['status']} before its phase had ended")
                client.delete(self._url.removesuffix("/api/jobs") + path).raise_for_status()

    def _done(self, client: httpx.Client) -> float:
        jobs = client.get(self._url, params={"limit": "100"}).raise_for_status().json()["jobs"]
        return float(sum(job["progress"]["audio_seconds"] for job in jobs if job["status"] == "running"))


def direct(phases: Phases, jobs: Jobs, options: argparse.Namespace) -> None:
    """Let the phases take turns until the time is over."""
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        time.sleep(_SETTLE_SECONDS)
        _phase(phases, "control", options.phase_seconds)
        with jobs.running():
            _phase(phases, "jobs", options.phase_seconds)


def _phase(phases: Phases, name: str, seconds: float) -> None:
    began = time.monotonic()
    time.sleep(seconds)
    phases.spans.append((name, began, time.monotonic()))
    print(f"{name} phase of {seconds:.0f} s", file=sys.stderr)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run it all; the figures."""
    found = machine()
    clips = [as_clip(path.name, path.read_bytes()) for path in sorted(CLIPS.glob("??_?.flac"))]
    with (
        tempfile.TemporaryDirectory(prefix="asrsvc-jobs-") as folder,
        staged(Path(folder), options.model, changes=False, ASR_WORKERS=str(options.workers)) as stage,
    ):
        port = stage.service.port
        capacity = measured_capacity(port, clips, options)
        load = MeasuredLoad([port], clips, rate=options.load * capacity)
        phases, jobs = Phases(), Jobs(port, options.workers, options.job_minutes)
        report = Background(load, lambda: direct(phases, jobs, options)).run()
    figures = {name: phases.figures(report.records, name) for name in NAMES}
    seconds = sum(ended - began for name, began, ended in phases.spans if name == "jobs")
    return {
        "machine": found,
        "model": options.model,
        "workers": options.workers,
        "load": options.load,
        "capacity_per_second": capacity,
        "requests": len(report.records),
        "failed": len(report.failures()),
        "phases": figures,
        "job_audio_per_second": jobs.audio_seconds / seconds,
        **{
            f"ratio_{key}": figures["jobs"][f"{key}_ms"] / figures["control"][f"{key}_ms"]
            for key in QUANTILES
        },
    }


def report(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        describe(result["machine"]),
        (
            f"{result['model']} model, {result['workers']} workers of 1 thread, capacity "
            f"{result['capacity_per_second']:.1f} requests/s, load {result['load']:.0%} of it; "
            f"{result['workers']} jobs"
        ),
        f"{result['requests']} requests, {result['failed']} failed",
        f"{'':10}{'requests':>10}" + "".join(f"{key + ' ms':>10}" for key in QUANTILES),
    ]
    for name, row in result["phases"].items():
        lines.append(
            f"{name:10}{row['requests']:>10}" + "".join(f"{row[f'{key}_ms']:>10.1f}" for key in QUANTILES)
        )
    lines.append(f"{'ratio':20}" + "".join(f"{result[f'ratio_{key}']:>10.2f}" for key in QUANTILES))
    lines.append(f"jobs: {result['job_audio_per_second']:.1f} s of sound a second beside the requests")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line: the report on stdout, progress on stderr; 1 if a request failed."""
    made = parser("Latency of requests beside jobs, against without.", load=0.4, capacity_seconds=10)
    made.add_argument("--phase-seconds", type=float, default=20, help="default: %(default)s")
    made.add_argument("--job-minutes", type=float, default=30, help="of sound in each (default: %(default)s)")
    options = made.parse_args(arguments)
    result = measure(options)
    finish(result, report(result), options, latency_panel(result))
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
