"""The model inside the package: what an empty store begins with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from asrsvc.errors import StoreError
from asrsvc.release.manifest import read_manifest
from asrsvc.release.store import Store
from asrsvc.release.versions import Version, check_digests

_EMBEDDED: Final = Path(__file__).resolve().parent.parent / "models"


def ensure_embedded(store: Store) -> Version:
    """The version that a start begins with; an empty store gets the model inside the package.

    Raises:
        StoreError: the store is damaged or cannot be written.
    """
    if not os.path.lexists(store.pointers / "current"):
        with store.lock():
            if not os.path.lexists(store.pointers / "current"):  # locked, then looked again
                found = store.candidates().versions
                store.set_current(found[0] if found else _add_embedded(store))
    found = store.candidates().versions
    first = found[0] if found else store.wish(None)
    if first is None:
        raise StoreError(f"{store.root / 'current'} has been removed: start again")
    return first


def is_demonstration(store: Store, version_id: str | None) -> bool:
    """Whether a version is the model inside the package, put into the store by a start.

    It is for demonstration, and nobody has chosen it: nothing is measured against it. It is told by the
    source in its manifest; once an operator has pulled the same files, they are a version like any other.

    Args:
        store: that holds it.
        version_id: None is no version.
    """
    if version_id is None:
        return False
    try:
        version = store.find(version_id)
        manifest = read_manifest(version.path)
        if manifest is None or store.record(version.id).sources:
            return False
    except StoreError:
        return False
    # Wherever asrsvc was installed when it was put there.
    return Path(manifest.origin.source).parts[-3:-1] == _EMBEDDED.parts[-2:]


def _add_embedded(store: Store) -> Version:
    folders = sorted(path for path in _EMBEDDED.iterdir() if path.is_dir()) if _EMBEDDED.is_dir() else []
    if len(folders) != 1:
        raise StoreError(f"{_EMBEDDED} must hold one model; it holds {len(folders)}")
    version = store.add_folder(folders[0], folders[0].name)
    trial = {"passed": True, "reason": "it came with asrsvc", "files": check_digests(version.path)}
    store.records.note_trial(version.id, trial)
    return version
