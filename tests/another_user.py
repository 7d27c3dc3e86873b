"""Programs of ours run by root on the folders of another user, for tests: and what was harmed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waiting import PATIENCE

PROJECT = Path(__file__).resolve().parents[1]
NOBODY = 65534
NAMELESS = 54321
"""passwd(5) has no entry of this number"""

_MOVE = """
set -eu
umask 022
while [ "$1" != -- ]; do
    closed=$1 mode=$2 count=$3
    shift 3
    layer=$(TMPDIR= mktemp -d)
    mount -t tmpfs -o "mode=$mode" none "$layer"
    for path in $(seq "$count"); do
        mkdir -p "$layer/${1#"$closed"}"
        mount --rbind "$1" "$layer/${1#"$closed"}"
        shift
    done
    mount --move "$layer" "$closed"
    rmdir "$layer"
done
shift
exec "$@"
"""


def why_not() -> str | None:
    """Why root's programs cannot be tried here; None if they can."""
    if os.geteuid() != 0:
        return "only root can be led astray"
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return "namespaces with mounts of their own are not permitted here" if probe.returncode != 0 else None


def closed_folders() -> dict[Path, list[Path]]:
    """Folders that keep others out of Python or of our code → what they keep them out of.

    The Python of a developer may lie in root's home.
    """
    found: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(Path(p) for p in (sys.base_prefix, sys.prefix, PROJECT)):
        for place in reversed([path, *path.parents]):
            if not place.stat().st_mode & 0o001:
                found.setdefault(place, []).append(path)
                break
    return found


def in_reach(*command: str | Path) -> list[str]:
    """The command, in a mount namespace in which everybody reaches Python and our code, if need be."""
    arguments: list[str | Path] = []
    for closed, paths in closed_folders().items():
        arguments += [closed, "755", str(len(paths)), *paths]
    return _elsewhere(arguments, command) if arguments else [str(part) for part in command]


def out_of_reach(*command: str | Path) -> list[str]:
    """The command, in a mount namespace in which nobody but root reaches our code."""
    inside = [PROJECT / "asrsvc", *(path for path in [Path(sys.prefix)] if path.is_relative_to(PROJECT))]
    return _elsewhere([PROJECT, "700", str(len(inside)), *inside], command)


def _elsewhere(arguments: list[str | Path], command: tuple[str | Path, ...]) -> list[str]:
    whole = ["unshare", "--mount", "sh", "-c", _MOVE, "sh", *arguments, "--", *command]
    return [str(part) for part in whole]


def as_user(uid: int, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command as another user."""
    whole = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *map(str, command)]
    return subprocess.run(whole, capture_output=True, text=True, check=check, timeout=PATIENCE)


class World:
    """What belongs to root, what belongs to the service's user, and root's programs."""

    def __init__(self, folder: Path, uid: int) -> None:
        self.folder = folder
        self.uid = uid
        self.reach = in_reach
        self.victim = folder / "victim"
        """a folder of root's, closed to others"""
        self.store = folder / "store"
        self.runtime = folder / "run"
        self.state = folder / "state"
        for path in (self.store, self.runtime, self.state):
            path.mkdir()
            os.chown(path, uid, uid)
        (self.victim / "sub").mkdir(parents=True)
        for name in ("important.conf", "sub/file", "shadow", "keys.json"):
            (self.victim / name).write_text(f"root's own {name}\n")
            (self.victim / name).chmod(0o600)
        for path in (self.victim / "sub", self.victim):
            path.chmod(0o700)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ASR_", "PYTHON", "SUDO_"))}
        self.environ = {
            **kept,
            "ASR_STORE": str(self.store),
            "ASR_RUNTIME_DIR": str(self.runtime),
            "ASR_STATE_DIR": str(self.state),
            "ASR_BAKE": "off",
            "PYTHONPATH": str(PROJECT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.before = self.snapshot()

    def snapshot(self) -> dict[str, tuple[int, int, int, str]]:
        """All that is root's, name by name: mode, owner, group, content."""
        found = {}
        for path in sorted([self.victim, *self.victim.rglob("*")]):
            status = path.lstat()
            content = path.read_text() if path.is_file() else ""
            found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, content)
        return found

    def unharmed(self) -> None:
        """What is root's is as it was."""
        assert self.snapshot() == self.before

    def plant(self, name: str, target: Path) -> None:
        """A symbolic link of the service's user, in the place of what has that name in the world's folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.chown(path.parent, self.uid, self.uid)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        as_user(self.uid, "ln", "-s", target, path)

    def run(
        self, module: str, *arguments: str | Path, cwd: Path = Path("/"), umask: int = -1, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """A program of ours, by root."""
        return subprocess.run(
            self.reach(sys.executable, "-P", "-m", module, *arguments),
            env={**self.environ, **more},
            cwd=cwd,
            umask=umask,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def tool(self, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """bin/swap-model, by root."""
        return self.run("asrsvc.release.cli", *arguments, **more)

    def keys(self, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """bin/api-keys, by root."""
        return self.run("asrsvc.serving.keys_tool", *arguments, **more)

    def serve(self, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """bin/serve, by root, up to its end."""
        return self.run("asrsvc.serving.start", *arguments, **more)

    def owners(self, folder: Path) -> set[tuple[int, int]]:
        """User and group of all that is in a folder."""
        return {(s.st_uid, s.st_gid) for s in (path.lstat() for path in folder.rglob("*"))}


@contextmanager
def world(uid: int = NOBODY) -> Iterator[World]:
    """One, in a folder that everybody can reach."""
    folder = Path(tempfile.mkdtemp(prefix="asrsvc-world-"))
    try:
        folder.chmod(0o755)
        yield World(folder, uid)
    finally:
        shutil.rmtree(folder)


def model_folder(folder: Path) -> Path:
    """A source with the files of a model in name, as small as can be."""
    folder.mkdir(parents=True)
    for name in ("model_quant.onnx", "am.mvn", "config.yaml", "tokens.json", "some.bpe.model"):
        (folder / name).write_text(f"{folder.name} {name}")
    return folder
