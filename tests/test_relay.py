"""What passes segments from the thread that finds them to the client that takes them."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from asrsvc.errors import Cancelled
from asrsvc.speech.types import Segment
from asrsvc.web import run as module
from asrsvc.web.run import Relay

DEADLINE = 90.0


def segment(number: int) -> Segment:
    return Segment(float(number), number + 1.0, str(number), "en", "unknown", (), 1.0, ())


def tell(relay: Relay, count: int, told: list[int], errors: list[Exception]) -> None:
    try:
        for number in range(count):
            relay.tell(segment(number))
            told.append(number)
    except Cancelled as error:
        errors.append(error)


def test_segments_arrive_in_order_and_no_more_wait_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AHEAD", 5)

    async def main() -> None:
        relay = Relay()
        told: list[int] = []
        thread = threading.Thread(target=tell, args=(relay, 50, told, []))
        thread.start()
        taken = []
        while len(taken) < 50:
            never = asyncio.get_running_loop().create_future()
            await relay.news(never, within=DEADLINE)
            while relay.segments:
                assert len(relay.segments) <= 5
                taken.append(relay.take().text)
                assert len(told) <= len(taken) + 6  # one more may be on its way
        assert taken == [str(number) for number in range(50)]
        thread.join(DEADLINE)
        assert not thread.is_alive()

    asyncio.run(main())


def test_a_thread_whose_client_has_gone_stops_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AHEAD", 2)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)

    async def main() -> None:
        relay = Relay()
        told: list[int] = []
        errors: list[Exception] = []
        thread = threading.Thread(target=tell, args=(relay, 50, told, errors))
        thread.start()
        async with asyncio.timeout(DEADLINE):
            while len(told) < 2:  # noqa: ASYNC110 - a thread
                await asyncio.sleep(0.001)
        relay.cancelled.set()
        await asyncio.to_thread(thread.join, DEADLINE)
        assert not thread.is_alive()
        assert told == [0, 1]
        assert errors

    asyncio.run(main())


def test_news_ends_with_what_it_waits_for() -> None:
    async def main() -> None:
        relay = Relay()
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.call_later(0.01, done.set_result, None)
        async with asyncio.timeout(DEADLINE):
            await relay.news(done, within=None)
        began = time.monotonic()
        await relay.news(loop.create_future(), within=0.05)
        assert time.monotonic() - began >= 0.04

    asyncio.run(main())
