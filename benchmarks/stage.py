"""A real service with models of a known size, for the benchmarks beside this file."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile

ROOT: Final = Path(__file__).resolve().parents[1]
# Started by its path, Python looks for modules beside this file only; the harness is that of the tests.
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "integration")]

from engine import machine  # noqa: E402
from full_size import make_full_size  # noqa: E402
from load import CLIPS, Clip, Load, Record, Report, measure_capacity, multipart  # noqa: E402
from report import Panel, add_targets, finish  # noqa: E402
from service import Service, wait_for  # noqa: E402

from asrsvc.errors import StatusError  # noqa: E402
from asrsvc.release.bake import MakeLimits, make_if_missing  # noqa: E402
from asrsvc.release.embedded import ensure_embedded  # noqa: E402
from asrsvc.release.store import Store, Version  # noqa: E402
from asrsvc.serving import status  # noqa: E402

__all__ = ["CLIPS", "Clip", "Record", "Report", "Service", "finish", "machine", "multipart"]

SAMPLE_RATE: Final = 16_000
ROLL_SECONDS: Final = 300.0


def make_versions(store: Store, model: str) -> list[Version]:
    """Two versions of the same cost: the full-size graph with two sets of weights, or the small model."""
    if model == "nano":
        first = ensure_embedded(store)
        copy = store.root.with_name("nano-again")
        shutil.copytree(first.path, copy)
        with (copy / "config.yaml").open("a", encoding="utf-8") as config:
            config.write("# the same model under another id\n")
        return [first, store.add_folder(copy, "nano-again")]
    folders = [make_full_size(ROOT / "var" / f"full-size-{seed}", seed) for seed in (0, 1)]
    versions = [store.add_folder(folder, folder.name) for folder in folders]
    with store.lock():
        for version in versions:
            # Its text is random: the comparison with what was said would refuse it.
            store.records.note_forced(version.id, forced=True)
    return versions


@contextmanager
def staged(folder: Path, model: str, *, changes: bool = True, **settings: str) -> Iterator[Stage]:
    """A running service that serves the first of two versions; ended at SIGTERM too.

    Args:
        folder: for all that it writes.
        model: `full` or `nano`.
        changes: whether the second version will be served too.
        settings: of the service.
    """
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    store = Store(folder / "store")
    ensure_embedded(store)
    versions = make_versions(store, model)
    bake = settings.setdefault("ASR_BAKE", "auto")
    if bake in {"auto", "uint8"}:
        for version in versions if changes else versions[:1]:
            make_if_missing(store.root, version, bake, limits=MakeLimits(), progress=_say)
    # What random weights say is no measure of a version.
    random = {} if model == "nano" else {"ASR_SOAK_MAX_EMPTY": "1"}
    stage = Stage(Service(folder, **{"ASR_THREADS": "1", **random, **settings}), store, versions)
    try:
        stage.service.start()
        if stage.status().version != versions[0].id:
            stage.roll(versions[0])
        yield stage
    except BaseException:
        print(stage.service.log()[-4000:], file=sys.stderr)
        raise
    finally:
        if stage.service.process is not None:
            stage.service.stop(120)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


class Stage:
    """The service, its store and its two versions."""

    def __init__(self, service: Service, store: Store, versions: list[Version]) -> None:
        self.service = service
        self.store = store
        self.versions = versions

    def status(self) -> status.Status:
        """What the master says."""
        return status.read(Path(self.service.environ["ASR_RUNTIME_DIR"]) / status.FILE_NAME)

    def start_roll(self, version: Version) -> int:
        """Wish for a version and send SIGHUP; the number of the last roll before it."""
        before = self.status().roll
        self.store.set_next(version)
        self.service.master.send_signal(signal.SIGHUP)
        return before.id if before is not None else 0

    def ended(self, before: int) -> status.Roll | None:
        """The roll that came after this number, once it has ended."""
        roll = self.status().roll
        return roll if roll is not None and roll.id > before and roll.ended is not None else None

    def roll(self, version: Version) -> None:
        """Replace all workers.

        Raises:
            RuntimeError: it did not succeed.
        """
        before = self.start_roll(version)
        done = wait_for("the end of the roll", lambda: self.ended(before), ROLL_SECONDS)
        if done.result != "succeeded":
            raise RuntimeError(f"the roll to {version.id} {done.result}: {done.error}")

    def ready(self) -> int | None:
        """Workers that serve now; None if the status cannot be read."""
        try:
            return sum(worker.state == "ready" for worker in self.status().workers)
        except StatusError:
            return None


class MeasuredLoad(Load):
    """Open-loop load that takes each version's first answer to a clip as the right one."""

    def _check(
        self, clip: Clip, record: Record, http_status: int, headers: dict[str, str], content: bytes
    ) -> None:
        if http_status == 200:
            clip.by_version.setdefault(headers.get("x-model-version", ""), json.loads(content)["text"])
        super()._check(clip, record, http_status, headers, content)

    def run_forever(self) -> Report:
        """Send until `stop`; called from no loop."""
        return asyncio.run(self.run())


@dataclass
class Phases:
    """Stretches of time in which something is done, or not done, while the load goes on."""

    spans: list[tuple[str, float, float]] = field(default_factory=list)
    """name, begin and end, time.monotonic()"""

    def times(self, records: list[Record], name: str) -> list[float]:
        """Seconds of the good requests that were sent in phases of this name."""
        spans = [(began, ended) for phase, began, ended in self.spans if phase == name]
        return [
            record.seconds
            for record in records
            if not record.error and any(began <= record.sent < ended for began, ended in spans)
        ]

    def figures(self, records: list[Record], name: str) -> dict[str, float]:
        """Quantiles of `times`, ms."""
        times = self.times(records, name)
        return {
            "phases": sum(phase == name for phase, _, _ in self.spans),
            "requests": len(times),
            **{f"p{round(share * 100)}_ms": quantile(times, share) * 1000 for share in (0.5, 0.95, 0.99)},
        }


class Background:
    """Does something in a thread while a load runs, and ends the load when that is done."""

    def __init__(self, load: MeasuredLoad, work: Callable[[], None]) -> None:
        self._load = load
        self._work = work
        self._errors: list[BaseException] = []

    def run(self) -> Report:
        """Both; what the load has met.

        Raises:
            Exception: what the work has raised.
        """
        thread = threading.Thread(target=self._run)
        thread.start()
        report = self._load.run_forever()
        thread.join()
        if self._errors:
            raise self._errors[0]
        return report

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - raised where the load ends
            self._errors.append(error)
        finally:
            self._load.stop()


def measured_capacity(port: int, clips: list[Clip], options: argparse.Namespace) -> float:
    """Requests a second with twice as many clients as workers, after a first try, whose runs are slow."""

    def make(number: int) -> MeasuredLoad:
        return MeasuredLoad([port], clips, rate=1, keep_alive_share=0, early_share=0, seed=number)

    measure_capacity(make, at_once=2 * options.workers, seconds=2)
    capacity = measure_capacity(make, at_once=2 * options.workers, seconds=options.capacity_seconds)
    print(f"capacity {capacity:.2f} requests/s", file=sys.stderr)
    return capacity


def parser(description: str, *, load: float, capacity_seconds: float) -> argparse.ArgumentParser:
    """What the benchmarks of a loaded service are told."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--model", choices=("full", "nano"), default="full", help="default: %(default)s")
    made.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    made.add_argument("--load", type=float, default=load, help="share of the capacity (default: %(default)s)")
    made.add_argument("--seconds", type=float, default=300, help="of load (default: %(default)s)")
    made.add_argument("--capacity-seconds", type=float, default=capacity_seconds, help="default: %(default)s")
    add_targets(made)
    return made


def latency_panel(result: dict[str, Any]) -> Panel:
    """The chart of phases that were compared."""
    shown = ("p50", "p95", "p99")
    phases = result["phases"].items()
    rows = {key: {name: row[f"{key}_ms"] for name, row in phases} for key in shown}
    return Panel(f"latency at {result['load']:.0%} of the capacity", "ms", rows)


def speech(seconds: float, start: float = 0.0) -> bytes:
    """A WAV file (16 bits, 16 kHz) of so many seconds of the clips, joined."""
    spoken = [
        soundfile.read(CLIPS / clip["file"], dtype="int16")[0]
        for clip in json.loads((CLIPS / "manifest.json").read_text(encoding="utf-8"))
        if clip["language"] != "nospeech"
    ]
    samples = np.roll(np.concatenate(spoken), -round(start * SAMPLE_RATE))
    target = io.BytesIO()
    soundfile.write(target, np.resize(samples, round(seconds * SAMPLE_RATE)), SAMPLE_RATE, format="WAV")
    return target.getvalue()


def as_clip(name: str, content: bytes) -> Clip:
    """A request whose answer is not known before."""
    return Clip(name, multipart(content, name), frozenset(), {})


def quantile(values: list[float], share: float) -> float:
    """NaN if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def describe(found: dict[str, Any]) -> str:
    """The machine in one line."""
    return (
        f"{found['cpu']}, {found['cores']} cores, Linux {found['kernel']}, Python {found['python']}, "
        f"load average at the start {found['load_average']:.1f}"
    )
