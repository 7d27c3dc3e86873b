"""The bounds of a connection: how long, and how much, an unread rest is taken in."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from bodies import connection, head, read_reply
from uvicorn.server import ServerState
from waiting import PATIENCE, wait_for

from asrsvc.serving import protocol

LARGE = 50 * 2**20


async def app(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """Answers before it has read anything; with much, where that is asked for."""
    if scope["path"] == "/large":
        headers = [(b"content-length", b"%d" % LARGE), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(LARGE)})
        return
    headers = [(b"content-length", b"2"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": b"no"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[int]:
    """A server in this process, with the bounds that the test's marker gives; the test sees its state."""
    for name, value in request.param.items():
        monkeypatch.setattr(protocol, name, value)
    config = uvicorn.Config(
        app, loop="uvloop", http=protocol.LingeringProtocol, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    request.node.state = server.server_state
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


def bounds(**values: float) -> Any:
    return pytest.mark.parametrize("port", [values], indirect=True, ids=[" ".join(values)])


def send_until_cut(made: socket.socket) -> int:
    """Send without reading; how many bytes went before the connection was cut."""
    sent = 0
    while True:
        try:
            sent += made.send(bytes(100_000))
        except ConnectionError:
            return sent


@bounds(LINGER_SECONDS=0.5)
def test_a_client_that_never_stops_is_cut_after_a_time(port: int) -> None:
    with connection(port) as made:
        made.sendall(head(length=10**12))
        send_until_cut(made)


@bounds(LINGER_BYTES=10_000_000)
def test_a_client_that_never_stops_is_cut_after_so_many_bytes(port: int) -> None:
    with connection(port) as made:
        made.sendall(head(length=10**12))
        assert send_until_cut(made) >= 10_000_000


@bounds(LINGER_SECONDS=0.5)
def test_a_client_that_stays_is_let_go_after_a_time(port: int) -> None:
    with connection(port) as made:
        made.sendall(head(length=1000))
        reply = read_reply(made)
        assert (reply.status, reply.body) == (413, b"no")


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"no HTTP\r\n\r\n", head(length=10)])
def test_the_application_is_said_to_be_reached_once(sent: bytes) -> None:
    """By a request, by what is none, and by a client that leaves."""
    told: list[None] = []

    async def main() -> None:
        config = uvicorn.Config(app, http=protocol.LingeringProtocol, lifespan="off", log_config=None)
        config.load()
        made = protocol.LingeringProtocol(config=config, server_state=ServerState(), app_state={})
        made.reached = lambda: told.append(None)
        client, server = socket.socketpair()
        client.sendall(sent)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: made, server)
        assert not told
        if not sent:
            client.close()
        async with asyncio.timeout(PATIENCE):
            while not told:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
        client.close()
        await asyncio.sleep(0.05)  # nothing more may come
        assert told == [None]

    asyncio.run(main())


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"no HTTP\r\n\r\n"])
def test_a_connection_that_ends_without_a_request_says_so(sent: bytes) -> None:
    told = threading.Event()

    async def main() -> None:
        config = uvicorn.Config(app, http=protocol.LingeringProtocol, lifespan="off", log_config=None)
        config.load()
        made = protocol.LingeringProtocol(config=config, server_state=ServerState(), app_state={})
        made.unserved = told.set
        client, server = socket.socketpair()
        client.sendall(sent)
        client.close()
        await asyncio.get_running_loop().connect_accepted_socket(lambda: made, server)
        assert await asyncio.to_thread(told.wait, PATIENCE)

    asyncio.run(main())


@bounds(LINGER_IDLE_SECONDS=4.0)
def test_a_client_that_is_silent_is_let_go_sooner_than_one_that_still_sends(port: int) -> None:
    with connection(port) as silent, connection(port) as sends:
        for made in (silent, sends):
            made.sendall(head(length=1000))
            assert read_reply(made).status == 413
        # It sends slowly, but in time on a machine that pauses; and long enough to see the other one cut.
        end = time.monotonic() + 7
        while time.monotonic() < end:
            sends.send(b"x")
            time.sleep(0.1)

        def is_cut() -> bool:
            try:
                silent.send(b"x")  # the first makes the other side say that it has gone
            except ConnectionError:
                return True
            return False

        wait_for("the silent client is cut", is_cut)
        sends.send(b"x")


GET_LARGE = b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n"


@bounds(FLUSH_SECONDS=0.3)
def test_a_client_that_takes_nothing_of_its_answer_is_let_go(
    port: int, request: pytest.FixtureRequest
) -> None:
    with connection(port) as made:
        made.sendall(GET_LARGE)
        assert select.select([made], [], [], PATIENCE)[0], "its answer has begun"
        wait_for("it is let go", lambda: not request.node.state.connections)
        received = 0
        with pytest.raises(ConnectionResetError):
            while data := made.recv(2**20):
                received += len(data)
            raise ConnectionResetError  # or it is told by an end that comes too early
        assert received < LARGE


@bounds(FLUSH_SECONDS=5.0)
def test_a_client_that_takes_its_answer_slowly_gets_all_of_it(port: int) -> None:
    with connection(port) as made:
        made.sendall(GET_LARGE)
        received = 0
        while data := made.recv(2**20):
            received += len(data)
            if received < LARGE // 2:
                time.sleep(0.25)  # over the bound in all, and far from it each, on a machine that pauses too
        assert received > LARGE
