"""What serving/protocol.py and serving/worker.py rely on in uvicorn and uvicorn-worker, and what they add.

uvicorn and uvicorn-worker promise none of this: a new release of either must pass here before the caps
in setup.cfg are moved.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from importlib.metadata import version
from typing import Any

import pytest
import uvicorn
import uvloop
from gunicorn.config import Config as GunicornConfig
from gunicorn.glogging import Logger
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server, ServerState
from uvicorn_worker import UvicornWorker

from asrsvc.serving import protocol
from asrsvc.serving.protocol import LingeringProtocol
from asrsvc.serving.worker import Worker

DEADLINE = 90.0
"""seconds that a test waits for anything"""

Run = Callable[[Coroutine[Any, Any, Any]], Any]
App = Callable[[Any, Any, Any], Awaitable[None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine on the loop of the service and on that of the standard library."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


async def answer(send: Any, status: int = 200, body: bytes = b"done") -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer before anything of the body is read."""
    await answer(send, 413, b"too large")


async def read_all(_scope: Any, receive: Any, send: Any) -> None:
    """Answer with the number of bytes of the body."""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        if not message["more_body"]:
            await answer(send, body=str(size).encode())
            return


def config_of(app: App, http: Any = LingeringProtocol) -> uvicorn.Config:
    worker_kwargs = {**Worker.CONFIG_KWARGS, "http": http, "loop": "asyncio"}
    return uvicorn.Config(app, log_config=None, **worker_kwargs)


@contextlib.asynccontextmanager
async def serving(app: App) -> AsyncIterator[tuple[Server, int]]:
    """uvicorn's own server with our protocol and the worker's options, on a free port."""
    server = Server(config_of(app))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await server.startup(sockets=[listener])
        await server.on_tick(0)  # fills the default headers, as the main loop does before its first sleep
        try:
            async with asyncio.timeout(DEADLINE):
                yield server, listener.getsockname()[1]
        finally:
            await server.shutdown(sockets=[listener])


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait; the caller has the deadline."""
    while not condition():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)


async def exchange(port: int, sent: bytes) -> bytes:
    """Send, and read until the server closes; our side of the connection stays open meanwhile."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def split(response: bytes) -> tuple[bytes, dict[str, str], bytes]:
    head, _, body = response.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    pairs = (line.decode().split(": ", 1) for line in lines)
    return first, {name.lower(): value for name, value in pairs}, body


def test_the_versions_are_those_that_were_read() -> None:
    assert version("uvicorn").startswith("0.54.")
    assert version("uvicorn-worker").startswith("0.4.")


@pytest.mark.parametrize(
    "name",
    [
        "connection_made",
        "connection_lost",
        "data_received",
        "eof_received",
        "send_400_response",
        "shutdown",
        "on_response_complete",
    ],
)
def test_uvicorns_protocol_has_what_ours_overrides_or_calls(name: str) -> None:
    assert callable(getattr(HttpToolsProtocol, name))


@pytest.mark.parametrize(
    "name", ["connection_made", "connection_lost", "data_received", "eof_received", "send_400_response"]
)
def test_ours_takes_the_arguments_that_uvicorns_takes(name: str) -> None:
    theirs = list(inspect.signature(getattr(HttpToolsProtocol, name)).parameters)
    assert list(inspect.signature(getattr(LingeringProtocol, name)).parameters) == theirs


def test_a_config_takes_a_class_for_http() -> None:
    config = config_of(read_all)
    config.load()
    assert config.http_protocol_class is LingeringProtocol
    assert (b"connection", b"close") in config.encoded_headers
    assert not any(name.lower() == b"server" for name, _ in config.encoded_headers)


def test_a_protocol_that_is_made_by_hand_has_what_ours_looks_at(run: Run) -> None:
    async def main() -> None:
        config = config_of(read_all)
        config.load()
        made = LingeringProtocol(config=config, server_state=ServerState(), app_state={})
        assert made.cycle is None
        assert made.loop is asyncio.get_running_loop()
        assert made.server_state.default_headers == []

    run(main())


def test_a_cycle_knows_whether_the_body_goes_on(run: Run) -> None:
    parameters = inspect.signature(RequestResponseCycle.__init__).parameters
    assert {"transport", "default_headers", "keep_alive", "message_event"} <= set(parameters)
    seen: list[tuple[bool, bool]] = []

    async def look(_scope: Any, receive: Any, send: Any) -> None:
        (connection,) = live.server_state.connections
        seen.append((connection.cycle.more_body, connection.cycle.disconnected))
        while (await receive())["more_body"]:
            pass
        seen.append((connection.cycle.more_body, connection.cycle.disconnected))
        await answer(send)

    async def main() -> None:
        nonlocal live
        async with serving(look) as (live, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
            await eventually(lambda: bool(seen))
            writer.write(b"cd")
            await reader.read()
            writer.close()
            await writer.wait_closed()

    live: Server
    run(main())
    assert seen == [(True, False), (False, False)]


@pytest.mark.parametrize("connection", ["keep-alive", "close", ""])
@pytest.mark.parametrize("http", ["1.1", "1.0"])
def test_every_answer_says_close_and_is_followed_by_it(http: str, connection: str, run: Run) -> None:
    async def main() -> bytes:
        async with serving(read_all) as (_, port):
            return await exchange(
                port,
                f"POST / HTTP/{http}\r\nHost: a\r\nConnection: {connection}\r\n"
                f"Content-Length: 3\r\n\r\nabc".encode(),
            )

    first, headers, body = split(run(main()))
    assert first == b"HTTP/1.1 200 OK"
    assert headers["connection"] == "close"
    assert "server" not in headers
    assert body == b"3"


def test_uvicorn_closes_the_transport_once_the_answer_is_complete(run: Run) -> None:
    """It is `transport.close` that ours replaces: the only way in which uvicorn ends a connection."""
    called: list[str] = []

    class Noting(LingeringProtocol):
        def close_gently(self) -> None:
            called.append("answered" if self.cycle.response_complete else "before")
            super().close_gently()

    async def main() -> None:
        server = Server(config_of(read_all, Noting))
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await server.startup(sockets=[listener])
            await server.on_tick(0)
            async with asyncio.timeout(DEADLINE):
                await exchange(listener.getsockname()[1], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await server.shutdown(sockets=[listener])

    run(main())
    assert called[0] == "answered"


def test_default_headers_come_with_the_first_tick_only(run: Run) -> None:
    """So that protocols that are made by hand need them set by hand."""

    async def main() -> None:
        server = Server(config_of(read_all))
        server.config.load()
        assert server.server_state.default_headers == []
        await server.on_tick(0)
        assert (b"connection", b"close") in server.server_state.default_headers

    run(main())


def test_an_answer_before_the_body_arrives_while_the_client_goes_on_sending(run: Run) -> None:
    sent = 8 * 2**20

    async def main() -> tuple[bytes, bool]:
        async with serving(refuse) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {sent}\r\n\r\n".encode())
            for _ in range(sent // 65_536):
                writer.write(b"x" * 65_536)
                await writer.drain()
            response = await reader.read()
            writer.close()
            await writer.wait_closed()
            await eventually(lambda: not server.server_state.connections)
            return response, not server.server_state.tasks

    response, all_done = run(main())
    first, _headers, body = split(response)
    assert first.startswith(b"HTTP/1.1 413 ")
    assert body == b"too large"
    assert all_done


def test_lingering_ends_when_the_client_has_sent_too_much(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(protocol, "LINGER_BYTES", 100_000)

    async def main() -> bool:
        async with serving(refuse) as (_server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
            await reader.readuntil(b"too large")
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"x" * 65_536)
                    await writer.drain()
            with contextlib.suppress(ConnectionError):
                writer.close()
                await writer.wait_closed()
            return True

    assert run(main())


def test_lingering_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.05)

    async def main() -> None:
        async with serving(refuse) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
            await reader.readuntil(b"too large")
            await eventually(lambda: not server.server_state.connections)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    run(main())


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\n\r\n",
    ],
    ids=["words", "TLS", "version", "zero"],
)
def test_what_is_no_http_is_answered_as_all_errors_are(sent: bytes, run: Run) -> None:
    async def main() -> bytes:
        async with serving(read_all) as (_, port):
            return await exchange(port, sent)

    first, headers, body = split(run(main()))
    assert first == b"HTTP/1.1 400 Bad Request"
    assert headers["connection"] == "close"
    assert len(headers["x-request-id"]) == 32
    assert int(headers["content-length"]) == len(body)
    assert json.loads(body)["error"]["code"] == "http_malformed"


def test_a_body_that_turns_malformed_ends_the_request_too(caplog: pytest.LogCaptureFixture, run: Run) -> None:
    """The app hears that the client has gone: an answer of its own could no longer be written."""
    heard: list[str] = []

    async def patient(_scope: Any, receive: Any, send: Any) -> None:
        try:
            async with asyncio.timeout(DEADLINE / 2):
                while True:
                    message = await receive()
                    heard.append(message["type"])
                    if message["type"] == "http.disconnect":
                        return
        except TimeoutError:
            await answer(send, 408, b"the body did not arrive")

    async def main() -> bytes:
        async with serving(patient) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await eventually(lambda: bool(heard))
            writer.write(b"no size\r\n")
            response = await reader.read()
            await eventually(lambda: heard[-1] == "http.disconnect")
            writer.close()
            await writer.wait_closed()
            return response

    first, _headers, body = split(run(main()))
    assert first == b"HTTP/1.1 400 Bad Request"
    assert json.loads(body)["error"]["code"] == "http_malformed"
    assert not [record for record in caplog.records if record.exc_info]


def make(kind: type[Worker], sockets: list[socket.socket]) -> Worker:
    """A worker as gunicorn makes it, in this process."""
    config = GunicornConfig()
    return kind(1, os.getppid(), sockets, None, 30, config, Logger(config))


@pytest.fixture
def made() -> Iterator[Callable[[type[Worker]], Worker]]:
    """`make`, whose traces in this process are removed: a heartbeat file, and how uvicorn logs."""
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "uvicorn.access", "gunicorn.error")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    workers: list[Worker] = []

    def make_one(kind: type[Worker]) -> Worker:
        workers.append(make(kind, []))
        return workers[-1]

    yield make_one
    for worker in workers:
        worker.tmp.close()
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_the_worker_passes_its_options_to_uvicorn(made: Callable[[type[Worker]], Worker]) -> None:
    worker = made(Worker)
    assert worker.config.http is LingeringProtocol
    assert worker.config.headers == [("Connection", "close")]
    assert (worker.config.access_log, worker.config.lifespan, worker.config.ws) == (False, "off", "none")
    assert worker.config.callback_notify == worker.callback_notify
    assert worker.config.timeout_graceful_shutdown is None, "load_wsgi sets it"


def test_uvicorn_worker_has_what_ours_overrides() -> None:
    assert isinstance(UvicornWorker.CONFIG_KWARGS, dict)
    for name in ("load_wsgi", "init_process", "notify", "run"):
        assert callable(getattr(UvicornWorker, name))
