"""The state of an operation, as its file and its process say."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from asrsvc.errors import NotFound
from asrsvc.serving import operations
from asrsvc.serving.operations import Operation, Operations, save
from asrsvc.serving.status import start_ticks

KEY = "0123456789abcdef"


@pytest.fixture
def running(tmp_path: Path) -> Operation:
    """An operation of this very process, saved."""
    (tmp_path / "operations").mkdir()
    pid = os.getpid()
    made = Operation(
        KEY,
        ("reload",),
        "a test",
        "running",
        "2026-01-01T00:00:00Z",
        pid=pid,
        start_ticks=start_ticks(pid) or 0,
    )
    save(tmp_path / "operations", made)
    return made


def test_one_whose_process_lives_is_running(tmp_path: Path, running: Operation) -> None:
    found = Operations(tmp_path).read(KEY)
    assert (found.state, found.pid, found.command) == ("running", running.pid, running.command)


def test_one_whose_process_has_gone_without_a_word_is_lost(tmp_path: Path, running: Operation) -> None:
    save(tmp_path / "operations", replace(running, start_ticks=running.start_ticks + 1))
    assert Operations(tmp_path).read(KEY).state == "lost"


def test_one_that_ends_between_two_looks_is_not_lost(
    tmp_path: Path, running: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = replace(running, state="succeeded", exit_code=0)

    def end_now(_pid: int) -> None:
        save(tmp_path / "operations", ended)

    monkeypatch.setattr(operations, "start_ticks", end_now)
    assert Operations(tmp_path).read(KEY).state == "succeeded"


def test_one_that_nobody_knows_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no operation has the id 'x'"):
        Operations(tmp_path).read("x")
