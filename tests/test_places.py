"""Places in a worker: how many requests of each size it works on, and whose."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from asrsvc.serving.lanes import LaneName, Waiting
from asrsvc.serving.limits import NO_TICKET, Allowance, ClientTable
from asrsvc.serving.places import Place, Places
from asrsvc.serving.queue import Ends, Queue

Run = Callable[[Coroutine[Any, Any, Any]], Any]

DEADLINE = 90.0
SHORT, LONG = LaneName.SHORT, LaneName.LONG


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine on the loop of the service and on that of the standard library."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield lambda work: runner.run(asyncio.wait_for(work, DEADLINE))


async def until(condition: Callable[[], Any]) -> None:
    """Wait; the caller has the deadline."""
    while not condition():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.002)


class Taker:
    """Places in front of two queues, and what they have taken."""

    def __init__(
        self,
        *,
        longest_wait: float = 600,
        most_long: int = 2,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self.queues = {name: Queue.create(10) for name in LaneName}
        self.table = ClientTable.create(tickets=50)
        self.taken: list[tuple[socket.socket, Place]] = []
        self.waited: list[float] = []
        self.ahead: list[bool] = []
        self.clients: list[socket.socket] = []
        self.counts: list[int] = []
        self.places = Places(
            self.queues,
            serve=self.serve,
            longest_wait=longest_wait,
            most_long=most_long,
            changed=lambda: self.counts.append(self.places.in_hand),
            tickets=self.table,
            crowded=crowded,
        )
        self.places.start()

    def serve(self, waiting: Waiting, place: Place, *, ahead: bool) -> None:
        os.close(waiting.spool)
        self.waited.append(time.monotonic() - waiting.arrived)
        self.ahead.append(ahead)
        self.taken.append((waiting.connection, place))

    def put(self, name: LaneName, client: int = 1, ticket: int = NO_TICKET) -> socket.socket:
        made, server = socket.socketpair()
        spool = os.memfd_create("request")
        with server:
            assert self.queues[name].put(Waiting(server, spool, time.monotonic(), ticket, client))
        os.close(spool)
        self.clients.append(made)
        return made

    def close(self) -> None:
        self.places.stop()
        for connection, place in self.taken:
            place.release()
            connection.close()
        for client in self.clients:
            client.close()
        for queue in self.queues.values():
            while (turn := queue.take()) is not None:
                turn.waiting.close()
            queue.close()


@asynccontextmanager
async def taker(**options: Any) -> AsyncIterator[Taker]:
    made = Taker(**options)
    try:
        yield made
    finally:
        made.close()


def test_a_worker_works_on_one_short_request_and_several_long_ones(run: Run) -> None:
    async def main() -> None:
        async with taker(most_long=4) as made:
            for client in range(6):
                made.put(LONG, client)
                made.put(SHORT, client)
            await until(lambda: len(made.taken) == 5)
            await asyncio.sleep(0.1)  # nothing may happen
            assert sorted(place.lane for _, place in made.taken) == [SHORT, LONG, LONG, LONG, LONG]
            next(place for _, place in made.taken if place.lane is SHORT).release()
            await until(lambda: len(made.taken) == 6)
            assert made.taken[-1][1].lane is SHORT
            assert made.counts == [1, 2, 3, 4, 5, 4, 5]

    run(main())


def test_one_client_may_have_as_many_long_ones_as_are_left_for_others(run: Run) -> None:
    async def main() -> None:
        async with taker(most_long=4) as made:
            for _ in range(6):
                made.put(LONG, client=1)
            await until(lambda: len(made.taken) == 2)
            await asyncio.sleep(0.1)  # nothing may happen
            assert len(made.taken) == 2
            made.put(LONG, client=2)
            await until(lambda: len(made.taken) == 3)
            assert made.taken[-1][1].client == 2
            made.taken[0][1].release()
            await until(lambda: len(made.taken) == 4)
            assert made.taken[-1][1].client == 1

    run(main())


def test_what_may_not_be_taken_here_is_not_looked_at_all_the_time(run: Run) -> None:
    async def main() -> None:
        async with taker(most_long=2) as made:
            made.put(LONG)
            await until(lambda: len(made.taken) == 1)
            looks = []
            take = made.places._take_one

            def counted(name: LaneName) -> None:
                looks.append(name)
                take(name)

            made.places._take_one = counted  # type: ignore[method-assign]
            began = time.monotonic()
            made.put(LONG)
            await until(lambda: looks)
            await asyncio.sleep(0.5)  # nothing may happen
            assert len(made.taken) == 1
            assert len(looks) <= (time.monotonic() - began) / 0.05 + 2

    run(main())


def test_a_request_that_turns_out_long_keeps_short_ones_out_no_more(run: Run) -> None:
    async def main() -> None:
        async with taker(most_long=2) as made:
            made.put(SHORT)
            await until(lambda: len(made.taken) == 1)
            first = made.taken[0][1]
            assert first.lengthen()
            assert first.is_long
            assert made.places.short_at_work == 0
            made.put(SHORT)
            await until(lambda: len(made.taken) == 2)
            assert not made.taken[1][1].lengthen(), "its client has as many long ones as it may"
            made.put(SHORT, client=2)
            await until(lambda: len(made.taken) == 3)

    run(main())


def test_a_place_is_given_at_once_where_nothing_is_in_hand_and_nobody_waits(run: Run) -> None:
    async def main() -> None:
        async with taker() as made:
            place = made.places.enter(SHORT, 1, NO_TICKET)
            assert place is not None
            assert made.places.enter(SHORT, 1, NO_TICKET) is None
            assert made.places.enter(LONG, 1, NO_TICKET) is None, "another worker may be idle"
            place.release()
            made.put(SHORT)
            assert made.places.enter(SHORT, 1, NO_TICKET) is None, "somebody waits"
            made.places.stop()
            await asyncio.sleep(0.05)
            while (turn := made.queues[SHORT].take()) is not None:
                turn.waiting.close()
            assert made.places.enter(SHORT, 1, NO_TICKET) is None, "this worker leaves"

    run(main())


def test_a_ticket_is_taken_along_and_given_back_once(run: Run) -> None:
    async def main() -> None:
        async with taker() as made:
            tickets = [made.table.enter(Allowance("a")) for _ in range(2)]
            for ticket in tickets:
                assert isinstance(ticket, int)
                made.table.hand_on(ticket)
                made.put(SHORT, ticket=ticket)
            await until(lambda: len(made.taken) == 1)
            made.taken[0][1].release()
            made.taken[0][1].release()
            assert made.table.under_way("a") == 1
            await until(lambda: len(made.taken) == 2)
            made.taken[1][1].handed_on = True
            made.taken[1][1].release()
            assert made.table.under_way("a") == 1, "it goes on elsewhere"

    run(main())


def test_what_a_request_has_cost_counts_against_its_client(run: Run) -> None:
    async def main() -> None:
        async with taker() as made:
            held = made.places.enter(SHORT, 9, NO_TICKET)
            assert held is not None
            for client in (1, 1, 1, 2, 2, 2):
                made.put(SHORT, client)
            held.release()
            order = []
            for number in range(6):
                await until(lambda number=number: len(made.taken) == number + 1)
                place = made.taken[number][1]
                order.append(place.client)
                place.spent = 10.0 if place.client == 1 else 0.001
                place.release()
            assert order == [1, 2, 2, 2, 1, 1]

    run(main())


def test_one_that_has_something_in_hand_lets_an_idle_one_go_first(run: Run) -> None:
    async def main() -> None:
        async with taker() as busy:
            busy.put(LONG)
            await until(lambda: len(busy.taken) == 1)
            idle: list[Place] = []

            def serve(waiting: Waiting, place: Place, *, ahead: bool) -> None:
                assert not ahead
                waiting.close()
                idle.append(place)

            # By descriptors of its own, as another process has them: a loop watches each once.
            queues = {
                name: Queue.inherit(duplicates(queue.descriptors()), 10)
                for name, queue in busy.queues.items()
            }
            other = Places(queues, serve=serve, longest_wait=600, changed=lambda: None, tickets=busy.table)
            other.start()
            try:
                for number in range(1, 11):
                    busy.put(SHORT)
                    await until(lambda number=number: len(idle) + len(busy.taken) == 1 + number)
                    # Else its wait for this one would end just when the next one comes.
                    await until(lambda: not busy.places._pausing)
                    for place in idle:
                        place.release()
            finally:
                other.stop()
                for queue in queues.values():
                    queue.close()
            # Where both are woken at once, the busy one waits: all went to the idle one.
            assert len(idle) == 10

    run(main())


def duplicates(ends: Ends) -> Ends:
    lanes = tuple((os.dup(entrance), os.dup(exit_)) for entrance, exit_ in ends.lanes)
    return Ends(lanes, os.dup(ends.table))


def test_one_whose_client_has_left_the_queue_is_dropped(run: Run) -> None:
    async def main() -> None:
        async with taker() as made:
            made.put(SHORT)
            await until(lambda: len(made.taken) == 1)
            made.put(SHORT).close()
            made.put(SHORT)
            made.taken[0][1].release()
            await until(lambda: len(made.taken) == 2)
            made.clients[2].sendall(b"mine")
            assert made.ahead == [False, False]
            assert made.taken[1][0].recv(10) == b"mine"
            assert len(made.queues[SHORT]) == 0

    run(main())


def test_one_whose_client_has_left_gives_its_ticket_back_before_its_turn(run: Run) -> None:
    """Nothing can be taken here, since a short request is in hand."""

    async def main() -> None:
        async with taker() as made:
            made.put(SHORT)
            await until(lambda: made.taken)
            tickets = [made.table.enter(Allowance("b")) for _ in range(3)]
            for ticket in tickets:
                assert isinstance(ticket, int)
                made.table.hand_on(ticket)
                made.put(SHORT, client=2, ticket=ticket).close()
            stays = made.put(SHORT, client=2)
            assert made.table.under_way("b") == 3
            await until(lambda: not made.table.under_way("b"))
            assert len(made.queues[SHORT]) == 1
            made.taken[0][1].release()
            await until(lambda: len(made.taken) == 2)
            stays.sendall(b"x")
            assert made.taken[1][0].recv(1) == b"x"

    run(main())


def test_one_that_leaves_takes_no_more(run: Run) -> None:
    async def main() -> None:
        async with taker() as made:
            made.places.stop()
            made.put(SHORT)
            await asyncio.sleep(0.05)  # nothing may happen
            assert (made.taken, len(made.queues[SHORT])) == ([], 1)

    run(main())


def test_who_has_waited_too_long_is_served_whatever_else_is_in_hand(run: Run) -> None:
    async def main() -> None:
        async with taker(longest_wait=0.2) as made:
            made.put(SHORT)
            await until(lambda: len(made.taken) == 1)
            made.put(SHORT)
            made.put(LONG)
            await until(lambda: len(made.taken) == 3)
            lanes = [place.lane for _, place in made.taken]
            assert sorted(lanes[1:]) == [SHORT, LONG]
            assert made.waited[lanes.index(SHORT, 1)] >= 0.2
            assert [len(queue) for queue in made.queues.values()] == [0, 0]
            assert made.places.in_hand == 3

    run(main())


def test_who_has_not_waited_too_long_waits_on(run: Run) -> None:
    async def main() -> None:
        async with taker(longest_wait=600) as made:
            made.put(SHORT)
            await until(lambda: len(made.taken) == 1)
            made.put(SHORT)
            made.places._expire()
            assert len(made.taken) == 1
            assert made.queues[SHORT].oldest() is not None

    run(main())


def test_one_more_than_there_are_cores_waits_until_another_has_ended(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asrsvc.serving.places._CROWD_SECONDS", 60)
    full = [True]

    async def main() -> None:
        async with taker(crowded=lambda: full[0]) as made:
            made.put(SHORT)
            await until(lambda: bool(made.places._pausing))
            await asyncio.sleep(0.05)  # nothing may happen
            assert made.taken == []
            full[0] = False
            await until(lambda: len(made.taken) == 1)
            assert made.places.short_at_work == 1

    run(main())


def test_a_long_request_is_begun_however_many_short_ones_are_at_work(run: Run) -> None:
    async def main() -> None:
        async with taker(crowded=lambda: True) as made:
            made.put(LONG)
            await until(lambda: len(made.taken) == 1)
            assert made.places.short_at_work == 0

    run(main())


def test_one_more_than_there_are_cores_does_not_wait_without_end(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asrsvc.serving.places._CROWD_SECONDS", 0.1)

    async def main() -> None:
        async with taker(crowded=lambda: True) as made:
            began = time.monotonic()
            made.put(SHORT)
            await until(lambda: len(made.taken) == 1)
            assert time.monotonic() - began >= 0.1
            made.put(SHORT)  # who has something in hand waits for the idle alone
            made.taken[0][1].release()
            await until(lambda: len(made.taken) == 2)

    run(main())


def test_one_that_stops_while_it_lets_others_go_first_takes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asrsvc.serving.places._COURTESY_SECONDS", 10 * DEADLINE)

    async def main() -> None:
        async with taker() as made:
            made.put(LONG)
            await until(lambda: len(made.taken) == 1)
            made.put(SHORT)
            await until(lambda: bool(made.places._pausing))
            made.places.stop()
            made.places._take_after_all(SHORT, time.monotonic())  # as when its courtesy is over
            assert not made.places._pausing
            assert (len(made.taken), len(made.queues[SHORT])) == (1, 1)

    run(main())
