"""A child of a trial, whatever it does: an answer or a sentence, in time, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import PATIENCE

from asrsvc.release import process
from asrsvc.release.process import Child, ChildBroke, ChildRefused, Limits, plain

MEMORY = 200 * 2**20


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> Iterator[Child]:
    monkeypatch.setenv("PYTHONPATH", f"{checkout / 'tests'}:{checkout}")
    monkeypatch.setattr(process, "_END_SECONDS", PATIENCE)
    found = Child("bad_children", Limits(MEMORY, time.monotonic() + 3 * PATIENCE))
    try:
        yield found
    finally:
        found.end()
    assert not psutil.pid_exists(found.pid)


def ask(child: Child, do: str, seconds: float = PATIENCE, **more: Any) -> dict[str, Any]:
    return child.ask({"do": do, **more}, doing="at work", seconds=seconds)


def test_it_answers_one_question_after_the_other(child: Child) -> None:
    for number in range(3):
        assert ask(child, "echo", number=number)["number"] == number
    assert 1 < child.peak_bytes / 2**20 < 100


def test_a_long_question_arrives(child: Child) -> None:
    assert len(ask(child, "echo", text="x" * 2**21)["text"]) == 2**21


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "1", "null", "{}", '{"ok": 1}', '{"error": 1}', '{"error": {}}', "\xff\xfe", "[" * 10**5],
)
def test_an_answer_that_is_none_is_told(child: Child, line: str) -> None:
    with pytest.raises(ChildBroke, match="^its answer makes no sense at work$"):
        ask(child, "garbage", line=line)


def test_an_answer_without_end_is_cut(child: Child) -> None:
    with pytest.raises(ChildBroke, match="its answer is longer than 16 MiB at work"):
        ask(child, "flood")


def test_an_error_keeps_its_class_and_loses_what_controls_a_terminal(child: Child) -> None:
    with pytest.raises(ChildRefused, match=r"^no \\x1b\[31mway$") as caught:
        ask(child, "garbage", line='{"error": {"kind": "ModelError", "message": "no\\n\\u001b[31mway"}}')
    assert caught.value.kind == "ModelError"


def test_it_is_waited_for_no_longer_than_said(child: Child) -> None:
    began = time.monotonic()
    with pytest.raises(ChildBroke, match=r"^it gave no answer within 0\.5 s at work$"):
        ask(child, "hang", seconds=0.5)
    assert time.monotonic() - began < 100


@pytest.mark.parametrize(
    ("do", "more", "says"),
    [
        ("exit", {"code": 3}, r"its process ended with exit code 3 \(last \\x1b\[31mwords3\) at work"),
        ("exit", {"code": 0}, "its process ended with exit code 0"),
        ("kill", {"signal": "SIGSEGV"}, "its process was killed by SIGSEGV at work"),
        ("kill", {"signal": "SIGKILL"}, "killed by SIGKILL, as the kernel does for want of memory at work"),
        ("kill", {"signal": "SIGXCPU"}, "killed by SIGXCPU: too much CPU time at work"),
    ],
)
def test_its_end_is_told_with_its_last_words(child: Child, do: str, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ChildBroke, match=says):
        ask(child, do, **more)


def test_its_memory_is_limited(child: Child) -> None:
    with pytest.raises(ChildBroke, match=r"^it held \d+ MiB of memory at work; 200 MiB is the limit$"):
        ask(child, "eat")
    assert MEMORY < child.peak_bytes < 6 * MEMORY


def test_it_may_say_much_beside_its_answers(child: Child) -> None:
    assert ask(child, "chatter") == {}


def test_what_it_has_started_ends_with_it(child: Child) -> None:
    started = psutil.Process(ask(child, "spawn")["pid"])
    child.end()
    psutil.wait_procs([started], timeout=PATIENCE)
    assert not started.is_running() or started.status() == psutil.STATUS_ZOMBIE


def test_it_ends_when_its_parent_is_killed(checkout: Path) -> None:
    """Whatever it is at: it must not go on unseen."""
    parent_code = (
        "import time\n"
        "from asrsvc.release.process import Child, Limits\n"
        "child = Child('asrsvc.release.trial.child', Limits(2**32, time.monotonic() + 1000))\n"
        "child.ask({'do': 'hello'}, doing='', seconds=600)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(checkout)}
    with subprocess.Popen([sys.executable, "-c", parent_code], env=environ, stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            child = psutil.Process(int(parent.stdout.readline()))
            assert child.nice() >= min(19, psutil.Process().nice() + 10)
        finally:
            parent.kill()
    gone, _ = psutil.wait_procs([child], timeout=PATIENCE)
    assert gone or child.status() == psutil.STATUS_ZOMBIE


def test_a_terminal_is_shown_what_would_control_it() -> None:
    assert plain("a\tb\x00\x1b[2J中") == "a b\\x00\\x1b[2J中"
