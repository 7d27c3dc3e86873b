"""End a program at each of its system calls that write to a folder, by strace(1)."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

NAMES = (
    "openat,open,creat,write,pwrite64,writev,rename,renameat,renameat2,unlink,unlinkat,symlink,symlinkat,link,"
    "linkat,mkdir,mkdirat,rmdir,fsync,fdatasync,truncate,ftruncate,chmod,fchmod,fchmodat,chown,lchown,fchown,"
    "fchownat,utimensat"
)
"""those that change a folder or what is in it; some of them are unknown to some machines"""
_OPENS = {"openat", "open"}
_TO_WRITE = re.compile(r"O_(CREAT|WRONLY|RDWR|TRUNC)")
KILLED = -9


@dataclass(frozen=True)
class Point:
    """One system call of a program: its name, and the how-manieth of that name it is."""

    name: str
    number: int
    shown: str
    """as strace shows it"""


def strace() -> str:
    """The program.

    Raises:
        FileNotFoundError: it is not installed; bin/test does that.
    """
    found = shutil.which("strace")
    if found is None:
        raise FileNotFoundError("strace is not installed: bin/test installs it")
    return found


def points_of(
    command: list[str], folder: Path, environ: dict[str, str], log: Path, code: int = 0
) -> list[Point]:
    """Run a command to its end, with this exit code; the calls that write to the folder, in order."""
    names = ",".join(f"?{name}" for name in NAMES.split(","))
    traced = [strace(), "-qq", "-y", "-s", "0", "-e", f"trace={names}", "-e", "signal=none", "-o", str(log)]
    done = subprocess.run([*traced, *command], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    seen: Counter[str] = Counter()
    points = []
    for line in log.read_text(errors="replace").splitlines():
        name = line.partition("(")[0]
        seen[name] += 1
        if str(folder) in line and (name not in _OPENS or _TO_WRITE.search(line)):
            points.append(Point(name, seen[name], line[:200]))
    return points


def killed_at(point: Point, command: list[str], environ: dict[str, str]) -> int:
    """Run a command that is killed as it enters that call; the exit code."""
    inject = f"inject={point.name}:signal=SIGKILL:when={point.number}"
    traced = [strace(), "-qq", "-o", "/dev/null", "-e", f"trace={point.name}", "-e", inject]
    done = subprocess.run([*traced, *command], env=environ, capture_output=True, check=False)
    return KILLED if done.returncode in {137, KILLED} else done.returncode
