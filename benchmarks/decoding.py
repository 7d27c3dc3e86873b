"""What it costs to decode uploads in a confined process instead of in the worker, side by side.

    python benchmarks/decoding.py [--rounds 200] [--json FILE]

For each recording, by turns: libsndfile in this process, as a worker would run it, and in the helper process
in its sandbox, blocks sent back over a socket. The columns are the medians, their difference and the 95th
percentile of it, and the CPU time, of both processes together in the second case. Then what a helper takes:
its start, its sandbox, its memory of its own.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
from report import add_targets, finish
from stage import CLIPS, SAMPLE_RATE, machine

from asrsvc.speech import decode_upload
from asrsvc.speech.decoded import Block, FileLimits
from asrsvc.speech.ffmpeg import HelperPool

MEMORY: Final = 2**30
LIMITS: Final = FileLimits(max_rate=384_000, max_channels=16, max_seconds=14_400)
_CONFINE: Final = """
import os, socket, time
from asrsvc.speech import ffmpeg_helper, confinement
began = time.perf_counter()
lacking = confinement.confine(0)
os.write(2, f"{1000 * (time.perf_counter() - began):.3f} {lacking}".encode())
"""


def speech(seconds: float, rate: int = SAMPLE_RATE, channels: int = 1) -> np.ndarray:
    """Clips one behind the other, int16, shape (n, channels)."""
    parts = [soundfile.read(path, dtype="int16")[0] for path in sorted(CLIPS.glob("en_*.flac"))]
    mono = np.resize(np.concatenate(parts), round(seconds * rate))
    return np.repeat(mono[:, None], channels, axis=1)


def encoded(kind: str, samples: np.ndarray, rate: int = SAMPLE_RATE) -> bytes:
    """A file of libsndfile's."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype="PCM_16")
    return file.getvalue()


def recordings() -> dict[str, bytes]:
    """What is decoded, by its name."""
    return {
        "FLAC, 3 s": encoded("FLAC", speech(3)),
        "WAV, 10 s": encoded("WAV", speech(10)),
        "WAV, 10 s, 48 kHz stereo": encoded("WAV", speech(10, 48_000, 2), 48_000),
        "FLAC, 10 minutes": encoded("FLAC", speech(600)),
    }


def here(descriptor: int) -> int:
    """Decode in this process; samples."""
    items = decode_upload.decode(descriptor, LIMITS)
    return sum(len(item.samples) for item in items if isinstance(item, Block))


def there(pool: HelperPool, descriptor: int) -> int:
    """Decode in a helper; samples."""
    found = pool.decode(
        descriptor,
        max_rate=LIMITS.max_rate,
        max_channels=LIMITS.max_channels,
        max_seconds=LIMITS.max_seconds,
        cpu_seconds=600,
    )
    return sum(len(block) for _rate, block in found)


def cpu_ms(pid: int) -> float:
    """CPU time of all threads of a process, milliseconds (proc(5), schedstat)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text("ascii").split()[0]) for task in tasks) / 1e6


def timed(decode: Callable[[int], int], content: bytes) -> float:
    """Milliseconds from the open file to its last sample."""
    descriptor = os.memfd_create("upload")
    try:
        os.write(descriptor, content)
        began = time.perf_counter()
        decode(descriptor)
        return 1000 * (time.perf_counter() - began)
    finally:
        os.close(descriptor)


def compare(pool: HelperPool, content: bytes, rounds: int) -> dict[str, float]:
    """Both ways by turns."""
    inside, outside = [], []
    cpu = {"worker_cpu_ms": 0.0, "helper_cpu_ms": 0.0}
    for _ in range(rounds):
        before = time.process_time()
        inside.append(timed(here, content))
        between = time.process_time()
        helper = cpu_ms(pool.pids()[0])
        cpu["worker_cpu_ms"] += 1000 * (between - before) / rounds
        between = time.process_time()
        outside.append(timed(lambda descriptor: there(pool, descriptor), content))
        cpu["helper_cpu_ms"] += 1000 * (time.process_time() - between) / rounds
        cpu["helper_cpu_ms"] += (cpu_ms(pool.pids()[0]) - helper) / rounds
    extra = sorted(b - a for a, b in zip(inside, outside, strict=True))
    return {
        "worker_ms": statistics.median(inside),
        "helper_ms": statistics.median(outside),
        "extra_ms": statistics.median(extra),
        "extra_p95_ms": extra[int(0.95 * (len(extra) - 1))],
        **cpu,
    }


def anonymous(pid: int) -> float:
    """Memory of a process's own, MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Anonymous"))


def start_ms(content: bytes) -> float:
    """From the start of a helper to the last sample of its first file."""
    pool = HelperPool(memory_bytes=MEMORY, block_timeout=60)
    spent = timed(lambda descriptor: there(pool, descriptor), content)
    pool.close()
    return spent


def confine_ms() -> float:
    """To take a process's rights away."""
    done = subprocess.run([sys.executable, "-c", _CONFINE], capture_output=True, text=True, check=True)
    spent, lacking = done.stderr.split(" ", 1)
    if lacking != "()":
        print(f"this host lacks {lacking}", file=sys.stderr)
    return float(spent)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run it all; the figures."""
    found = recordings()
    pool = HelperPool(memory_bytes=MEMORY, block_timeout=60)
    first = next(iter(found.values()))
    timed(lambda descriptor: there(pool, descriptor), first)
    timed(here, first)
    fresh = anonymous(pool.pids()[0])
    result: dict[str, Any] = {"machine": machine(), "recordings": {}}
    for name, content in found.items():
        rounds = options.rounds if len(content) < 2**21 else max(3, options.rounds // 20)
        result["recordings"][name] = compare(pool, content, rounds)
    result["helper"] = {
        "start_ms": statistics.median(start_ms(first) for _ in range(5)),
        "confine_ms": statistics.median(confine_ms() for _ in range(5)),
        "anonymous_fresh_mb": fresh,
        "anonymous_mb": anonymous(pool.pids()[0]),
    }
    pool.close()
    return result


def report(result: dict[str, Any]) -> str:
    """The figures for people."""
    helper = result["helper"]
    head = ("in the worker", "in a helper", "more, ms", "p95", "CPU", "of both")
    lines = [" " * 28 + "".join(f"{name:>14}" for name in head)]
    for name, row in result["recordings"].items():
        lines.append(
            f"{name:28}{row['worker_ms']:>14.2f}{row['helper_ms']:>14.2f}{row['extra_ms']:>14.2f}"
            f"{row['extra_p95_ms']:>14.2f}{row['worker_cpu_ms']:>14.2f}{row['helper_cpu_ms']:>14.2f}"
        )
    lines += [
        f"start of a helper to the end of its first file: {helper['start_ms']:.0f} ms",
        f"its sandbox: {helper['confine_ms']:.2f} ms of that",
        f"memory of its own: {helper['anonymous_fresh_mb']:.1f} MB",
        f"after these files: {helper['anonymous_mb']:.1f} MB",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line: the report on stdout."""
    parser = argparse.ArgumentParser(description="The cost of decoding in a confined process.")
    parser.add_argument("--rounds", type=int, default=200, help="default: %(default)s")
    add_targets(parser)
    options = parser.parse_args(arguments)
    result = measure(options)
    finish(result, report(result), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
