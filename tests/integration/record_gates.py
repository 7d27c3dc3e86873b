"""Records what a busy machine does to the measurements that gates compare, for tests/test_gates_replayed.py.

    PYTHONPATH=tests .venv/bin/python tests/integration/record_gates.py

The embedded model, the earlier build of it and one that takes ten times as long are measured as the gates
measure them, while a busy loop holds each core and, for the last part, requests come. It takes about ten
minutes, and writes tests/data/gate_times.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from bad_models import MAKERS
from broken_models import copy_of_nano
from busy import busy_cores
from rolling import EMBEDDED_MODEL, PREVIOUS_MODEL, Operated, traffic
from service import PROJECT

from asrsvc.release.golden import embedded
from asrsvc.release.process import Limits
from asrsvc.release.store import Store
from asrsvc.release.trial.subject import Subject
from asrsvc.release.trial.types import TrialOptions
from asrsvc.release.versions import check_digests
from asrsvc.speech.cpu import cpu_features
from asrsvc.speech.model import Model
from asrsvc.speech.sample import Timed

TARGET = PROJECT / "tests" / "data" / "gate_times.json"
MODELS = ("embedded", "earlier", "tenfold")
RATE = 25.0
LONGEST_SECONDS = 3000.0


def warm_up(folder: Path, starts: int, runs: int) -> list[list[int]]:
    """Runs of the shortest clip by a model that has just been loaded, for each of some starts."""
    found = []
    for _ in range(starts):
        reader, writer = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                os.write(writer, json.dumps(one_start(folder, runs)).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            found.append(json.loads(answer.read()))
        os.waitpid(pid, 0)
    return found


def one_start(folder: Path, runs: int) -> list[int]:
    """In a process that has no session yet: what each run of the shortest clip takes."""
    model = Model.load(folder, version="v", threads=1, device="cpu", baked=None, run=False)
    timed = Timed(model)
    found = []
    for _ in range(runs):
        before = timed.runs.cpu_seconds
        timed.run()
        found.append(round((timed.runs.cpu_seconds - before) * 1e6))
    return found


def trial(store: Store, folders: dict[str, Path], rounds: int) -> dict[str, list[list[int]]]:
    """The embedded clips in turn, as a trial has them heard: for each model a list for each round."""
    found: dict[str, list[list[int]]] = {name: [] for name in folders}
    options = TrialOptions(reference=False, load_timeout=600)
    with ExitStack() as stack:
        subjects = {}
        for name, folder in folders.items():
            limits = Limits(options.memory_bytes, time.monotonic() + LONGEST_SECONDS)
            version = store.add_folder(folder, f"trial-{name}")
            before = set(psutil.Process().children())
            subject = stack.enter_context(Subject(version, options, limits))
            subject.hello()
            for child in set(psutil.Process().children()) - before:
                hurry(child)
            subject.check()
            subject.load()
            subject.hear()
            subjects[name] = subject
        for number in range(rounds):
            times: dict[str, list[int]] = {name: [] for name in folders}
            for clip in embedded().clips:
                question: dict[str, Any] = {"do": "transcribe", "path": str(clip.path)}
                for name, subject in subjects.items():
                    answer = subject.ask(question, doing="at a clip", seconds=120)
                    times[name].append(round(answer["cpu_seconds"] * 1e6))
            for name, one in times.items():
                found[name].append(one)
            say(f"trial: {number + 1} rounds")
    return found


def hurry(process: psutil.Process) -> None:
    """Let its threads have their turns: how long they wait for them is not what is measured."""
    with suppress(psutil.Error, OSError):
        for thread in process.threads():
            os.sched_setscheduler(thread.id, os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, thread.id, os.getpriority(os.PRIO_PROCESS, 0))


@contextmanager
def hurrying(service: Operated) -> Iterator[None]:
    """Let its workers load without waiting for an idle core, for the time of a `with` block."""
    end = threading.Event()

    def look() -> None:
        while not end.wait(0.2):
            for worker in service.workers() if service.process is not None else []:
                hurry(worker)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def serving(folder: Path, model: Path, starts: int, requests: int) -> list[list[list[int]]]:
    """Requests to a new service: for each start, milliseconds of sound and CPU time of each request."""
    found = []
    for number in range(starts):
        service = Operated(folder / f"{model.name}-{number}", ASR_WORKERS="1", ASR_READY_TIMEOUT="600")
        version = service.add(model)
        service.store.records.note_trial(version.id, {"passed": True, "files": check_digests(version.path)})
        service.store.set_current(version)
        try:
            with hurrying(service):
                service.start(seconds=600)
            with traffic(service, RATE) as flow:  # whether the texts are right does not matter here
                flow.wait_answered(requests, 600)
            lines = [line for line in service.log_lines() if line.get("inference_cpu_ms")]
        finally:
            service.stop(120)
        found.append([[round(1000 * x["audio_seconds"]), round(1000 * x["inference_cpu_ms"])] for x in lines])
        say(f"{len(lines)} requests to {model.name}")
    return found


@contextmanager
def models() -> Iterator[dict[str, Path]]:
    """Folders of the models by name."""
    with tempfile.TemporaryDirectory(prefix="asr-gates-") as folder:
        MAKERS["tenfold"](copy_of_nano(Path(folder) / "tenfold"))
        yield dict(zip(MODELS, (EMBEDDED_MODEL, PREVIOUS_MODEL, Path(folder) / "tenfold"), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--starts", type=int, default=20, help="of each model for the warm-up (default 20)")
    parser.add_argument("--rounds", type=int, default=40, help="of the trial (default 40)")
    parser.add_argument("--services", type=int, default=2, help="of each model (default 2)")
    parser.add_argument("--only", choices=["warm_up", "trial", "serving"], help="record this part anew")
    parser.add_argument("--target", type=Path, default=TARGET)
    options = parser.parse_args()
    target: Path = options.target
    content: dict[str, Any] = json.loads(target.read_text("utf-8")) if target.exists() else {}
    content["unit"] = "microseconds of CPU time; of requests, milliseconds of sound before it"
    content["how"] = "tests/integration/record_gates.py, a busy loop on each core"
    content["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, {cpu_features()}"
    parts = [options.only] if options.only else ["warm_up", "trial", "serving"]
    with (
        models() as folders,
        tempfile.TemporaryDirectory(prefix="asr-gates-") as scratch,
        busy_cores(LONGEST_SECONDS),
    ):
        for name, folder in folders.items():
            slow = name == "tenfold"
            if "warm_up" in parts:
                starts = 4 if slow else options.starts  # where it is warm it is harder to tell
                content.setdefault("warm_up", {})[name] = warm_up(folder, starts, 40)
                save(target, content)
            if "serving" in parts:
                found = serving(Path(scratch), folder, options.services, 80 if slow else 200)
                content.setdefault("serving", {})[name] = found
                save(target, content)
        if "trial" in parts:
            content["trial"] = trial(Store(Path(scratch) / "store"), folders, options.rounds)
            save(target, content)


def save(target: Path, content: dict[str, Any]) -> None:
    target.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
