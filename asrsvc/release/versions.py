"""Model versions on disk: whole or not there, and never changed.

    root/
      versions/<id>/    the files of a version and manifest.json; read-only once named
      staging/          copies under way; nothing here is ever served
      lock              flock: one change at a time

A version gets its name by a rename when all of its bytes are on disk, so a reader needs no lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, TypedDict

from asrsvc.errors import StoreError
from asrsvc.release import lock as locking
from asrsvc.release.files import give_to_owner, make_folder, sweep, sync_folder

MODEL_FILE: Final = "model_quant.onnx"
REQUIRED_FILES: Final = (MODEL_FILE, "am.mvn", "config.yaml", "tokens.json")
"""beside exactly one file *.bpe.model"""
_COMPANIONS: Final = ("MODEL_CARD.md", "LICENSE")
_MANIFEST: Final = "manifest.json"
_BLOCK_BYTES: Final = 1 << 20
_LONGEST_ID: Final = 255
"""bytes of a name in a folder"""


@dataclass(frozen=True, slots=True)
class Version:
    """One model version in the store."""

    id: str
    """its name and the first 8 hex digits of the SHA-256 of its model_quant.onnx"""
    path: Path
    """the folder with its files"""


class _Record(TypedDict):
    """What the manifest says of one file."""

    size: int
    """bytes"""
    sha256: str
    """hex digits"""


class Versions:
    """The versions under one root folder.

    Reading creates nothing and takes no lock. One instance belongs to one thread.
    """

    def __init__(
        self,
        root: Path,
        *,
        lock_timeout: float = 60.0,
        actor: locking.Actor | None = None,
        command: str = "",
        waiting: locking.Waiting = lambda _holder: None,
    ) -> None:
        """Name the folder; nothing is made before something is written.

        Args:
            root: of the store.
            lock_timeout: seconds to wait for another holder of the lock.
            actor: who changes it, as the lock and the history say; this process by default.
            command: what the lock is taken for.
            waiting: told once who is waited for.
        """
        self.root = root
        self.actor = actor if actor is not None else locking.myself()
        self.command = command
        self._versions = root / "versions"
        self._staging = root / "staging"
        self._lock_timeout = lock_timeout
        self._lock_depth = 0
        self._waiting = waiting

    def versions(self) -> list[Version]:
        """Every version, ordered by id."""
        try:
            folders = [path for path in self._versions.iterdir() if path.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self._versions} cannot be read: {error.strerror}") from error
        return [Version(path.name, path) for path in sorted(folders)]

    def version(self, version_id: str) -> Version:
        """The version of this id.

        Raises:
            StoreError: there is none, or it is not whole.
        """
        version = Version(version_id, self._versions / version_id)
        long = len(version_id.encode(errors="replace")) > _LONGEST_ID
        if version.path.parent != self._versions or not version_id.strip(".") or "\0" in version_id or long:
            raise StoreError(f"{version_id[:100]!r} is no version id")
        if not version.path.is_dir():
            raise StoreError(f"{version.path} is not there")
        check_files(version.path)
        return version

    def add_folder(self, source: Path, name: str) -> Version:
        """Copy a folder of model files into the store; the same files again change nothing.

        Args:
            source: the folder with the published file layout.
            name: what the id starts with; letters, digits, dot, dash, underscore.

        Raises:
            StoreError: a file is missing, the disk refuses, or the id is taken by other files.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            raise StoreError(f"{name!r} cannot name a version: letters, digits and . - _ can")
        names = [*check_files(source), *(n for n in _COMPANIONS if (source / n).is_file())]
        try:
            with self.lock():
                return self._add(source, name, names)
        except OSError as error:
            raise StoreError(f"{source} cannot be copied to {self.root}: {error}") from error

    @contextmanager
    def lock(self, timeout: float | None = None) -> Iterator[None]:
        """Hold the right to change the store; may be taken again by who holds it.

        Args:
            timeout: seconds to wait for another holder.

        Raises:
            StoreLocked: somebody else held it all the time; says who.
            StoreError: the store cannot be written.
        """
        if self._lock_depth:
            self._lock_depth += 1
            try:
                yield
            finally:
                self._lock_depth -= 1
            return
        path = self.root / "lock"
        try:
            make_folder(self.root)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            give_to_owner(path)
        except OSError as error:
            raise StoreError(f"{path} cannot be opened: {error.strerror}") from error
        try:
            wait = self._lock_timeout if timeout is None else timeout
            locking.acquire(descriptor, path, wait, self._waiting)
            locking.sign(descriptor, self.actor, self.command)
            self._lock_depth = 1
            try:
                self._clean_up()
                yield
            finally:
                self._lock_depth = 0
                locking.clear(descriptor)
        finally:
            os.close(descriptor)  # releases the lock

    def _clean_up(self) -> None:
        """Remove what a killed command left; for the holder of the lock."""
        sweep(self.root)

    def _add(self, source: Path, name: str, names: list[str]) -> Version:
        shutil.rmtree(self._staging, ignore_errors=True)  # only the holder of the lock writes there
        make_folder(self._versions)
        staged = self._staging / secrets.token_hex(8)
        make_folder(staged)
        try:
            files = {file: _copy(source / file, staged / file) for file in names}
            version_id = f"{name}-{files[MODEL_FILE]['sha256'][:8]}"
            version = Version(version_id, self._versions / version_id)
            if os.path.lexists(version.path):
                _check_same(version, files)
                return version
            manifest = {
                "id": version_id,
                "source": str(source.resolve()),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "files": files,
            }
            _write(staged / _MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")
            sync_folder(staged)
            staged.rename(version.path)
            sync_folder(self._versions)
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)
        return version


def check_files(folder: Path) -> list[str]:
    """Names of the files that make a version.

    Raises:
        StoreError: one is missing or cannot be looked at.
    """
    try:
        return _names(folder)
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror}") from error


def check_digests(folder: Path) -> dict[str, str]:
    """Whether the files are those that were stored. A folder without a manifest was stored by hand.

    Returns:
        SHA-256 (hex digits) of each file that the model is made of.

    Raises:
        StoreError: a file is another one than the manifest says, or cannot be read.
    """
    manifest = folder / _MANIFEST
    try:
        files = dict(json.loads(manifest.read_bytes())["files"])
        wanted = {name: str(record["sha256"]) for name, record in files.items()}
    except FileNotFoundError:
        wanted = {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{manifest} cannot be read: {error}") from error
    own = check_files(folder)
    digests = {name: _digest(folder / name) for name in {**wanted, **dict.fromkeys(own)}}
    for name, digest in wanted.items():
        if digests[name] != digest:
            raise StoreError(f"{folder / name} is not the file that was stored: its SHA-256 is another one")
    return {name: digests[name] for name in own}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as reader:
            return hashlib.file_digest(reader, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error


def _names(folder: Path) -> list[str]:
    for name in REQUIRED_FILES:
        if not (folder / name).is_file():
            raise StoreError(f"{folder / name} is missing")
    vocabularies = sorted(path.name for path in folder.glob("*.bpe.model") if path.is_file())
    if not vocabularies:
        raise StoreError(f"{folder / '*.bpe.model'} is missing")
    if len(vocabularies) > 1:
        raise StoreError(f"{folder} must hold one *.bpe.model; it holds {', '.join(vocabularies)}")
    return [*REQUIRED_FILES, vocabularies[0]]


def _check_same(version: Version, files: dict[str, _Record]) -> None:
    """Whether a version already stored has these files."""
    manifest = version.path / _MANIFEST
    try:
        stored = json.loads(manifest.read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{manifest} cannot be read: {error}") from error
    if stored != files:
        raise StoreError(f"{version.path} holds other files of that name: choose another name")
    check_files(version.path)


def _copy(source: Path, target: Path) -> _Record:
    """Copy a file to disk, read-only; its size in bytes and its SHA-256."""
    digest = hashlib.sha256()
    size = 0
    with source.open("rb") as reader, target.open("xb") as writer:
        while block := reader.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
            writer.write(block)
        _finish(writer)
    return {"size": size, "sha256": digest.hexdigest()}


def _write(target: Path, content: bytes) -> None:
    with target.open("xb") as writer:
        writer.write(content)
        _finish(writer)


def _finish(writer: BinaryIO) -> None:
    """Make an open file read-only and put its bytes on disk."""
    writer.flush()
    os.fchmod(writer.fileno(), 0o444)  # workers map it: it must never be written again
    os.fsync(writer.fileno())
