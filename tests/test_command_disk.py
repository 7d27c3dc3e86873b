"""Commands of bin/swap-model on a disk that fills at any write, and on one that cannot be written."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kill_points import in_child, watch
from stores import add, served
from test_command_crash import check
from test_swap_model import failed
from waiting import PATIENCE

from asrsvc.release.cli import main as cli
from asrsvc.release.store import Store
from asrsvc.release.versions import check_digests

FULL, TRIAL_FAILED = 25, 30

COMMANDS = {
    "activate": ["activate", "{b}"],
    "activate --force": ["activate", "{c}", "--force"],
    "rollback": ["rollback"],
    "pull": ["pull", "{source}"],
    "prune": ["prune", "--keep", "0"],
    "abort": ["abort"],
}
NEEDS_NO_ROOM = {"prune", "abort"}
"""what helps where the disk is full is not refused for it"""


class Scene:
    """A store in which `a` serves, `z` did before, `b` has passed its trial and `c` is wished for."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "store"
        base = Store(self.root)
        z, a = served(base, "z"), served(base, "a")
        base.promote(z)
        base.promote(a, settled=z.id)
        b, c = add(base, "b"), add(base, "c")
        base.records.note_trial(b.id, {"passed": True, "files": check_digests(b.path)})
        base.set_next(c)
        add(Store(folder / "elsewhere"), "d")
        self.words = {"b": b.id, "c": c.id, "source": str(folder / "source of d")}
        self.served = a.id

    def copy(self, root: Path) -> Store:
        shutil.copytree(self.root, root, symlinks=True)
        return Store(root)

    def command(self, name: str) -> list[str]:
        return [word.format(**self.words) for word in COMMANDS[name]]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    for name in [name for name in os.environ if name.startswith("ASR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ASR_RUNTIME_DIR", str(tmp_path / "run"))
    return Scene(tmp_path)


def on_a_full_disk(step: int, root: Path, command: list[str]) -> int:
    """Run a command on a disk that is full from its n-th step (from 1) that writes; its exit code."""
    seen = 0

    def strike(kind: str, name: str) -> None:
        nonlocal seen
        seen += 1
        if seen >= step and kind not in {"remove", "rmdir"}:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    def run() -> None:
        watch(strike, root)
        code = cli.main(command)
        os._exit(code if seen >= step else 100 + code)

    return in_child(run)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_fills_at_any_write(
    scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    command = scene.command(name)

    def again() -> None:
        os._exit(cli.main(command))

    refused = 0
    for step in range(1, 200):
        store = scene.copy(tmp_path / f"store {step}")
        monkeypatch.setenv("ASR_STORE", str(store.root))
        code = on_a_full_disk(step, store.root, command)
        said = capfd.readouterr().err
        check(store)
        current = store.current()
        assert current is not None
        assert current.id == scene.served
        if code == 100:
            break
        assert code in {0, FULL}, (step, code, said)
        if code == FULL:
            refused += 1
            what, serves, then = said.splitlines()[-3:]
            assert "No space left on device" in what
            assert serves.startswith(f"serving now: nothing; the next start serves {scene.served}")
            assert then.startswith("next: make space")
        assert in_child(again) == 0, (step, capfd.readouterr().err)
        check(store)
        assert not (store.root / "staging").exists()
    else:
        pytest.fail("it never ended")
    assert step > 3
    assert refused > 0 or name in NEEDS_NO_ROOM


READ_ONLY = """
mount --bind "$ASR_STORE" "$ASR_STORE"
mount -o remount,bind,ro "$ASR_STORE"
exec "$@"
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0,
    reason="no name spaces for a read-only store here",
)
@pytest.mark.parametrize(
    ("command", "code"),
    [
        *((words, 5) for words in COMMANDS.values()),
        (["deploy", "{source}"], 5),
        (["try", "{b}"], 5),
        (["reload"], 10),
        (["status"], 10),
        (["list"], 0),
        (["history"], 0),
        (["verify", "{b}"], 0),
    ],
)
def test_a_read_only_store_is_told_and_can_be_looked_at(
    scene: Scene, checkout: Path, command: list[str], code: int
) -> None:
    words = [word.format(**scene.words) for word in command]
    before = {path: path.lstat().st_mtime_ns for path in scene.root.rglob("*")}
    done = subprocess.run(
        [
            "unshare",
            "-rm",
            "sh",
            "-euc",
            READ_ONLY,
            "sh",
            sys.executable,
            "-P",
            "-m",
            "asrsvc.release.cli",
            *words,
        ],
        env={**os.environ, "PYTHONPATH": str(checkout), "ASR_STORE": str(scene.root)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    if code:
        what = "Read-only file system" if code == 5 else "no service"
        failed(done, code, what, f"nothing; the next start serves {scene.served}", "")
    assert done.returncode == code, done.stderr
    assert {path: path.lstat().st_mtime_ns for path in scene.root.rglob("*")} == before
