"""What is known of each version: its sources, its trial, when it served, why it was refused.

    root/
      records/<id>.json       what the tool knows: sources, trials, forced, withdrawn, returning; written
                              under the store's lock
    pointers/
      served/<id>.json        what the master knows: first and last served, refused; needs no lock

Each file has one writer, like each pointer, so neither can undo what the other has written. Hosts that
share a store have folders of pointers of their own, and so know of themselves alone what has served.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from asrsvc.errors import StoreError
from asrsvc.release.files import disk_error, make_folder, read_plain, write_file

_MOST_BYTES: Final = 16 * 2**20
"""of a file; one of ours has a few KB, and some MB after a trial on a thousand recordings"""
_LONGEST_REASON: Final = 2000
"""characters; the whole of it is in the log"""
_TRIALS_KEPT: Final = 20
"""of a version, in short"""
_ONLY_OF_THE_LAST: Final = frozenset({"clips", "embedded", "engine", "files", "reference"})
"""what is long about a trial"""
_SOURCES_KEPT: Final = 50
"""of a version, the newest"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a version does not serve."""

    when: str
    """UTC, ISO 8601"""
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """All that is known of one version."""

    id: str
    first_served: str | None = None
    """UTC, ISO 8601; when a roll to it first succeeded"""
    last_served: str | None = None
    """UTC, ISO 8601; when it last became the version that serves"""
    refused: Refusal | None = None
    """why the last roll to it failed"""
    trial: Mapping[str, Any] | None = None
    """what its trial found: `passed` (bool), `when` (UTC, ISO 8601) and more"""
    trials: tuple[Mapping[str, Any], ...] = ()
    """its last trials in short, the newest last"""
    forced: bool = False
    """whether a worker leaves out the comparison of text and speed"""
    withdrawn: Refusal | None = None
    """why it was taken back after it had begun to serve"""
    returning: bool = False
    """whether a rollback asks for it: it has served, so it is not compared with what it replaces"""
    sources: Mapping[str, str] = field(default_factory=dict)
    """what an operator has pulled it from, see `sources.identity` → when last (UTC, ISO 8601)"""

    @property
    def vouched(self) -> bool:
        """Whether it has served well or passed its trial."""
        return self.last_served is not None or self._passed

    @property
    def proven(self) -> str:
        """When it last served or passed its trial (UTC, ISO 8601); empty: neither."""
        tried = str(self.trial.get("when", "")) if self.trial is not None and self._passed else ""
        return max(self.last_served or "", tried)

    @property
    def fallen(self) -> bool:
        """Whether it was refused, or taken back, after it had last proved itself."""
        against = (self.refused, self.withdrawn)
        return any(refusal is not None and refusal.when >= self.proven for refusal in against)

    @property
    def _passed(self) -> bool:
        return self.trial is not None and self.trial.get("passed") is True


class Records:
    """The records below one root folder. Reading creates nothing."""

    def __init__(self, root: Path, pointers: Path | None = None) -> None:
        """Name the folders.

        Args:
            root: of the store.
            pointers: of this host; the root by default.
        """
        self._tool = root / "records"
        self._master = (pointers or root) / "served"

    def read(self, version_id: str) -> Record:
        """What is known of a version; an empty record if nothing is.

        Raises:
            StoreError: a file cannot be read, or is not a record.
        """
        return _record(
            version_id,
            _load(_place(self._tool, version_id)),
            _load(_place(self._master, version_id)),
        )

    def known(self) -> list[str]:
        """Ids of the versions that the master has noted something of, in order."""
        return sorted(path.stem for path in self._master.glob("*.json") if not path.name.startswith("."))

    def note_served(self, version_id: str) -> None:
        """Say that a roll to this version has succeeded; for the master."""
        path = _place(self._master, version_id)
        known = _load(path)
        now = _now()
        _save(path, {**known, "first_served": known.get("first_served") or now, "last_served": now})

    def note_refused(self, version_id: str, reason: str) -> None:
        """Say that a roll to this version has failed; for the master.

        Args:
            version_id: which version.
            reason: the worker's own error.
        """
        path = _place(self._master, version_id)
        refused = {"when": _now(), "reason": reason[:_LONGEST_REASON]}
        _save(path, {**_load(path), "refused": refused})

    def note_trial(self, version_id: str, trial: Mapping[str, Any]) -> None:
        """Keep what a trial found; for the holder of the store's lock.

        Args:
            version_id: which version.
            trial: `passed` (bool) and what else is to be known, as JSON can say it.
        """
        path = _place(self._tool, version_id)
        known = _load(path)
        new = {"when": _now(), **trial}
        short = {key: value for key, value in new.items() if key not in _ONLY_OF_THE_LAST}
        trials = [*(known.get("trials") or ()), short][-_TRIALS_KEPT:]
        _save(path, {**known, "trial": new, "trials": trials})

    def note_source(self, version_id: str, source: str) -> None:
        """Say that an operator has pulled it from there; for the holder of the store's lock.

        Args:
            version_id: which version.
            source: see `sources.identity`.
        """
        path = _place(self._tool, version_id)
        known = _load(path)
        others = {key: when for key, when in (known.get("sources") or {}).items() if key != source}
        newest = dict(list(others.items())[-(_SOURCES_KEPT - 1) :])
        _save(path, {**known, "sources": {**newest, source: _now()}})

    def note_forced(self, version_id: str, *, forced: bool) -> None:
        """Say whether the comparison of text and speed is left out; for the holder of the lock."""
        self._note(version_id, "forced", forced or None)

    def note_returning(self, version_id: str, *, returning: bool) -> None:
        """Say whether a rollback asks for it; for the holder of the lock."""
        self._note(version_id, "returning", returning or None)

    def note_withdrawn(self, version_id: str, reason: str | None) -> None:
        """Say why it was taken back after it had begun to serve; for the holder of the lock.

        Args:
            version_id: which version.
            reason: what was wrong; None: nothing any more.
        """
        refusal = None if reason is None else {"when": _now(), "reason": reason[:_LONGEST_REASON]}
        self._note(version_id, "withdrawn", refusal)

    def _note(self, version_id: str, key: str, value: Any) -> None:
        """Keep one thing, if it is news; None: it does not hold."""
        path = _place(self._tool, version_id)
        known = _load(path)
        if (known.get(key) or None) != value:
            rest = {name: known[name] for name in known if name != key}
            _save(path, rest if value is None else {**rest, key: value})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _place(folder: Path, version_id: str) -> Path:
    if not version_id or version_id.startswith(".") or "/" in version_id or "\0" in version_id:
        raise StoreError(f"{version_id!r} is no version id")
    return folder / f"{version_id}.json"


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_plain(path, _MOST_BYTES))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, "it must hold one object")
    kinds = {
        "first_served": str,
        "last_served": str,
        "refused": dict,
        "trial": dict,
        "trials": list,
        "forced": bool,
        "withdrawn": dict,
        "returning": bool,
        "sources": dict,
    }
    for key, kind in kinds.items():
        if found.get(key) is not None and not isinstance(found[key], kind):
            raise _damaged(path, f"{key} must be a {kind.__name__}")
    return found


def _damaged(path: Path, why: str) -> StoreError:
    return StoreError(f"{path} is not a record ({why}): mend or remove it")


def _save(path: Path, content: Mapping[str, Any]) -> None:
    try:
        make_folder(path.parent)
        write_file(path, json.dumps(content, ensure_ascii=False, indent=2).encode() + b"\n")
    except OSError as error:
        raise disk_error(f"{path} cannot be written", error) from error


def _record(version_id: str, tool: Mapping[str, Any], master: Mapping[str, Any]) -> Record:
    return Record(
        id=version_id,
        first_served=master.get("first_served"),
        last_served=master.get("last_served"),
        refused=_refusal(master.get("refused")),
        trial=tool.get("trial"),
        trials=tuple(found for found in tool.get("trials") or () if isinstance(found, dict)),
        forced=tool.get("forced") is True,
        withdrawn=_refusal(tool.get("withdrawn")),
        returning=tool.get("returning") is True,
        sources={str(source): str(when) for source, when in (tool.get("sources") or {}).items()},
    )


def _refusal(found: Mapping[str, Any] | None) -> Refusal | None:
    return Refusal(str(found.get("when", "")), str(found.get("reason", ""))) if found else None
