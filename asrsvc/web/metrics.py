"""`GET /metrics`: what all workers have counted, what the master says, and what can be seen now."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from asrsvc import __version__
from asrsvc.errors import NotReady, StatusError
from asrsvc.serving import status
from asrsvc.serving.happenings import REASONS
from asrsvc.serving.keys import KeyRing
from asrsvc.web.metric_files import MetricFiles

_SECONDS: Final = 10.0
_MEGABYTE: Final = 1e6  # the tutorial's unit is MB


@dataclass(frozen=True, slots=True)
class Sources:
    """What a worker can see beside its own counters."""

    status_path: Path
    queue_lengths: Callable[[], Mapping[str, int]]
    """requests that wait, by lane"""
    queue_limit: int
    keys: KeyRing | None


class Metrics:
    """The endpoint."""

    def __init__(self, files: MetricFiles, sources: Sources) -> None:
        self._files = files
        self._registry = CollectorRegistry()
        self._registry.register(_Service(sources))
        self._registry.register(_Files(files))
        self._turn = threading.Lock()

    async def endpoint(self, request: Request) -> Response:
        """Answer one scrape, in the format that it asks for (Prometheus text, OpenMetrics)."""
        content, kind = await asyncio.to_thread(self._render, request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": kind, "Cache-Control": "no-store"})

    def _render(self, accept: str) -> tuple[bytes, str]:
        if not self._turn.acquire(timeout=_SECONDS):
            raise NotReady("others ask for the metrics and are not done")
        try:
            encoder, kind = _chosen(accept)
            return encoder(self._registry), kind
        finally:
            self._turn.release()


def _chosen(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """How the figures are written, and the name of that for Content-Type."""
    try:
        return choose_encoder(accept)
    except TypeError:  # it compares the version that the client asks for with a number, whatever it is
        return choose_encoder("")


class _Files(Collector):
    """The counters of the workers; described by nobody, so that registering them reads no file."""

    def __init__(self, files: MetricFiles) -> None:
        self._files = files

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        try:
            yield from self._files.collect()
        except FileNotFoundError:
            return  # the folder could not be made: the master's log says why


class _Service(Collector):
    """What the master says in its status file, and what the kernel says of the queue and of memory."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield _gauge("asr_build_info", "Version of the code.", "version", {__version__: 1})
        lengths = self._sources.queue_lengths()
        yield _gauge("asr_queue_length", "Requests that wait, by lane.", "lane", lengths)
        yield _one(
            "asr_queue_limit", "Requests of one client that may wait in a lane.", self._sources.queue_limit
        )
        if self._sources.keys is not None:
            whole = self._sources.keys.problem is None
            yield _one("asr_api_keys_valid", "Whether the file of keys is as it must be.", whole)
        try:
            now = status.read(self._sources.status_path)
        except StatusError:
            return  # the master writes it in a moment
        yield from _of_service(now)
        yield from _of_counters(now.counters)
        yield from _of_memory(now)


def _of_service(now: status.Status) -> Iterator[Metric]:
    states = {state: float(state == now.state) for state in get_args(status.State)}
    yield _gauge("asr_service_state", "1 for the state that the service is in.", "state", states)
    workers: dict[str, float] = dict.fromkeys(get_args(status.WorkerState), 0)
    by_version: dict[str, float] = {}
    baked: dict[str, float] = {}
    for worker in now.workers:
        workers[worker.state] += 1
        if worker.state == "ready":
            version = worker.version or "none"
            by_version[version] = by_version.get(version, 0) + 1
            baked[version] = baked.get(version, 0) + worker.baked
    yield _gauge("asr_workers", "Workers, by state.", "state", workers)
    yield _gauge("asr_workers_serving", "Workers that serve, by version.", "version", by_version)
    yield _gauge("asr_workers_baked", "Of these, those that serve its faster twin.", "version", baked)
    yield _one("asr_workers_wanted", "Workers that there should be.", now.wanted)
    if now.version is not None:
        yield _gauge("asr_model_info", "The version that serves.", "version", {now.version: 1})
    yield _one("asr_roll_in_progress", "Whether workers are being replaced.", now.rolling)
    if now.roll is not None and now.roll.ended is not None:
        succeeded = now.roll.result == "succeeded"
        yield _one("asr_last_roll_success", "Whether the last roll succeeded.", succeeded)


def _of_counters(counters: status.Counters) -> Iterator[Metric]:
    reasons = dict.fromkeys(REASONS, 0) | {count.name: count.number for count in counters.reasons}
    yield _counter("asr_worker_restarts", "Workers replaced or not loaded.", "reason", reasons)
    results = dict.fromkeys(get_args(status.Result), 0)
    results |= {count.name: count.number for count in counters.rolls}
    yield _counter("asr_rolls", "Replacements of all workers, by result.", "result", results)
    killed, lost = counters.killed_draining, counters.lost_requests
    yield CounterMetricFamily(
        "asr_workers_killed_draining", "Workers that did not finish in time.", value=killed
    )
    yield CounterMetricFamily("asr_lost_requests", "Requests that a killed worker had in hand.", value=lost)


def _of_memory(now: status.Status) -> Iterator[Metric]:
    master = _memory(now.master.pid)
    workers = [_memory(worker.pid) for worker in now.workers]
    found = GaugeMetricFamily(
        "asr_memory_bytes",
        "Memory: its own, and with its share of what is shared.",
        labels=["process", "kind"],
    )
    for process, parts in (("master", [master]), ("workers", workers)):
        for kind, column in (("anonymous", 0), ("proportional", 1)):
            found.add_metric([process, kind], sum(part[column] for part in parts))
    yield found
    total = sum(part[1] for part in (master, *workers)) / _MEGABYTE
    yield _one("memory_usage_mb", "Memory of the whole service, MB.", total)


def _memory(pid: int) -> tuple[int, int]:
    """Anonymous memory and proportional set size of a process, bytes (proc(5), smaps_rollup)."""
    found = {"Anonymous": 0, "Pss": 0}
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            name, _, rest = line.partition(":")
            if name in found:
                found[name] = int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return 0, 0  # it has just ended
    return found["Anonymous"], found["Pss"]


def _one(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
