"""The versions of a store with all that is known of each, for people and programs that look."""

from __future__ import annotations

import json
from typing import Any

from asrsvc.errors import StoreError
from asrsvc.release.store import Store, Version


def catalogue(store: Store) -> list[dict[str, Any]]:
    """One entry for each version, ordered by id; what is damaged is said in its entry.

    Raises:
        StoreError: the folder of versions cannot be read.
    """
    named = store.named()
    return [_entry(store, version, named.get(version.id, [])) for version in store.versions()]


def _entry(store: Store, version: Version, pointers: list[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": version.id, "pointers": pointers}
    try:
        manifest = json.loads((version.path / "manifest.json").read_bytes())
        entry["source"], entry["created"] = manifest.get("source"), manifest.get("created")
        entry["bytes"] = sum(file["size"] for file in manifest["files"].values())
        record = store.record(version.id)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {**entry, "damaged": f"manifest.json cannot be read: {error}"}
    except StoreError as error:
        return {**entry, "damaged": error.message}
    trial = record.trial
    return {
        **entry,
        "trial": None if trial is None else {key: trial.get(key) for key in ("passed", "when", "reason")},
        "first_served": record.first_served,
        "last_served": record.last_served,
        "refused": record.refused and {"when": record.refused.when, "reason": record.refused.reason},
        "withdrawn": record.withdrawn and {"when": record.withdrawn.when, "reason": record.withdrawn.reason},
        "forced": record.forced,
    }
