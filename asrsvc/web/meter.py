"""What one worker counts. The names are for dashboards and alerts: `monitoring/` relies on them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from starlette.routing import BaseRoute, Route

from asrsvc import settings
from asrsvc.jobs.delivery import RESULTS, Result
from asrsvc.web.metric_files import MetricFiles, give_up
from asrsvc.web.notices import CODES

log = logging.getLogger(__name__)

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_FACTORS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
_SHARES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1)
_CODE: Final = re.compile(r"[a-z0-9_]{1,40}")
TWINS: Final = ("ready", "missing", "refused", "damaged", "off")
"""states of a version's faster twin when it is loaded; all but the first: the published file serves"""
CLIENT_GONE: Final = 499
"""nginx's number for a request whose client has gone"""


class Meter:
    """The counters of this process."""

    def __init__(
        self, files: MetricFiles, version: str | None, *, load_seconds: float = 0.0, twin: str = "off"
    ) -> None:
        """Begin to count.

        Args:
            files: where to.
            version: that this worker serves.
            load_seconds: that it took to load.
            twin: whether it is served by its faster twin, one of `TWINS`.
        """
        _use(files)
        own = CollectorRegistry()
        self._version = version or "none"
        self._requests = Counter(
            "asr_requests_total", "Requests answered.", ["route", "status"], registry=own
        )
        self._errors = Counter("asr_errors_total", "Requests that failed, by code.", ["code"], registry=own)
        self._duration = Histogram(
            "asr_request_duration_seconds",
            "From the whole header to the end of the answer.",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        self._in_progress = Gauge(
            "asr_requests_in_progress", "Requests in hand.", multiprocess_mode="livesum", registry=own
        )
        self._queue = Histogram(
            "asr_queue_wait_seconds", "Wait for a worker.", buckets=_SECONDS, registry=own
        )
        self._decode = Histogram("asr_decode_seconds", "Decoding.", buckets=_SECONDS, registry=own)
        self._inference = Histogram("asr_inference_seconds", "In the engine.", buckets=_SECONDS, registry=own)
        self._factor = Histogram(
            "asr_real_time_factor",
            "Decoding and engine, seconds for a second of sound.",
            ["version"],
            buckets=_FACTORS,
            registry=own,
        )
        self._bytes = Counter("asr_upload_bytes_total", "Bytes of recordings.", registry=own)
        self._audio = Counter("asr_audio_seconds_total", "Sound, seconds.", ["version"], registry=own)
        self._transcripts = Counter(
            "asr_transcripts_total", "Transcripts: text, or empty.", ["version", "result"], registry=own
        )
        self._warnings = Counter(
            "asr_warnings_total", "Transcripts with a warning, by its code.", ["code"], registry=own
        )
        for code in CODES:  # as below
            self._warnings.labels(code)
        self._confidence = Histogram(
            "asr_confidence", "Mean confidence of a transcript.", ["version"], buckets=_SHARES, registry=own
        )
        self._webhooks = Counter(
            "asr_webhook_attempts_total", "Attempts to deliver webhooks, by result.", ["result"], registry=own
        )
        for result in RESULTS:
            self._webhooks.labels(result)
        self._load = Gauge(
            "model_load_time_seconds",
            "Load of a model.",
            ["version"],
            multiprocess_mode="livemax",
            registry=own,
        )
        loads = Counter(
            "asr_model_loads_total", "Loads, by the faster twin.", ["version", "twin"], registry=own
        )
        if version is not None:
            self._load.labels(version).set(load_seconds)
            for state in TWINS:  # all of them: what comes from nowhere is no increase to Prometheus
                loads.labels(version, state).inc(state == twin)

    def begin(self) -> None:
        """A request has come in."""
        self._in_progress.inc()

    def handed_on(self) -> None:
        """A request goes on in another worker, which counts it."""
        self._in_progress.dec()

    def end(self, route: str, status: int, seconds: float, note: Mapping[str, Any]) -> None:
        """A request has ended.

        Args:
            route: one of those that there are.
            status: of the answer; 0: there was none.
            seconds: that it took, with its wait in the queue.
            note: what its log line says.
        """
        self._in_progress.dec()
        self._requests.labels(route, str(status or CLIENT_GONE)).inc()
        self._duration.labels(route).observe(seconds)
        if "error" in note:
            code = str(note["error"])
            self._errors.labels(code if _CODE.fullmatch(code) else "other").inc()
        if "queue_ms" in note:
            self._queue.observe(note["queue_ms"] / 1000)
        self.work(note)

    def refused(self, status: int, code: str) -> None:
        """A request was answered before the application heard of it: it was malformed, or late."""
        self._requests.labels(RouteNames.OTHER, str(status)).inc()
        self._errors.labels(code).inc()

    def webhook(self, result: Result) -> None:
        """A webhook has been delivered, or not."""
        self._webhooks.labels(result).inc()

    def work(self, note: Mapping[str, Any]) -> None:
        """A recording has been worked on, for a request or for a job.

        Args:
            note: of `bytes`, `audio_seconds`, `decode_ms`, `inference_ms`, `empty`, `confidence` and
                `warnings` those that are known.
        """
        version = self._version
        self._bytes.inc(note.get("bytes", 0))
        sound = note.get("audio_seconds", 0.0)
        if sound:
            self._audio.labels(version).inc(sound)
            decode, inference = note.get("decode_ms", 0.0) / 1000, note.get("inference_ms", 0.0) / 1000
            self._decode.observe(decode)
            self._inference.observe(inference)
            self._factor.labels(version).observe((decode + inference) / sound)
        if "empty" in note:
            self._transcripts.labels(version, "empty" if note["empty"] else "text").inc()
        for code in note.get("warnings", ()):
            self._warnings.labels(code).inc()
        if note.get("confidence") is not None:
            self._confidence.labels(version).observe(note["confidence"])


def _use(files: MetricFiles) -> None:
    """Let prometheus_client keep values in these files; where there is no space, in memory."""
    try:
        files.absorb_dead()
    except OSError as error:
        log.error("what ended workers have counted is not added up: %s", error)
    try:
        files.reserve()
    except OSError as error:
        log.error("this worker does not count: %s", error)
        give_up(files)
        values.ValueClass = values.MutexValue
        return
    settings.announce_metric_folder(files.folder)
    identity = files.identity()
    values.ValueClass = values.MultiProcessValue(lambda: identity)


class RouteNames:
    """What requests are counted by: the paths of the routes, and `other`."""

    OTHER: Final = "other"

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        own = [route for route in routes if isinstance(route, Route)]
        # A route for whatever there is (`/{path:path}`) names nothing.
        self._by_endpoint: dict[Any, str] = {
            route.endpoint: route.path for route in own if route.path[1:2] != "{"
        }
        self._plain = {path for path in self._by_endpoint.values() if "{" not in path}

    def of(self, scope: Mapping[str, Any]) -> str:
        """The name for a request that has been answered, by a route or before it came to one."""
        named = self._by_endpoint.get(scope.get("endpoint"))
        if named is not None:
            return named
        return scope["path"] if scope["path"] in self._plain else self.OTHER
