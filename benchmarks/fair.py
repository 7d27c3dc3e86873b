"""What a client that behaves gets beside others that do not.

    python benchmarks/fair.py [--model full] [--workers 2] [--seconds 60] [--only KIND] [--json FILE]

A client at 127.0.0.1 sends requests of 10 s of sound, one after the other. Phases in which it is alone and
phases beside one kind of abuse take turns; each abuser has an address of its own, 127.0.0.2 and so on: where
there are no keys, clients are told apart by that. Abusers are on other machines, with cores of their own:
here their processes are run where a core is idle (SCHED_IDLE, sched(7)), as in `crowd.py`.

What needs no engine may make the client's p95 twice what it is alone, at most. Beside clients with work for
the engine it may be as many times that as there are clients, and one longest span more: a run is not cut
short.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from abuses import kinds
from stage import ROOT, Stage, describe, finish, machine, parser, quantile, speech, staged

_SETTLE_SECONDS: Final = 2.0
_LONGEST_SPAN: Final = 30.0
CLIP_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Scene:
    """Who else is there."""

    name: str
    kinds: tuple[str, ...]
    """of abuse, each from an address of its own"""
    engine: bool
    """whether they have work for the engine"""


WITHOUT_ENGINE: Final = (
    "trickling uploads",
    "large uploads that stop",
    "jobs that trickle",
    "text fields of 20 MiB",
    "requests that are reset",
    "4 h of silence",
    "384 kHz, 8 channels",
    "wrong paths",
    "metrics and pages",
    "files that are none",
    "idle connections",
    "200 event streams",
)
SCENES: Final = (
    *(Scene(name, (name,), engine=False) for name in WITHOUT_ENGINE),
    Scene("a flood of 10 s", ("10 s, 30 at once",), engine=True),
    Scene("a flood of 10 min", ("10 min, 8 at once",), engine=True),
    Scene("an hour, 4 at once", ("an hour, 4 at once",), engine=True),
    Scene("three of them", ("10 s, 30 at once", "10 min, 8 at once", "an hour, 4 at once"), engine=True),
)


@contextmanager
def abused(port: int, scene: Scene, met: dict[str, int]) -> Iterator[None]:
    """The others, for the time of a `with` block; what they met is added up."""
    with ExitStack() as stack:
        processes = []
        for number, kind in enumerate(scene.kinds):
            command = ["chrt", "--idle", "0", sys.executable, str(ROOT / "benchmarks" / "abuses.py")]
            process = stack.enter_context(
                subprocess.Popen(
                    [*command, kind, str(port), f"127.0.0.{number + 2}"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline() != "open\n":
                raise RuntimeError(f"{scene.name} did not begin")
        try:
            yield
        finally:
            for process in processes:
                said, _ = process.communicate(timeout=120)
                for status, count in json.loads(said).items():
                    met[status] = met.get(status, 0) + count


def ask_for(port: int, seconds: float, content: bytes) -> list[float]:
    """Requests one after the other for so long; seconds of each.

    Raises:
        RuntimeError: one was not answered well.
    """
    times = []
    end = time.monotonic() + seconds
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
        while time.monotonic() < end or not times:
            began = time.monotonic()
            answer = client.post("/api/transcribe", files={"file": ("a.wav", content)})
            times.append(time.monotonic() - began)
            if answer.status_code != 200:
                raise RuntimeError(f"{answer.status_code}: {answer.text[:300]}")
    return times


def longest_span(port: int) -> float:
    """Seconds that a span as long as there can be takes, with nothing else going on."""
    content = speech(_LONGEST_SPAN)
    return min(ask_for(port, 0, content)[0] for _ in range(3))


def play(stage: Stage, scene: Scene, seconds: float, content: bytes) -> dict[str, Any]:
    """One scene: alone, beside the others, alone again."""
    port = stage.service.port
    met: dict[str, int] = {}
    alone = ask_for(port, seconds / 2, content)
    with abused(port, scene, met):
        time.sleep(_SETTLE_SECONDS)
        beside = ask_for(port, seconds, content)
    time.sleep(_SETTLE_SECONDS)
    alone += ask_for(port, seconds / 2, content)
    row = {
        "scene": scene.name,
        "engine": scene.engine,
        "clients": 1 + len(scene.kinds),
        "requests": len(beside),
        "alone_p95_ms": quantile(alone, 0.95) * 1000,
        "p50_ms": quantile(beside, 0.5) * 1000,
        "p95_ms": quantile(beside, 0.95) * 1000,
        "met": met,
    }
    row["ratio"] = row["p95_ms"] / row["alone_p95_ms"]
    print(f"{scene.name}: {row['ratio']:.2f}", file=sys.stderr)
    return row


def judge(row: dict[str, Any], span_ms: float) -> float:
    """What its p95 may be at most, ms."""
    alone = row["alone_p95_ms"]
    return float(row["clients"] * alone + span_ms if row["engine"] else 2 * alone)


def measure(options: Any) -> dict[str, Any]:
    """Run it all; the figures."""
    found = machine()
    content = speech(CLIP_SECONDS)
    scenes = [scene for scene in SCENES if options.only in (None, scene.name)]
    assert set(WITHOUT_ENGINE) <= set(kinds())
    with (
        tempfile.TemporaryDirectory(prefix="asrsvc-fair-") as folder,
        staged(Path(folder), options.model, changes=False, ASR_WORKERS=str(options.workers)) as stage,
    ):
        ask_for(stage.service.port, 3, content)
        span_ms = longest_span(stage.service.port) * 1000
        rows = [play(stage, scene, options.seconds, content) for scene in scenes]
    for row in rows:
        row["limit_ms"] = judge(row, span_ms)
    return {
        "machine": found,
        "model": options.model,
        "workers": options.workers,
        "longest_span_ms": span_ms,
        "scenes": rows,
        "within": all(row["p95_ms"] <= row["limit_ms"] for row in rows),
    }


def report(result: dict[str, Any]) -> str:
    """The figures for people."""
    heads = ("alone p95", "p50 ms", "p95 ms", "ratio", "limit")
    lines = [
        describe(result["machine"]),
        (
            f"{result['model']} model, {result['workers']} workers of 1 thread; requests of"
            f" {CLIP_SECONDS:g} s, one after the other; a span of {_LONGEST_SPAN:g} s takes"
            f" {result['longest_span_ms']:.0f} ms"
        ),
        f"{'beside':28}{'clients':>8}{'requests':>9}" + "".join(f"{head:>10}" for head in heads),
    ]
    for row in result["scenes"]:
        statuses = ", ".join(f"{count} × {status}" for status, count in row["met"].items())
        figures = (row["alone_p95_ms"], row["p50_ms"], row["p95_ms"], row["ratio"], row["limit_ms"])
        lines.append(
            f"{row['scene']:28}{row['clients']:>8}{row['requests']:>9}"
            + "".join(f"{figure:>10.1f}" for figure in figures)
            + f"  {statuses}"
        )
    lines.append("all within their limits" if result["within"] else "NOT all within their limits")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write what is asked for."""
    made = parser(__doc__.splitlines()[0], load=0, capacity_seconds=0)
    made.set_defaults(seconds=60.0)
    made.add_argument("--only", choices=[scene.name for scene in SCENES], help="one scene")
    options = made.parse_args()
    result = measure(options)
    finish(result, report(result), options)


if __name__ == "__main__":
    main()
