"""What a worker costs: memory of its own, memory that all share, and the time until it serves.

    python benchmarks/memory.py [--model full] [--workers 1,2,4,8] [--json FILE] [--chart FILE]

With the faster twins of this host (baked) and without (ASR_BAKE=off), for each number of workers: a real
service is started, so that all load at once; it answers requests of 10 s of sound, and rests until its
workers have given back what is free in their memory; then they are replaced one after the other.
`Anonymous` of /proc/PID/smaps_rollup is memory of a worker's own; `Pss` counts a page that n processes map
as 1/n in each, so that the sum of it is what the service takes of the machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from report import Panel, add_targets, finish
from stage import Service, Stage, describe, machine, speech, staged

import mixed  # isort: skip - stage says where it is

BAKED: Final = {"published file": "off", "baked": "auto"}
CLIP_SECONDS: Final = 10.0
REQUESTS_EACH: Final = 4


def smaps(pid: int) -> dict[str, float]:
    """Anonymous memory, and the process's share of all that it maps; MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    found = {line.split(":")[0]: line.split()[1] for line in text.splitlines()[1:]}
    return {name: int(found[name]) * 1024 / 1e6 for name in ("Anonymous", "Pss")}


def loads(service: Service, skip: int) -> list[float]:
    """Seconds that each worker took from its start to its first request, but for the first so many."""
    lines = [line for line in service.log_lines() if line["message"] == "worker ready"]
    return [line["load_ms"] / 1000 for line in lines[skip:]]


def send(service: Service, requests: int, at_once: int) -> None:
    """Send recordings.

    Raises:
        httpx.HTTPStatusError: one was not answered.
    """
    content = speech(CLIP_SECONDS)

    def one(_number: int) -> None:
        service.transcribe("speech.wav", content).raise_for_status()

    with ThreadPoolExecutor(at_once) as threads:
        list(threads.map(one, range(requests)))


def look(stage: Stage, workers: int) -> dict[str, Any]:
    """Start the service anew with the version under test, and look at it."""
    service = stage.service
    service.stop(120)
    done = len(loads(service, 0))
    service.start(seconds=300)
    at_once = loads(service, done)
    send(service, REQUESTS_EACH * workers, workers)
    mixed.wait_for_rest()
    found = [smaps(worker.pid) for worker in service.workers()]
    master = smaps(service.master.pid)
    done = len(loads(service, 0))
    stage.roll(stage.versions[0])
    return {
        "ready_all_at_once_s": max(at_once),
        "ready_one_at_a_time_s": statistics.median(loads(service, done)),
        "anonymous_mb": statistics.mean(worker["Anonymous"] for worker in found),
        "shared_mb": sum(worker["Pss"] - worker["Anonymous"] for worker in found),
        "total_mb": sum(worker["Pss"] for worker in found) + master["Pss"],
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run it all; the figures."""
    result: dict[str, Any] = {"machine": machine(), "model": options.model, "workers": {}}
    for workers in options.workers:
        for name, bake in BAKED.items():
            with tempfile.TemporaryDirectory(prefix="asrsvc-memory-") as folder:
                settings = {"ASR_WORKERS": str(workers), "ASR_SOAK_SECONDS": "0.1", "ASR_BAKE": bake}
                with staged(Path(folder), options.model, changes=False, **settings) as stage:
                    found = look(stage, workers)
            result["workers"].setdefault(str(workers), {})[name] = found
            print(workers, name, {key: round(value, 2) for key, value in found.items()}, file=sys.stderr)
    result["ratios"] = {
        workers: {key: by_name["baked"][key] / by_name["published file"][key] for key in by_name["baked"]}
        for workers, by_name in result["workers"].items()
    }
    return result


def report(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        describe(result["machine"]),
        (
            f"{result['model']} model, 1 thread a worker, at rest after {REQUESTS_EACH} requests of "
            f"{CLIP_SECONDS:g} s for each"
        ),
        (
            f"{'workers':>7} {'':16}{'own MB each':>14}{'shared MB':>12}{'all MB':>10}"
            f"{'ready s, at once':>18}{'one by one':>12}"
        ),
    ]
    for workers, by_name in result["workers"].items():
        rows = {**by_name, "ratio": result["ratios"][workers]}
        for name, row in rows.items():
            digits = 2 if name == "ratio" else 0
            lines.append(
                f"{workers:>7} {name:16}{row['anonymous_mb']:>14.{digits}f}{row['shared_mb']:>12.{digits}f}"
                f"{row['total_mb']:>10.{digits}f}{row['ready_all_at_once_s']:>18.2f}"
                f"{row['ready_one_at_a_time_s']:>12.2f}"
            )
    return "\n".join(lines)


def panels(result: dict[str, Any]) -> list[Panel]:
    """The chart."""

    def rows(key: str) -> dict[str, dict[str, float]]:
        return {
            f"{workers} worker{'s' * (workers != '1')}": {name: row[key] for name, row in by_name.items()}
            for workers, by_name in result["workers"].items()
        }

    return [
        Panel("memory of the whole service", "MB", rows("total_mb")),
        Panel("memory of each worker's own", "MB", rows("anonymous_mb")),
        Panel("all workers ready, loading at once", "s", rows("ready_all_at_once_s")),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Command line: the report on stdout, progress on stderr."""
    parser = argparse.ArgumentParser(description="Memory of workers, and the time until they serve.")
    parser.add_argument("--model", choices=("full", "nano"), default="full", help="default: %(default)s")
    parser.add_argument(
        "--workers",
        type=lambda text: [int(number) for number in text.split(",")],
        default=[1, 2, 4, 8],
        help="numbers of workers (default: 1,2,4,8)",
    )
    add_targets(parser)
    options = parser.parse_args(arguments)
    result = measure(options)
    finish(result, report(result), options, *panels(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
