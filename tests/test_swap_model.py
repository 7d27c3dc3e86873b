"""bin/swap-model against a process that behaves as a master does."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import waiting
from stores import add, point, served
from waiting import PATIENCE

from asrsvc import errors
from asrsvc.release.cli import main as cli
from asrsvc.release.cli import rolling
from asrsvc.release.store import Store, Version
from asrsvc.serving import status as status_file

STAND_IN = Path(__file__).with_name("stand_in_master.py")


class Place:
    """A runtime folder and a store, a master if need be, and the tool."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        self.runtime = folder / "run"
        self.runtime.mkdir()
        self.checkout = checkout
        self.store = Store(folder / "store")
        self.a = served(self.store, "a")
        self.b = add(self.store, "b")
        self.store.set_current(self.a)
        plain = {name: text for name, text in os.environ.items() if not name.startswith(("ASR_", "PYTHON"))}
        self.environ = {**plain, "ASR_RUNTIME_DIR": str(self.runtime), "ASR_STORE": str(self.store.root)}
        self.masters: list[subprocess.Popen[bytes]] = []

    @property
    def status_path(self) -> Path:
        return self.runtime / "status.json"

    def master(self, behaviour: str, *, step_by_step: bool = False) -> subprocess.Popen[bytes]:
        """Start one; step by step, it takes each step of a roll when it is told to go."""
        command = [sys.executable, STAND_IN, self.runtime, self.store.root, behaviour, self.a.id]
        more = {"PYTHONPATH": str(self.checkout), "STAND_IN_STEP_BY_STEP": "yes" if step_by_step else ""}
        process = subprocess.Popen(command, env={**self.environ, **more})
        self.masters.append(process)
        wait_for(lambda: self.status_path.exists() and self.status().master.pid == process.pid)
        return process

    def status(self) -> status_file.Status:
        return status_file.read(self.status_path)

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "asrsvc.release.cli", *arguments]
        environ = {**self.environ, "PYTHONPATH": str(self.checkout), **more}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=2 * PATIENCE)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def run_step_by_step(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command; the master goes on when the command has told of the step before."""
        with self.start(*arguments) as process:
            assert process.stderr is not None
            assert process.stdout is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if re.search(r"roll \d+ \(", line):
                    self.status_path.with_name("go").touch()
            out = process.stdout.read()
        return subprocess.CompletedProcess(arguments, process.returncode, out, "".join(said))


def wait_for(condition: Callable[[], object]) -> None:
    waiting.wait_for("what the stand-in or a command does", condition)


@pytest.fixture
def place(tmp_path: Path, checkout: Path) -> Iterator[Place]:
    found = Place(tmp_path, checkout)
    yield found
    for process in found.masters:
        process.kill()
        process.wait()


def failed(done: subprocess.CompletedProcess[str], code: int, what: str, serving: str, then: str) -> None:
    """It failed with this code, and its last three lines say what, what serves, and what next."""
    assert done.returncode == code, done.stderr
    first, second, third = done.stderr.splitlines()[-3:]
    assert re.match(f"asrsvc: .*{what}", first), first
    assert re.match(f"serving now: {serving}", second), second
    assert re.match(f"next: .*{then}", third), third


def test_a_reload_prints_each_step_once_and_ends_when_the_new_version_serves(place: Place) -> None:
    place.master("succeeds", step_by_step=True)
    place.store.set_next(place.b)
    done = place.run_step_by_step("reload")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"{place.b.id} serves \(\d+\.\d s\)\n", done.stdout)
    lines = [re.sub(r"^ +\d+\.\d s  ", "", line) for line in done.stderr.splitlines()]
    roll = f"roll 1 ({place.a.id} to {place.b.id})"
    assert lines == [
        f"asked process {place.masters[0].pid}",
        f"{roll}: the first new worker loads",
        f"{roll}: it serves beside the old ones",
        f"{roll}: the other workers follow, one at a time",
        f"{roll}: succeeded",
    ]
    assert place.store.current() == place.b


def test_a_second_reload_does_not_take_the_first_for_its_own(place: Place) -> None:
    place.master("succeeds", step_by_step=True)
    for number in (1, 2):
        done = place.run_step_by_step("reload", "--json")
        assert done.returncode == 0, done.stderr
        assert f"roll {number} ({place.a.id} again)" in done.stderr
        result = json.loads(done.stdout)
        assert (result["roll"]["id"], result["roll"]["result"]) == (number, "succeeded")
        assert result["version"] == place.a.id
        assert result["seconds"] > 0


def test_a_roll_that_fails_is_told_with_the_workers_own_words(place: Place) -> None:
    place.master("fails", step_by_step=True)
    place.store.set_next(place.b)
    done = place.run_step_by_step("reload")
    failed(done, 12, r"roll 1 .* failed: worker 7 said: NaN", rf"{place.a.id} \(1 of 1", "swap-model status")
    assert "back to what served before" in done.stderr
    assert done.stdout == ""


def test_a_failure_as_json(place: Place) -> None:
    place.master("fails")
    done = place.run("reload", "--json")
    assert done.returncode == 12
    result = json.loads(done.stdout)
    assert result["error"]["code"] == "roll_failed"
    assert result["error"]["exit_code"] == 12
    assert "NaN" in result["error"]["message"]
    assert result["serving"] == place.a.id
    assert "swap-model" in result["next"]


def test_a_broken_wish_is_refused_with_its_path(place: Place) -> None:
    place.master("succeeds")
    point(place.store, "next", "versions/gone")
    for _ in range(2):  # the second is no old news
        done = place.run("reload")
        failed(done, 11, "refused to reload: .*/next points to versions/gone", place.a.id, "reload")


def test_settings_that_are_wrong_are_left_to_the_master(place: Place, tmp_path: Path) -> None:
    place.master("succeeds")
    (tmp_path / "asr.conf").write_text("ASR_WORKERS=many\nno line of a file\n")
    done = place.run("reload", ASR_CONFIG=str(tmp_path / "asr.conf"))
    assert done.returncode == 0, done.stderr


def test_a_wrong_setting_that_the_tool_needs_is_told(place: Place) -> None:
    done = place.run("status", ASR_RUNTIME_DIR="relative")
    failed(done, 78, "ASR_RUNTIME_DIR='relative' .environment. is wrong", "unknown", "serve --check")


def test_the_time_to_wait_ends_and_the_roll_goes_on(place: Place) -> None:
    master = place.master("never ends")
    done = place.run("reload", "--timeout", "3")
    if "no roll began" in done.stderr:  # the machine has paused; it begins now
        wait_for(lambda: place.status().rolling)
        done = place.run("reload", "--timeout", "3")
    failed(done, 14, "did not end within 3 s", rf"{place.a.id} .*rolling", "swap-model abort")
    assert master.poll() is None
    assert place.status().rolling


def test_a_master_that_does_not_answer_is_told(place: Place) -> None:
    place.master("ignores")
    done = place.run("reload", "--timeout", "0.3")
    failed(done, 14, "no roll began within 0.3 s", place.a.id, "status")


def test_a_reload_that_never_begins_is_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.master("ignores")
    for name in ("ASR_RUNTIME_DIR", "ASR_STORE"):
        monkeypatch.setenv(name, place.environ[name])
    monkeypatch.setattr(rolling, "BEGIN_SECONDS", 0.3)
    code = cli.main(["reload"])
    done = subprocess.CompletedProcess([], code, *capsys.readouterr())
    failed(done, 14, "began no roll within 0.3 s", place.a.id, "status")


@pytest.mark.parametrize(
    ("behaviour", "said", "serving"),
    [
        ("dies", "has ended", "nothing"),
        ("stops", "is being stopped", "a-"),
        ("is replaced", "has been replaced", "a-"),
    ],
)
def test_a_master_that_goes_meanwhile_is_told(place: Place, behaviour: str, said: str, serving: str) -> None:
    place.master(behaviour)
    failed(place.run("reload", "--timeout", "600"), 10, said, serving, "")


@pytest.mark.parametrize("command", ["status", "reload"])
def test_without_a_service_it_says_so(place: Place, command: str) -> None:
    failed(place.run(command), 10, f"{place.runtime}/status.json is not there", "nothing", "bin/serve")
    shutil.rmtree(place.runtime)
    failed(place.run(command), 10, f"{place.runtime}/status.json is not there", "nothing", "bin/serve")


def test_status_without_a_service_says_what_the_next_start_serves(place: Place) -> None:
    assert f"the next start serves {place.a.id}\n" in place.run("status").stderr
    place.store.set_next(place.b)
    assert f"serves {place.a.id}, then rolls to {place.b.id}\n" in place.run("status").stderr
    place.store.clear_next()
    point(place.store, "current", place.b)
    assert f"serves {place.a.id}, then rolls to {place.b.id}\n" in place.run("status").stderr
    shutil.rmtree(place.store.root)
    assert "serves the embedded model" in place.run("status").stderr


def test_a_dead_master_gets_no_signal(place: Place) -> None:
    master = place.master("succeeds")
    master.kill()
    master.wait()
    for command in ("status", "reload"):
        failed(place.run(command), 10, f"process {master.pid} .* has ended", "nothing", "bin/serve")


def test_another_process_under_the_masters_pid_gets_no_signal(place: Place) -> None:
    place.master("succeeds")
    status = place.status()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        stale = replace(status, master=replace(status.master, pid=other.pid))
        status_file.write(place.status_path, stale)
        failed(place.run("reload"), 10, f"process {other.pid} .* has ended", "nothing", "bin/serve")
        assert other.poll() is None  # SIGHUP would have ended it


def test_a_damaged_status_file_is_named(place: Place) -> None:
    place.status_path.write_text("{")
    failed(place.run("reload"), 10, "status.json is not JSON", "unknown", "restart")


def test_another_users_master_is_left_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.master("succeeds")
    for name in ("ASR_RUNTIME_DIR", "ASR_STORE"):
        monkeypatch.setenv(name, place.environ[name])

    def not_yours(*_: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "kill", not_yours)
    monkeypatch.setattr(signal, "pidfd_send_signal", not_yours)  # root's way
    code = cli.main(["reload"])
    done = subprocess.CompletedProcess([], code, *capsys.readouterr())
    owner = Path(f"/proc/{place.masters[0].pid}").owner()
    failed(done, 77, f"takes signals from {owner} and root alone", place.a.id, "sudo")


def test_two_reloads_at_once_both_end(place: Place) -> None:
    place.master("succeeds")
    place.store.set_next(place.b)
    runs = [place.start("reload") for _ in range(2)]
    for process in runs:
        out, err = process.communicate(timeout=2 * PATIENCE)
        assert process.returncode == 0, err
        assert out.startswith(f"{place.b.id} serves")
    wait_for(lambda: not place.status().rolling)


def test_a_reload_during_a_roll_waits_for_its_own(place: Place) -> None:
    place.master("waits")
    os.kill(place.masters[0].pid, signal.SIGHUP)
    wait_for(lambda: place.status().rolling)
    process = place.start("reload", "--json")
    assert process.stderr is not None
    assert f"roll 1 ({place.a.id} again) is under way and ends first" in process.stderr.readline()
    place.status_path.with_name("go").touch()
    out, err = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 0, err
    assert json.loads(out)["roll"]["id"] == 2


def test_an_interrupted_reload_says_that_the_roll_goes_on(place: Place) -> None:
    place.master("never ends")
    process = place.start("reload")
    wait_for(lambda: place.status().rolling)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted; what was begun goes on")
    assert "Traceback" not in err


# abort


def rolling_to(place: Place, version: Version, *, by_hand: bool = False) -> None:
    place.master("never ends")
    if by_hand:
        point(place.store, "current", version)
    else:
        place.store.set_next(version)
    os.kill(place.masters[0].pid, signal.SIGHUP)
    wait_for(lambda: place.status().rolling)


def test_abort_undoes_the_roll_and_takes_the_wish_back(place: Place) -> None:
    rolling_to(place, place.b)
    waiting = place.start("reload")
    assert waiting.stderr is not None
    while "asked process" not in waiting.stderr.readline():
        pass
    done = place.run("abort")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"roll 1 ({place.a.id} to {place.b.id}) was undone; {place.a.id} serves\n"
    assert place.store.pointer("next") is None
    assert place.store.current() == place.a
    waiting.kill()
    waiting.communicate()


def test_abort_undoes_a_wish_that_was_made_by_hand(place: Place) -> None:
    rolling_to(place, place.b, by_hand=True)
    done = place.run("abort", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["wish"], result["version"], result["roll"]["result"]) == (None, place.a.id, "aborted")
    assert place.store.current() == place.a


def test_who_waits_for_a_roll_that_is_called_off_is_told(place: Place) -> None:
    place.master("never ends")
    place.store.set_next(place.b)
    waiting = place.start("reload")
    wait_for(lambda: place.status().rolling)
    assert place.run("abort").returncode == 0
    out, err = waiting.communicate(timeout=2 * PATIENCE)
    done = subprocess.CompletedProcess([], waiting.returncode, out, err)
    failed(done, 13, "was called off", place.a.id, "status")


def test_abort_of_a_plain_reload_has_nothing_to_go_back_to(place: Place) -> None:
    rolling_to(place, place.a)
    failed(place.run("abort"), 15, "no other version to go back to", place.a.id, "status")


def test_abort_without_a_roll_says_so_and_takes_the_wish_back(place: Place) -> None:
    place.master("succeeds")
    assert place.run("abort").stdout == "no roll is under way\n"
    place.store.set_next(place.b)
    done = place.run("abort")
    assert done.stdout == f"no roll is under way; the wish for {place.b.id} was taken back\n"
    assert place.store.pointer("next") is None
    assert place.status().roll is None


def test_abort_without_a_service_says_what_the_next_start_serves(place: Place) -> None:
    place.store.set_next(place.b)
    done = place.run("abort")
    assert done.returncode == 0, done.stderr
    said = (
        f"no service is running; the wish for {place.b.id} was taken back; the next start serves {place.a.id}"
    )
    assert done.stdout == said + "\n"


def test_abort_needs_no_lock_since_who_holds_it_waits_for_the_roll(place: Place) -> None:
    rolling_to(place, place.b)
    with place.store.lock():
        done = place.run("abort")
    assert done.returncode == 0, done.stderr
    assert place.store.pointer("next") is None


# status


def test_status_prints_workers_roll_and_what_is_wrong(place: Place) -> None:
    place.master("fails")
    assert place.run("status").stdout.startswith(f"serving: {place.a.id}, 1 of 1 workers ready\n")
    place.run("reload")
    point(place.store, "next", "versions/gone")
    place.run("reload")
    done = place.run("status")
    assert done.returncode == 0, done.stderr
    pid = place.masters[0].pid
    for words in (f"master: process {pid}, code 1.2.3", f"worker: process {pid}, ready", "NaN in the logits"):
        assert words in done.stdout
    assert re.search(r"reload refused .*/next points to versions/gone", done.stdout)


def test_status_as_json_is_the_status_file(place: Place) -> None:
    place.master("succeeds")
    done = place.run("status", "--json")
    assert json.loads(done.stdout) == json.loads(place.status_path.read_text())


def test_a_reader_that_leaves_is_no_fault(place: Place) -> None:
    place.master("succeeds")
    process = place.start("status")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(PATIENCE) == 0
    process.stderr.close()


# The program


def test_what_was_not_foreseen_is_told_as_such(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ASR_RUNTIME_DIR", str(tmp_path))

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("x")

    command = replace(cli._COMMANDS[0], run=broken, arguments=None)
    monkeypatch.setattr(cli, "_COMMANDS", (command,))
    assert cli.main([command.name]) == 3
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert (
        "asrsvc: an error that was not foreseen: ZeroDivisionError: x\nserving now: nothing; the next start "
        in said
    )


@pytest.mark.parametrize(
    "arguments", [[], ["unknown"], ["reload", "--timeout", "-1"], ["reload", "--tim", "1"]]
)
def test_unknown_arguments_are_refused(arguments: list[str], place: Place) -> None:
    done = place.run(*arguments)
    assert done.returncode == 2
    assert "usage: bin/swap-model" in done.stderr


def test_every_exit_code_is_in_the_help_and_every_error_has_a_next_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    told = {int(code) for code in re.findall(r"^  (\d+) ", text, flags=re.MULTILINE)}
    operators = [kind for kind, _ in cli._NEXT_COMMANDS if hasattr(kind, "exit_code")]
    assert told >= {kind.exit_code for kind in operators} | {0, 1, 2, 3, 69, 130}
    after = errors.__dict__.values()
    named = {kind for kind in after if isinstance(kind, type) and getattr(kind, "exit_code", 1) >= 10}
    assert named <= set(operators)
    for command in cli._COMMANDS:
        assert command.summary in " ".join(text.split())


def test_the_program_needs_nothing_installed(checkout: Path, tmp_path: Path) -> None:
    copy = tmp_path / "fresh clone"
    for name in ("bin", "asrsvc"):
        shutil.copytree(checkout / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "models"))
    (copy / "gunicorn.conf.py").touch()
    (tmp_path / "argparse.py").write_text("raise SystemExit('the wrong argparse')")
    (tmp_path / "link").symlink_to(copy / "bin" / "swap-model")
    plain = {name: text for name, text in os.environ.items() if not name.startswith(("ASR_", "PYTHON"))}
    environ = {**plain, "ASR_PYTHON": sys.executable}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["./link", *arguments], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )

    done = run("--help")
    assert done.returncode == 0, done.stderr
    assert "exit codes:" in done.stdout
    done = run("status")
    failed(done, 10, f"{copy}/var/run/status.json is not there", "nothing", "bin/serve")
    assert not (copy / ".venv").exists()
    assert not (copy / "var").exists()
