"""Removing versions that nobody needs: not what is pointed to, by any host, and not what is mapped."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asrsvc.errors import StoreError, VersionInUse
from asrsvc.release.bake.twins import FOLDER, remove_stale
from asrsvc.release.files import disk_error, sync_folder
from asrsvc.release.manifest import read_manifest
from asrsvc.release.staging import sweep
from asrsvc.release.store import Store, Version

_REMOVED: Final = "removed-"
"""what a folder in the store's root is called when only its files are still to go"""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed and what was kept."""

    removed: tuple[str, ...]
    """version ids"""
    kept: tuple[tuple[str, str], ...]
    """version id, and why"""


def prune(store: Store, keep: int, in_use: frozenset[str]) -> Pruned:
    """Remove all but what is needed and the newest others; for the holder of the store's lock.

    A version goes out of sight by one rename; one that was killed in the middle of that is finished by
    the next call. Its record stays: it says what was known of it.

    Args:
        store: whose lock is held.
        keep: how many versions to keep beside those that are needed.
        in_use: ids of what the service's workers have or had loaded.

    Raises:
        StoreError: the disk refuses.
    """
    _finish(store)
    needed = _needed(store, in_use)
    kept = [(version.id, needed[version.id]) for version in store.versions() if version.id in needed]
    others = [version for version in store.versions() if version.id not in needed]
    others.sort(key=_age)
    newest = others[max(0, len(others) - keep) :] if keep else []
    kept += [(version.id, f"among the {keep} newest others") for version in newest]
    removed = [version for version in others if version not in newest]
    for version in removed:
        _remove(store, version)
    return Pruned(tuple(version.id for version in removed), tuple(sorted(kept)))


def remove(store: Store, versions: Sequence[Version], in_use: frozenset[str]) -> Pruned:
    """Remove these versions, or none; for the holder of the store's lock.

    Args:
        store: whose lock is held.
        versions: to be removed.
        in_use: as for `prune`.

    Raises:
        VersionInUse: one is needed; says by whom.
        StoreError: the disk refuses.
    """
    _finish(store)
    needed = _needed(store, in_use)
    wrong = [f"{v.id}: {needed[v.id]}" for v in dict.fromkeys(versions) if v.id in needed]
    if wrong:
        raise VersionInUse(f"nothing is removed, since a version is needed: {'; '.join(wrong)}")
    for version in dict.fromkeys(versions):
        _remove(store, version)
    return Pruned(tuple(version.id for version in dict.fromkeys(versions)), ())


def _needed(store: Store, in_use: frozenset[str]) -> dict[str, str]:
    """Version id → why it must stay."""
    mapped = dict.fromkeys(in_use | mapped_versions(store), "a worker still has it loaded")
    return mapped | {version: ", ".join(pointers) for version, pointers in store.named().items()}


def mapped_versions(store: Store, processes: Path = Path("/proc")) -> frozenset[str]:
    """Versions that some process of this host has mapped, or their twins, as far as this user may see."""
    root = re.escape(str(store.root.resolve()))
    pattern = re.compile(rf" {root}/(?:versions|{FOLDER})/([^/\n]+)/")
    found: set[str] = set()
    for maps in processes.glob("[0-9]*/maps"):
        try:
            found.update(pattern.findall(maps.read_text(errors="replace")))
        except OSError:
            continue  # it has ended, or is another user's
    return frozenset(found)


def _age(version: Version) -> tuple[str, str]:
    """What orders versions by when they came into the store; by hand ones come first."""
    try:
        manifest = read_manifest(version.path)
    except StoreError:
        manifest = None
    created = manifest.created if manifest is not None else ""
    return created, version.id


def _remove(store: Store, version: Version) -> None:
    aside = store.root / f"{_REMOVED}{secrets.token_hex(4)}"  # no new folder: the disk may be full
    try:
        version.path.rename(aside)
        sync_folder(store.root)
        sync_folder(version.path.parent)
        _delete(aside)
        _delete(store.root / "baked" / version.id)
    except OSError as error:
        raise disk_error(f"{version.path} cannot be removed", error) from error


def _finish(store: Store) -> None:
    """Delete what an earlier call was killed over, and twins whose version has gone."""
    try:
        for aside in store.root.glob(f"{_REMOVED}*"):
            _delete(aside)
        sweep(store.root / "staging")
        known = {version.id for version in store.versions()}
        for baked in (store.root / "baked").glob("*"):
            if baked.name not in known:
                _delete(baked)
            else:
                remove_stale(store.root, baked.name)
    except OSError as error:
        raise disk_error(f"what is left in {store.root} cannot be removed", error) from error


def _delete(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.is_dir():
        shutil.rmtree(folder)
