"""The commands for a running service: status, reload, abort."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from typing import Any, Final

from asrsvc.errors import AbortTooLate, NotRunning, RollAborted, RollFailed, StoreError, WaitTimeout
from asrsvc.release.cli.command import Command, Context
from asrsvc.release.cli.service import describe
from asrsvc.release.store import Store
from asrsvc.serving.status import Roll, Status, to_json

_LOCK_SECONDS: Final = 30.0
_BEGIN_SECONDS: Final = 30.0
"""from the signal, or the end of the roll before, until a roll begins"""
_STEPS: Final = {
    "first": "the first new worker loads",
    "soak": "it serves beside the old ones",
    "replace": "the other workers follow, one at a time",
    "undo": "back to what served before",
}


def status(context: Context, _: argparse.Namespace) -> None:
    """Print what runs; fails if nothing does."""
    try:
        found = context.service.status()
    except NotRunning as error:
        raise NotRunning(f"{error.message}; {_next_start(context.store(lock_timeout=0))}") from None
    context.result("\n".join(_lines(found)), to_json(found))


def reload(context: Context, options: argparse.Namespace) -> None:
    """Have the service take its settings and its wish anew; wait until it has."""
    service = context.service
    before = service.status()
    last = before.roll.id if before.roll else 0
    show = _Progress(context)
    if before.roll and before.rolling:
        context.progress(f"{describe(before.roll)} is under way and ends first")
    service.hang_up(before)
    context.progress(f"asked process {before.master.pid}")
    idle_since = context.seconds
    for found in service.watch(before, options.timeout):
        show(found)
        if found.rolling:
            idle_since = context.seconds
        elif context.seconds - idle_since > _BEGIN_SECONDS:  # abort may have taken it back, unbegun
            raise WaitTimeout(f"process {before.master.pid} began no roll within {_BEGIN_SECONDS:g} s")
        roll = found.roll
        if roll and roll.id > last and not found.rolling:
            _check(roll)
            seconds = round(context.seconds, 1)
            content = {"version": roll.target, "seconds": seconds, "roll": to_json(found)["roll"]}
            context.result(f"{roll.target} serves ({seconds} s)", content)
            return


def abort(context: Context, options: argparse.Namespace) -> None:
    """Take the wish away, and have the service undo the roll to it; wait until it has."""
    store = context.store(lock_timeout=min(options.timeout, _LOCK_SECONDS))
    named = _wished(store)
    try:
        before = context.service.status()
    except NotRunning:
        before = None
    removed = named if store.clear_next() else None
    taken = f"; the wish for {removed} was taken back" if removed else ""
    content: dict[str, Any] = {"wish": removed, "roll": None}
    if before is None:
        context.result(f"no service is running{taken}; {_next_start(store)}", content)
    elif before.roll is None or not before.rolling:
        context.result(f"no roll is under way{taken}", content)
    else:
        roll = _undo(context, store, before, before.roll, options.timeout)
        end = "had failed by itself" if roll.result == "failed" else "was undone"
        after = to_json(context.service.status())
        text = f"{describe(roll)} {end}; {after['version']} serves"
        context.result(text, {**content, "roll": after["roll"], "version": after["version"]})


def _wished(store: Store) -> str | None:
    """What `next` names, also when that is broken."""
    try:
        return (store.root / "next").readlink().name
    except OSError:
        return None


def _undo(context: Context, store: Store, before: Status, roll: Roll, timeout: float) -> Roll:
    if roll.source in {None, roll.target}:
        raise AbortTooLate(f"{describe(roll)} has no other version to go back to; it ends by itself")
    _restore(store, roll)
    if context.service.status().rolling:  # else the signal would begin another one
        context.service.hang_up(before)
        context.progress(f"asked process {before.master.pid} to undo {describe(roll)}")
    show = _Progress(context)
    for found in context.service.watch(before, timeout):
        show(found)
        now = found.roll
        if now is None or now.id != roll.id or not found.rolling:
            if now is not None and now.id == roll.id:
                succeeded = now.result == "succeeded"
            else:  # the next one has begun already
                now, succeeded = roll, found.version == roll.target
            if succeeded:
                raise AbortTooLate(f"{describe(roll)} had already succeeded")
            return now
    raise AssertionError("the watch ends with an exception")


def _restore(store: Store, roll: Roll) -> None:
    """Take back a wish that was made by moving `current` by hand."""
    try:
        current = store.current()
    except StoreError:
        return  # it was broken before; the master says so
    if current is not None and current.id == roll.target and roll.source is not None:
        with store.lock():
            store.restore_current(store.version(roll.source))


def _check(roll: Roll) -> None:
    if roll.result == "aborted":
        raise RollAborted(f"{describe(roll)} was called off: {roll.error or 'the wish has changed'}")
    if roll.result != "succeeded":
        raise RollFailed(f"{describe(roll)} failed: {roll.error or 'no reason is known'}")


@dataclass
class _Progress:
    """Says each step of each roll once."""

    context: Context
    said: set[tuple[int, str]] = field(default_factory=set)

    def __call__(self, found: Status) -> None:
        roll = found.roll
        if roll is None or (roll.ended is not None and not self.said):
            return  # an earlier one
        step = roll.step if roll.result is None or roll.ended is None else roll.result
        if (roll.id, step) not in self.said:
            self.said.add((roll.id, step))
            self.context.progress(f"{describe(roll)}: {_STEPS.get(step, step)}")


def _next_start(store: Store) -> str:
    """What a start would serve."""
    found = store.candidates()
    if not os.path.lexists(store.root / "current") and not found.versions:
        return "the next start serves the embedded model"
    try:
        wish = store.wish(found.versions[0].id if found.versions else None)
    except StoreError as error:
        return f"the next start finds that {error.message}"
    if not found.versions:
        return f"the next start tries {wish.id if wish else 'nothing'}"
    first = found.versions[0].id
    then = f", then rolls to {wish.id}" if wish and wish.id != first else ""
    return f"the next start serves {first}{then}"


def _lines(found: Status) -> list[str]:
    ready = sum(worker.state == "ready" for worker in found.workers)
    lines = [
        f"{found.state}: {found.version or 'no model'}, {ready} of {found.wanted} workers ready",
        f"master: process {found.master.pid}, code {found.master.code}, since {found.master.since}",
    ]
    lines += [
        f"worker: process {worker.pid}, {worker.state} since {worker.since}, {worker.version or 'no model'}"
        for worker in found.workers
    ]
    roll = found.roll
    if roll is not None:
        end = f"{roll.result} {roll.ended}" if roll.ended else _STEPS.get(roll.step, roll.step)
        lines.append(f"{describe(roll)}: began {roll.started}, {end}")
        if roll.error:
            lines.append(f"  {roll.error}")
    if found.refused is not None:
        lines.append(f"reload refused {found.refused.at}: {found.refused.error}")
    lines += [f"problem: {problem}" for problem in found.problems]
    counters = found.counters
    lines.append(
        f"since the start: {counters.restarts} workers restarted, {counters.killed_draining} killed"
        f" while they drained, {counters.lost_requests} requests lost"
    )
    return lines


COMMANDS: Final = (
    Command("status", "print who serves what, and the last roll", status),
    Command("reload", "read settings and wish again, roll to it, wait until it serves", reload, 1800),
    Command("abort", "take back the wish, undo the roll to it, wait until that is done", abort, 600),
)
