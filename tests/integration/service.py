"""A real service for tests: master, workers and sockets, on a free port, with a store of its own."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from waiting import PATIENCE, wait_for

__all__ = ["CLIPS", "PROJECT", "Service", "free_port", "is_read", "manifest", "running", "wait_for"]

PROJECT = Path(__file__).resolve().parents[2]
CLIPS = PROJECT / "tests" / "data" / "clips"


def manifest(*, speech_only: bool = False) -> list[dict[str, Any]]:
    """The clips with what is said in them."""
    clips: list[dict[str, Any]] = json.loads((CLIPS / "manifest.json").read_text(encoding="utf-8"))
    return [clip for clip in clips if clip["language"] != "nospeech" or not speech_only]


_claims: list[int] = []


def free_port() -> int:
    """One that nobody listens on, that the kernel gives no connection by itself, and that is given once."""
    for port in random.sample(range(20_000, 32_000), 100):
        # Another process that looks for a port before this one is listened on finds the name taken.
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0asrsvc-tests-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim.detach())  # until this process ends
        return port
    raise OSError("no port is free")


_ESTABLISHED = "01"


def is_read(port: int, client: socket.socket) -> bool:
    """Whether all that a client has sent to a port of this machine was read there (proc(5), net/tcp).

    Before its turn, a request is looked at but not read.
    """
    # The table is not of one instant: what arrives in between may be in neither queue, but not twice.
    return all(_queues_are_empty(port, client) for _ in range(2))


def _queues_are_empty(port: int, client: socket.socket) -> bool:
    here, there = f"{client.getsockname()[1]:04X}", f"{port:04X}"
    queues: dict[str, list[str]] = {}
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, local, remote, state, both, *_ = line.split()
        if {local[-4:], remote[-4:]} == {here, there} and state == _ESTABLISHED:
            queues[local[-4:]] = both.split(":")
    if queues.keys() != {here, there}:
        return False
    (on_its_way, _), (_, unread) = queues[here], queues[there]
    return int(on_its_way, 16) == int(unread, 16) == 0


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

    def start(self, *, seconds: float = PATIENCE, command: list[str] | None = None) -> Service:
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

    def stop(self, seconds: float = PATIENCE) -> int:
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
                self.process.wait(PATIENCE)
                raise
        return self.process.returncode

    def log(self) -> str:
        """All whole lines so far; of a long one, a part may be there before the rest."""
        content = self.log_path.read_bytes() if self.log_path.exists() else b""
        return content[: content.rfind(b"\n") + 1].decode()

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
        return httpx.Client(base_url=self.url, timeout=2 * PATIENCE, trust_env=False, **options)

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
