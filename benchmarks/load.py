"""What the service makes of the machine, against the bare engine on all its cores.

    python benchmarks/load.py [--model full] [--rounds 5] [--seconds 12] [--json FILE] [--chart FILE]

The same clips, 10 s of sound each, by turns:

- engine: as many processes as the service has workers, each with as many threads, each with the clips as
  waveforms in memory, computing features and logits, one clip after the other, and nothing else;
- service: WAV uploads over HTTP to the whole service, from clients that each send one after the other.

Throughput is the seconds of sound in a second of time. Latency is that of one engine and of one request
with nothing else going on, one by turns with the other. Clients and service share the machine. The CPU time
of a clip tells the same where something else keeps the machine busy.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from report import Panel, add_targets, finish
from stage import MeasuredLoad, Service, Stage, as_clip, describe, machine, quantile, speech, staged, wait_for

import soundfile  # isort: skip - stage says where the next is
from asrsvc.release.bake import find
from asrsvc.settings import load as load_settings

CLIP_SECONDS: Final = 10.0
CLIPS: Final = 6
WARM_UP_SECONDS: Final = 6.0
CLIENTS_EACH: Final = 2
"""clients for each worker: nobody shall wait for a client"""
SPLIT: Final = ("queue_ms", "decode_ms", "inference_ms", "total_ms")
"""what the service says of a request"""


def be_an_engine(folder: Path, threads: int) -> None:
    """A bare engine's process: answers each line of stdin, `run SECONDS` or `once`, with a line of JSON."""
    from asrsvc.speech.model import Model

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    waveforms = [soundfile.read(wav, dtype="float32")[0] for wav in sorted(folder.glob("*.wav"))]
    place: dict[str, str] = json.loads((folder / "model.json").read_text())
    baked = Path(place["baked"]) if place["baked"] else None
    model = Model.load(Path(place["folder"]), version="bare", threads=threads, baked=baked)

    def run(index: int) -> None:
        features = model.extractor.features(waveforms[index % len(waveforms)])
        model.engine.run([features], ["auto"], [True])

    for index in range(CLIPS):
        run(index)
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "once":
            began = time.perf_counter()
            run(int(arguments[0]))
            print(json.dumps(time.perf_counter() - began), file=answers)
            continue
        began = now = time.monotonic()
        cpu, done = time.process_time(), 0
        while now < began + float(arguments[0]):
            run(done)
            now, done = time.monotonic(), done + 1
        print(json.dumps([done / (now - began), (time.process_time() - cpu) / done]), file=answers)


class Engine:
    """A bare engine's process, seen from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, command: str) -> None:
        """Have it do something."""
        assert self._process.stdin is not None
        print(command, file=self._process.stdin, flush=True)

    def answer(self) -> Any:
        """What it made of that."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait(10)}, see above")
        return json.loads(line)


@contextmanager
def engine(folder: Path, threads: int) -> Iterator[Engine]:
    """A bare engine's process for the time of a `with` block."""
    command = [sys.executable, __file__, "--engine", str(folder), "--threads", str(threads)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Engine(process)
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True)
class Turn:
    """What one turn gave."""

    rate: float
    """clips a second"""
    cpu: float
    """CPU seconds of a clip"""
    client_cpu: float = 0.0
    """CPU seconds of its client"""
    busy: float = 1.0
    """share of the time that the engines run"""


def run_engines(engines: list[Engine], seconds: float) -> Turn:
    """Have all of them run."""
    for one in engines:
        one.tell(f"run {seconds}")
    answers = [one.answer() for one in engines]
    return Turn(sum(rate for rate, _cpu in answers), statistics.mean(cpu for _rate, cpu in answers))


def cpu_seconds(service: Service) -> float:
    """Of all its processes."""
    processes = [service.master, *service.master.children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def run_service(service: Service, loads: list[MeasuredLoad], seconds: float) -> Turn:
    """Have all clients send; the first clips, before all have one under way, do not count for the rate.

    Raises:
        RuntimeError: a request failed.
    """
    ends: list[float] = []

    async def client(load: MeasuredLoad, until: float) -> None:
        while time.monotonic() < until:
            await load.run(requests=1)
            ends.append(time.monotonic())

    async def clients() -> None:
        until = time.monotonic() + seconds
        await asyncio.gather(*(client(load, until) for load in loads))

    before, own, told = cpu_seconds(service), time.process_time(), len(service.log_lines())
    began = time.monotonic()
    asyncio.run(clients())
    cpu, own = (cpu_seconds(service) - before) / len(ends), (time.process_time() - own) / len(ends)
    failures = [record.error for load in loads for record in load.report.failures()]
    if failures:
        raise RuntimeError(f"{len(failures)} requests failed, the first with {failures[0]}")
    # From one end to another, while all clients still sent: as many begin as end.
    first, last = len(loads) // 2, len(ends) - len(loads)
    if last <= first:
        raise RuntimeError(f"only {len(ends)} requests in {seconds:g} s: give it more seconds")
    took = (time.monotonic() - began) * len(service.workers())
    busy = sum(line.get("inference_ms", 0) for line in service.log_lines()[told:]) / 1000 / took
    return Turn((last - first) / (ends[last] - ends[first]), cpu, own, busy)


def said_of(service: Service, told: int, requests: int) -> list[dict[str, Any]]:
    """What the service says of requests, after so many lines of its log; it does so behind their answers."""

    def complete() -> list[dict[str, Any]] | None:
        lines = [line for line in service.log_lines()[told:] if "inference_ms" in line]
        return lines if len(lines) >= requests else None

    return wait_for("the service's log", complete, 10)


def alone(load: MeasuredLoad) -> float:
    """Seconds of one request."""
    asyncio.run(load.run(requests=1))
    record = load.report.records[-1]
    if record.error:
        raise RuntimeError(f"a request failed: {record.error}")
    return record.seconds


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run it all; the figures."""
    found = machine()
    contents = [speech(CLIP_SECONDS, index * CLIP_SECONDS) for index in range(CLIPS)]
    clips = [as_clip(f"{index}.wav", content) for index, content in enumerate(contents)]
    settings = load_settings({"ASR_WORKERS": str(options.workers or "auto")})
    workers, threads = settings.worker_count(), settings.thread_count()
    with tempfile.TemporaryDirectory(prefix="asrsvc-load-") as name, ExitStack() as stack:
        folder = Path(name)
        chosen = {"ASR_WORKERS": str(workers), "ASR_THREADS": str(threads), "ASR_BAKE": options.bake}
        stage: Stage = stack.enter_context(staged(folder, options.model, changes=False, **chosen))
        for clip, content in zip(clips, contents, strict=True):
            samples, rate = soundfile.read(io.BytesIO(content), dtype="int16")
            soundfile.write(folder / clip.name, samples, rate)
        version = stage.versions[0]
        twin = None if options.bake == "off" else find(stage.store.root, version.id, options.bake).usable
        place = {"folder": str(version.path), "baked": str(twin or "")}
        (folder / "model.json").write_text(json.dumps(place))
        engines = [stack.enter_context(engine(folder, threads)) for _ in range(workers)]
        for one in engines:
            one.answer()

        def client(seed: int) -> MeasuredLoad:
            port = stage.service.port
            return MeasuredLoad([port], clips, rate=1, keep_alive_share=0, early_share=0, seed=seed)

        def clients() -> list[MeasuredLoad]:
            return [client(seed) for seed in range(CLIENTS_EACH * workers)]

        run_service(stage.service, clients(), WARM_UP_SECONDS)
        turns: dict[str, list[Turn]] = {"engine": [], "service": []}
        times: dict[str, list[float]] = {"engine": [], "service": []}
        beside: list[float] = []
        measured_from = len(stage.service.log_lines())
        for number in range(options.rounds):
            for who in list(turns) if number % 2 == 0 else list(turns)[::-1]:
                if who == "engine":
                    turns[who].append(run_engines(engines, options.seconds))
                else:
                    turns[who].append(run_service(stage.service, clients(), options.seconds))
            lone, told = client(number), len(stage.service.log_lines())
            for index in range(options.lone):
                engines[0].tell(f"once {index}")
                times["engine"].append(engines[0].answer())
                times["service"].append(alone(lone))
            said = said_of(stage.service, told, options.lone)
            beside += [
                seconds * 1000 - line["inference_ms"]
                for seconds, line in zip(times["service"][-options.lone :], said, strict=True)
            ]
            last = [round(turns[who][-1].rate, 2) for who in turns]
            print(f"round {number + 1}: engine and service {last} clips/s", file=sys.stderr)
        lines = [line for line in stage.service.log_lines()[measured_from:] if "inference_ms" in line]
    return {
        "machine": found,
        "model": options.model,
        "bake": options.bake,
        "workers": workers,
        "threads": threads,
        "rounds": options.rounds,
        "audio_seconds_per_second": {
            who: {"median": statistics.median(rates), "min": min(rates), "max": max(rates)}
            for who, rates in (
                (who, [turn.rate * CLIP_SECONDS for turn in found]) for who, found in turns.items()
            )
        },
        "ratio_throughput": statistics.median(
            ours.rate / bare.rate for ours, bare in zip(turns["service"], turns["engine"], strict=True)
        ),
        "cpu_ms": {who: statistics.median(turn.cpu for turn in found) * 1000 for who, found in turns.items()},
        "engines_busy": statistics.median(turn.busy for turn in turns["service"]),
        "client_cpu_ms": statistics.median(turn.client_cpu for turn in turns["service"]) * 1000,
        "alone_ms": {
            turn: {f"p{share}": quantile(of, share / 100) * 1000 for share in (50, 90)}
            for turn, of in times.items()
        },
        "beside_the_engine_p50_ms": quantile(beside, 0.5),
        "overhead_p50_ms": (quantile(times["service"], 0.5) - quantile(times["engine"], 0.5)) * 1000,
        "requests": len(lines),
        "service_says_ms": {name: statistics.median(line[name] for line in lines) for name in SPLIT},
    }


def report(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        describe(result["machine"]),
        (
            f"{result['model']} model, bake: {result['bake']}, "
            f"{result['workers']} workers of {result['threads']} threads, "
            f"{result['rounds']} rounds by turns, {result['requests']} requests of {CLIP_SECONDS:g} s"
        ),
        f"{'':10}{'audio s/s (median, least, most)':>34}{'CPU ms':>10}{'alone: p50 ms':>16}{'p90 ms':>10}",
    ]
    for turn, rate in result["audio_seconds_per_second"].items():
        cell = " / ".join(f"{rate[name]:.2f}" for name in ("median", "min", "max"))
        one = result["alone_ms"][turn]
        lines.append(
            f"{turn:10}{cell:>34}{result['cpu_ms'][turn]:>10.1f}{one['p50']:>16.1f}{one['p90']:>10.1f}"
        )
    lines.append(f"{'clients':10}{'':>34}{result['client_cpu_ms']:>10.1f}")
    lines.append(
        f"service / engine: {result['ratio_throughput']:.3f} of the throughput (median of the rounds); "
        f"its engines run {result['engines_busy']:.1%} of the time; "
        f"a lone request takes {result['overhead_p50_ms']:.1f} ms more, and is outside of the engine for "
        f"{result['beside_the_engine_p50_ms']:.1f} ms (features included)"
    )
    said = ", ".join(f"{name[:-3]} {value:.1f}" for name, value in result["service_says_ms"].items())
    return "\n".join([*lines, f"the service says of a request, median ms: {said}"])


def panels(result: dict[str, Any]) -> list[Panel]:
    """The chart."""
    rates, times = result["audio_seconds_per_second"], result["alone_ms"]
    return [
        Panel(
            f"throughput, {result['workers']} x {result['threads']} threads",
            "seconds of sound in a second",
            {turn: {"median": rate["median"]} for turn, rate in rates.items()},
        ),
        Panel("one clip of 10 s, alone", "ms, p50", {turn: {"p50": t["p50"]} for turn, t in times.items()}),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Command line: the report on stdout, progress on stderr; or an engine's process."""
    parser = argparse.ArgumentParser(description="The service against the bare engine on all cores.")
    parser.add_argument("--model", choices=("full", "nano"), default="full", help="default: %(default)s")
    parser.add_argument("--workers", type=int, help="default: as the service chooses")
    parser.add_argument(
        "--bake", choices=("auto", "uint8", "off"), default="auto", help="ASR_BAKE (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=12, help="of each turn (default: %(default)s)")
    parser.add_argument("--lone", type=int, default=8, help="pairs in a round (default: %(default)s)")
    add_targets(parser)
    parser.add_argument("--engine", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.engine:
        be_an_engine(options.engine, options.threads)
        return 0
    result = measure(options)
    finish(result, report(result), options, *panels(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
