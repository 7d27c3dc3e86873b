"""Root runs our programs on folders of another user, who has planted links and pipes there."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from another_user import (
    NAMELESS,
    NOBODY,
    World,
    as_user,
    in_reach,
    model_folder,
    out_of_reach,
    why_not,
    world,
)
from waiting import PATIENCE, wait_for

from asrsvc.serving import status as status_file
from asrsvc.serving.status import Status

_REASON = why_not()
pytestmark = pytest.mark.skipif(_REASON is not None, reason=str(_REASON))

REFUSED = 79


@pytest.fixture
def place() -> Iterator[World]:
    with world() as found:
        yield found


@pytest.fixture
def source(place: World) -> Path:
    return model_folder(place.folder / "models" / "nano")


def give_to_root(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, 0, 0)


# Links in the store


@pytest.mark.parametrize("command", [("prune", "--keep", "5"), ("pull", "SOURCE")])
@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("store/lock", "shadow"),
        ("store/lock", "new-file"),
        ("store/staging", "."),
        ("store/staging/pull-0123456789abcdef", "."),
        ("store/versions", "."),
        ("store/records", "."),
        ("store/served", "."),
        ("store/baked", "."),
        ("store/pointers", "."),
        ("store/golden", "."),
        ("store/removed-01234567", "."),
        ("store/journal.jsonl", "shadow"),
        ("store/journal.1.jsonl", "new-file"),
        ("store/next", "sub"),
        ("store/current", "."),
        ("store/.next-01234567", "shadow"),
        ("store/watched", "shadow"),
        ("run/status.json", "shadow"),
        ("store", "."),
    ],
)
def test_a_link_in_the_store_leads_root_nowhere(
    name: str, target: str, command: tuple[str, ...], place: World, source: Path
) -> None:
    place.plant(name, place.victim / target)
    os.utime(place.victim, (0, 0))  # old enough to be swept
    done = place.tool(*[str(source) if word == "SOURCE" else word for word in command])
    assert "Traceback" not in done.stderr
    place.unharmed()
    if (
        command[0] == "pull"
        and target != "sub"
        and Path(name).name in {"lock", "staging", "versions", "store"}
    ):
        assert done.returncode != 0


@pytest.mark.parametrize("name", ["lock", "journal.jsonl", "journal.1.jsonl", "records/a-01234567.json"])
def test_a_pipe_in_the_store_holds_root_up_no_longer_than_a_moment(
    name: str, place: World, source: Path
) -> None:
    as_user(NOBODY, "mkdir", "-p", (place.store / name).parent, place.store / "versions" / "a-01234567")
    as_user(NOBODY, "mkfifo", place.store / name)
    for command in (("list",), ("history",), ("pull", str(source)), ("prune", "--keep", "0")):
        done = place.tool(*command)  # ends at all
        assert "Traceback" not in done.stderr


def test_what_root_does_in_the_store_of_another_user_is_that_users(place: World, source: Path) -> None:
    done = place.tool("pull", source, "--json")
    assert done.returncode == 0, done.stderr
    assert f"goes on as nobody, whom ASR_STORE={place.store} belongs to" in done.stderr
    version = json.loads(done.stdout)["version"]
    assert place.tool("activate", version, "--force").returncode == 0
    assert place.owners(place.store) == {(NOBODY, NOBODY)}
    assert json.loads(place.tool("list", "--json").stdout)["versions"][0]["version"] == version
    history = json.loads(place.tool("history", "--json").stdout)["history"]
    actors = {(entry["actor"]["user"], entry["actor"]["on_behalf_of"]) for entry in history}
    assert actors == {("nobody", "root")}
    place.unharmed()


def test_the_history_says_who_was_behind_sudo(place: World, source: Path) -> None:
    assert place.tool("pull", source, SUDO_USER="alice").returncode == 0
    (entry,) = json.loads(place.tool("history", "--json").stdout)["history"]
    assert (entry["actor"]["user"], entry["actor"]["on_behalf_of"]) == ("nobody", "alice")


def test_an_owner_without_a_name_is_taken_by_its_number(source: Path) -> None:
    with world(NAMELESS) as place:
        done = place.tool("pull", source)
        assert done.returncode == 0, done.stderr
        assert f"goes on as {NAMELESS}, whom" in done.stderr
        assert place.owners(place.store) == {(NAMELESS, NAMELESS)}


def test_a_store_that_is_missing_is_made_by_whom_its_folder_belongs_to(place: World, source: Path) -> None:
    inner = place.store / "deeper" / "store"
    assert place.tool("pull", source, ASR_STORE=str(inner)).returncode == 0
    assert place.owners(place.store) == {(NOBODY, NOBODY)}


def test_the_environment_becomes_the_owners(place: World) -> None:
    script = (
        "import argparse, json, os\n"
        "from asrsvc.release.cli.command import Context\n"
        "from asrsvc.release.cli.root_user import leave_root\n"
        "leave_root(Context('tool', as_json=False), argparse.Namespace())\n"
        "names = ('HOME', 'USER', 'LOGNAME', 'XDG_STATE_HOME', 'TMPDIR')\n"
        "ids = [os.getresuid(), os.getresgid(), os.getgroups()]\n"
        "print(json.dumps([{n: os.environ.get(n) for n in names}, os.umask(0), ids]))\n"
    )
    private = place.folder / "private"
    private.mkdir(mode=0o700)
    done = subprocess.run(
        in_reach(sys.executable, "-P", "-c", script),
        env={**place.environ, "HOME": "/root", "TMPDIR": str(private)},
        umask=0o077,
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    environ, mask, ids = json.loads(done.stdout)
    assert environ == {
        "HOME": "/nonexistent",
        "USER": "nobody",
        "LOGNAME": "nobody",
        "XDG_STATE_HOME": "/root/.local/state",
        "TMPDIR": None,
    }
    assert mask == 0o022
    group = pwd.getpwuid(NOBODY).pw_gid
    assert ids == [[NOBODY] * 3, [group] * 3, [group]]


# Sources


def test_a_source_that_root_alone_can_read_is_copied(place: World, source: Path) -> None:
    for path in source.iterdir():
        path.chmod(0o600)
    source.parent.chmod(0o700)
    done = place.tool("pull", source)
    assert done.returncode == 0, done.stderr
    assert place.owners(place.store) == {(NOBODY, NOBODY)}
    (model,) = place.store.glob("versions/*/model_quant.onnx")
    assert model.read_text() == "nano model_quant.onnx"


def test_a_source_that_another_user_alone_can_read_is_copied_with_that_users_rights(
    place: World, source: Path
) -> None:
    for path in (source, *source.iterdir()):
        os.chown(path, NAMELESS, NAMELESS)
        path.chmod(0o700 if path.is_dir() else 0o600)
    done = place.tool("pull", source)
    assert done.returncode == 0, done.stderr
    assert place.owners(place.store) == {(NOBODY, NOBODY)}


@pytest.mark.parametrize("inside", [True, False])
def test_a_link_in_the_source_of_another_user_shows_nobody_what_is_roots(
    inside: bool, place: World, source: Path
) -> None:
    secret = (source if inside else place.victim) / "secret"
    secret.write_text("root's secret")
    secret.chmod(0o600)
    for path in (source, *(source / name for name in ("am.mvn", "config.yaml", "model_quant.onnx"))):
        os.chown(path, NAMELESS, NAMELESS)
    as_user(NAMELESS, "rm", source / "am.mvn")
    as_user(NAMELESS, "ln", "-s", secret, source / "am.mvn")
    done = place.tool("pull", source)
    assert done.returncode in {5, 20}, done.stderr
    for path in place.store.rglob("*"):
        assert not path.is_file() or "secret" not in path.read_text()


def test_a_source_that_nobody_may_read_is_told_with_the_user(place: World, source: Path) -> None:
    # a folder of root's in one of another user's, who may not read it either
    os.chown(source.parent, NAMELESS, NAMELESS)
    source.parent.chmod(0o700)
    for path in source.iterdir():
        path.chmod(0o600)
    done = place.tool("pull", source)
    assert done.returncode == 2
    assert re.search(r"asrsvc: '.*nano' is no folder that can be read; .* \(as nobody\)", done.stderr)


# Where the owner of the store cannot run our programs, as where Python lies in root's home


def test_what_needs_no_other_process_is_done_all_the_same(place: World, source: Path) -> None:
    place.reach = out_of_reach
    done = place.tool("pull", source, "--json")
    assert done.returncode == 0, done.stderr
    version = json.loads(done.stdout)["version"]
    for command in (("list",), ("history",), ("verify", version), ("prune", "--keep", "0")):
        assert place.tool(*command).returncode == 0, command
    assert place.tool("rollback").returncode == 44
    assert place.tool("status").returncode == 10
    assert place.tool("pull", place.folder / "missing").returncode == REFUSED
    assert place.keys("--file", place.state / "keys.json", "add", "ci", "--expires", "1d").returncode == 0
    assert place.owners(place.store) | place.owners(place.state) == {(NOBODY, NOBODY)}


def test_what_starts_processes_is_refused_with_the_path_that_is_out_of_reach(
    place: World, source: Path
) -> None:
    place.reach = out_of_reach
    for command in (("try", "a"), ("deploy", str(source)), ("bake", "a"), ("pull", "hf:org/model")):
        refused(place.tool(*command), f"nobody, whom ASR_STORE={place.store} belongs to, cannot read ")
    refused(place.serve("--check"), f"nobody, whom ASR_STORE={place.store} belongs to, cannot read ")
    assert list(place.store.iterdir()) == []


# What is nobody's, or everybody's


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode == REFUSED, done.stderr
    for words in said:
        assert words in done.stderr
    assert "Traceback" not in done.stderr


def root_alone(place: World) -> None:
    give_to_root(place.store)


def test_a_store_that_only_root_can_change_stays_roots_and_is_readable(place: World, source: Path) -> None:
    root_alone(place)
    done = place.tool("pull", source, umask=0o077)
    assert done.returncode == 0, done.stderr
    assert "goes on as" not in done.stderr
    assert place.owners(place.store) == {(0, 0)}
    as_user(
        NOBODY,
        "sh",
        "-c",
        f"cat {place.store}/versions/*/* {place.store}/records/* {place.store}/journal.jsonl",
    )


def by_group(place: World) -> str:
    root_alone(place)
    os.chown(place.store, 0, NOBODY)
    place.store.chmod(0o775)
    return f"others than root may write to {place.store}"


def by_everybody(place: World) -> str:
    root_alone(place)
    place.folder.chmod(0o777)
    return f"others than root may write to {place.folder}"


def by_everybody_in_turns(place: World) -> str:
    root_alone(place)
    place.store.chmod(0o1777)
    return f"everybody may make something in {place.store}"


def within(place: World) -> str:
    root_alone(place)
    inner = place.store / "pointers" / "host"
    inner.mkdir(parents=True)
    os.chown(inner, NOBODY, NOBODY)
    return f"others than root may write to {inner}"


def behind_a_link(place: World) -> str:
    root_alone(place)
    (place.store / "versions").symlink_to(place.state)
    return f"others than root may write to {place.store / 'versions'}"


def two_users(place: World) -> str:
    os.chown(place.folder, NAMELESS, NAMELESS)
    return f"{place.folder} belongs to {NAMELESS}, {place.store} belongs to nobody"


def another_runtime(place: World) -> str:
    os.chown(place.runtime, NAMELESS, NAMELESS)
    return f"ASR_RUNTIME_DIR={place.runtime} does not"


def closed(place: World) -> str:
    place.folder.chmod(0o700)
    return f"nobody, whom ASR_STORE={place.store} belongs to, may not enter {place.folder}"


@pytest.mark.parametrize(
    "arrange",
    [
        by_group,
        by_everybody,
        by_everybody_in_turns,
        within,
        behind_a_link,
        two_users,
        another_runtime,
        closed,
    ],
)
def test_where_others_may_write_too_root_is_refused_and_changes_nothing(
    arrange: object, place: World, source: Path
) -> None:
    reason = arrange(place)  # type: ignore[operator]
    before = sorted(place.store.rglob("*"))
    for command in (("pull", str(source)), ("prune", "--keep", "0"), ("status",), ("completion", "versions")):
        refused(place.tool(*command), reason, "serving now: unknown")
    assert sorted(place.store.rglob("*")) == before
    place.unharmed()


def test_what_a_shell_starts_with_is_printed_all_the_same(place: World) -> None:
    by_group(place)
    assert "_asrsvc_swap_model" in place.tool("completion", "bash").stdout


def test_the_refusal_as_json(place: World) -> None:
    by_group(place)
    done = place.tool("list", "--json")
    content = json.loads(done.stdout)
    assert (content["error"]["code"], content["error"]["exit_code"]) == ("root_refused", REFUSED)
    assert content["serving"] is None


# The file of settings


def test_a_file_of_settings_that_the_owner_may_read_is_read(place: World, source: Path) -> None:
    config = place.folder / "asr.conf"
    config.write_text(f"ASR_STORE={place.store}\nASR_MODELSCOPE_ENDPOINT=http://127.0.0.1:9\n")
    os.chown(config, 0, NOBODY)
    config.chmod(0o640)
    done = place.tool("pull", source, ASR_STORE="", ASR_CONFIG=str(config))
    assert done.returncode == 0, done.stderr
    assert place.owners(place.store) == {(NOBODY, NOBODY)}


def test_a_file_of_settings_that_the_owner_may_not_read_is_told(place: World, source: Path) -> None:
    config = place.folder / "asr.conf"
    config.write_text(f"ASR_STORE={place.store}\n")
    config.chmod(0o600)
    done = place.tool("pull", source, ASR_STORE="", ASR_CONFIG=str(config))
    assert done.returncode == 78
    assert re.search(r"ASR_CONFIG=.*asr.conf.*Permission denied.* \(as nobody\)", done.stderr)


def test_root_does_not_work_on_its_own_folders_by_another_users_settings(place: World) -> None:
    root_alone(place)
    config = place.state / "asr.conf"
    config.write_text(f"ASR_STORE={place.store}\n")
    os.chown(config, NOBODY, NOBODY)
    refused(
        place.tool("prune", "--keep", "0", ASR_STORE="", ASR_CONFIG=str(config)),
        f"ASR_CONFIG={config} is not",
    )


def test_a_pipe_in_the_place_of_the_settings_is_not_waited_for(place: World) -> None:
    as_user(NOBODY, "mkfifo", place.state / "asr.conf")
    done = place.tool("list", ASR_STORE="", ASR_CONFIG=str(place.state / "asr.conf"))
    assert done.returncode == 78
    assert "no plain file" in done.stderr


# The service's user says who the master is


class Listener:
    """A process that counts the signals HUP that it gets."""

    def __init__(self, uid: int, folder: Path) -> None:
        self.file = folder / f"heard-{uid}"
        self.file.touch()
        os.chown(self.file, uid, uid)
        script = f"trap 'echo HUP >>{self.file}' HUP; echo ready >>{self.file}; while :; do sleep 0.05; done"
        self.process = subprocess.Popen(
            ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "sh", "-c", script]
        )
        wait_for("it listens", lambda: "ready" in self.file.read_text())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def listeners(place: World) -> Iterator[dict[int, Listener]]:
    found = {uid: Listener(uid, place.folder) for uid in (0, NOBODY)}
    yield found
    for listener in found.values():
        listener.end()


def say_master(place: World, pid: int, uid: int = NOBODY) -> None:
    """A status file that names this process, with all that is needed to believe it."""
    ticks = status_file.start_ticks(pid)
    assert ticks is not None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    master = status_file.Master(pid, "1", status_file.now(), ticks, boot)
    path = place.runtime / "status.json"
    status_file.write(path, Status(master, "serving", None, (), 1))
    os.chown(path, uid, uid)


@pytest.mark.parametrize("of_root", [True, False])
def test_root_sends_no_signal_to_a_process_that_the_status_file_may_not_name(
    of_root: bool, place: World, listeners: dict[int, Listener]
) -> None:
    if of_root:
        root_alone(place)
    say_master(place, listeners[0].process.pid)
    done = place.tool("reload", "--timeout", "1")
    if of_root:
        refused(done, f"names process {listeners[0].process.pid} of root")
    else:
        assert done.returncode == 77, done.stderr
    assert "HUP" not in listeners[0].file.read_text()


@pytest.mark.parametrize("of_root", [True, False])
def test_the_service_of_another_user_gets_its_signal(
    of_root: bool, place: World, listeners: dict[int, Listener]
) -> None:
    if of_root:
        root_alone(place)
    say_master(place, listeners[NOBODY].process.pid)
    done = place.tool("reload", "--timeout", "1")
    assert done.returncode == 14, done.stderr  # it is no master, and begins no roll
    wait_for("the signal", lambda: "HUP" in listeners[NOBODY].file.read_text())


def test_the_service_of_root_gets_its_signal(place: World, listeners: dict[int, Listener]) -> None:
    root_alone(place)
    give_to_root(place.runtime)
    say_master(place, listeners[0].process.pid, uid=0)
    assert place.tool("reload", "--timeout", "1").returncode == 14
    wait_for("the signal", lambda: "HUP" in listeners[0].file.read_text())


@pytest.mark.parametrize("of_root", [True, False])
@pytest.mark.parametrize("kind", ["pipe", "link", "socket", "large"])
def test_a_status_file_that_is_none_is_told_and_not_waited_for(
    kind: str, of_root: bool, place: World
) -> None:
    if of_root:
        root_alone(place)
    path = place.runtime / "status.json"
    match kind:
        case "pipe":
            as_user(NOBODY, "mkfifo", path)
        case "link":
            as_user(NOBODY, "ln", "-s", "/dev/zero", path)
        case "socket":
            code = f"import socket; socket.socket(socket.AF_UNIX).bind({str(path)!r})"
            subprocess.run(in_reach(sys.executable, "-c", code), check=True, timeout=PATIENCE)
            os.lchown(path, NOBODY, NOBODY)
        case _:
            as_user(NOBODY, "truncate", "--size=1T", path)
    done = place.tool("status")
    assert done.returncode == 10, done.stderr
    assert "status.json cannot be read" in done.stderr
    assert place.tool("list").returncode == 0


# Words that a shell or a terminal would obey


def test_a_folder_whose_name_is_a_command_is_not_run_by_completion(place: World) -> None:
    ran = place.folder / "ran"
    as_user(NOBODY, "mkdir", "-p", place.store / "versions" / "good-01234567")
    for name in ("$(touch ran)", "`touch ran`", "x; touch ran", "\x1b]0;x\x07"):
        as_user(NOBODY, "mkdir", place.store / "versions" / name)
    tool = place.folder / "swap-model"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m asrsvc.release.cli "$@"\n')
    tool.chmod(0o755)
    script = place.tool("completion", "bash").stdout
    code = f"{script}\nCOMP_WORDS=({tool} activate ''); COMP_CWORD=2; _asrsvc_swap_model\n"
    done = subprocess.run(
        in_reach("bash", "-c", code + 'printf "%s\\n" "${COMPREPLY[@]}"'),
        env=place.environ,
        cwd=place.folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stdout == "good-01234567\n"
    assert not ran.exists()
    # a script that was installed before asks for the words in the same way, and has the shell expand them
    words = place.tool("completion", "versions").stdout
    assert words == "good-01234567\n"


def test_what_controls_a_terminal_is_shown_and_not_done(place: World) -> None:
    as_user(NOBODY, "mkdir", "-p", place.store / "versions" / "a\x1b]0;owned\x07\x9b2J\u202e-01234567")
    done = place.tool("list")
    assert done.returncode == 0, done.stderr
    assert "a\\x1b]0;owned\\x07\\x9b2J\\u202e-01234567" in done.stdout
    assert not set("\x1b\x07\x9b\u202e") & set(done.stdout)
    name = json.loads(place.tool("list", "--json").stdout)["versions"][0]["version"]
    assert name == "a\x1b]0;owned\x07\x9b2J\u202e-01234567"


def test_a_module_in_the_current_folder_is_not_taken_for_ours(place: World, source: Path) -> None:
    """A trial starts processes of its own: what lies where root happens to be is none of them."""
    root_alone(place)
    assert place.tool("pull", source).returncode == 0
    for name in ("argparse", "json", "asrsvc", "resource", "ctypes"):
        (place.folder / f"{name}.py").write_text(
            f"open({str(place.folder / 'ran')!r}, 'w')\nraise SystemExit(9)\n"
        )
    done = place.tool("try", "nano", cwd=place.folder)
    assert "Traceback" not in done.stderr
    assert not (place.folder / "ran").exists()


# Keys


@pytest.mark.parametrize("command", [("add", "ci"), ("list",), ("rotate", "ci"), ("revoke", "ci")])
@pytest.mark.parametrize("name", ["keys.json", ".keys.json-01234567"])
def test_a_link_beside_the_keys_leads_root_nowhere(name: str, command: tuple[str, ...], place: World) -> None:
    (place.victim / "keys.json").write_text('{"keys": []}')
    place.before = place.snapshot()
    place.plant(f"state/{name}", place.victim / "keys.json")
    done = place.keys("--file", place.state / "keys.json", *command)
    assert "Traceback" not in done.stderr
    place.unharmed()
    if name == "keys.json":
        assert done.returncode == 6, done.stderr


def test_a_folder_of_keys_that_is_a_link_leads_root_nowhere(place: World) -> None:
    place.plant("state/keys", place.victim)
    assert place.keys("--file", place.state / "keys" / "keys.json", "add", "ci").returncode in {6, REFUSED}
    place.unharmed()


def test_keys_in_the_folder_of_another_user_are_that_users(place: World) -> None:
    path = place.state / "deeper" / "keys.json"
    assert place.keys("--file", path, "add", "ci").returncode == 0
    assert place.owners(place.state) == {(NOBODY, NOBODY)}
    assert "ci" in place.keys("--file", path, "list").stdout


def test_keys_in_a_folder_of_roots_are_roots_and_readable(place: World) -> None:
    folder = place.folder / "etc"
    folder.mkdir()
    assert place.keys("--file", folder / "keys.json", "add", "ci", umask=0o077).returncode == 0
    assert place.owners(folder) == {(0, 0)}
    assert '"ci"' in as_user(NOBODY, "cat", folder / "keys.json").stdout


def test_keys_where_everybody_may_make_a_file_are_made(place: World) -> None:
    place.folder.chmod(0o1777)
    assert place.keys("--file", place.folder / "keys.json", "add", "ci").returncode == 0
    assert (place.folder / "keys.json").stat().st_uid == 0
    place.folder.chmod(0o777)
    refused(place.keys("--file", place.folder / "keys.json", "add", "b"), "others than root may write to")


def test_a_pipe_in_the_place_of_the_keys_is_not_waited_for(place: World) -> None:
    as_user(NOBODY, "mkfifo", place.state / "keys.json")
    done = place.keys("--file", place.state / "keys.json", "list")
    assert done.returncode == 6
    assert "no plain file" in done.stderr


# The start, as far as it needs no service


def test_check_as_root_goes_on_as_the_owner(place: World) -> None:
    done = place.serve("--check")
    assert done.returncode == 0, done.stderr
    assert f"asrsvc: goes on as nobody, whom ASR_STORE={place.store} belongs to" in done.stderr
    assert str(place.store) in done.stdout


@pytest.mark.parametrize(
    "setting", ["ASR_RUNTIME_DIR", "ASR_STATE_DIR", "ASR_API_KEYS", "ASR_BIND", "ASR_OPS_BIND"]
)
@pytest.mark.parametrize("of_root", [True, False])
def test_a_start_by_root_is_refused_where_the_folders_are_not_one_users(
    of_root: bool, setting: str, place: World
) -> None:
    """As root the service would believe what another user chooses; as that user it could do nothing."""
    give_to_root(place.folder)
    for path in () if of_root else (place.store, place.runtime, place.state):
        os.chown(path, NOBODY, NOBODY)
    foreign = place.folder / "foreign"
    foreign.mkdir()
    os.chown(foreign, NAMELESS, NAMELESS)
    value = {
        "ASR_API_KEYS": f"{foreign}/keys",
        "ASR_BIND": f"unix:{foreign}/s",
        "ASR_OPS_BIND": f"unix:{foreign}/o",
    }
    done = place.serve("--check", **{setting: value.get(setting, str(foreign))})
    refused(done, f"{foreign} belongs to {NAMELESS}")


def test_links_in_the_folders_of_the_service_lead_a_start_by_root_nowhere(place: World) -> None:
    for name in ("run/master.lock", "run/status.json", "store/lock", "state/jobs.sqlite3"):
        place.plant(name, place.victim / "shadow")
    place.plant("run/metrics", place.victim)
    place.plant("store/staging", place.victim)
    done = place.serve("--port", "1")  # not permitted to nobody: the start ends there, if it comes so far
    assert done.returncode not in {0, 1, 3}, done.stderr
    assert "Traceback" not in done.stderr
    place.unharmed()


def test_a_master_that_root_starts_by_hand_is_refused(place: World, checkout: Path) -> None:
    gunicorn = Path(sys.executable).with_name("gunicorn")
    done = subprocess.run(
        in_reach(sys.executable, gunicorn, "--config", checkout / "gunicorn.conf.py"),
        env={**place.environ, "ASR_BIND": f"unix:{place.runtime}/api.sock"},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == REFUSED, done.stderr
    assert "start it with bin/serve" in done.stderr
    assert list(place.runtime.iterdir()) == []


def test_a_killed_listener_is_no_master(place: World, listeners: dict[int, Listener]) -> None:
    root_alone(place)
    say_master(place, listeners[NOBODY].process.pid)
    listeners[NOBODY].process.send_signal(signal.SIGKILL)
    listeners[NOBODY].process.wait()
    assert place.tool("reload").returncode == 10


def test_the_shells_programs_go_the_same_way(place: World, checkout: Path, source: Path) -> None:
    if not (checkout / ".venv").exists() and shutil.which("python3") is None:
        pytest.skip("there is no Python that bin/swap-model finds")
    done = subprocess.run(
        in_reach(checkout / "bin" / "swap-model", "pull", source),
        env={**place.environ, "ASR_PYTHON": sys.executable, "ASR_VENV": str(place.folder / "none")},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert place.owners(place.store) == {(NOBODY, NOBODY)}
