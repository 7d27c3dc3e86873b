"""Commands of bin/swap-model, killed at each system call that writes to the store."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub import Hub, model_files, running_hub
from stores import add, served
from system_calls import KILLED, Point, killed_at, points_of
from test_swap_model import STAND_IN, wait_for

from asrsvc.release.journal import Journal
from asrsvc.release.store import Store
from asrsvc.release.versions import check_digests
from asrsvc.serving import status as status_file


@dataclass(frozen=True)
class Case:
    """A command, and how it ends when nobody kills it."""

    words: list[str]
    code: int = 0
    most: int = 8
    """points that are tried without --soak, spread over all"""


COMMANDS = {
    "activate": Case(["activate", "{b}", "--watch", "0"]),
    "activate --force": Case(["activate", "{c}", "--force", "--watch", "0"]),
    "rollback": Case(["rollback"]),
    "prune": Case(["prune", "--keep", "0"]),
    "abort": Case(["abort"]),
    "pull folder": Case(["pull", "{source}"]),
    "pull hub": Case(["pull", "hf:org/model"]),
    # What is no model is refused by its trial, which is over soon: all writes but those of activate.
    "try": Case(["try", "{b}"], 30, most=6),
    "deploy": Case(["deploy", "{source}"], 30, most=8),
}


class Scene:
    """A store in which `a` serves, `z` did before, `b` has passed its trial and `c` has not."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        self.folder = folder
        self.checkout = checkout
        self.base = Store(folder / "base")
        z, a = served(self.base, "z"), served(self.base, "a")
        self.base.promote(z)
        self.base.promote(a, settled=z.id)
        b, c = add(self.base, "b"), add(self.base, "c")
        self.base.records.note_trial(b.id, {"passed": True, "files": check_digests(b.path)})
        baked = self.base.root / "baked" / c.id
        baked.mkdir(parents=True)
        (baked / "twin").write_text("x")
        self.a = a.id
        add(Store(folder / "elsewhere"), "d")
        self.ids = {"b": b.id, "c": c.id, "source": str(folder / "source of d")}
        self.hub = ""
        (self.base.root / "lock").unlink(missing_ok=True)

    def store(self) -> Store:
        """A fresh copy."""
        root = self.folder / "store"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.base.root, root, symlinks=True)
        store = Store(root)
        store.set_next(store.version(self.ids["c"]))  # for abort; the others replace it
        return store

    def command(self, name: str) -> list[str]:
        words = [word.format(**self.ids) for word in COMMANDS[name].words]
        return [sys.executable, "-P", "-m", "asrsvc.release.cli", *words]

    @property
    def environ(self) -> dict[str, str]:
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("ASR_", "PYTHON"))}
        run = self.folder / "run"
        run.mkdir(exist_ok=True)
        return {
            **plain,
            "PYTHONPATH": str(self.checkout),
            "PYTHONDONTWRITEBYTECODE": "1",
            "ASR_STORE": str(self.folder / "store"),
            "ASR_RUNTIME_DIR": str(run),
            "ASR_HF_ENDPOINT": self.hub or "https://huggingface.co",
        }

    @contextmanager
    def master(self) -> Iterator[subprocess.Popen[bytes]]:
        """A process that rolls as a master does."""
        path = self.folder / "run" / "status.json"
        for name in (path.name, "heard"):
            path.with_name(name).unlink(missing_ok=True)
        command = [sys.executable, STAND_IN, path.parent, self.folder / "store", "succeeds", self.a]
        with subprocess.Popen(command, env={**self.environ}) as process:
            try:
                wait_for(lambda: path.exists() and status_file.read(path).master.pid == process.pid)
                yield process
            finally:
                process.kill()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as found:
        found.repositories["org/model"] = model_files()
        yield found


def check(store: Store) -> None:
    """`current` names a whole version that has served, and what is wished for is whole too."""
    current = store.current()
    assert current is not None
    check_digests(current.path)
    assert store.record(current.id).last_served is not None
    assert store.candidates().versions[0] == current
    assert store.candidates().problems == ()
    assert store.wish(current.id) is not None
    for version in store.versions():
        check_digests(version.path)
        store.record(version.id)
    Journal(store.root).entries()


def told(name: str, killed: int, of: int, record_property: Callable[[str, object], None]) -> None:
    record_property("kill points", killed)
    sys.stdout.write(f"{name}: killed at {killed} of {of} writing system calls, a whole store after each\n")


def grow_old(root: Path) -> None:
    """Let what a killed writer left look old enough to be that."""
    past = time.time() - 3600
    for path in root.rglob(".*-*"):
        with suppress(FileNotFoundError):  # another that is at work has moved it to its place
            os.utime(path, (past, past), follow_symlinks=False)


def left_behind(root: Path) -> list[str]:
    return [str(path) for path in [*root.rglob(".*-*"), *root.glob("staging/*"), *root.glob("removed-*")]]


def spread(points: list[Point], most: int) -> list[Point]:
    """At most so many of them, the last one always."""
    stride = -(-len(points) // most)
    return points[::-1][::stride][::-1]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_killed_at_any_write_leaves_a_store_that_serves(
    *,
    name: str,
    tmp_path: Path,
    checkout: Path,
    hub: Hub,
    pytestconfig: pytest.Config,
    record_property: Callable[[str, object], None],
) -> None:
    scene, case = Scene(tmp_path, checkout), COMMANDS[name]
    scene.hub = hub.url
    scene.store()
    command = scene.command(name)
    found = points_of(command, tmp_path / "store", scene.environ, tmp_path / "trace", case.code)
    assert len(found) > 3
    points = spread(found, len(found) if pytestconfig.getoption("--soak") else case.most)
    killed = 0
    for point in points:
        store = scene.store()
        if killed_at(point, command, scene.environ) == KILLED:
            killed += 1
        else:  # how often it looks into a process, and tells of it, is not always the same
            assert point.name in {"openat", "write"}, point
        check(store)
        grow_old(store.root)
        again = subprocess.run(command, env=scene.environ, capture_output=True, text=True, check=False)
        assert again.returncode == case.code, (point, again.stderr)
        check(store)
        # What abort leaves, which takes no lock, goes with the next change.
        subprocess.run(
            [*command[:4], "prune", "--keep", "9"], env=scene.environ, check=True, stdout=subprocess.DEVNULL
        )
        assert left_behind(store.root) == [], point
    assert killed > 0
    told(name, killed, len(found), record_property)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["activate", "rollback"])
def test_with_a_service_too(
    name: str,
    tmp_path: Path,
    checkout: Path,
    pytestconfig: pytest.Config,
    record_property: Callable[[str, object], None],
) -> None:
    scene = Scene(tmp_path, checkout)
    scene.store()
    command = scene.command(name)
    with scene.master():
        found = points_of(command, tmp_path / "store", scene.environ, tmp_path / "trace")
    points = spread(found, len(found) if pytestconfig.getoption("--soak") else COMMANDS[name].most)
    killed = 0
    for point in points:
        store = scene.store()
        with scene.master() as master:
            if killed_at(point, command, scene.environ) == KILLED:
                killed += 1
            else:  # how often it looks, and how many steps it sees to tell of, is not always the same
                assert point.name in {"openat", "write"}, point
            master.send_signal(signal.SIGUSR1)  # behind a signal that the command has just sent
            wait_for((tmp_path / "run" / "heard").exists)
            wait_for(lambda: not status_file.read(tmp_path / "run" / "status.json").rolling)
            check(store)
            grow_old(store.root)
            again = subprocess.run(command, env=scene.environ, capture_output=True, text=True, check=False)
            assert again.returncode == 0, (point, again.stderr)
        check(store)
        assert left_behind(store.root) == [], point
    assert killed > 0
    told(f"{name}, with a service", killed, len(found), record_property)
