"""The versions of a store with all that is known of each, for people and programs that look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from asrsvc.errors import AsrError, StoreError
from asrsvc.release.manifest import read_manifest
from asrsvc.release.records import Refusal
from asrsvc.release.store import POINTERS, Store, Version

_OF_A_TRIAL: Final = ("passed", "when", "reason")
"""what a list says of it; the rest is in the record"""


def catalogue(store: Store) -> list[dict[str, Any]]:
    """One entry for each version, ordered by id.

    Raises:
        StoreError: a folder of the store cannot be read.
    """
    named = store.named()
    return [describe(store, version, named) for version in store.versions()]


def problems(store: Store) -> list[str]:
    """What is wrong with this host's pointers; sentences."""
    found = []
    for name in POINTERS:
        try:
            store.pointer(name)
        except StoreError as error:
            found.append(error.message)
    return found


def describe(store: Store, version: Version, named: Mapping[str, list[str]]) -> dict[str, Any]:
    """What is known of a version.

    Args:
        store: that holds it.
        version: which one.
        named: what points to it, see `Store.named`.

    Returns:
        as JSON can say it, always the same keys; `problem` says what is damaged or could not be read.
    """
    found: dict[str, Any] = {
        "version": version.id,
        "path": str(version.path),
        "pointers": named.get(version.id, []),
        "size": None,
        "files": {},
        "source": None,
        "revision": None,
        "created": None,
        "trial": None,
        "first_served": None,
        "last_served": None,
        "refused": None,
        "withdrawn": None,
        "forced": False,
        "problem": None,
    }
    try:
        store.version(version.id)
        manifest = read_manifest(version.path)
        if manifest is not None:
            files = {name: {"size": r.size, "sha256": r.sha256} for name, r in manifest.files.items()}
            found |= {"files": files, "created": manifest.created or None}
            found |= {"source": manifest.origin.source, "revision": manifest.origin.revision}
        found["size"] = sum(path.stat().st_size for path in version.path.iterdir())
        record = store.record(version.id)
        found |= {
            "trial": _only(record.trial),
            "first_served": record.first_served,
            "last_served": record.last_served,
            "refused": _refusal(record.refused),
            "withdrawn": _refusal(record.withdrawn),
            "forced": record.forced,
        }
    except (AsrError, OSError) as error:
        found["problem"] = str(error)
    return found


def _only(trial: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if trial is None else {key: trial.get(key) for key in _OF_A_TRIAL}


def _refusal(found: Refusal | None) -> dict[str, str] | None:
    return None if found is None else {"when": found.when, "reason": found.reason}
