"""What `bin/serve --model` does before the service starts: find or pull → bake → try → point; then start.

A process of its own, in the place of the start and with its pid: what a download or a trial imports never
comes near the master, and signals of a terminal or of systemd reach who is at work. At the end it becomes
the start again.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NoReturn

from asrsvc import settings
from asrsvc.errors import (
    AsrError,
    BadArgument,
    DownloadFailed,
    NotTried,
    SourceError,
    StoreError,
    StoreFull,
    StoreLocked,
    TrialFailed,
)
from asrsvc.release.cli import baking, trying
from asrsvc.release.cli.changing import held
from asrsvc.release.cli.command import Context
from asrsvc.release.cli.getting import get
from asrsvc.release.cli.main import program, tell
from asrsvc.release.cli.rolling import next_start
from asrsvc.release.cli.root_user import leave_root
from asrsvc.release.known import known_version
from asrsvc.release.store import Store, Version
from asrsvc.release.swap import baseline_of, require_trial
from asrsvc.release.trial.record import describe
from asrsvc.settings import SettingError

_START: Final = "asrsvc.serving.start"
_SECONDS: Final = 7200.0
"""for a download, a trial or another change, at most"""
_UNEXPECTED: Final = 3
_INTERRUPTED: Final = 130

_NEXT: Final[tuple[tuple[type[Exception], str], ...]] = (
    (DownloadFailed, "the same again: it goes on where it stopped; {serve} without --model fetches nothing"),
    (SourceError, "name another source, or mend this one; {serve} --help"),
    (TrialFailed, "another model; or the same with --force, which serves it all the same"),
    (StoreFull, "make space ({tool} list shows what is stored, {tool} prune removes), then the same again"),
    (StoreLocked, "the same again when that has ended"),
    (BadArgument, "{serve} --help"),
)


def bring(context: Context, source: str, *, force: bool) -> None:
    """Have the next start serve the model of a source; nothing is fetched or tried that was before.

    Args:
        context: of the start.
        source: see `sources.FORMS`.
        force: whether it is served without a passed trial, and without the comparison of text and speed.

    Raises:
        TrialFailed: its trial says no; it stays in the store, and the pointers are as they were.
        AsrError: a step failed; the pointers are as they were.
    """
    store = context.store(lock_timeout=0)
    known = known_version(store, source)
    if known is not None and _starts_anyway(store, known):
        return
    options = _options(source)
    with held(context, options, None) as found:
        store = found.store
        version = known_version(store, source)  # another start may have brought it meanwhile
        if version is None:
            context.progress(f"pulling {source}")
            version = get(context, store, options)
            context.progress(f"{version.id} is in the store")
        found.change.target = version.id
        baking.bake_quietly(context, store.root, options.timeout, version)
        if not _is_proven(store, version):
            if force:
                context.progress("forced: no trial is asked for, text and speed are not compared")
                found.change.reason = "forced"
            else:
                _try_out(context, store, version, options)
            store.records.note_forced(version.id, forced=force)
        store.records.note_returning(version.id, returning=False)
        store.start_with(version)
        context.progress(next_start(store))


def _options(source: str) -> argparse.Namespace:
    """What `deploy` would be told for this."""
    return argparse.Namespace(
        command="serve",
        source=source,
        name=None,
        sha256=[],
        clips=None,
        max_cer=None,
        max_slowdown=None,
        timeout=_SECONDS,
        no_wait=False,
    )


def _starts_anyway(store: Store, version: Version) -> bool:
    """Whether a start serves this version, and rolls to no other."""
    if store.candidates().versions[:1] != (version,):
        return False
    try:
        wish = store.wish(version.id)
    except StoreError:
        return False  # a pointer leads nowhere, and is to be replaced
    return wish is None or wish == version


def _is_proven(store: Store, version: Version) -> bool:
    """Whether a version has served well, or its very files have passed their trial, and nothing since."""
    record = store.record(version.id)
    if record.fallen or not record.vouched:
        return False
    if record.last_served is not None:
        return True
    try:
        require_trial(store, version)
    except NotTried:
        return False
    return True


def _try_out(context: Context, store: Store, version: Version, options: argparse.Namespace) -> None:
    trial = trying.try_out(context, store, version, baseline_of(store, None), options)
    for line in describe(version.id, {"version": version.id, **trial.to_record()}).splitlines():
        context.progress(line)
    if not trial.passed:
        raise TrialFailed(
            f"{version.id} is in the store, and its trial refuses it: {trial.reason}",
            report={"version": version.id, **trial.to_record()},
        )


def main(arguments: Sequence[str]) -> int:
    """Bring a model, then start the service in the place of this process; return an exit code if that fails.

    Args:
        arguments: the source; `force` or nothing; then what the start is told.
    """
    source, force, *rest = arguments
    context = Context(program(), as_json=False)
    try:
        context = leave_root(context, argparse.Namespace())  # where the start has not done so
        bring(context, source, force=bool(force))
        _become([sys.executable, "-P", "-m", _START, *rest])
    except AsrError as error:
        return _fail(context, error, error.message, error.exit_code)
    except SettingError as error:
        return _fail(context, error, str(error), error.exit_code)
    except KeyboardInterrupt:
        context.complain("", "interrupted; the same again goes on where it stopped")
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one place for what was not foreseen
        context.confess(traceback.format_exc())
        text = f"an error that was not foreseen: {type(error).__name__}: {error}"
        return _fail(context, error, text, _UNEXPECTED)


def _become(command: Sequence[str]) -> NoReturn:
    sys.stderr.flush()
    os.execve(command[0], list(command), settings.environment({}))  # noqa: S606 - see the module


def _fail(context: Context, error: Exception, message: str, exit_code: int) -> int:
    """Say what failed, what the next start serves, and the next command."""
    tell(context, error, message, _NEXT)
    return exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
