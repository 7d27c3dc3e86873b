"""The count of uploads that an application has to answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asrsvc.serving.counted import Counted

UPLOAD = {"type": "http", "method": "POST", "state": {"intake": object()}}


def ask(scope: dict[str, Any], *, answers: bool) -> list[int]:
    """Counts that were seen before the answer began, behind its beginning, and at the end."""
    seen = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        seen.append(counted.uploads)
        if not answers:
            raise ConnectionResetError
        await send({"type": "http.response.start"})
        seen.append(counted.uploads)
        await send({"type": "http.response.body"})
        seen.append(counted.uploads)

    async def send(_message: Any) -> None:
        pass

    changes: list[int] = []
    counted = Counted(app, lambda: changes.append(counted.uploads))
    try:
        asyncio.run(counted(scope, None, send))
    except ConnectionResetError:
        assert not answers
    assert changes == ([] if not seen[0] else [1, 0])
    return [*seen, counted.uploads]


def test_an_upload_counts_until_its_answer_begins() -> None:
    assert ask(UPLOAD, answers=True) == [1, 0, 0, 0]


def test_an_upload_that_ends_without_an_answer_counts_no_more() -> None:
    assert ask(UPLOAD, answers=False) == [1, 0]


@pytest.mark.parametrize(
    "scope",
    [{**UPLOAD, "method": "GET"}, {**UPLOAD, "state": {}}, {"type": "lifespan"}],
    ids=["GET", "no upload", "no request"],
)
def test_nothing_else_counts(scope: dict[str, Any]) -> None:
    assert ask(scope, answers=True) == [0, 0, 0, 0]
