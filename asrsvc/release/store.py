"""Which version serves: the pointers into the versions on disk, and what a start or a reload takes.

    root/
      next       -> versions/<id>   the wish: written by the tool, under the lock
      current    -> versions/<id>   what last served well: moved by the master when a roll succeeded, and
                                    while no master runs by a start that was told what to serve
      previous   -> versions/<id>   what served before it: moved by the master too

A pointer is replaced by a rename, so a reader needs no lock, and a power cut leaves the old one or
the new one. The master never takes the lock: it must not wait for an operator. People move
`current` by hand as well: then it is a wish, until it has served.

While a command watches what it has switched to, a link `watched` names that too (`watched.py`).

Hosts that share a store have their pointers below root/pointers/, a folder each: there every host sees
what the others need.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from asrsvc.errors import StoreError, StoreLocked
from asrsvc.release import watched
from asrsvc.release.files import Link, disk_error, look_at, make_folder, remove_link, sweep, write_link
from asrsvc.release.manifest import REQUIRED_FILES
from asrsvc.release.records import Record, Records
from asrsvc.release.versions import Version, Versions, check_files

__all__ = ["POINTERS", "REQUIRED_FILES", "Candidates", "Pointer", "Store", "Version"]

Pointer: TypeAlias = Literal["next", "current", "previous"]
POINTERS: Final[tuple[Pointer, ...]] = get_args(Pointer)

_SHARED: Final = "pointers"
"""folder in a store that several hosts share: a folder of pointers for each"""
_MEND: Final = "let it point to versions/<id>, or remove it"


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a start may serve."""

    versions: tuple[Version, ...]
    """each has served well or passed its trial, the best first; without such a one, what was forced"""
    problems: tuple[str, ...]
    """why the first is not the version that `current` names; sentences"""


class Store(Versions):
    """The versions under one root folder, their pointers and their records."""

    def __init__(self, root: Path, *, pointers: Path | None = None, **options: Any) -> None:
        """Name the folders; nothing is made before something is written.

        Args:
            root: of the store.
            pointers: of this host; the root by default.
            options: as for `Versions`.
        """
        super().__init__(root, **options)
        self.pointers = pointers or root
        """folder of this host's pointers"""
        self.records = Records(root, self.pointers)

    def record(self, version_id: str) -> Record:
        """What is known of a version.

        Raises:
            StoreError: its record is damaged.
        """
        return self.records.read(version_id)

    # Pointers.

    def named(self) -> dict[str, list[str]]:
        """What is pointed to, by any host: version id → pointers, as `current` or `asr-1/current`.

        Raises:
            StoreError: a folder cannot be read.
        """
        found: dict[str, list[str]] = {}
        shared = self.root / _SHARED
        try:
            others = (path for path in sorted(shared.glob("*")) if path.is_dir())
            for folder in dict.fromkeys([self.pointers, self.root, *others]):
                for name in POINTERS:
                    link = folder / name
                    if link.is_symlink():
                        shown = name if folder == self.pointers else f"{folder.name}/{name}"
                        found.setdefault(link.readlink().name, []).append(shown)
        except OSError as error:
            raise StoreError(f"the pointers in {self.root} cannot be read: {error}") from error
        return found

    def pointer(self, name: Pointer) -> Version | None:
        """The version that a pointer names; None while there is no such pointer.

        Raises:
            StoreError: the pointer leads nowhere, or to something that is not a whole version.
        """
        path = self.pointers / name
        try:
            target = path.readlink()
        except FileNotFoundError:
            return None
        except OSError as error:
            if path.exists():
                raise StoreError(f"{path} must be a symbolic link to versions/<id>") from error
            raise StoreError(f"{path} cannot be read: {error.strerror}") from error
        try:
            real = Path(os.path.realpath(path, strict=True))
        except OSError as error:
            raise StoreError(f"{path} points to {target}, which leads nowhere: {_MEND}") from error
        if real.parent != Path(os.path.realpath(self._versions)):
            raise StoreError(f"{path} points to {target}, not to a folder in {self._versions}: {_MEND}")
        try:
            check_files(real)
        except StoreError as error:
            raise StoreError(f"{path} points to no whole version: {error.message}") from error
        return Version(real.name, self._versions / real.name)

    def current(self) -> Version | None:
        """The version that `current` names; see `pointer`."""
        return self.pointer("current")

    def set_next(self, version: Version) -> None:
        """Wish for a version; for the tool.

        Raises:
            StoreError: the version is not whole, the lock is held, or the disk refuses.
        """
        with self.lock():
            self._point("next", version)

    def clear_next(self) -> bool:
        """Take the wish back, whatever it names; for the tool. Whether there was one.

        It needs no lock, so that minds can change while its holder waits for a roll. A wish that comes
        meanwhile stays.

        Raises:
            StoreError: `next` is no pointer, or the disk refuses.
        """
        path = self.pointers / "next"
        try:
            seen = look_at(path)
            return seen is not None and remove_link(path, seen)
        except OSError as error:
            if path.exists() and not path.is_symlink():
                raise StoreError(f"{path} must be a symbolic link: move it away") from error
            raise disk_error(f"{path} cannot be removed", error) from error

    def call_off(self) -> str | None:
        """Have the command that watches a version take it back; its id, or None if none is watched.

        As `clear_next`, it is for the time while another command holds the lock.
        """
        try:
            with self.lock(timeout=0):
                return None  # nobody is at work
        except StoreLocked:
            return watched.take_away(self.pointers)
        except StoreError:
            return None  # nobody can be at work in a store that cannot be written

    def set_current(self, version: Version) -> None:
        """Let `current` name a version of this store; for a start that finds none.

        Raises:
            StoreError: the version is not whole, or what is called `current` is no pointer.
        """
        with self.lock():
            self._point("current", version)

    def start_with(self, version: Version) -> None:
        """Let the next start serve a version, whatever was wished for; for a start that was told which.

        One that has neither served nor passed a trial is wished for, so that a start rolls to it: it is
        served at once only where there is no other.

        Raises:
            StoreError: the version is not whole, the lock is held, or the disk refuses.
        """
        with self.lock():
            others = [other for other in self.candidates().versions if other != version]
            if others and not self.record(version.id).vouched:
                self.set_next(version)
                return
            current = _or_none(self, "current")
            if current is not None and current in others and not self.record(current.id).withdrawn:
                self._point("previous", current)
            self._point("current", version)
            self.clear_next()

    # For the master, which never takes the lock.

    def promote(self, version: Version, *, settled: str | None = None) -> None:
        """A roll has succeeded: record it, then `previous`, then `current`, then take the wish away.

        At any instant `current` names a version that has served well; a later wish stays. Promoting
        the version that `current` names already (a reload) leaves `previous` as it is.

        Args:
            version: what serves now.
            settled: id of what served before; without it, what `current` names. It differs where
                somebody has moved `current` by hand.

        Raises:
            StoreError: the disk refuses; what has been done so far is consistent.
        """
        self.records.note_served(version.id)
        current = _or_none(self, "current")
        before = current
        if settled is not None:
            try:
                before = self.version(settled)
            except StoreError:
                before = None  # removed meanwhile: `previous` may as well stay
        if before is not None and before != version and self.record(before.id).withdrawn is not None:
            # What was taken back is nothing to go back to.
            before = next((other for other in self._others() if other != version), None)
        if before is not None and before != version and _or_none(self, "previous") != before:
            self._point("previous", before)
        if current != version:
            self._point("current", version)
        self.drop_next(version)

    def look_at_next(self) -> Link | None:
        """The wish as a thing of its own: a second wish for the same version is another one.

        Raises:
            StoreError: `next` is no pointer, or cannot be read.
        """
        path = self.pointers / "next"
        try:
            return look_at(path)
        except OSError as error:
            raise StoreError(f"{path} must be a symbolic link to versions/<id>") from error

    def drop_next(self, version: Version, taken: Link | None = None) -> bool:
        """Take the wish away if it still names this version; whether it did.

        Args:
            version: that is not wished for any more.
            taken: the wish that has been dealt with; one that was made since stays, whatever it names.

        Raises:
            StoreError: the disk refuses.
        """
        path = self.pointers / "next"
        try:
            # Looked at before it is followed: what is removed is what was judged.
            seen = look_at(path)
            if seen is None or seen != (taken or seen) or _or_none(self, "next") != version:
                return False
            return remove_link(path, seen)
        except OSError as error:
            raise disk_error(f"{path} cannot be removed", error) from error

    def restore_current(self, version: Version) -> None:
        """Put `current` back after a wish made by moving it has failed, or where it was broken.

        Raises:
            StoreError: the version is not whole, or the disk refuses.
        """
        if _or_none(self, "current") != version:
            self._point("current", version)

    # Decisions.

    def candidates(self) -> Candidates:
        """What a start may serve: `current`, `previous`, then others, the last proven first.

        A `current` that has neither served nor passed a trial has been moved by hand: it is not
        served at once, but rolled to (`wish`). Where there is nothing else, one that was forced is served.
        """
        found: list[Version] = []
        problems: list[str] = []
        names: tuple[Pointer, ...] = ("current", "previous")
        for name in names:
            path = self.pointers / name
            try:
                version = self.pointer(name)
                if version is None:
                    problem = f"{path} is missing"
                elif self.record(version.id).vouched:
                    found.append(version)
                    continue
                else:
                    problem = f"{path} names {version.id}, which has neither served nor passed a trial"
            except StoreError as error:
                problem = error.message
            if not found:
                problems.append(problem)
        found.extend(self._others())
        if not found:
            current = _or_none(self, "current")
            if current is not None and self.record(current.id).forced:
                return Candidates((current,), ())
        return Candidates(tuple(dict.fromkeys(found)), tuple(problems))

    def wish(self, settled: str | None) -> Version | None:
        """What a reload rolls to: `next`, else a `current` moved by hand, else what serves.

        Args:
            settled: id of the version that last served well; None before there is one.

        Raises:
            StoreError: a pointer is broken, or what serves is no longer on disk.
        """
        wished = self.pointer("next")
        if wished is not None:
            return wished
        current = self.pointer("current")
        if current is not None or settled is None:
            return current
        return self.version(settled)

    def former(self, serving: str | None) -> Version | None:
        """What a rollback goes back to: `previous`, else what has proved itself last.

        Args:
            serving: id of the version that serves now.

        Raises:
            StoreError: a record is damaged.
        """
        previous = _or_none(self, "previous")
        if previous is not None and previous.id != serving and not self.record(previous.id).withdrawn:
            return previous
        others = (version for version in self._others() if version.id != serving)
        return next((v for v in others if self.record(v.id).last_served is not None), None)

    def _clean_up(self) -> None:
        super()._clean_up()
        for folder in (self.pointers, self.root / "records"):
            sweep(folder)
        watched.sweep(self.pointers)

    def _others(self) -> list[Version]:
        proven = []
        for version in _listed(self):
            try:
                record = self.record(version.id)
                if record.vouched and not record.fallen:
                    check_files(version.path)
                    proven.append((record.proven, version))
            except StoreError:
                continue  # it is only one of those that might do
        return [version for _, version in sorted(proven, key=lambda pair: pair[0], reverse=True)]

    def _point(self, name: Pointer, version: Version) -> None:
        path = self.pointers / name
        if version.path != self._versions / version.id:
            raise StoreError(f"{version.path} is not a version of {self.root}")
        check_files(version.path)
        try:
            look_at(path)  # once: the master may move it aside and back at any time
        except OSError as error:
            raise StoreError(f"{path} must be a symbolic link to versions/<id>: move it away") from error
        try:
            make_folder(self.pointers)
            # Relative: a store may be moved, and hosts may see it under other names.
            write_link(path, Path(os.path.relpath(version.path, self.pointers)))
        except OSError as error:
            raise disk_error(f"{path} cannot be replaced", error) from error


def _or_none(store: Store, name: Pointer) -> Version | None:
    """What a pointer names, also None for a broken one."""
    try:
        return store.pointer(name)
    except StoreError:
        return None


def _listed(store: Store) -> list[Version]:
    try:
        return store.versions()
    except StoreError:
        return []
