"""Commands of bin/swap-model, killed at each system call that writes to the store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stores import add, served
from system_calls import KILLED, killed_at, points_of
from test_swap_model import STAND_IN, wait_for

from asrsvc.release.journal import Journal
from asrsvc.release.store import Store
from asrsvc.release.versions import check_digests
from asrsvc.serving import status as status_file

COMMANDS = {
    "activate": ["activate", "{b}", "--watch", "0"],
    "activate --force": ["activate", "{c}", "--force", "--watch", "0"],
    "rollback": ["rollback"],
    "prune": ["prune", "--keep", "0"],
    "abort": ["abort"],
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
        self.ids = {"b": b.id, "c": c.id}
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
        words = [word.format(**self.ids) for word in COMMANDS[name]]
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
        }

    @contextmanager
    def master(self) -> Iterator[None]:
        """A process that rolls as a master does."""
        path = self.folder / "run" / "status.json"
        path.unlink(missing_ok=True)
        command = [sys.executable, STAND_IN, path.parent, self.folder / "store", "succeeds", self.a]
        with subprocess.Popen(command, env={**self.environ}) as process:
            try:
                wait_for(lambda: path.exists() and status_file.read(path).master.pid == process.pid)
                yield
            finally:
                process.kill()


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


def grow_old(root: Path) -> None:
    """Let what a killed writer left look old enough to be that."""
    past = time.time() - 3600
    for path in root.rglob(".*-*"):
        os.utime(path, (past, past), follow_symlinks=False)


def left_behind(root: Path) -> list[str]:
    return [str(path) for path in [*root.rglob(".*-*"), *root.glob("staging/*"), *root.glob("removed-*")]]


@pytest.mark.timeout(570)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_killed_at_any_write_leaves_a_store_that_serves(
    name: str, tmp_path: Path, checkout: Path, record_property: Callable[[str, object], None]
) -> None:
    scene = Scene(tmp_path, checkout)
    scene.store()
    command = scene.command(name)
    points = points_of(command, tmp_path / "store", scene.environ, tmp_path / "trace")
    assert len(points) > 3
    killed = 0
    for point in points:
        store = scene.store()
        code = killed_at(point, command, scene.environ)
        killed += code == KILLED
        check(store)
        grow_old(store.root)
        again = subprocess.run(command, env=scene.environ, capture_output=True, text=True, check=False)
        assert again.returncode == 0, (point, again.stderr)
        check(store)
        # What abort leaves, which takes no lock, goes with the next change.
        subprocess.run(
            [*command[:4], "prune", "--keep", "9"], env=scene.environ, check=True, stdout=subprocess.DEVNULL
        )
        assert left_behind(store.root) == [], point
    assert killed == len(points)
    record_property("kill points", killed)


@pytest.mark.timeout(570)
@pytest.mark.parametrize("name", ["activate", "rollback"])
def test_with_a_service_too(
    name: str, tmp_path: Path, checkout: Path, record_property: Callable[[str, object], None]
) -> None:
    scene = Scene(tmp_path, checkout)
    scene.store()
    command = scene.command(name)
    with scene.master():
        points = points_of(command, tmp_path / "store", scene.environ, tmp_path / "trace")
    killed = 0
    for point in points:
        store = scene.store()
        with scene.master():
            killed += killed_at(point, command, scene.environ) == KILLED
            check(store)
            grow_old(store.root)
            again = subprocess.run(command, env=scene.environ, capture_output=True, text=True, check=False)
            assert again.returncode == 0, (point, again.stderr)
        check(store)
        assert left_behind(store.root) == [], point
    assert killed == len(points)
    record_property("kill points", killed)
