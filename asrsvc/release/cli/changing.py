"""The commands that change which version serves, and which there are: activate, deploy, rollback, prune."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from asrsvc.errors import BadArgument, NotRunning
from asrsvc.release import prune as pruning
from asrsvc.release import swap
from asrsvc.release.cli import baking, trying
from asrsvc.release.cli.command import Command, Context, seconds
from asrsvc.release.cli.getting import VERSIONS, add_pull_arguments, add_version, find_version, get
from asrsvc.release.cli.rolling import RunningService, next_start
from asrsvc.release.journal import Change, Journal
from asrsvc.release.store import Store, Version
from asrsvc.release.swap import Swapped
from asrsvc.release.swap_types import Terms
from asrsvc.release.trial import Trial
from asrsvc.release.trial.record import describe

WATCH_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Held:
    """What a command that changes something has in hand, with the store's lock."""

    store: Store
    service: RunningService
    change: Change


@contextmanager
def held(context: Context, options: argparse.Namespace, target: str | None) -> Iterator[Held]:
    """Take the lock for the whole command, and note it in the history.

    Raises:
        StoreLocked: another change did not end in time; says whose it is.
    """
    command: str = options.command
    wait = 0.0 if options.no_wait else options.timeout
    store = context.store(lock_timeout=wait, command=f"{command} {target or ''}".rstrip())
    service = RunningService(context, options.timeout)
    with store.lock():
        now = service.serving()
        journal = Journal(store.root)
        serving = now.version if now else None
        # What makes room is not refused for want of it.
        must = command != "prune"
        with journal.change(command, store.actor, serving, target, must=must) as change:
            yield Held(store, service, change)
        if change.unwritten:
            context.progress(f"done, and not in the history: {change.unwritten}")


def activate(context: Context, options: argparse.Namespace) -> None:
    """Switch to a version of the store and watch it; go back if anything is off."""
    with held(context, options, options.version) as found:
        version = find_version(found.store, options.version)
        found.change.target = version.id
        terms = Terms(options.watch, forced=options.force, say=context.progress)
        if options.force:
            context.progress("forced: no trial is asked for, text and speed are not compared")
            found.change.reason = "forced"
        bake = partial(baking.bake_quietly, context, found.store.root, options.timeout)
        done = swap.activate(found.store, found.service, version, terms, bake=bake)
        _tell(context, found, done)


def deploy(context: Context, options: argparse.Namespace) -> None:
    """All in one: pull, try, activate, watch; go back if anything is off."""
    with held(context, options, None) as found:
        terms = Terms(options.watch, say=context.progress)
        store = found.store

        def pull() -> Version:
            context.progress(f"pulling {options.source}")
            version = get(context, store, options)
            found.change.target = version.id
            context.progress(f"{version.id} is in the store")
            return version

        def try_out(version: Version, baseline: Version | None) -> Trial:
            trial = trying.try_out(context, store, version, baseline, options)
            for line in describe(version.id, {"version": version.id, **trial.to_record()}).splitlines():
                context.progress(line)
            return trial

        bake = partial(baking.bake_quietly, context, store.root, options.timeout)
        done = swap.deploy(store, found.service, terms, pull=pull, try_out=try_out, bake=bake)
        _tell(context, found, done)


def rollback(context: Context, options: argparse.Namespace) -> None:
    """Go back to the version before, or to a named one that has served."""
    with held(context, options, options.version) as found:
        terms = Terms(0, say=context.progress)
        wanted = find_version(found.store, options.version).id if options.version is not None else None
        found.change.target = wanted
        done = swap.rollback(found.store, found.service, wanted, terms)
        _tell(context, found, done)


def prune(context: Context, options: argparse.Namespace) -> None:
    """Remove versions that nobody needs: those that are named, or all but the newest."""
    if bool(options.versions) == (options.keep is not None):
        raise BadArgument("prune wants either versions to remove, or --keep N")
    with held(context, options, " ".join(options.versions) or None) as found:
        loaded = _loaded(context)
        if options.versions:
            named = [find_version(found.store, text) for text in options.versions]
            found.change.target = ", ".join(version.id for version in named)
            done = pruning.remove(found.store, named, loaded)
        else:
            done = pruning.prune(found.store, options.keep, loaded)
        found.change.reason = f"removed {', '.join(done.removed) or 'nothing'}"
        lines = [f"removed {version}" for version in done.removed] or ["nothing to remove"]
        lines += [f"kept {version}: {why}" for version, why in done.kept]
        kept = [{"version": version, "why": why} for version, why in done.kept]
        context.result("\n".join(lines), {"removed": list(done.removed), "kept": kept})


def _loaded(context: Context) -> frozenset[str]:
    """Versions of the service's workers, those that drain included."""
    try:
        workers = context.service.status().workers
    except NotRunning:
        return frozenset()
    return frozenset(worker.version for worker in workers if worker.version is not None)


def _tell(context: Context, found: Held, done: Swapped) -> None:
    found.change.source, found.change.target = done.former, done.version.id
    took = round(context.seconds, 1)
    content = {
        "version": done.version.id,
        "former": done.former,
        "serves": done.serves,
        "seconds": took,
    }
    if done.serves:
        context.result(f"{done.version.id} serves ({took} s)", content)
        return
    later = next_start(found.store)
    found.change.reason = later
    context.result(f"no service is running; {later}", {**content, "next_start": later})


def _watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--watch",
        type=seconds,
        default=WATCH_SECONDS,
        metavar="S",
        help="seconds to watch it afterwards: errors, empty texts, speed, deaths of workers"
        " (default: %(default)g)",
    )


def _activate_arguments(parser: argparse.ArgumentParser) -> None:
    add_version(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="without a passed trial, and without the comparison of text and speed: a version that does not"
        " load, gives numbers that are not finite, or crashes is refused all the same",
    )
    _watch(parser)


def _deploy_arguments(parser: argparse.ArgumentParser) -> None:
    add_pull_arguments(parser)
    trying.add_limits(parser)
    _watch(parser)


def _rollback_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "version",
        metavar="VERSION",
        nargs="?",
        help=f"one that has served: {VERSIONS} (default: the one before)",
    )


def _prune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "versions", metavar="VERSION", nargs="*", help=f"to be removed, instead of --keep: {VERSIONS}"
    )
    parser.add_argument(
        "--keep",
        type=_count,
        metavar="N",
        help="versions to keep, the newest ones, beside those that are pointed to or still loaded; the others"
        " are removed",
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


_count.__name__ = "whole number"  # as argparse names it in its message

COMMANDS: Final = (
    Command(
        "deploy",
        "pull a model, try it, switch to it and watch it; go back if anything is off",
        deploy,
        3600,
        _deploy_arguments,
        changes=True,
        apart=True,
    ),
    Command(
        "activate",
        "switch to a version that has passed its trial and watch it; go back if anything is off",
        activate,
        1800,
        _activate_arguments,
        changes=True,
        apart=True,
    ),
    Command(
        "rollback",
        "go back to the version before, or to a named one that has served; in seconds",
        rollback,
        600,
        _rollback_arguments,
        changes=True,
    ),
    Command(
        "prune",
        "remove versions; never one that is pointed to, by any host, or that a worker still has loaded",
        prune,
        60,
        _prune_arguments,
        changes=True,
    ),
)
