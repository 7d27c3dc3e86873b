"""Health: everybody reads that something is wrong, the operator alone what and where."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from asrsvc import settings
from asrsvc.web.access import Access, Rules
from asrsvc.web.app import Counting, create_apology
from asrsvc.web.ops import NO_MODEL, Problem, health, of_version, said

PATH = "/var/lib/asr/store/current"
WHOLE = f"{PATH} points to versions/secret-01234567, which leads nowhere"
TOKEN = "the-operators-token"


def ask(app: Any, path: str, state: dict[str, Any], **headers: str) -> httpx.Response:
    """One request, with what the server puts into its state."""

    async def with_state(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app=with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(main())


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/v1/models", "/api/jobs"])
def test_who_has_no_model_says_why_to_the_operator_alone(path: str) -> None:
    rules = Rules.of(settings.load({"ASR_ADMIN_TOKEN": TOKEN}, {}))
    counting = Counting(MagicMock(), MagicMock())  # of no interest here
    app = create_apology(WHOLE, Access(rules, None, MagicMock()), counting)
    for answer in (ask(app, path, {}), ask(app, path, {}, Authorization="Bearer wrong")):
        assert answer.status_code == 503
        assert NO_MODEL in answer.text
        assert PATH not in answer.text
        assert "secret" not in answer.text
    for answer in (
        ask(app, path, {"local": True}),
        ask(app, path, {}, Authorization=f"Bearer {TOKEN}"),
    ):
        assert answer.status_code == 503
        assert WHOLE in answer.text


def test_health_of_another_version_than_the_wished_one() -> None:
    known = (
        *of_version((WHOLE, WHOLE + " too"), serves=True),
        Problem("a file is broken", f"{PATH} is broken"),
    )
    operator = False

    def is_operator(_request: Request) -> bool:
        return operator

    app = Starlette(routes=[Route("/health", health("nano-1", lambda: known, is_operator))])
    told = ask(app, "/health", {}).json()
    assert told["status"] == "degraded"
    assert len(told["problems"]) == 2, "each sentence once"
    assert PATH not in str(told)
    assert "secret" not in str(told)
    operator = True
    assert ask(app, "/health", {}).json()["problems"] == [WHOLE, WHOLE + " too", f"{PATH} is broken"]
    assert said((), to_operator=True) == []
