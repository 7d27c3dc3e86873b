"""The commands for a running service: status, reload, abort."""

from __future__ import annotations

import argparse
from typing import Any, Final

from asrsvc.errors import AbortTooLate, NotRunning, StoreError
from asrsvc.release.cli.command import Command, Context
from asrsvc.release.cli.rolling import STEPS, Progress, check, next_start, noted, roll_and_wait
from asrsvc.release.cli.service import describe
from asrsvc.release.store import Store
from asrsvc.serving.status import Roll, Status, roll_to_json, to_json


def status(context: Context, _: argparse.Namespace) -> None:
    """Print what runs; fails if nothing does."""
    found = context.service.status()
    context.result("\n".join(_lines(found)), to_json(found))


def reload(context: Context, options: argparse.Namespace) -> None:
    """Have the service take its settings and its wish anew; wait until it has."""
    with noted(context, "reload") as change:
        roll = roll_and_wait(context, options.timeout)
        change.source, change.target = roll.source, roll.target
    seconds = round(context.seconds, 1)
    content = {"version": roll.target, "seconds": seconds, "roll": roll_to_json(roll)}
    context.result(f"{roll.target} serves ({seconds} s)", content)


def abort(context: Context, options: argparse.Namespace) -> None:
    """Take the wish away, and have the service undo the roll to it; wait until it has.

    After the roll, while another command watches what serves now: have that command take it back. It needs no
    lock: it is for the time while another command holds it.
    """
    store = context.store(lock_timeout=0, command="abort")
    with noted(context, "abort") as change:
        named = _wished(store)
        try:
            before = context.service.status()
        except NotRunning:
            before = None
        removed = named if store.clear_next() else None
        change.source, change.target = before.version if before else None, removed
        taken = f"; the wish for {removed} was taken back" if removed else ""
        content: dict[str, Any] = {"wish": removed, "roll": None}
        if before is None:
            text = f"no service is running{taken}; {next_start(store)}"
        elif before.roll is None or not before.rolling:
            called_off = store.call_off()
            if called_off is None:
                text = f"no roll is under way{taken}"
            else:
                change.target = called_off
                roll = _wait_until_taken_back(context, before, called_off, options.timeout)
                text = f"{called_off} was taken back; {roll.target} serves"
                content |= {"roll": roll_to_json(roll), "version": roll.target}
        else:
            change.target = before.roll.target
            roll = _undo(context, store, before, before.roll, options.timeout)
            end = "had failed by itself" if roll.result == "failed" else "was undone"
            after = to_json(context.service.status())
            text = f"{describe(roll)} {end}; {after['version']} serves"
            content |= {"roll": after["roll"], "version": after["version"]}
        change.reason = text
    context.result(text, content)


def _wished(store: Store) -> str | None:
    """What `next` names, also when that is broken."""
    try:
        return (store.pointers / "next").readlink().name
    except OSError:
        return None


def _undo(context: Context, store: Store, before: Status, roll: Roll, timeout: float) -> Roll:
    if roll.source in {None, roll.target}:
        raise AbortTooLate(f"{describe(roll)} has no other version to go back to; it ends by itself")
    _restore(store, roll)
    if context.service.status().rolling:  # else the signal would begin another one
        context.service.hang_up(before)
        context.progress(f"asked process {before.master.pid} to undo {describe(roll)}")
    show = Progress(context)
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


def _wait_until_taken_back(context: Context, before: Status, version: str, timeout: float) -> Roll:
    """Wait for the command that watches a version to have taken it back; the roll that did it.

    Raises:
        AsrError: that failed, or took too long.
    """
    context.progress(f"asked who watches {version} to take it back")
    last = before.roll.id if before.roll else 0
    show = Progress(context)
    for found in context.service.watch(before, timeout):
        show(found)
        if found.roll is not None and found.roll.id > last and not found.rolling:
            check(found.roll)
            return found.roll
    raise AssertionError("the watch ends with an exception")


def _restore(store: Store, roll: Roll) -> None:
    """Take back a wish that was made by moving `current` by hand."""
    try:
        current = store.current()
    except StoreError:
        return  # it was broken before; the master says so
    if current is not None and current.id == roll.target and roll.source is not None:
        store.restore_current(store.version(roll.source))


def _lines(found: Status) -> list[str]:
    ready = sum(worker.state == "ready" for worker in found.workers)
    lines = [
        f"{found.state}: {found.version or 'no model'}, {ready} of {found.wanted} workers ready",
        f"master: process {found.master.pid}, code {found.master.code}, since {found.master.since}",
    ]
    lines += [
        f"worker: process {worker.pid}, {worker.state} since {worker.since}, {worker.version or 'no model'}"
        + (", baked" if worker.baked else "")
        + (" (forced: its text and speed were not compared)" if worker.forced else "")
        for worker in found.workers
    ]
    roll = found.roll
    if roll is not None:
        end = f"{roll.result} {roll.ended}" if roll.ended else STEPS.get(roll.step, roll.step)
        lines.append(f"{describe(roll)}: began {roll.started}, {end}{', forced' if roll.forced else ''}")
        if roll.error:
            lines.append(f"  {roll.error}")
    if found.refused is not None:
        lines.append(f"reload refused {found.refused.at}: {found.refused.error}")
    lines += [f"problem: {problem}" for problem in found.problems]
    lines += [
        f"{n.version}: {n.requests} requests, {n.errors} errors, {n.empty} without text,"
        f" {n.audio_ms / 1000:.0f} s of sound in {n.busy_ms / 1000:.0f} s, {n.deaths} workers died"
        for n in found.numbers
    ]
    counters = found.counters
    lines.append(
        f"since the start: {counters.restarts} workers restarted, {counters.killed_draining} killed"
        f" while they drained, {counters.lost_requests} requests lost"
    )
    return lines


COMMANDS: Final = (
    Command("status", "print who serves what, and the last roll", status),
    Command("reload", "read settings and wish again, roll to it, wait until it serves", reload, 1800),
    Command(
        "abort",
        "take back the wish, undo the roll to it, or end its watch; wait until that is done",
        abort,
        600,
    ),
)
