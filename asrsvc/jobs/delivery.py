"""What a worker does about webhooks: it looks for one that is due, tells its receiver, and notes how it went.

There is no master of webhooks, as there is none of jobs: the table gives each to one worker.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from asrsvc.errors import AsrError
from asrsvc.jobs import signing
from asrsvc.jobs.threads import Threads
from asrsvc.jobs.webhooks import Delivery, Webhooks

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
_TROUBLE_SECONDS: Final = 5.0  # between two looks, while the store cannot be used
_AT_ONCE: Final = 8  # deliveries of a worker
_LEASE_SPARE_SECONDS: Final = 15.0
_LETTING_GO_SECONDS: Final = 5.0  # that a worker which leaves has for what it is delivering
_GONE: Final = 410  # the receiver wants no more (Standard Webhooks)

Send: TypeAlias = Callable[[str, Mapping[str, str], bytes], Awaitable[int]]
"""sends headers and a body to an address, gives HTTP's number for the answer; AsrError: there is none"""
Result: TypeAlias = Literal["delivered", "retried", "given_up"]
RESULTS: Final[tuple[Result, ...]] = ("delivered", "retried", "given_up")
"""of one attempt; retried: it will be tried again"""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a delivery is tried again."""

    patience_seconds: float
    """from the end of the job; then it is given up"""
    first_seconds: float = 5.0
    """pause after the first attempt; each is twice the one before"""
    longest_seconds: float = 3600.0
    """of a pause"""
    jitter: float = 0.2
    """share by which a pause is longer or shorter, by chance: receivers that come back are not overrun"""

    def next(self, delivery: Delivery, now: float, chance: float) -> float | None:
        """When to try again after this one has failed; None: never.

        Args:
            delivery: that has failed.
            now: seconds of the epoch.
            chance: from 0 to 1.
        """
        doublings = min(delivery.attempt - 1, 60)
        pause = min(self.first_seconds * 2.0**doublings, self.longest_seconds)
        again = now + pause * (1 + self.jitter * (2 * chance - 1))
        return again if again <= delivery.ended + self.patience_seconds else None


class Deliverer:
    """Delivers webhooks in one worker's event loop."""

    def __init__(
        self,
        webhooks: Webhooks,
        *,
        send: Send,
        secrets: tuple[str, ...],
        timeout: float,
        schedule: Schedule,
        count: Callable[[Result], None],
    ) -> None:
        """Prepare; `start` begins.

        Args:
            webhooks: of the service.
            send: see `Send`.
            secrets: what is signed with; none: nothing is sent.
            timeout: seconds for one attempt.
            schedule: of the attempts.
            count: told of each attempt.
        """
        self._webhooks = webhooks
        self._send = send
        self._secrets = secrets
        self._timeout = timeout
        self._schedule = schedule
        self._count = count
        self._disk = Threads(1, "asr-webhooks")
        self._hand: set[asyncio.Task[None]] = set()
        self._leaving = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is in hand and, after `leave`, nothing will be."""
        return not self._hand and (self._task is None or self._task.done())

    def start(self) -> None:
        """Begin to look for webhooks, in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._look_for_webhooks(), name="asr-webhooks")

    def wake(self) -> None:
        """Look now: a job has ended."""
        self._wake.set()

    def leave(self) -> None:
        """Take no more; what is not done in a moment is left to another worker."""
        self._leaving = True
        self._wake.set()
        asyncio.get_running_loop().call_later(_LETTING_GO_SECONDS, self._let_go)

    def _let_go(self) -> None:
        for task in self._hand:
            task.cancel()

    async def _look_for_webhooks(self) -> None:
        trouble = ""
        while not self._leaving:
            pause = _LOOK_SECONDS
            try:
                await self._look()
                trouble = ""
            except AsrError as error:
                if error.message != trouble:
                    log.error("webhooks cannot be delivered: %s", error.message, extra={"error": error.code})
                trouble = error.message
                pause = _TROUBLE_SECONDS
            except Exception:  # this task must outlive whatever happens
                log.exception("webhooks cannot be looked for")
                pause = _TROUBLE_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()

    async def _look(self) -> None:
        while len(self._hand) < _AT_ONCE and not self._leaving:
            delivery = await self._disk.run(self._webhooks.take, self._timeout + _LEASE_SPARE_SECONDS)
            if delivery is None:
                return
            task = asyncio.get_running_loop().create_task(self._deliver(delivery))
            self._hand.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._hand.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a delivery failed", exc_info=task.exception())  # its time runs out, then another tries
        self._wake.set()

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            error, gone = await self._attempt(delivery)
        except asyncio.CancelledError:
            error, gone = "the worker left in the middle of it", False
        if not error:
            await self._disk.finish(self._webhooks.delivered, delivery)
            self._note(delivery, "delivered")
            return
        now = time.time()
        again = None if gone else self._schedule.next(delivery, now, random.random())  # noqa: S311 - no secret
        await self._disk.finish(self._webhooks.failed, delivery, error, again)
        self._note(delivery, "given_up" if again is None else "retried", error)

    async def _attempt(self, delivery: Delivery) -> tuple[str, bool]:
        """Why it has not arrived (empty: it has), and whether it never will."""
        if not self._secrets:
            return "there is no secret to sign with any more", False
        headers = {
            "Content-Type": "application/json",
            "webhook-attempt": str(delivery.attempt),
            **signing.headers(delivery.event, time.time(), delivery.body, self._secrets),
        }
        try:
            async with asyncio.timeout(self._timeout):
                status = await self._send(delivery.url, headers, delivery.body)
        except TimeoutError:
            return f"no answer within {self._timeout:g} s", False
        except AsrError as error:
            return error.message, False
        if 200 <= status < 300:
            return "", False
        return f"answered with status {status}; 200 to 299 is right", status == _GONE

    def _note(self, delivery: Delivery, result: Result, error: str = "") -> None:
        self._count(result)
        extra = {
            "job": delivery.job,
            "webhook": delivery.event,
            "attempt": delivery.attempt,
            "result": result,
        }
        if result == "delivered":
            log.info("webhook delivered", extra=extra)
        elif result == "retried":
            log.info("webhook failed: %s", error, extra=extra)
        else:
            log.warning("webhook given up: %s", error, extra=extra)
