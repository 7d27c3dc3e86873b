"""Open-loop load: requests at a given rate whatever the answers do, each checked against its clip.

Raw asyncio sockets rather than a client library: a client's own retries, pools and pauses would hide
what is looked for.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waiting import PATIENCE

CLIPS = Path(__file__).resolve().parents[1] / "data" / "clips"
BOUNDARY = "----------------------------7d1a6c"
_FRESH_SECONDS = 0.25


@dataclass(frozen=True)
class Clip:
    """A request's body and what must come back."""

    name: str
    body: bytes
    texts: frozenset[str]
    """what the versions that may answer say"""
    by_version: dict[str, str]


@dataclass
class Record:
    """One request."""

    sent: float
    """when its first byte was sent, time.monotonic()"""
    seconds: float
    kind: str
    version: str = ""
    error: str = ""
    opened: float = 0.0
    """when its connection was begun, time.monotonic()"""


@dataclass
class Report:
    """All requests of a run."""

    records: list[Record] = field(default_factory=list)

    def failures(self) -> list[Record]:
        return [r for r in self.records if r.error]

    def lost(self) -> list[Record]:
        """Failures that a worker which was killed must have counted.

        It takes a connection for a request for a quarter of a second (asrsvc/serving/accept.py). Where this
        process was held up for longer before it sent anything, there was no request to lose.
        """
        return [r for r in self.failures() if r.sent - r.opened < _FRESH_SECONDS]

    def quantile(self, share: float) -> float:
        times = sorted(r.seconds for r in self.records if not r.error)
        return times[min(len(times) - 1, int(share * len(times)))] if times else float("nan")

    def summary(self) -> str:
        errors = Counter(f"{r.kind}: {r.error}" for r in self.failures())
        return (
            f"{len(self.records)} requests, {len(self.failures())} failed {dict(errors.most_common(5))}, "
            f"p50 {self.quantile(0.5) * 1000:.0f} ms, p99 {self.quantile(0.99) * 1000:.0f} ms, "
            f"versions {dict(Counter(r.version for r in self.records))}"
        )


def multipart(content: bytes, name: str, **fields: str) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return b"".join([*parts, head.encode(), content, f"\r\n--{BOUNDARY}--\r\n".encode()])


def clips(versions: dict[str, str]) -> list[Clip]:
    """The speech clips as requests.

    Args:
        versions: id of a version → the key of the manifest that says what it answers.
    """
    manifest = json.loads((CLIPS / "manifest.json").read_text(encoding="utf-8"))
    found = []
    for clip in manifest:
        if clip["language"] == "nospeech":
            continue
        said = {
            version: clip[key] if key in clip else clip["prev_raw_withitn"].rpartition("|>")[2]
            for version, key in versions.items()
        }
        content = (CLIPS / clip["file"]).read_bytes()
        found.append(Clip(clip["file"], multipart(content, clip["file"]), frozenset(said.values()), said))
    return found


def head(body: bytes, *, keep_alive: bool) -> bytes:
    connection = "keep-alive" if keep_alive else "close"
    return (
        f"POST /api/transcribe HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in lower case) and body of one answer."""
    block = await reader.readuntil(b"\r\n\r\n")
    first, *lines = block.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, separator, value = line.partition(":")
        if separator:
            headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        content = b""
        while size := int((await reader.readline()).strip(), 16):
            content += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        content = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(first.split()[1]), headers, content


class Load:
    """Sends requests to one or more addresses until it is told to end."""

    def __init__(
        self,
        ports: list[int],
        requests: list[Clip],
        *,
        rate: float,
        keep_alive_share: float = 0.5,
        early_share: float = 0.1,
        early_seconds: float = 2.0,
        timeout: float = 2 * PATIENCE,
        at_once: int | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            ports: on 127.0.0.1; a request goes to one of them at random.
            requests: what is sent, at random.
            rate: requests for each second.
            keep_alive_share: share that asks for keep-alive, and uses the connection again if it may.
            early_share: share whose connection is opened long before the request is sent.
            early_seconds: how long before, at most.
            timeout: for one request.
            at_once: requests without an answer, at most, before the next is sent: what a machine that is too
                slow for the rate is asked for would else grow without end. None: no limit.
            seed: of the chance.
        """
        self._ports = ports
        self._requests = requests
        self._rate = rate
        self._keep_alive_share = keep_alive_share
        self._early_share = early_share
        self._early_seconds = early_seconds
        self._timeout = timeout
        self._at_once = at_once
        self._chance = random.Random(seed)
        self._idle: dict[int, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._end = asyncio.Event()
        self.report = Report()

    async def run(self, seconds: float | None = None, requests: int | None = None) -> Report:
        """Send until `stop`, or for so many seconds or requests; then wait for the last answers."""
        started = time.monotonic()
        sent = 0
        while not self._end.is_set():
            due = started + sent / self._rate
            if (seconds is not None and due - started > seconds) or sent == requests:
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            while self._at_once is not None and len(self._tasks) >= self._at_once:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.ensure_future(self._one(self._chance.choice(self._requests)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            sent += 1
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=self._timeout + 5)
        for connections in self._idle.values():
            for _reader, writer in connections:
                writer.close()
        return self.report

    def stop(self) -> None:
        self._end.set()

    async def _one(self, clip: Clip) -> None:
        keep_alive = self._chance.random() < self._keep_alive_share
        early = self._chance.random() < self._early_share
        port = self._chance.choice(self._ports)
        record = Record(time.monotonic(), 0.0, "keep-alive" if keep_alive else "early" if early else "plain")
        self.report.records.append(record)
        try:
            async with asyncio.timeout(self._timeout + self._early_seconds):
                await self._exchange(clip, record, port, keep_alive=keep_alive, early=early)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            record.error = f"{type(error).__name__}: {error}"[:80]
        record.seconds = time.monotonic() - record.sent

    async def _exchange(
        self, clip: Clip, record: Record, port: int, *, keep_alive: bool, early: bool
    ) -> None:
        record.opened = time.monotonic()
        idle = self._idle.setdefault(port, [])
        if keep_alive and idle:
            reader, writer = idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            if early:
                await asyncio.sleep(self._chance.uniform(0, self._early_seconds))
            record.sent = time.monotonic()
            writer.write(head(clip.body, keep_alive=keep_alive))
            writer.write(clip.body)
            await writer.drain()
            status, headers, content = await read_answer(reader)
            self._check(clip, record, status, headers, content)
        except BaseException:
            writer.close()
            raise
        if keep_alive and headers.get("connection", "").lower() != "close":
            idle.append((reader, writer))
        else:
            writer.close()

    def _check(
        self, clip: Clip, record: Record, status: int, headers: dict[str, str], content: bytes
    ) -> None:
        record.version = headers.get("x-model-version", "")
        if status != 200:
            record.error = f"status {status}"
            return
        answer: dict[str, Any] = json.loads(content)
        right = clip.by_version.get(record.version)
        if right is None:
            record.error = f"unknown version {record.version!r}"
        elif answer["text"] != right or answer["model_version"] != record.version:
            record.error = f"wrong text {answer['text']!r} of {record.version}"[:80]


def measure_capacity(make: Callable[[int], Load], *, at_once: int, seconds: float) -> float:
    """Requests for each second when so many clients send one after the other.

    Args:
        make: a load by the number of its client; its rate does not matter.
        at_once: clients.
        seconds: how long.

    Raises:
        RuntimeError: a request failed.
    """

    async def client(load: Load, until: float) -> None:
        while time.monotonic() < until:
            await load.run(requests=1)

    async def clients() -> Report:
        loads = [make(number) for number in range(at_once)]
        until = time.monotonic() + seconds
        await asyncio.gather(*(client(load, until) for load in loads))
        return Report([record for load in loads for record in load.report.records])

    report = asyncio.run(clients())
    if report.failures():
        raise RuntimeError(f"without load already: {report.summary()}")
    ends = [record.sent + record.seconds for record in report.records]
    return len(report.records) / (max(ends) - min(record.sent for record in report.records))
