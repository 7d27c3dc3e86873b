"""How the cores of a machine are best shared out, and whether it pays to run several spans at once.

    python benchmarks/cores.py [--model full] [--rounds 4] [--seconds 5] [--json FILE] [--chart FILE]

Bare engines, without a service around them. By turns: one process of one thread for each core; one process
with all cores as threads; as many processes with as many threads; and, with one thread for each core, runs of
1, 2, 4 and 8 spans of 10 s at once (which wait for each other: latency is that of a whole run).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from report import Panel, add_targets, finish
from stage import describe, machine, make_versions

from asrsvc.release.bake import MakeLimits, make  # isort: skip - stage says where these are
from asrsvc.release.store import Store  # isort: skip
from asrsvc.settings import usable_cores  # isort: skip

CLIP_FRAMES: Final = 167
"""feature frames of 10 s"""
BATCHES: Final = (1, 2, 4, 8)


@dataclass(frozen=True)
class Case:
    """Processes, threads of each, spans of a run."""

    processes: int
    threads: int
    batch: int

    @property
    def name(self) -> str:
        """For people."""
        spans = f", {self.batch} spans at once" if self.batch > 1 else ""
        return f"{self.processes} x {self.threads} threads{spans}"


def be_an_engine(place: dict[str, str], threads: int) -> None:
    """A process: answers each line of stdin, `SECONDS BATCH`, with spans a second and seconds of a run."""
    import numpy as np

    from asrsvc.speech.model import Model

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    baked = Path(place["baked"]) if place["baked"] else None
    model = Model.load(Path(place["folder"]), version="bare", threads=threads, baked=baked)
    sound = np.random.default_rng(0).normal(0, 0.1, CLIP_FRAMES * 960).astype(np.float32)
    features = model.extractor.features(sound)

    def run(batch: int) -> None:
        model.engine.run([features] * batch, ["auto"] * batch, [True] * batch)

    run(max(BATCHES))
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        seconds, batch = line.split()
        began = now = time.monotonic()
        runs = 0
        while now < began + float(seconds):
            run(int(batch))
            now, runs = time.monotonic(), runs + 1
        answer = {"rate": runs * int(batch) / (now - began), "run": (now - began) / runs}
        print(json.dumps(answer), file=answers)


class Engine:
    """An engine's process, seen from outside."""

    def __init__(self, stack: ExitStack, place: dict[str, str], threads: int) -> None:
        command = [sys.executable, __file__, "--engine", json.dumps(place), "--threads", str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(self._process.communicate)
        stack.callback(self._process.kill)

    def tell(self, seconds: float, batch: int) -> None:
        """Have it run."""
        print(seconds, batch, file=self._process.stdin, flush=True)

    def answer(self) -> Any:
        """What it made of that."""
        output: IO[str] | None = self._process.stdout
        line = output.readline() if output is not None else ""
        if not line:
            raise RuntimeError(f"an engine ended with {self._process.wait(10)}, see above")
        return json.loads(line)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run it all; the figures."""
    found = machine()
    cores = usable_cores()
    shares = list(dict.fromkeys([Case(cores, 1, 1), Case(1, cores, 1), Case(cores, cores, 1)]))
    cases = [*shares, *(Case(cores, 1, batch) for batch in BATCHES[1:])]
    rates: dict[Case, list[float]] = {case: [] for case in cases}
    alone: dict[Case, list[float]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory(prefix="asrsvc-cores-") as folder, ExitStack() as stack:
        store = Store(Path(folder) / "store")
        version = make_versions(store, options.model)[0]
        twin = make(
            store.root,
            version,
            "auto",
            limits=MakeLimits(),
            progress=lambda text: print(text, file=sys.stderr),
        )
        place = {"folder": str(version.path), "baked": str(twin.usable or "")}
        engines = {
            threads: [
                Engine(stack, place, threads)
                for _ in range(max(case.processes for case in cases if case.threads == threads))
            ]
            for threads in {case.threads for case in cases}
        }
        for engine in (engine for some in engines.values() for engine in some):
            engine.answer()
        for _ in range(options.rounds):
            for case in cases:
                running = engines[case.threads][: case.processes]
                for engine in running:
                    engine.tell(options.seconds, case.batch)
                rates[case].append(sum(engine.answer()["rate"] for engine in running))
                running[0].tell(options.seconds / 2, case.batch)
                alone[case].append(running[0].answer()["run"])
    best = statistics.median(rates[cases[0]])
    return {
        "machine": found,
        "model": options.model,
        "cases": {
            case.name: {
                "audio_seconds_per_second": statistics.median(rates[case]) * 10,
                "of_the_first": statistics.median(rates[case]) / best,
                "alone_ms": statistics.median(alone[case]) * 1000,
            }
            for case in cases
        },
    }


def report(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        describe(result["machine"]),
        f"{result['model']} model, spans of 10 s; medians of the turns",
        f"{'processes x threads':34}{'audio s/s':>12}{'of the first':>14}{'a run alone, ms':>18}",
    ]
    for name, row in result["cases"].items():
        lines.append(
            f"{name:34}{row['audio_seconds_per_second']:>12.2f}{row['of_the_first']:>14.2f}"
            f"{row['alone_ms']:>18.0f}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line: the report on stdout, progress on stderr; or an engine's process."""
    parser = argparse.ArgumentParser(description="How cores are best shared out, and whether batches pay.")
    parser.add_argument("--model", choices=("full", "nano"), default="full", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=5, help="of each turn (default: %(default)s)")
    add_targets(parser)
    parser.add_argument("--engine", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.engine:
        be_an_engine(options.engine, options.threads)
        return 0
    result = measure(options)
    rows = {name.replace(", ", "\n"): row for name, row in result["cases"].items()}
    finish(
        result,
        report(result),
        options,
        Panel(
            "throughput",
            "seconds of sound in a second",
            {name: {"": row["audio_seconds_per_second"]} for name, row in rows.items()},
        ),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
