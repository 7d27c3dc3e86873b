"""Server-sent events: what the client is told, and what the log is told, however a stream ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from asrsvc.errors import BadAudio, Cancelled, InferenceFailed
from asrsvc.web import events as module
from asrsvc.web.events import Event, stream


def run(events: AsyncGenerator[Event, None], *, stalls_after: int | None = None) -> tuple[list[bytes], Any]:
    """Send a stream to a client that takes so many messages; what it got, and the request's state."""
    sent: list[dict[str, Any]] = []
    state: dict[str, Any] = {"note": {}, "request_id": "r-1"}

    async def send(message: Any) -> None:
        if stalls_after is not None and len(sent) >= stalls_after:
            await asyncio.Event().wait()
        sent.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def main() -> None:
        answer = await stream(events)
        await answer({"type": "http", "state": state}, receive, send)

    asyncio.run(main())
    if stalls_after is None:
        assert sent[0]["type"] == "http.response.start"
        assert not sent[-1].get("more_body")
    return [message["body"] for message in sent[1:] if message["body"]], state


async def failing(error: Exception) -> AsyncGenerator[Event, None]:
    yield {"number": 1}
    raise error


def test_events_and_their_end() -> None:
    async def events() -> AsyncGenerator[Event, None]:
        yield {"text": "晚上\n\u2028<b>"}
        yield None

    body, state = run(events())
    assert body == ['data: {"text":"晚上\\n\\u2028<b>"}\n\n'.encode(), b": alive\n\n", b"data: [DONE]\n\n"]
    assert json.loads(body[0][6:]) == {"text": "晚上\n\u2028<b>"}
    assert "outcome" not in state


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BadAudio("file is cut off", param="file"), 400, "audio_undecodable"),
        (InferenceFailed("the engine failed"), 500, "inference_failed"),
        (ZeroDivisionError("secret"), 500, "internal_error"),
    ],
)
def test_what_fails_is_an_event_and_counts(error: Exception, status: int, code: str) -> None:
    body, state = run(failing(error))
    assert body[-1] == b"data: [DONE]\n\n"
    told = json.loads(body[-2][6:])
    assert told["type"] == "error"
    assert told["error"]["code"] == code
    assert "secret" not in told["error"]["message"]
    assert (state["outcome"], state["note"]["error"]) == (status, code)


def test_a_client_that_has_gone_is_told_nothing() -> None:
    events = failing(Cancelled("the client has gone"))

    async def main() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        state: dict[str, Any] = {"note": {}, "request_id": "r-1"}
        await (await stream(events))({"type": "http", "state": state}, None, send)  # type: ignore[arg-type]
        assert (state["outcome"], state["note"]) == (499, {"error": "client_gone"})
        return sent

    assert [message.get("body") for message in asyncio.run(main())][1:] == [b'data: {"number":1}\n\n']


def test_what_fails_before_the_first_event_is_raised() -> None:
    closed = []

    async def events() -> AsyncGenerator[Event, None]:
        try:
            raise BadAudio("no sound")
            yield None
        finally:
            closed.append(1)

    with pytest.raises(BadAudio):
        asyncio.run(stream(events()))  # type: ignore[arg-type]
    assert closed


def test_a_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 0.05)
    closed = []

    async def events() -> AsyncGenerator[Event, None]:
        try:
            while True:
                yield {"number": 1}
        finally:
            closed.append(1)

    body, state = run(events(), stalls_after=5)
    assert len(body) == 4
    assert closed
    assert (state["outcome"], state["note"]["error"]) == (499, "client_stalled")
