"""A worker's part in the jobs: it takes them, tells of them, and works on them beside its requests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.routing import Route

from asrsvc.errors import StatusError, UrlRefused
from asrsvc.jobs.delivery import Deliverer, Result, Schedule, Send
from asrsvc.jobs.manners import Manners
from asrsvc.jobs.runner import Count, Observe, Runner
from asrsvc.jobs.storage import Storage
from asrsvc.jobs.store import JobStore
from asrsvc.jobs.types import Limits
from asrsvc.jobs.webhooks import Webhooks
from asrsvc.remote.client import Client
from asrsvc.remote.hosts import SETTING
from asrsvc.serving import status
from asrsvc.settings import Settings
from asrsvc.speech.transcribe import Transcriber
from asrsvc.web.app import remote_client
from asrsvc.web.job_answers import event_body
from asrsvc.web.jobs import JobDesk
from asrsvc.web.upload import UploadLimits

_LETTING_GO_SECONDS: Final = 5.0
"""that a worker which leaves has for the spans that its jobs have begun; another worker begins them again"""
_SWITCH_SECONDS: Final = 0.0005
PATIENCE_SECONDS: Final = 1800.0
"""that a job's span waits for the engine, at most; then another worker may try"""


class Jobs:
    """The jobs, as one worker sees them."""

    def __init__(
        self,
        settings: Settings,
        transcriber: Transcriber,
        manners: Manners,
        uploads: UploadLimits,
        *,
        abandon: Callable[[], None],
        observe: Observe,
        count: Count,
        count_webhook: Callable[[Result], None],
    ) -> None:
        """Put the parts together; `start` begins.

        Args:
            settings: in force.
            transcriber: lets requests go first.
            manners: of those who work on jobs.
            uploads: limits of request bodies.
            abandon: lets the jobs' spans go, also in the middle of a run.
            observe: told of each job that has ended here.
            count: told of each stretch of work on a job.
            count_webhook: told of each attempt to deliver a webhook.
        """
        self._observe = observe
        self._manners = manners
        self._abandon = abandon
        self._status = settings.runtime_dir / status.FILE_NAME
        self._version = transcriber.model.version
        keep_seconds = settings.jobs_keep_seconds
        limits = Limits(
            running=settings.running_jobs(),
            kept=settings.jobs_kept,
            kept_of_client=settings.jobs_per_client,
            bytes=settings.jobs_disk_mb * 2**20,
            keep_seconds=keep_seconds,
            deaths=settings.jobs_attempts,
        )
        # Two connections to one table: who asks does not wait while the other one's disk is slow.
        to_work, to_ask = (Storage.at(settings.state_dir, limits) for _ in range(2))
        self._runner = Runner(
            to_work,
            transcriber,
            most=most_here(settings),
            may_begin=self._may_begin,
            observe=self._note_ended,
            count=count,
        )
        remote = remote_client(settings)
        self._deliverer = Deliverer(
            Webhooks(to_work, lambda job: event_body(job, keep_seconds)),
            send=_sender(remote, settings.webhook_timeout),
            secrets=settings.webhook_secret,
            timeout=settings.webhook_timeout,
            schedule=Schedule(min(settings.webhook_seconds, keep_seconds)),
            count=count_webhook,
        )
        self._desk = JobDesk(
            JobStore(to_ask),
            limits=uploads,
            keep_seconds=keep_seconds,
            wake=self._runner.wake,
            refuse_incomplete=settings.refuses_incomplete(),
            remote=remote,
            signed=bool(settings.webhook_secret),
        )

    def routes(self) -> list[Route]:
        """What is served of them."""
        return self._desk.routes()

    def start(self) -> None:
        """Begin to work on jobs, in the running loop."""
        # Jobs compute beside the event loop, and Python would let it wait 5 ms for each of its steps.
        # Seen on a busy machine, with the embedded model and requests for 40 % of what it can do: the
        # median answer took 5.1 s, and so 0.04 s, while jobs had 37, and so 135 s of sound done a second.
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._runner.start()
        self._deliverer.start()

    def note_requests(self, in_hand: int) -> None:
        """So many requests are in hand in this worker."""
        self._manners.note_requests(in_hand)

    def leave(self) -> None:
        """Give up what is in hand at its next span, for another worker; end the streams of events."""
        self._runner.leave()
        self._deliverer.leave()
        # At low priority a span may last as long as others keep the cores busy.
        asyncio.get_running_loop().call_later(_LETTING_GO_SECONDS, self._abandon)
        self._desk.leave()

    @property
    def idle(self) -> bool:
        """Whether nothing is in hand and, after `leave`, nothing will be."""
        return self._runner.idle and self._deliverer.idle

    def _note_ended(self, status: int, note: dict[str, Any]) -> None:
        self._observe(status, note)
        self._deliverer.wake()

    def _may_begin(self) -> bool:
        """A version that is still being watched must prove itself on requests: a job's result is kept."""
        try:
            found = status.read(self._status).version
        except StatusError:
            return True
        return found in (None, self._version)


def _sender(remote: Client | None, seconds: float) -> Send:
    async def send(url: str, headers: Mapping[str, str], body: bytes) -> int:
        if remote is None:
            raise UrlRefused(f"webhooks are off: {SETTING} names no hosts any more")
        return await remote.post(url, headers, body, seconds=seconds)

    return send


def most_here(settings: Settings) -> int:
    """Jobs that one worker works on at the same time, at most: its share, rounded up."""
    return -(-settings.running_jobs() // settings.worker_count())
