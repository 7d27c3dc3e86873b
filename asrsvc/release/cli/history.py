"""The command that tells who changed what when."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

from asrsvc.release.cli.command import Command, Context
from asrsvc.release.journal import Entry, Journal
from asrsvc.release.quality import quality, quality_table
from asrsvc.release.store import Store

_SLACK: Final = timedelta(seconds=5)
"""between the end of a roll and what the tool that asked for it has noted"""


def history(context: Context, options: argparse.Namespace) -> None:
    """Print changes, the newest last; with --quality the error rates of the versions."""
    store = context.store(lock_timeout=0)
    if options.quality:
        rows = quality(store)
        context.result(quality_table(rows), {"quality": [row.to_json() for row in rows]})
        return
    entries = changes(store)
    if options.last is not None:
        entries = entries[max(0, len(entries) - options.last) :]
    lines = [_line(entry) for entry in entries] or ["nothing has been changed yet"]
    context.result("\n".join(lines), {"history": [_content(entry) for entry in entries]})


def changes(store: Store) -> list[Entry]:
    """What was noted, and what the master's records tell beside that, the oldest first."""
    noted = Journal(store.root).entries()
    found = list(noted)
    for version in store.records.known():
        record = store.record(version)
        moments: list[tuple[str | None, str]] = [(record.first_served, ""), (record.last_served, "")]
        if record.refused is not None:
            moments.append((record.refused.when, record.refused.reason))
        for when, reason in dict.fromkeys(moments):
            if when and not any(_covers(entry, version, when) for entry in noted):
                result = "failed" if reason else "succeeded"
                found.append(Entry(when, "", None, None, version, result, reason, when))  # type: ignore[arg-type]
    return sorted(found, key=lambda entry: entry.when)


def _covers(entry: Entry, version: str, when: str) -> bool:
    """Whether a command has brought about what the master noted then."""
    if version not in {entry.source, entry.target}:
        return False
    try:
        moment, began = datetime.fromisoformat(when), datetime.fromisoformat(entry.when)
        ended = datetime.fromisoformat(entry.ended) if entry.ended else moment
    except ValueError:
        return False
    return began - _SLACK <= moment <= ended + _SLACK


def _line(entry: Entry) -> str:
    way = " to ".join(filter(None, (entry.source, entry.target)))
    who = str(entry.actor) if entry.actor is not None else "the master"
    command = entry.command or "start or SIGHUP"
    reason = f": {entry.reason}" if entry.reason else ""
    result = entry.result or "began, and its end was not noted"
    return f"{entry.when}  {command}  {way or '-'}  {result}{reason}  ({who})"


def _content(entry: Entry) -> dict[str, Any]:
    content = asdict(entry)
    content["from"], content["to"] = content.pop("source"), content.pop("target")
    return content


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quality", action="store_true", help="the error rates of the versions over time")
    parser.add_argument("--last", type=_count, metavar="N", help="the newest N changes (default: all)")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_count.__name__ = "whole number from 1"  # as argparse names it in its message

COMMANDS: Final = (
    Command("history", "print who changed what when, and how it ended", history, None, _arguments),
)
