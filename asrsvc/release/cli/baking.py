"""The command that makes the faster twin of a version for this host: bake."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from asrsvc import settings
from asrsvc.errors import BadArgument, BakeFailed
from asrsvc.release.bake import MakeLimits, find, make, make_if_missing
from asrsvc.release.bake.making import describe
from asrsvc.release.cli.command import Command, Context
from asrsvc.release.cli.getting import add_version, find_version
from asrsvc.release.versions import Version

_MOST_SECONDS: Final = 900.0


def bake(context: Context, options: argparse.Namespace) -> None:
    """Make the twin of a version for this host, unless it is there and whole."""
    mode = settings.load().bake_mode()
    if mode == "off":
        raise BadArgument("nothing is baked here: ASR_BAKE is off, or ASR_DEVICE is not cpu")
    store = context.store(lock_timeout=0)
    version = find_version(store, options.version)
    found = find(store.root, version.id, mode)
    if options.again or found.state != "ready":
        if found.problem is not None:
            context.progress(found.problem)
        found = make(store.root, version, mode, limits=_limits(options.timeout), progress=context.progress)
    twin = found.twin
    assert twin is not None
    content = {
        "version": version.id,
        "folder": str(found.path),
        "key": twin.key,
        "matrices": twin.matrices,
        "int8": twin.int8,
        "bytes": sum(file.size for file in twin.files.values()),
        "seconds": twin.seconds,
        "note": twin.note,
    }
    context.result(f"{version.id} is baked for this host: {describe(twin)}\n{found.path}", content)


def bake_quietly(context: Context, root: Path, timeout: float, version: Version) -> None:
    """Make the twin of a version if it is missing; a version that has none is served as it came.

    Args:
        context: of the command.
        root: of the store.
        timeout: seconds that the command may take.
        version: to be baked.
    """
    mode = settings.load().bake_mode()
    if mode == "off":
        return
    try:
        found = make_if_missing(root, version, mode, limits=_limits(timeout), progress=context.progress)
    except BakeFailed as error:
        context.progress(error.message)
        return
    if found.usable is None:
        context.progress(f"{found.problem}; the published file is served")


def _limits(timeout: float) -> MakeLimits:
    seconds = min(timeout, _MOST_SECONDS)
    return MakeLimits(seconds=seconds, wait_seconds=seconds)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_version(parser)
    parser.add_argument("--again", action="store_true", help="even if it is there")


COMMANDS: Final = (
    Command(
        "bake",
        "make the faster twin of a version for this host; try, deploy and activate do it too",
        bake,
        _MOST_SECONDS,
        arguments=_add_arguments,
        apart=True,
        interrupted="nothing was made; {tool} bake VERSION begins anew",
    ),
)
