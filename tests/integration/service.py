"""A real service for tests: master, workers and sockets, on a free port, with a store of its own."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

PROJECT = Path(__file__).resolve().parents[2]
CLIPS = PROJECT / "tests" / "data" / "clips"

T = TypeVar("T")


def manifest(*, speech_only: bool = False) -> list[dict[str, Any]]:
    """The clips with what is said in them."""
    clips: list[dict[str, Any]] = json.loads((CLIPS / "manifest.json").read_text(encoding="utf-8"))
    return [clip for clip in clips if clip["language"] != "nospeech" or not speech_only]


def wait_for(what: str, condition: Callable[[], T | None], seconds: float = 60) -> T:
    """Poll until the condition gives something true.

    Raises:
        TimeoutError: it did not in time; says what was waited for.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def free_port() -> int:
    """One that nobody listens on, and that the kernel gives no connection by itself."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


class Service:
    """One running service."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.python = sys.executable
        self.cwd = PROJECT
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = folder / "service.log"
        self.spool = folder / "spool"
        self.spool.mkdir(parents=True, exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ASR_")}
        self.environ = {
            **kept,
            "ASR_BIND": f"127.0.0.1:{self.port}",
            "ASR_STORE": str(folder / "store"),
            "ASR_RUNTIME_DIR": str(folder / "run"),
            "ASR_STATE_DIR": str(folder / "state"),
            "ASR_SPOOL_DIR": str(self.spool),
            "ASR_LOG_FORMAT": "json",
            "ASR_BAKE": "off",  # a twin takes seconds to make; the tests of twins make them
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, seconds: float = 60, command: list[str] | None = None) -> Service:
        """Start it and wait until its workers are ready.

        Args:
            seconds: to wait, at most.
            command: instead of the usual one.
        """
        command = command or [self.python, "-m", "asrsvc.serving.start"]
        before = self.log().count('"worker ready"')
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.cwd
            )
        workers = int(self.environ.get("ASR_WORKERS") or 0)

        def ready() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"the service ended with {self.process.returncode}:\n{self.log()}")
            return self.log().count('"worker ready"') - before >= max(1, workers)

        wait_for("worker ready", ready, seconds)
        return self

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                for child in psutil.Process(self.process.pid).children(recursive=True):
                    child.kill()
                self.process.kill()
                self.process.wait(10)
                raise
        return self.process.returncode

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8") if self.log_path.exists() else ""

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    @property
    def master(self) -> psutil.Process:
        assert self.process is not None
        return psutil.Process(self.process.pid)

    def workers(self) -> list[psutil.Process]:
        return self.master.children()

    def worker_pids(self) -> set[int]:
        return {worker.pid for worker in self.workers()}

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    def transcribe(self, name: str, content: bytes, **fields: str) -> httpx.Response:
        with self.client() as client:
            return client.post("/api/transcribe", files={"file": (name, content)}, data=fields)


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[Service]:
    """A service for the time of a `with` block; its log is shown if the block fails."""
    service = Service(folder, **settings)
    try:
        yield service.start()
    except BaseException:
        sys.stderr.write(service.log()[-20_000:])
        raise
    finally:
        if service.process is not None:
            service.stop()
