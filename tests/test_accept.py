"""Accepting: what becomes of whole, split, late, endless and silent headers; and places in a worker."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httptools
import pytest
import uvicorn
import uvloop
from bodies import Reply
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from asrsvc.serving import accept
from asrsvc.serving.accept import HEAD_BYTES, Acceptor, Head, Limits, Place, Places, parse_head
from asrsvc.serving.lanes import Lane, LaneName
from asrsvc.serving.limits import NO_TICKET, Allowance, ClientTable
from asrsvc.serving.protocol import LingeringProtocol

Run = Callable[[Coroutine[Any, Any, Any]], Any]

POST = b"POST /api/transcribe?a=b HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nX-Thing: one\r\n\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n"
DEADLINE = 90.0


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine on the loop of the service and on that of the standard library."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield lambda work: runner.run(asyncio.wait_for(work, DEADLINE))


# The header.


def test_a_header_is_read() -> None:
    head = parse_head(POST)
    assert head == Head(
        "POST",
        "/api/transcribe",
        ((b"host", b"test"), (b"content-length", b"4"), (b"x-thing", b"one")),
    )


@given(cut=st.integers(0, len(POST) + 4))
def test_a_header_is_whole_at_its_end_and_no_earlier(cut: int) -> None:
    whole = POST + b"body"
    assert parse_head(whole[:cut]) == (parse_head(whole) if cut >= len(POST) else None)


def test_a_path_is_what_the_application_will_see() -> None:
    head = parse_head(POST.replace(b"/api/transcribe?a=b", b"http://test/api/%74ranscribe?a=b"))
    assert head is not None
    assert head.path == "/api/transcribe"


@given(data=st.binary(max_size=200))
def test_garbage_is_refused_or_not_whole(data: bytes) -> None:
    try:
        head = parse_head(data)
    except httptools.HttpParserError:
        return
    assert head is None or b"\r\n\r\n" in data


def test_what_stands_behind_a_header_is_not_looked_at() -> None:
    chunked = POST.replace(b"Content-Length: 4", b"Transfer-Encoding: chunked")
    assert parse_head(chunked + b"no chunk") is not None
    upgrade = POST.replace(b"X-Thing: one", b"Connection: Upgrade\r\nUpgrade: h2c")
    assert parse_head(upgrade + b"body") is not None


NEXT = (
    b"POST /transcribe HTTP/1.1\r\nHost: other\r\nContent-Length: 5\r\nX-Other: 1\r\n\r\nhello",
    b"GET /other HTTP/1.1\r\n\r\n",
    b"DELETE /api/jobs/x HTTP/1.1\r\nHost: other\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"\r\n\r\nGET /other HTTP/1.0\r\nHost: other\r\n\r\n",
    b"BREW / TEA\r\n\r\n",
    b"\x16\x03\x01" + bytes(100),
)
FIRST = (
    GET,
    GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
    POST + b"body",
    POST.replace(b"Content-Length: 4", b"Transfer-Encoding: chunked") + b"4\r\nbody\r\n0\r\n\r\n",
    POST.replace(b"Content-Length: 4", b"Transfer-Encoding: chunked") + b"0\r\nX-Trailer: t\r\n\r\n",
    POST.replace(b"Content-Length: 4", b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 4") + b"body",
    b"\r\n\r\n" + GET,
    b"HEAD http://test/health?a=b HTTP/1.0\r\n\r\n",
)


@pytest.mark.parametrize("following", NEXT)
@pytest.mark.parametrize("first", FIRST)
def test_a_second_request_behind_the_first_changes_nothing(first: bytes, following: bytes) -> None:
    """Its method, its path and its headers are its own."""
    alone = parse_head(first)
    assert alone is not None
    assert parse_head(first + following) == alone
    assert parse_head(first + following * 3) == alone


@given(
    first=st.sampled_from(FIRST), following=st.sampled_from(NEXT), cut=st.integers(0, 400), more=st.binary()
)
def test_however_much_of_the_next_request_has_come_the_first_is_the_same(
    first: bytes, following: bytes, cut: int, more: bytes
) -> None:
    end = first.index(b"\r\n\r\n", 4) + 4
    whole = first + following + more
    assert parse_head(whole[: max(end, cut)]) == parse_head(first)


# Connections.


class Desk:
    """An acceptor on a free port, and what it has handed on."""

    def __init__(self, family: socket.AddressFamily, path: Path, limits: Limits, **options: Any) -> None:
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(path))
        self.listener.listen(4096)
        self.listener.setblocking(False)
        self.family = family
        self.served: list[tuple[socket.socket, dict[str, Any]]] = []
        self.lanes = {name: Lane.create(options.get("lane", 10)) for name in LaneName}
        self.looks = 0
        self.acceptor = Acceptor(
            [(self.listener, options.get("state", {}))],
            serve=options.get("serve", lambda connection, state: self.served.append((connection, state))),
            lane_of=lambda head: LaneName.SHORT if head.method == "POST" else None,
            lanes=self.lanes,
            limits=limits,
            changed=lambda: self.begun.append(self.acceptor.begun),
            admit=options.get("admit"),
            tickets=options.get("tickets"),
        )
        self.begun: list[int] = []
        look = self.acceptor._look

        def counted(visitor: Any) -> None:
            self.looks += 1
            look(visitor)

        self.acceptor._look = counted  # type: ignore[method-assign]
        self.acceptor.start()

    @property
    def waiting(self) -> int:
        return len(self.lanes[LaneName.SHORT])

    async def connect(self, *sent: bytes) -> socket.socket:
        """A client that has sent these pieces, apart in time."""
        made = socket.socket(self.family, socket.SOCK_STREAM)
        made.setblocking(False)
        if self.family == socket.AF_INET:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(made, self.listener.getsockname())
        for piece in sent:
            await asyncio.get_running_loop().sock_sendall(made, piece)
            looks = self.looks
            await until(lambda looks=looks: self.looks > looks)
        return made

    def close(self) -> None:
        self.acceptor.stop(empty=False)
        self.listener.close()
        for connection, _state in self.served:
            connection.close()
        for lane in self.lanes.values():
            while (waiting := lane.take()) is not None:
                waiting.connection.close()
            for end in (lane._entrance, lane._exit):
                end.close()


@asynccontextmanager
async def desk(
    *, seconds: float = 10, visitors: int = 100, family: socket.AddressFamily = socket.AF_INET, **options: Any
) -> AsyncIterator[Desk]:
    made = Desk(family, options.pop("path", Path()), Limits(seconds, visitors), **options)
    try:
        yield made
    finally:
        made.close()


async def until(condition: Callable[[], Any]) -> None:
    """Wait; the caller has the deadline."""
    while not condition():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.002)


async def read_all(made: socket.socket) -> bytes:
    """What comes until the other side closes; ConnectionResetError if it is cut."""
    raw = b""
    while data := await asyncio.get_running_loop().sock_recv(made, 65536):
        raw += data
    made.close()
    return raw


def test_a_request_for_the_engine_waits_with_nothing_read(run: Run) -> None:
    async def main() -> None:
        async with desk() as made:
            before = time.monotonic()
            client = await made.connect(POST + b"body")
            await until(lambda: made.waiting == 1)
            waiting = made.lanes[LaneName.SHORT].take()
            assert waiting is not None
            assert before <= waiting.arrived <= time.monotonic()
            assert waiting.connection.recv(1000) == POST + b"body"
            assert waiting.connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
            waiting.connection.close()
            assert (made.served, made.acceptor.visitors) == ([], 0)
            client.close()

    run(main())


def test_what_needs_no_engine_is_served_here(run: Run) -> None:
    async def main() -> None:
        async with desk() as made:
            client = await made.connect(GET)
            await until(lambda: made.served)
            ((connection, state),) = made.served
            assert state == {}
            assert connection.recv(1000) == GET
            client.close()

    run(main())


def test_a_second_request_behind_the_first_leads_nowhere(run: Run) -> None:
    """The connection goes where its first request belongs."""

    async def main() -> None:
        async with desk() as made:
            short = await made.connect(GET + POST + b"body")
            await until(lambda: made.served)
            long = await made.connect(POST + b"body" + GET)
            await until(lambda: made.waiting == 1)
            assert len(made.served) == 1
            pieces = await made.connect(GET[:10], GET[10:] + POST[:20])
            await until(lambda: len(made.served) == 2)
            assert made.waiting == 1
            for client in (short, long, pieces):
                client.close()

    run(main())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_header_in_pieces_is_waited_for_without_spinning(
    run: Run, tmp_path: Path, family: socket.AddressFamily
) -> None:
    async def main() -> None:
        async with desk(family=family, path=tmp_path / "socket") as made:
            client = await made.connect(POST[:10], POST[10:30])
            looks = made.looks
            await asyncio.sleep(0.5)  # nothing may happen
            assert made.looks - looks <= (1 if family == socket.AF_INET else 15)
            assert made.acceptor.visitors == 1
            await asyncio.get_running_loop().sock_sendall(client, POST[30:])
            await until(lambda: made.waiting == 1)
            client.close()

    run(main())


def test_a_header_byte_by_byte_is_the_same(run: Run) -> None:
    async def main() -> None:
        async with desk() as made:
            client = await made.connect(*(bytes([byte]) for byte in POST))
            await until(lambda: made.waiting == 1)
            client.close()

    run(main())


def test_a_client_that_leaves_before_its_header_is_whole_is_forgotten(run: Run) -> None:
    async def main() -> None:
        async with desk() as made:
            for sent in ((), (POST[:10],)):
                for reset in (False, True):
                    client = await made.connect(*sent)
                    await until(lambda: made.acceptor.visitors == 1)
                    if reset:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    client.close()
                    await until(lambda: made.acceptor.visitors == 0)
            assert made.served == []

    run(main())


def test_those_that_have_begun_to_send_are_counted_until_they_have_a_place(run: Run) -> None:
    async def main() -> None:
        async with desk(lane=1) as made:
            silent = await made.connect()
            await until(lambda: made.acceptor.visitors == 1)
            assert made.begun[0] == 1, "its request may be on its way"
            await until(lambda: made.acceptor.begun == 0)
            slow = await made.connect(POST[:10])
            await until(lambda: made.acceptor.begun == 1)
            gone = await made.connect(POST[:10])
            await until(lambda: made.acceptor.begun == 2)
            gone.close()
            await until(lambda: made.acceptor.begun == 1)
            await asyncio.get_running_loop().sock_sendall(slow, POST[10:])
            await until(lambda: made.waiting == 1)
            assert made.acceptor.begun == 0
            refused = await made.connect(POST)  # the lane is full
            served = await made.connect(GET)
            await until(lambda: len(made.served) == 2)
            assert made.acceptor.begun == 0
            assert max(made.begun) == 2
            for client in (silent, slow, refused, served):
                client.close()

    run(main())


def test_a_full_lane_is_told_to_who_serves(run: Run) -> None:
    async def main() -> None:
        async with desk(lane=1) as made:
            clients = [await made.connect(POST) for _ in range(2)]
            await until(lambda: made.served)
            assert made.served[0][1] == {"refusal": "over_capacity"}
            assert made.waiting == 1
            for client in clients:
                client.close()

    run(main())


# Clients with limits.


class Door:
    """Lets clients in as long as their table has room for them."""

    def __init__(self, concurrency: int) -> None:
        self.table = ClientTable.create(tickets=20)
        self.allowance = Allowance("somebody", concurrency=concurrency)
        self.peers: list[str] = []

    def admit(self, head: Head, connection: socket.socket) -> Entered | Exception:
        assert head.path == "/api/transcribe"
        self.peers.append(connection.getpeername()[0])
        found = self.table.enter(self.allowance)
        return Entered(self, found) if isinstance(found, int) else LookupError(found.reason)

    @property
    def under_way(self) -> int:
        return self.table.under_way("somebody")


@dataclass
class Entered:
    door: Door
    ticket: int

    def withdraw(self) -> None:
        self.door.table.leave(self.ticket)


def test_who_is_over_its_limit_is_told_and_does_not_wait(run: Run) -> None:
    async def main() -> None:
        door = Door(concurrency=1)
        async with desk(admit=door.admit, tickets=door.table) as made:
            clients = [await made.connect(POST) for _ in range(2)]
            await until(lambda: made.served)
            assert isinstance(made.served[0][1]["denial"], LookupError)
            assert (made.waiting, door.under_way, door.peers) == (1, 1, ["127.0.0.1"] * 2)
            # In the queue it belongs to no process.
            assert door.table.sweep(dead=os.getpid(), longest_wait=60) == 0
            clients.append(await made.connect(GET))  # brings no work
            await until(lambda: len(made.served) == 2)
            for client in clients:
                client.close()

    run(main())


def test_who_finds_the_lane_full_does_not_count(run: Run) -> None:
    async def main() -> None:
        door = Door(concurrency=10)
        async with desk(admit=door.admit, tickets=door.table, lane=1) as made:
            clients = [await made.connect(POST) for _ in range(3)]
            await until(lambda: len(made.served) == 2)
            assert (made.waiting, door.under_way) == (1, 1)
            for client in clients:
                client.close()

    run(main())


def test_a_ticket_goes_through_the_queue_and_is_given_back_at_the_end(run: Run) -> None:
    async def main() -> None:
        door = Door(concurrency=10)
        async with taker(tickets=door.table) as made:
            for _ in range(3):
                ticket = door.table.enter(door.allowance)
                assert isinstance(ticket, int)
                door.table.hand_on(ticket)
                made.put(SHORT, ticket)
            await until(lambda: len(made.taken) == 1)
            made.clients[1].close()  # it leaves the queue
            made.taken[0][1].release()
            await until(lambda: len(made.taken) == 2)
            assert door.under_way == 1
            assert door.table.sweep(dead=os.getpid(), longest_wait=60) == 1  # it belongs to this process
            made.taken[1][1].release()
            made.taken[1][1].release()
            assert door.under_way == 0

    run(main())


def test_a_request_to_the_listener_of_operators_never_waits(run: Run) -> None:
    async def main() -> None:
        async with desk(state={"local": True}) as made:
            client = await made.connect(POST)
            await until(lambda: made.served)
            assert made.waiting == 0
            client.close()

    run(main())


def test_above_the_cap_the_one_that_was_silent_for_longest_is_sent_away(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "_GRACE_SECONDS", 0.0)

    async def main() -> None:
        async with desk(visitors=3) as made:
            trickles = await made.connect(POST[:10])
            silent = [await made.connect() for _ in range(2)]
            await until(lambda: made.acceptor.visitors == 3)
            silent.append(await made.connect())
            assert await read_all(silent[0]) == b""
            assert made.acceptor.visitors == 3
            await asyncio.get_running_loop().sock_sendall(trickles, POST[10:])
            await until(lambda: made.waiting == 1)
            for client in (trickles, *silent[1:]):
                client.close()

    run(main())


def test_above_the_cap_trickling_clients_do_not_keep_a_new_one_out(run: Run) -> None:
    async def main() -> None:
        async with desk(visitors=3) as made:
            trickling = [await made.connect(POST[:10]) for _ in range(3)]
            new = await made.connect()
            await until(lambda: made.acceptor.visitors == 3)
            with pytest.raises(ConnectionResetError):
                await read_all(trickling[0])
            await asyncio.get_running_loop().sock_sendall(new, POST)
            await until(lambda: made.waiting == 1)
            for client in (new, *trickling):
                client.close()

    run(main())


def test_without_descriptors_it_pauses_and_makes_room(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Exhausted:
        """A listener of a process that has no descriptor left."""

        def __init__(self, listener: socket.socket) -> None:
            self.listener = listener
            self.tried = 0

        def fileno(self) -> int:
            return self.listener.fileno()

        def accept(self) -> Any:
            self.tried += 1
            if self.tried <= 2:
                raise OSError(errno.EMFILE, "Too many open files")
            return self.listener.accept()

    monkeypatch.setattr(accept, "_GRACE_SECONDS", 0.0)

    async def main() -> None:
        async with desk() as made:
            silent = await made.connect()
            await until(lambda: made.acceptor.visitors == 1)
            exhausted = Exhausted(made.listener)
            made.acceptor.stop(empty=False)
            made.acceptor._listeners = [(exhausted, {})]  # type: ignore[list-item]
            made.acceptor.start()
            began = time.monotonic()
            client = await made.connect(POST)
            await until(lambda: made.waiting == 1)
            assert exhausted.tried <= 5, "it must not spin"
            assert time.monotonic() - began >= 2 * accept._PAUSE_SECONDS
            assert await read_all(silent) == b""
            client.close()

    run(main())


def test_one_that_stops_takes_what_waits_if_it_is_asked_to(run: Run) -> None:
    async def main() -> None:
        for empty in (True, False):
            async with desk() as made:
                made.acceptor._loop.remove_reader(made.listener.fileno())  # as if it were busy
                client = socket.create_connection(made.listener.getsockname())
                client.sendall(POST)
                made.acceptor.stop(empty=empty)
                if empty:
                    await until(lambda made=made: made.waiting == 1)
                assert made.waiting == int(empty)
                client.close()

    run(main())


# With the protocol that answers.


async def never(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("no application is needed")


def hands_to_protocol() -> tuple[ServerState, Any]:
    config = uvicorn.Config(never, http=LingeringProtocol, lifespan="off", log_config=None)
    config.load()
    server_state = ServerState()
    tasks = set()

    def serve(connection: socket.socket, state: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        protocol = LingeringProtocol(config=config, server_state=server_state, app_state=state)
        tasks.add(loop.create_task(loop.connect_accepted_socket(lambda: protocol, connection)))

    return server_state, serve


async def refused(raw: bytes, status: int, code: str) -> None:
    reply = Reply(raw)
    assert reply.status == status
    assert reply.headers["connection"] == "close"
    assert json.loads(reply.body)["error"]["code"] == code


def test_a_silent_client_is_let_go_at_the_deadline(run: Run) -> None:
    async def main() -> None:
        state, serve = hands_to_protocol()
        async with desk(seconds=0.3, serve=serve) as made:
            client = await made.connect()
            assert await read_all(client) == b""
            assert (made.acceptor.visitors, state.connections) == (0, set())

    run(main())


def test_a_trickling_client_gets_408_at_the_deadline_and_holds_nothing_up(run: Run) -> None:
    async def main() -> None:
        state, serve = hands_to_protocol()
        async with desk(seconds=0.5, serve=serve) as made:
            client = await made.connect(POST[:3])
            loop = asyncio.get_running_loop()
            answer = asyncio.ensure_future(loop.sock_recv(client, 65536))
            for byte in POST[3:-5]:  # it goes on after its answer too
                await asyncio.sleep(0.03)
                try:
                    await loop.sock_sendall(client, bytes([byte]))
                except ConnectionError:
                    break
            else:
                pytest.fail("each byte gave it more time")
            await refused(await answer, 408, "header_timeout")
            await until(lambda: not state.connections)
            client.close()

    run(main())


def test_a_header_without_end_gets_431_though_its_sender_goes_on(run: Run) -> None:
    async def main() -> None:
        state, serve = hands_to_protocol()
        async with desk(serve=serve) as made:
            client = await made.connect()
            sent = POST[:-2] + b"X: y\r\n" * 20_000
            assert len(sent) > 2 * HEAD_BYTES
            await asyncio.get_running_loop().sock_sendall(client, sent)
            client.shutdown(socket.SHUT_WR)
            await refused(await read_all(client), 431, "header_too_large")
            await until(lambda: not state.connections)

    run(main())


@pytest.mark.parametrize("pieces", [(b"\x16\x03\x01\x02\x00\x01",), (b"GET /", b" FTP/1.1\r\n", b"\r\n")])
def test_what_is_no_http_gets_400(run: Run, pieces: tuple[bytes, ...]) -> None:
    async def main() -> None:
        _state, serve = hands_to_protocol()
        async with desk(serve=serve) as made:
            client = await made.connect(*pieces)
            client.shutdown(socket.SHUT_WR)
            await refused(await read_all(client), 400, "http_malformed")

    run(main())


# Places.


class Taker:
    """Places on two lanes, and what they have taken."""

    def __init__(
        self,
        *,
        patience: float = 60,
        longest_wait: float = 600,
        most: int = 3,
        tickets: Any = None,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self.lanes = {name: Lane.create(10) for name in LaneName}
        self.taken: list[tuple[socket.socket, Place]] = []
        self.clients: list[socket.socket] = []
        self.counts: list[int] = []
        self.places = Places(
            self.lanes,
            serve=lambda connection, state: self.taken.append((connection, state["place"])),
            patience=patience,
            longest_wait=longest_wait,
            most=most,
            changed=lambda: self.counts.append(self.places.in_hand),
            tickets=tickets,
            crowded=crowded,
        )
        self.places.start()

    def put(self, name: LaneName, ticket: int = NO_TICKET) -> socket.socket:
        client, server = socket.socketpair()
        with server:
            assert self.lanes[name].put(server, time.monotonic(), ticket)
        self.clients.append(client)
        return client

    def close(self) -> None:
        self.places.stop()
        for connection, place in self.taken:
            place.release()
            connection.close()
        for client in self.clients:
            client.close()
        for lane in self.lanes.values():
            while (waiting := lane.take()) is not None:
                waiting.connection.close()
            for end in (lane._entrance, lane._exit):
                end.close()


@asynccontextmanager
async def taker(**options: Any) -> AsyncIterator[Taker]:
    made = Taker(**options)
    try:
        yield made
    finally:
        made.close()


SHORT, LONG = LaneName.SHORT, LaneName.LONG


def test_one_request_of_each_lane_is_worked_on(run: Run) -> None:
    async def main() -> None:
        async with taker() as made:
            for name in (LONG, LONG, SHORT, SHORT):
                made.put(name)
            await until(lambda: len(made.taken) == 2)
            await asyncio.sleep(0.05)  # nothing may happen
            assert sorted(place.lane for _, place in made.taken) == [SHORT, LONG]
            next(place for _, place in made.taken if place.lane is SHORT).release()
            await until(lambda: len(made.taken) == 3)
            assert made.taken[-1][1].lane is SHORT
            assert made.counts == [1, 2, 1, 2]

    run(main())


def test_a_slow_body_lets_another_begin_but_not_without_end(run: Run) -> None:
    async def main() -> None:
        async with taker(patience=0.02, most=3) as made:
            for _ in range(5):
                made.put(SHORT)
            await until(lambda: len(made.taken) == 3)
            await asyncio.sleep(0.1)  # nothing may happen
            assert made.places.in_hand == 3
            made.taken[0][1].release()
            await until(lambda: len(made.taken) == 4)

    run(main())


def test_a_request_that_turns_out_long_keeps_long_ones_out_and_short_ones_no_more(run: Run) -> None:
    async def main() -> None:
        async with taker() as made:
            made.put(SHORT)
            await until(lambda: len(made.taken) == 1)
            made.taken[0][1].lengthen()
            assert made.places.short_at_work == 0
            made.put(LONG)
            made.put(SHORT)
            await until(lambda: len(made.taken) == 2)
            await asyncio.sleep(0.05)  # nothing may happen
            assert [place.lane for _, place in made.taken] == [LONG, SHORT]
            made.taken[0][1].release()
            await until(lambda: len(made.taken) == 3)
            assert made.taken[2][1].lane is LONG

    run(main())


def test_a_body_that_is_complete_has_the_turn_again(run: Run) -> None:
    async def main() -> None:
        async with taker(patience=0.02) as made:
            made.put(SHORT)
            await until(lambda: made.taken and not made.taken[0][1].holds_turn)
            made.taken[0][1].body_complete()
            made.put(SHORT)
            await asyncio.sleep(0.1)  # nothing may happen
            assert len(made.taken) == 1
            made.taken[0][1].release()
            made.taken[0][1].release()
            await until(lambda: len(made.taken) == 2)
            assert made.places.in_hand == 1

    run(main())


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
            assert made.taken[1][0].recv(10) == b"mine"
            assert len(made.lanes[SHORT]) == 0

    run(main())


def test_one_that_leaves_takes_no_more(run: Run) -> None:
    async def main() -> None:
        async with taker() as made:
            made.places.stop()
            made.put(SHORT)
            await asyncio.sleep(0.05)  # nothing may happen
            assert (made.taken, len(made.lanes[SHORT])) == ([], 1)

    run(main())


def test_who_has_waited_too_long_is_served_whatever_else_is_in_hand(run: Run) -> None:
    async def main() -> None:
        async with taker(longest_wait=0.2, most=1) as made:
            made.put(SHORT)
            await until(lambda: len(made.taken) == 1)
            made.put(SHORT)
            made.put(LONG)
            await asyncio.sleep(0)
            assert len(made.taken) == 1
            await until(lambda: len(made.taken) == 3)
            assert [len(lane) for lane in made.lanes.values()] == [0, 0]
            assert made.places.in_hand == 3

    run(main())


def test_who_has_not_waited_too_long_waits_on(run: Run) -> None:
    async def main() -> None:
        async with taker(longest_wait=600, most=1) as made:
            made.put(SHORT)
            await until(lambda: len(made.taken) == 1)
            made.put(SHORT)
            made.places._expire()
            assert len(made.taken) == 1
            assert made.lanes[SHORT].oldest() is not None

    run(main())


def test_one_that_has_something_in_hand_lets_an_idle_one_go_first(run: Run) -> None:
    async def main() -> None:
        async with taker() as busy:
            busy.put(LONG)
            await until(lambda: len(busy.taken) == 1)
            idle: list[Place] = []
            # The same lanes by descriptors of its own, as another process has them: a loop watches each once.
            lanes = {
                name: Lane.inherit(tuple(os.dup(number) for number in lane.descriptors()), 10)  # type: ignore[arg-type]
                for name, lane in busy.lanes.items()
            }
            other = Places(
                lanes,
                serve=lambda connection, state: (connection.close(), idle.append(state["place"])),
                patience=60,
                longest_wait=600,
                most=3,
                changed=lambda: None,
            )
            other.start()
            try:
                for number in range(1, 11):
                    busy.put(SHORT)
                    await until(lambda number=number: len(idle) + len(busy.taken) == 1 + number)
                    for place in idle:
                        place.release()
            finally:
                other.stop()
                for lane in lanes.values():
                    lane._entrance.close()
                    lane._exit.close()
            # Where both are woken at once, the busy one waits: all went to the idle one.
            assert len(idle) == 10

    run(main())


def test_one_more_than_there_are_cores_waits_until_another_has_ended(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asrsvc.serving.accept._CROWD_SECONDS", 60)
    full = [True]

    async def main() -> None:
        async with taker(crowded=lambda: full[0]) as made:
            made.put(SHORT)
            await until(lambda: bool(made.places._yielding))
            await asyncio.sleep(0.05)  # nothing may happen
            assert made.taken == []
            full[0] = False
            await until(lambda: len(made.taken) == 1)
            assert made.places.short_at_work == 1
            made.taken[0][1].give_way()
            assert made.places.short_at_work == 0
            made.taken[0][1].body_complete()
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
    monkeypatch.setattr("asrsvc.serving.accept._CROWD_SECONDS", 0.1)

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
    monkeypatch.setattr("asrsvc.serving.accept._COURTESY_SECONDS", 2.0)

    async def main() -> None:
        async with taker() as made:
            made.put(LONG)
            await until(lambda: len(made.taken) == 1)
            made.put(SHORT)
            await until(lambda: bool(made.places._yielding))
            made.places.stop()
            await until(lambda: not made.places._yielding)
            assert (len(made.taken), len(made.lanes[SHORT])) == (1, 1)

    run(main())
