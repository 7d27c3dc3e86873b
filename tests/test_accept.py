"""Accepting: what becomes of whole, split, late, endless and silent headers."""

from __future__ import annotations

import asyncio
import errno
import json
import select
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
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
from asrsvc.serving.accept import HEAD_BYTES, Acceptor, Head, Limits, parse_head
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
        self.looks = 0
        self.acceptor = Acceptor(
            [(self.listener, options.get("state", {}))],
            serve=options.get("serve", lambda connection, state: self.served.append((connection, state))),
            limits=limits,
            changed=lambda: self.begun.append(self.acceptor.begun),
        )
        self.begun: list[int] = []
        look = self.acceptor._look

        def counted(visitor: Any) -> None:
            self.looks += 1
            look(visitor)

        self.acceptor._look = counted  # type: ignore[method-assign]
        self.acceptor.start()

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


@asynccontextmanager
async def desk(
    *,
    seconds: float = DEADLINE,
    visitors: int = 100,
    family: socket.AddressFamily = socket.AF_INET,
    **options: Any,
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


def test_a_whole_header_is_handed_on_with_nothing_read(run: Run) -> None:
    async def main() -> None:
        async with desk() as made:
            before = time.monotonic()
            client = await made.connect(POST + b"body")
            await until(lambda: made.served)
            ((connection, state),) = made.served
            assert list(state) == ["arrived"]
            assert before <= state["arrived"] <= time.monotonic()
            assert connection.recv(1000) == POST + b"body"
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
            assert made.acceptor.visitors == 0
            client.close()

    run(main())


def test_a_second_request_behind_the_first_is_handed_on_with_it(run: Run) -> None:
    """One connection is handed on once, with all that has come."""

    async def main() -> None:
        async with desk() as made:
            for number, pieces in enumerate(
                ((GET + POST + b"body",), (POST + b"body" + GET,), (GET[:10], GET[10:] + POST[:20])), 1
            ):
                client = await made.connect(*pieces)
                await until(lambda number=number: len(made.served) == number)
                assert made.served[-1][0].recv(1000) == b"".join(pieces)
                client.close()

    run(main())


@pytest.mark.parametrize("local", [False, True])
def test_who_pauses_leaves_connections_to_others(run: Run, *, local: bool) -> None:
    """They wait at the listener, which the other workers have too; operators' are taken all the same."""

    async def main() -> None:
        state = {"local": True} if local else {}
        async with desk(state=state) as made:
            made.acceptor.pause(paused=True)
            client = socket.create_connection(made.listener.getsockname(), timeout=DEADLINE)
            client.sendall(GET)
            if local:
                await until(lambda: made.served)
            else:
                await asyncio.sleep(0.2)  # nothing may happen
                assert not made.served
                assert not made.acceptor.visitors
            made.acceptor.pause(paused=False)
            await until(lambda: made.served)
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
            await until(lambda: len(made.served) == 1)
            client.close()

    run(main())


def test_a_header_byte_by_byte_is_the_same(run: Run) -> None:
    async def main() -> None:
        async with desk() as made:
            client = await made.connect(*(bytes([byte]) for byte in POST))
            await until(lambda: len(made.served) == 1)
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
        async with desk() as made:
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
            await until(lambda: len(made.served) == 1)
            assert made.acceptor.begun == 0
            served = await made.connect(GET)
            await until(lambda: len(made.served) == 2)
            assert made.acceptor.begun == 0
            assert max(made.begun) == 2
            for client in (silent, slow, served):
                client.close()

    run(main())


# Too many, or too late.


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
            await until(lambda: len(made.served) == 1)
            for client in (trickles, *silent[1:]):
                client.close()

    run(main())


def test_above_the_cap_trickling_clients_do_not_keep_a_new_one_out(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "_GRACE_SECONDS", DEADLINE)  # the new one has just come, on any machine

    async def main() -> None:
        async with desk(visitors=3) as made:
            trickling = [await made.connect(POST[:10]) for _ in range(3)]
            new = await made.connect()
            await until(lambda: made.acceptor.visitors == 3)
            with pytest.raises(ConnectionResetError):
                await read_all(trickling[0])
            await asyncio.get_running_loop().sock_sendall(new, POST)
            await until(lambda: len(made.served) == 1)
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
            await until(lambda: len(made.served) == 1)
            assert exhausted.tried <= 5, "it must not spin"
            # uvloop counts in whole milliseconds, and may be early by one of them
            assert time.monotonic() - began >= 1.9 * accept._PAUSE_SECONDS
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
                assert select.select([made.listener], [], [], DEADLINE)[0]
                made.acceptor.stop(empty=empty)
                if empty:
                    await until(lambda made=made: len(made.served) == 1)
                assert len(made.served) == int(empty)
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
