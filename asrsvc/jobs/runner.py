"""What a worker does about jobs: it looks for one every moment, works on it, and lets it go when told to.

There is no master of jobs. Each worker asks the store; the store gives each job to one of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

from asrsvc.errors import AsrError
from asrsvc.jobs.claims import Claims
from asrsvc.jobs.storage import Storage
from asrsvc.jobs.store import JobStore
from asrsvc.jobs.threads import Threads
from asrsvc.jobs.work import Stretch, work
from asrsvc.speech.transcribe import Transcriber

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.5
_SWEEP_SECONDS: Final = 30.0
_TROUBLE_SECONDS: Final = 5.0  # between two looks, while the store cannot be used

Observe = Callable[[int, dict[str, Any]], None]
"""told of each job that has ended here: HTTP's number for how, and what the log says of it"""
Count = Callable[[dict[str, Any]], None]
"""told of each stretch of work on a job, whether it has ended by that or not: what the log says of it"""


class Runner:
    """Works on jobs in the threads of one worker."""

    def __init__(
        self,
        storage: Storage,
        transcriber: Transcriber,
        *,
        most: int,
        may_begin: Callable[[], bool],
        observe: Observe,
        count: Count,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            storage: of the jobs.
            transcriber: does the work.
            most: jobs that this worker works on at the same time.
            may_begin: asked, in a thread, before a job is taken.
            observe: see `Observe`.
            count: see `Count`.
        """
        self._store = JobStore(storage)
        self._claims = Claims(storage)
        self._transcriber = transcriber
        self._most = most
        self._may_begin = may_begin
        self._observe = observe
        self._count = count
        self._disk = Threads(1, "asr-jobs-look")
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="asr-job")
        self._hand: set[Stretch] = set()
        self._leaving = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._swept = 0.0

    @property
    def in_hand(self) -> int:
        """Jobs that this worker works on."""
        return len(self._hand)

    @property
    def idle(self) -> bool:
        """Whether nothing is in hand and, after `leave`, nothing will be."""
        return not self._hand and (self._task is None or self._task.done())

    def start(self) -> None:
        """Begin to look for jobs, in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._look_for_jobs(), name="asr-jobs")

    def wake(self) -> None:
        """Look now: a job has come."""
        self._wake.set()

    def leave(self) -> None:
        """Take no more, and let those in hand go at their next span."""
        self._leaving = True
        for stretch in self._hand:
            stretch.stop.set()
        self._wake.set()

    async def _look_for_jobs(self) -> None:
        trouble = ""
        while not self._leaving:
            pause = _LOOK_SECONDS
            try:
                await self._look()
                trouble = ""
            except AsrError as error:
                if error.message != trouble:
                    log.error("jobs cannot be worked on: %s", error.message, extra={"error": error.code})
                trouble = error.message
                pause = _TROUBLE_SECONDS
            except Exception:  # this task must outlive whatever happens
                log.exception("jobs cannot be looked for")
                pause = _TROUBLE_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()

    async def _look(self) -> None:
        while self._has_room() and await self._disk.run(self._may_begin):
            claim = await self._disk.run(self._claims.take, beside=len(self._hand))
            if claim is None:
                break
            self._begin(Stretch(claim))
        if self._hand:
            for claim in await self._disk.run(self._claims.lost, [s.claim for s in self._hand]):
                for stretch in self._hand:
                    if stretch.claim is claim:
                        stretch.stop.set()
        if time.monotonic() - self._swept > _SWEEP_SECONDS:
            self._swept = time.monotonic()
            await self._disk.run(self._store.sweep)

    def _has_room(self) -> bool:
        suspect = any(stretch.claim.alone and not stretch.advanced for stretch in self._hand)
        return len(self._hand) < self._most and not suspect and not self._leaving

    def _begin(self, stretch: Stretch) -> None:
        if self._leaving:  # told so while the store was asked: the thread gives it back at once
            stretch.stop.set()
        self._hand.add(stretch)
        job = stretch.claim.job
        log.info(
            "job begun", extra={"job": job.id, "turn": stretch.claim.turn, "audio_seconds": job.audio_seconds}
        )
        done = asyncio.get_running_loop().run_in_executor(
            self._threads, work, stretch, self._claims, self._transcriber
        )
        done.add_done_callback(lambda future: self._ended(stretch, future))

    def _ended(self, stretch: Stretch, future: asyncio.Future[None]) -> None:
        self._hand.discard(stretch)
        if not future.cancelled() and future.exception() is not None:
            log.error("a job's thread failed", exc_info=future.exception())
        note = {**stretch.note(), "version": self._transcriber.model.version}
        log.info("job ended" if stretch.status else "job let go", extra=note)
        self._count(note)
        if stretch.status:
            self._observe(stretch.status, note)
        self._wake.set()
