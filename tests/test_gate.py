"""What a request holds is given back before the last byte of its answer goes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from asrsvc import settings
from asrsvc.serving.limits import ClientTable
from asrsvc.web.access import Access, Asked, Rules
from asrsvc.web.answers import JsonResponse
from asrsvc.web.gate import Gate

CLIENT = "address:127.0.0.1"


@dataclass
class Place:
    """A request's place, as the worker would give it."""

    table: ClientTable
    ticket: int
    released: int = 0

    def release(self) -> None:
        self.released += 1
        self.table.leave(self.ticket)


@dataclass
class Heard:
    """What the server is given of an answer, and what the client holds when each piece goes out."""

    table: ClientTable
    pieces: list[dict[str, Any]] = field(default_factory=list)
    held: list[int] = field(default_factory=list)

    async def send(self, message: dict[str, Any]) -> None:
        self.pieces.append(message)
        self.held.append(self.table.under_way(CLIENT))


class FailureError(Exception):
    """Of an application."""


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b"piece"


async def fail(_request: Request) -> Response:
    raise FailureError


APP = Starlette(
    routes=[
        Route("/whole", lambda _request: JsonResponse({}), methods=["POST"]),
        Route("/nothing", lambda _request: Response(status_code=204), methods=["POST"]),
        Route("/stream", lambda _request: StreamingResponse(pieces()), methods=["POST"]),
        Route("/fails", fail, methods=["POST"]),
    ]
)


@pytest.fixture
def access() -> Access:
    rules = Rules.of(settings.load({"ASR_CLIENT_CONCURRENCY": "1"}, {}))
    return Access(rules, None, ClientTable.create(tickets=10))


def scope_of(path: str, state: dict[str, Any], host: str = "localhost") -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [(b"host", host.encode())],
        "client": ("127.0.0.1", 1),
        "state": state,
        "query_string": b"",
    }


def ask(access: Access, path: str, host: str = "localhost", **state: Any) -> Heard:
    heard = Heard(access.table)

    async def receive() -> dict[str, Any]:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def main() -> None:
        with suppress(FailureError):  # goes on to who logs it
            await Gate(APP, access)(scope_of(path, state, host), receive, heard.send)  # type: ignore[arg-type]

    asyncio.run(main())
    return heard


def admit(access: Access, path: str) -> int:
    """Count a request as it is when it enters the queue; its ticket."""
    return access.admit(Asked("POST", path, Headers(), "127.0.0.1")).ticket


def is_whole(piece: dict[str, Any]) -> bool:
    """Whether a client can have its whole answer with this piece."""
    if piece["type"] == "http.response.start":
        lengths = [value for name, value in piece["headers"] if name == b"content-length"]
        return piece["status"] == 204 or lengths == [b"0"]
    return not piece.get("more_body", False)


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize(
    ("path", "status"),
    [("/whole", 200), ("/nothing", 204), ("/stream", 200), ("/fails", 500), ("/none", 404)],
)
def test_whoever_has_the_last_byte_may_ask_again(
    access: Access, path: str, status: int, *, queued: bool
) -> None:
    state: dict[str, Any] = {}
    if queued:  # it was counted when it was put into the queue
        state["place"] = Place(access.table, admit(access, path))
    heard = ask(access, path, **state)
    assert heard.pieces[0]["status"] == status
    assert [held for piece, held in zip(heard.pieces, heard.held, strict=True) if is_whole(piece)]
    for piece, held in zip(heard.pieces, heard.held, strict=True):
        assert held == 0 or not is_whole(piece)
    if path == "/stream":
        assert heard.held[:-1] == [1] * (len(heard.held) - 1), "until then it is at work"
    assert access.table.under_way(CLIENT) == 0


def test_one_that_is_refused_holds_nothing_either(access: Access) -> None:
    ticket = admit(access, "/whole")
    refused = ask(access, "/whole")
    assert (refused.pieces[0]["status"], refused.held) == (429, [1, 1]), "the other one's"
    place = Place(access.table, ticket)
    revoked = ask(access, "/whole", host="elsewhere.example", place=place)
    assert (revoked.pieces[0]["status"], revoked.held[-1]) == (403, 0)


def test_a_ticket_is_given_back_once(access: Access) -> None:
    """It may be another client's when the application has ended."""
    heard = Heard(access.table)
    taken: list[int] = []

    async def send_and_take(message: dict[str, Any]) -> None:
        await heard.send(message)
        if is_whole(message):
            taken.append(admit(access, "/whole"))

    asyncio.run(Gate(APP, access)(scope_of("/whole", {}), None, send_and_take))  # type: ignore[arg-type]
    assert access.table.under_way(CLIENT) == 1
    access.table.leave(taken[0])
    assert access.table.under_way(CLIENT) == 0
