from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asrsvc.errors import StatusError
from asrsvc.serving import status as status_file
from asrsvc.serving.status import (
    Count,
    Counters,
    Master,
    Refused,
    Roll,
    Status,
    VersionNumbers,
    WorkerStatus,
    is_alive,
    read,
    write,
)

TIME = "2026-11-05T10:00:00.000+00:00"
ROLL = Roll(3, "a-01234567", "b-01234567", "soak", TIME)
FULL = Status(
    master=Master(pid=10, code="0.1.0", since=TIME, start_ticks=99, boot_id="x"),
    state="rolling",
    version="a-01234567",
    workers=(
        WorkerStatus(11, "a-01234567", "ready", TIME, forced=True),
        WorkerStatus(12, None, "loading", TIME, baked=True),
    ),
    wanted=2,
    roll=ROLL,
    problems=("`current` is broken",),
    refused=Refused(TIME, "ASR_WORKERS='x' is wrong"),
    counters=Counters(1, 2, 3, (Count("killed", 1),), (Count("failed", 4),)),
    numbers=(VersionNumbers("a-01234567", 9, 1, 2, 30_000, 1000, 1, (0, 9)),),
)
LEAST = Status(FULL.master, "down", None, (), 2)

WRITTEN: dict[str, Any] = {
    "master": {"pid": 10, "code": "0.1.0", "since": TIME, "start_ticks": 99, "boot_id": "x"},
    "state": "rolling",
    "version": "a-01234567",
    "workers": [
        {"pid": 11, "version": "a-01234567", "state": "ready", "since": TIME, "forced": True, "baked": False},
        {"pid": 12, "version": None, "state": "loading", "since": TIME, "forced": False, "baked": True},
    ],
    "wanted": 2,
    "roll": {
        "id": 3,
        "from": "a-01234567",
        "to": "b-01234567",
        "step": "soak",
        "started": TIME,
        "result": None,
        "error": None,
        "ended": None,
        "forced": False,
    },
    "problems": ["`current` is broken"],
    "refused": {"at": TIME, "error": "ASR_WORKERS='x' is wrong"},
    "counters": {
        "restarts": 1,
        "killed_draining": 2,
        "lost_requests": 3,
        "reasons": [{"name": "killed", "number": 1}],
        "rolls": [{"name": "failed", "number": 4}],
    },
    "numbers": [
        {
            "version": "a-01234567",
            "requests": 9,
            "errors": 1,
            "empty": 2,
            "audio_ms": 30_000,
            "busy_ms": 1000,
            "costs": [0, 9],
            "deaths": 1,
        }
    ],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "status.json"


def test_the_file_has_these_keys_and_no_others(path: Path) -> None:
    write(path, FULL)
    assert json.loads(path.read_text()) == WRITTEN
    write(path, LEAST)
    least = json.loads(path.read_text())
    assert set(least) == set(WRITTEN)
    assert (least["roll"], least["refused"], least["version"]) == (None, None, None)
    assert path.stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize("status", [FULL, LEAST])
def test_what_is_written_is_read(path: Path, status: Status) -> None:
    write(path, status)
    assert read(path) == status
    assert list(path.parent.iterdir()) == [path]


def test_a_roll_is_under_way_until_it_has_ended() -> None:
    assert FULL.rolling
    assert not replace(FULL, roll=replace(ROLL, result="failed", ended=TIME)).rolling
    assert not LEAST.rolling


def test_keys_of_a_newer_master_are_no_fault(path: Path) -> None:
    path.write_text(json.dumps({**WRITTEN, "new": 1, "counters": {**WRITTEN["counters"], "new": 1}}))
    assert read(path) == FULL


def test_an_older_master_says_less(path: Path) -> None:
    older = {key: value for key, value in WRITTEN.items() if key != "numbers"}
    path.write_text(json.dumps(older))
    assert read(path) == replace(FULL, numbers=())


def broken(**changes: Any) -> dict[str, Any]:
    return {**WRITTEN, **changes}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "status must be an object"),
        ({}, "status.master is missing"),
        (broken(state="fine"), "status.state must be one of serving, degraded"),
        (broken(wanted="2"), "status.wanted must be of type int"),
        (broken(wanted=True), "status.wanted must be of type int"),
        (broken(version=1), "status.version must be of type str"),
        (broken(workers={}), "status.workers must be a list"),
        (broken(workers=[1]), "status.workers[0] must be an object"),
        (broken(roll={**WRITTEN["roll"], "result": "done"}), "status.roll.result must be one of"),
        (broken(roll={}), "status.roll.id is missing"),
        (broken(master={**WRITTEN["master"], "pid": None}), "status.master.pid must be of type int"),
        (broken(problems=[None]), "status.problems[0] must be of type str"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(path: Path, content: Any, said: str) -> None:
    path.write_text(json.dumps(content))
    with pytest.raises(StatusError, match=re.escape(f"{path} is not the status of a service: {said}")):
        read(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 99999])
def test_what_is_no_json_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StatusError, match="is not JSON"):
        read(path)


def test_a_missing_file_and_a_folder_are_named(path: Path) -> None:
    with pytest.raises(StatusError, match="status.json is not there"):
        read(path)
    path.mkdir()
    with pytest.raises(StatusError, match="status.json cannot be read"):
        read(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", Path("/proc")):
        with pytest.raises(StatusError, match=str(folder / "status.json")):
            write(folder / "status.json", FULL)


def test_a_reader_never_sees_half_a_file(path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; import test_status as t\n"
        "print(flush=True)\nwhile True:\n"
        "    for s in (t.FULL, t.LEAST): t.write(Path(sys.argv[1]), s)"
    )
    write(path, FULL)
    command = [sys.executable, "-c", code, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            seen, end = Counter[str](), time.monotonic() + 180
            while (seen.total() < 2000 or len(seen) < 2) and time.monotonic() < end:
                seen[read(path).state] += 1
        finally:
            process.kill()
    assert set(seen) == {"rolling", "down"}


def test_this_process_is_alive_and_another_of_its_pid_is_not() -> None:
    me = status_file.myself("0.1.0")
    assert me.pid == os.getpid()
    alive = replace(FULL, master=me)
    assert is_alive(alive)
    assert not is_alive(replace(FULL, master=replace(me, start_ticks=me.start_ticks + 1)))
    assert not is_alive(replace(FULL, master=replace(me, boot_id="another run of the machine")))


def test_a_process_that_has_ended_is_dead_also_as_a_zombie() -> None:
    code = "from asrsvc.serving import status; print(status.myself('x').start_ticks, flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ticks = int(process.stdout.readline())
        status = replace(FULL, master=Master(process.pid, "x", TIME, ticks))
        assert is_alive(status)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(status)  # a zombie
    assert not is_alive(status)
