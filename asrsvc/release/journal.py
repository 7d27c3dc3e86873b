"""Who changed what when: one JSON line for the begin of each change, and one for its end.

    root/
      journal.jsonl     the newer lines; appended to, never written over
      journal.1.jsonl   the older ones; what was before them is gone

A change that was killed has a begin and no end. A line that a power cut has torn is passed over.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from asrsvc.errors import StoreError
from asrsvc.release.files import disk_error, give_file_to_owner, open_descriptor, read_plain, sync_folder
from asrsvc.release.lock import Actor, now

Outcome: TypeAlias = Literal["succeeded", "failed", "interrupted"]

_MOST_BYTES: Final = 1 << 20
"""of one of the two files; about 2,500 changes"""
_MOST_READ: Final = 16 * _MOST_BYTES
"""of one of them that somebody else has written"""
_LONGEST_REASON: Final = 1000
"""characters"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change, or one attempt."""

    when: str
    """UTC, ISO 8601; when it began"""
    command: str
    """as `rollback`; empty: no command of the tool asked for it"""
    actor: Actor | None
    source: str | None
    """id of the version that served before"""
    target: str | None
    """id of the version that was asked for"""
    result: Outcome | None = None
    """None: its end was never noted: it goes on, or was killed"""
    reason: str = ""
    """why it did not succeed, or what else there is to say"""
    ended: str | None = None


@dataclass
class Change:
    """A change under way, for who notes it."""

    source: str | None = None
    target: str | None = None
    reason: str = ""
    unwritten: str = ""
    """why its end could not be noted; what was done is done all the same"""


class Journal:
    """The lines below one root folder. Reading creates nothing."""

    def __init__(self, root: Path) -> None:
        self._path = root / "journal.jsonl"
        self._older = root / "journal.1.jsonl"

    @contextmanager
    def change(
        self,
        command: str,
        actor: Actor,
        source: str | None = None,
        target: str | None = None,
        *,
        must: bool = True,
    ) -> Iterator[Change]:
        """Note begin and end of what is done in the block.

        Args:
            command: one word.
            actor: who does it.
            source: id of the version that serves.
            target: id of the version that is asked for, if it is known already.
            must: whether it is done only if it can be noted; False for what writes nothing else, and
                helps where the disk is full.

        Raises:
            StoreError: the begin cannot be noted: then the rest could not be written either.
        """
        key, change = secrets.token_hex(6), Change(source, target)
        begin = {"id": key, "when": now(), "command": command, "actor": asdict(actor)}
        try:
            self._append({**begin, "from": source, "to": target})
        except StoreError as error:
            if must:
                raise
            change.unwritten = error.message
            yield change
            return

        def end(result: Outcome, reason: str) -> None:
            self._append(
                {
                    "id": key,
                    "ended": now(),
                    "result": result,
                    "from": change.source,
                    "to": change.target,
                    "reason": reason[:_LONGEST_REASON],
                }
            )

        try:
            yield change
        except BaseException as error:
            result: Outcome = "failed" if isinstance(error, Exception) else "interrupted"
            try:
                end(result, str(error))
            except StoreError as unwritten:
                error.add_note(unwritten.message)  # what went wrong before it counts
            raise
        try:
            end("succeeded", change.reason)
        except StoreError as unwritten:
            change.unwritten = unwritten.message

    def entries(self) -> list[Entry]:
        """All that is known, the oldest first.

        Raises:
            StoreError: a file cannot be read.
        """
        found: dict[str, dict[str, Any]] = {}
        for line in self._lines():
            try:
                content = json.loads(line)
                found.setdefault(str(content["id"]), {}).update(content)
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # torn
        return [entry for content in found.values() if (entry := _entry(content)) is not None]

    def _lines(self) -> Iterator[bytes]:
        for path in (self._older, self._path):
            try:
                yield from read_plain(path, _MOST_READ).splitlines()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(f"{path} cannot be read: {error.strerror}") from error

    def _append(self, content: Mapping[str, Any]) -> None:
        line = json.dumps(content, ensure_ascii=False).encode() + b"\n"
        try:
            self._rotate()
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            descriptor = open_descriptor(self._path, flags)
            try:
                give_file_to_owner(descriptor, self._path.parent)
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                os.write(descriptor, b"\n" + line if torn else line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if size == 0:
                sync_folder(self._path.parent)
        except OSError as error:
            raise disk_error(f"{self._path} cannot be written", error) from error

    def _rotate(self) -> None:
        try:
            large = self._path.stat().st_size > _MOST_BYTES
        except FileNotFoundError:
            return
        if large:
            self._path.replace(self._older)
            sync_folder(self._path.parent)


def _entry(content: Mapping[str, Any]) -> Entry | None:
    try:
        return Entry(
            when=str(content["when"]),
            command=str(content["command"]),
            actor=Actor(**content["actor"]),
            source=content.get("from"),
            target=content.get("to"),
            result=content.get("result"),
            reason=str(content.get("reason", "")),
            ended=content.get("ended"),
        )
    except (KeyError, TypeError):
        return None  # its begin has been rotated away, or torn
