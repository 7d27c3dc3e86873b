"""Making a twin: one at a time on a host, in a process of its own, under limits; whole or not there.

lock → look again → a child writes and compares → manifest → rename
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asrsvc.errors import BakeFailed
from asrsvc.release.bake.twins import (
    FOLDER,
    MANIFEST_FILE,
    FileDigest,
    Found,
    Mode,
    Twin,
    find,
    folder_of,
    manifest_bytes,
)
from asrsvc.release.files import give_to_owner, make_folder, open_lock, sync_folder
from asrsvc.release.process import Child, ChildBroke, ChildRefused, Limits
from asrsvc.release.versions import Version
from asrsvc.release.writing import write_new

_MODULE: Final = "asrsvc.release.bake.child"
_LOOK_SECONDS: Final = 0.1
_ABANDONED_SECONDS: Final = 1800.0
"""after which what a killed process left is removed: longer than any bake may take"""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class MakeLimits:
    """Of making one twin."""

    seconds: float = 900.0
    """at most"""
    memory_bytes: int = 4 * 2**30
    """anonymous memory, at most"""
    wait_seconds: float = 0.0
    """for another one that is being made on this host"""


def make_if_missing(
    root: Path, version: Version, mode: Mode, *, limits: MakeLimits, progress: Progress
) -> Found:
    """This host's twin of a version, made if it is not there or damaged; as `make` otherwise.

    What could not be made lately is not tried again: the answer says why.
    """
    found = find(root, version.id, mode)
    if not found.due:
        return found
    return make(root, version, mode, limits=limits, progress=progress, even_if=lambda now: now.due)


def make(
    root: Path,
    version: Version,
    mode: Mode,
    *,
    limits: MakeLimits,
    progress: Progress,
    even_if: Callable[[Found], bool] = lambda _found: True,
) -> Found:
    """Make this host's twin of a version.

    Args:
        root: of the store.
        version: to be baked.
        mode: `auto` or `uint8`.
        limits: of the child that makes it, and of the wait for another one.
        progress: is told what is done.
        even_if: asked, once nobody else can make one, whether what is found then is to be replaced.

    Raises:
        BakeFailed: it gives other numbers, the limits are too low, another one is being made, or
            the disk refuses; the published file serves. All but the last two are remembered.
    """
    target = folder_of(root, version.id, mode)
    try:
        make_folder(target.parent)
        with _only_one(root, limits.wait_seconds):
            found = find(root, version.id, mode)
            if not even_if(found):
                return found
            _sweep(target)
            staging = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
            staging.mkdir()
            try:
                progress(f"bakes {version.id} for this host")
                twin = _baked(staging, target, version, mode, limits)
                write_new(staging / MANIFEST_FILE, manifest_bytes(twin))
                _settle(staging, target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise BakeFailed(f"{target} cannot be written: {error.strerror or error}") from error
    if twin.refused is not None:
        raise BakeFailed(f"{version.id} cannot be baked: {twin.refused}; its published file is served")
    progress(f"baked {version.id} in {twin.seconds:.1f} s: {describe(twin)}")
    return Found("ready", target, twin)


def describe(twin: Twin) -> str:
    """What a twin is, for people."""
    size = sum(file.size for file in twin.files.values())
    note = f"; {twin.note}" if twin.note else ""
    return f"{twin.int8} of {twin.matrices} matrices as int8, {size / 2**20:.0f} MiB{note}"


def _baked(staging: Path, target: Path, version: Version, mode: Mode, limits: MakeLimits) -> Twin:
    """Have a child write the files, and say what came of it.

    A child that breaks is an answer too: it would break again.
    """
    began = time.monotonic()
    question = {"do": "bake", "folder": str(version.path), "staging": str(staging), "int8": mode == "auto"}
    answer: dict[str, Any] = {}
    refused: str | None = None
    # The deadline of the child itself comes later, so that this one is named.
    child = Child(_MODULE, Limits(limits.memory_bytes, began + limits.seconds + 30))
    try:
        answer = child.ask(question, doing="while it was baked", seconds=limits.seconds)
    except ChildBroke as error:
        refused = str(error)
    except ChildRefused as error:
        refused = error.message
    finally:
        child.end()
    if refused is not None:
        _remove_files(staging)
    files = answer.get("files", {})
    return Twin(
        version=version.id,
        key=target.name,
        source=str(answer.get("source", "")),
        files={name: FileDigest(int(file["size"]), str(file["xxh3"])) for name, file in files.items()},
        matrices=int(answer.get("matrices", 0)),
        int8=int(answer.get("int8", 0)),
        seconds=round(time.monotonic() - began, 2),
        created=round(time.time(), 3),
        note=str(answer.get("note", "")),
        refused=refused,
    )


@contextmanager
def _only_one(root: Path, wait_seconds: float) -> Iterator[None]:
    """Hold this host's right to make a twin; a process that ends lets go of it.

    Raises:
        BakeFailed: another process has it all the time.
        OSError: the disk refuses.
    """
    path = root / FOLDER / f".{socket.gethostname()}.lock"
    descriptor = open_lock(path)
    try:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    text = f"another version is being baked on this host: {path} is locked"
                    raise BakeFailed(text, code="bake_busy") from None
            time.sleep(_LOOK_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _settle(staging: Path, target: Path) -> None:
    """Give a finished twin its name; what had it before goes."""
    staging.chmod(0o755)  # root's umask may keep the service out
    for path in (staging, *staging.iterdir()):
        give_to_owner(path)
    sync_folder(staging)
    if target.exists():
        aside = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
        target.rename(aside)
        staging.rename(target)
        shutil.rmtree(aside, ignore_errors=True)  # who has it mapped keeps it
    else:
        staging.rename(target)
    sync_folder(target.parent)


def _sweep(target: Path) -> None:
    """Remove what killed processes left. Another host of the same kind may be at work beside it."""
    for path in target.parent.glob(f".{target.name}-*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _remove_files(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
