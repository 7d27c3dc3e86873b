"""Model versions on disk: whole or not there, and never changed.

    root/
      versions/<id>/    the files of a version and manifest.json; read-only once named
      staging/          copies under way; nothing here is ever served
      lock              flock: one change at a time

A version gets its name by a rename when all of its bytes are on disk, so a reader needs no lock.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from asrsvc.errors import AmbiguousVersion, StoreError, UnknownVersion, VersionDamaged
from asrsvc.release import lock as locking
from asrsvc.release.files import disk_error, make_folder, open_lock, sweep, sync_folder
from asrsvc.release.manifest import (
    COMPANION_FILES,
    MANIFEST_FILE,
    MODEL_FILE,
    REQUIRED_FILES,
    FileRecord,
    Manifest,
    Origin,
    check_name,
    manifest_bytes,
    measure,
    read_manifest,
    vocabulary_names,
)
from asrsvc.release.staging import Stage, claim
from asrsvc.release.writing import copy_file, write_new

_LONGEST_ID: Final = 255
"""bytes of a name in a folder"""
_SHOWN: Final = 10
"""versions, where a text may mean more"""


@dataclass(frozen=True, slots=True)
class Version:
    """One model version in the store."""

    id: str
    """its name and the first 8 hex digits of the SHA-256 of its model_quant.onnx"""
    path: Path
    """the folder with its files"""

    @property
    def name(self) -> str:
        """What the id begins with."""
        return self.id.rpartition("-")[0]


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
            UnknownVersion: there is none.
            StoreError: it is not whole.
        """
        version = self.find(version_id)
        check_files(version.path)
        return version

    def find(self, version_id: str) -> Version:
        """The version of this id, whole or damaged.

        Raises:
            UnknownVersion: there is none.
        """
        version = Version(version_id, self._versions / version_id)
        long = len(version_id.encode(errors="replace")) > _LONGEST_ID
        if version.path.parent != self._versions or not version_id.strip(".") or "\0" in version_id or long:
            raise UnknownVersion(f"{version_id[:100]!r} is no version id")
        if not version.path.is_dir():
            raise UnknownVersion(f"{version.path} is not there")
        return version

    def named_version(self, text: str) -> Version:
        """The version that a text names: its id, its name alone, or a beginning of its id.

        The first of these that any version has decides, so that a name counts although longer ones begin
        with it; as git and docker take a beginning, it must be that of one version alone.

        Raises:
            UnknownVersion: no version is called so.
            AmbiguousVersion: more than one is; names them.
            StoreError: the store cannot be read.
        """
        try:
            return self.find(text)
        except UnknownVersion as error:
            known = self.versions()
            fitting = [version for version in known if version.name == text]
            fitting = fitting or [version for version in known if version.id.startswith(text)]
            if not fitting or not text:
                raise
            if len(fitting) == 1:
                return fitting[0]
            shown = ", ".join(version.id for version in fitting[:_SHOWN])
            more = f" and {len(fitting) - _SHOWN} more" if len(fitting) > _SHOWN else ""
            raise AmbiguousVersion(
                f"{text!r} may mean {len(fitting)} versions, {shown}{more}: name one by more of its id"
            ) from error

    def add_folder(self, source: Path, name: str) -> Version:
        """Copy a folder of model files into the store; the same files again change nothing.

        Args:
            source: the folder with the published file layout.
            name: what the id starts with; letters, digits, dot, dash, underscore.

        Raises:
            BadArgument: no version can have this name.
            StoreError: a file is missing, the disk refuses, or the id is taken by other files.
        """
        check_name(name)
        names = [*check_files(source), *(n for n in COMPANION_FILES if (source / n).is_file())]
        try:
            with self.lock(), self.staged(f"copy-{secrets.token_hex(8)}") as stage:
                files = {file: copy_file(source / file, stage.files / file) for file in names}
                return self.commit(stage, name, Origin(str(source.resolve())), files)
        except OSError as error:
            raise disk_error(f"{source} cannot be copied to {self.root}", error) from error

    @contextmanager
    def staged(self, key: str, *, kept_after: tuple[type[BaseException], ...] = ()) -> Iterator[Stage]:
        """A folder for a copy or a download under way; what others have left behind is removed.

        Args:
            key: the same for downloads that can go on with each other's files.
            kept_after: exceptions that leave the folder to the next one of this key.

        Raises:
            StoreError: another process has this key, or the lock is held.
            OSError: the disk refuses.
        """
        with self.lock():
            make_folder(self._versions)
            stage = claim(self._staging, key)
        keep = False
        try:
            if stage.files.stat().st_dev != self._versions.stat().st_dev:
                raise StoreError(f"{self._staging} and {self._versions} must be on the same file system")
            yield stage
        except kept_after:
            keep = stage.has_bytes
            raise
        finally:
            self._release(stage, keep=keep)

    def commit(self, stage: Stage, name: str, origin: Origin, files: Mapping[str, FileRecord]) -> Version:
        """Make a version of the files of a stage; the same files again change nothing.

        Args:
            stage: its files are on disk, and are those of `files` alone.
            name: what the id starts with.
            origin: where the files are from.
            files: as they are.

        Raises:
            StoreError: the id is taken by other files, or the lock is held.
            OSError: the disk refuses.
        """
        with self.lock():
            version_id = f"{name}-{files[MODEL_FILE].sha256[:8]}"
            version = Version(version_id, self._versions / version_id)
            if os.path.lexists(version.path):
                _check_same(version, files)
                return version
            created = datetime.now(UTC).isoformat(timespec="seconds")
            manifest = Manifest(version_id, origin, created, files, sealed=True)
            (stage.files / MANIFEST_FILE).unlink(missing_ok=True)
            write_new(stage.files / MANIFEST_FILE, manifest_bytes(manifest))
            stage.files.chmod(0o755)  # root's umask may keep the service out
            sync_folder(stage.files)
            stage.files.rename(version.path)
            sync_folder(self._versions)
            return version

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
            descriptor = open_lock(path)
        except OSError as error:
            raise disk_error(f"{path} cannot be opened", error) from error
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

    def _release(self, stage: Stage, *, keep: bool) -> None:
        try:
            with self.lock():
                stage.release(keep=keep)
        except StoreError:
            stage.let_go()  # another change holds the lock for long: it, or the next one, cleans up


def check_files(folder: Path) -> list[str]:
    """Names of the files that make a version.

    Raises:
        StoreError: one is missing or cannot be looked at.
    """
    try:
        return _names(folder)
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror}") from error


def check_digests(folder: Path, *, unread: Collection[str] = ()) -> dict[str, str]:
    """Whether the files are those that were stored. A folder without a manifest was stored by hand.

    Args:
        folder: of the version.
        unread: names of files that nobody will open: of those that the manifest names, only the size
            is looked at.

    Returns:
        SHA-256 (hex digits) of each file that the model is made of.

    Raises:
        VersionDamaged: a file is another one than the manifest says.
        StoreError: a file cannot be read.
    """
    manifest = read_manifest(folder)
    wanted = dict(manifest.files) if manifest else {}
    own = check_files(folder)
    found: dict[str, FileRecord] = {}
    for name in {**wanted, **dict.fromkeys(own)}:
        try:
            if name in unread and name in wanted:
                size = (folder / name).stat().st_size
                found[name] = wanted[name] if size == wanted[name].size else measure(folder / name)
            else:
                found[name] = measure(folder / name)
        except OSError as error:
            raise StoreError(f"{folder / name} cannot be read: {error.strerror}") from error
    for name, record in wanted.items():
        if found[name].sha256 != record.sha256:
            raise VersionDamaged(
                f"{folder / name} is not the file that was stored: its SHA-256 is another one"
            )
    return {name: found[name].sha256 for name in own}


def _names(folder: Path) -> list[str]:
    for name in REQUIRED_FILES:
        if not (folder / name).is_file():
            raise StoreError(f"{folder / name} is missing")
    vocabularies = vocabulary_names(path.name for path in folder.iterdir() if path.is_file())
    if not vocabularies:
        raise StoreError(f"{folder / '*.bpe.model'} is missing")
    if len(vocabularies) > 1:
        raise StoreError(f"{folder} must hold one *.bpe.model; it holds {', '.join(vocabularies)}")
    return [*REQUIRED_FILES, vocabularies[0]]


def _check_same(version: Version, files: Mapping[str, FileRecord]) -> None:
    """Whether a version already stored has these files."""
    stored = read_manifest(version.path)
    if stored is None:
        raise StoreError(f"{version.path / MANIFEST_FILE} cannot be read: it is missing")
    if stored.files != files:
        raise StoreError(f"{version.path} holds other files of that name: choose another name")
    check_files(version.path)
    check_digests(version.path)
