"""How long a rollback takes, from the command to the first answer by the previous version.

    python benchmarks/rollback.py [--model full] [--workers 2] [--load 0.7] [--rounds 5] [--json FILE]

A real service on a store of its own takes open-loop load at a share of the capacity that was measured
before, while `swap-model rollback` goes to and fro between two versions. Load and service share the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from report import Panel, add_targets, finish
from stage import (
    CLIPS,
    ROOT,
    MeasuredLoad,
    Stage,
    as_clip,
    describe,
    machine,
    measured_capacity,
    quantile,
    staged,
)

_WARM_SECONDS = 3.0
_COMMAND_SECONDS = 300.0


@dataclass(frozen=True)
class Round:
    """One rollback; seconds since the command was started."""

    first_answer: float
    """until an answer of the previous version had arrived whole"""
    last_answer: float
    """until the last answer of the version that was left"""
    command: float
    """until the command had ended: all workers were replaced"""


def roll_back(stage: Stage, load: MeasuredLoad, wanted: str) -> Round:
    """Run the command under load, and look which version answered when."""
    began = time.monotonic()
    command = [sys.executable, "-P", "-m", "asrsvc.release.cli", "rollback", "--json"]
    environ = {**stage.service.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
    )
    took = time.monotonic() - began
    if done.returncode != 0 or json.loads(done.stdout)["version"] != wanted:
        raise RuntimeError(f"rollback exited with {done.returncode}: {done.stderr}")
    time.sleep(_WARM_SECONDS)  # what was in hand is answered
    ends = [(r.sent + r.seconds - began, r.version) for r in list(load.report.records) if r.version]
    after = [(moment, version) for moment, version in ends if moment > 0]
    return Round(
        first_answer=min(moment for moment, version in after if version == wanted),
        last_answer=max((moment for moment, version in after if version != wanted), default=0.0),
        command=took,
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run it all; the figures."""
    found = machine()
    clips = [as_clip(path.name, path.read_bytes()) for path in sorted(CLIPS.glob("??_?.flac"))]
    rounds: list[Round] = []
    errors: list[BaseException] = []
    with (
        tempfile.TemporaryDirectory(prefix="asrsvc-rollback-") as folder,
        staged(Path(folder), options.model, ASR_WORKERS=str(options.workers)) as stage,
    ):
        stage.roll(stage.versions[1])  # now there is one to go back to
        port = stage.service.port
        capacity = measured_capacity(port, clips, options)
        load = MeasuredLoad([port], clips, rate=options.load * capacity, early_share=0)

        def direct() -> None:
            try:
                time.sleep(_WARM_SECONDS)
                for number in range(options.rounds):
                    rounds.append(roll_back(stage, load, stage.versions[number % 2].id))
                    print(f"rollback {number + 1}: {rounds[-1].first_answer:.2f} s", file=sys.stderr)
            except Exception as error:  # noqa: BLE001 - raised where the load ends
                errors.append(error)
            finally:
                load.stop()

        thread = threading.Thread(target=direct)
        thread.start()
        report = load.run_forever()
        thread.join()
        if errors:
            raise errors[0]
    return {
        "machine": found,
        "model": options.model,
        "workers": options.workers,
        "load": options.load,
        "capacity_per_second": capacity,
        "requests": len(report.records),
        "failed": len(report.failures()),
        "errors": sorted({record.error for record in report.failures()}),
        "rounds": [asdict(found) for found in rounds],
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
        f"{len(result['rounds'])} rollbacks; seconds from the command:",
    ]
    told = {
        "first_answer": "first answer of the previous version",
        "last_answer": "last answer of the version that was left",
        "command": "the command has ended",
    }
    for key, text in told.items():
        values = [found[key] for found in result["rounds"]]
        lines.append(f"  {text:42} median {quantile(values, 0.5):6.2f}, longest {max(values):6.2f}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line: the report on stdout, progress on stderr; 1 if a request failed."""
    parser = argparse.ArgumentParser(description="Time from a rollback to the first answer.")
    parser.add_argument("--model", choices=("full", "nano"), default="full", help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--load", type=float, default=0.7, help="share of the capacity (default: 0.7)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--capacity-seconds", type=float, default=10, help="default: %(default)s")
    add_targets(parser)
    options = parser.parse_args(arguments)
    result = measure(options)
    shown = {
        key.replace("_", " "): {"median": quantile([found[key] for found in result["rounds"]], 0.5)}
        for key in ("first_answer", "last_answer", "command")
    }
    finish(result, report(result), options, Panel("seconds from the command", "s, median", shown))
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
