"""From arguments to a command, and from its error to an exit code and three lines.

The standard library is enough here: `--help`, and all that needs no model, work before anything is
installed.
"""

from __future__ import annotations

import argparse
import io
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from asrsvc.errors import (
    AbortTooLate,
    AmbiguousVersion,
    AsrError,
    BadArgument,
    BakeFailed,
    ClipsError,
    DownloadFailed,
    NothingToRollBack,
    NotPermitted,
    NotRunning,
    NotTried,
    PackageMissing,
    ReloadRefused,
    RollAborted,
    RollFailed,
    RootRefused,
    SourceError,
    StatusError,
    StoreError,
    StoreFull,
    StoreLocked,
    TrialFailed,
    TrialImpossible,
    UnknownVersion,
    VersionDamaged,
    VersionInUse,
    WaitTimeout,
    WatchFailed,
    WrongDigest,
)
from asrsvc.release.cli.baking import COMMANDS as BAKING
from asrsvc.release.cli.changing import COMMANDS as CHANGING
from asrsvc.release.cli.command import Command, Context, seconds
from asrsvc.release.cli.completion import COMMANDS as COMPLETION
from asrsvc.release.cli.completion import touches_folders
from asrsvc.release.cli.getting import COMMANDS as GETTING
from asrsvc.release.cli.history import COMMANDS as HISTORY
from asrsvc.release.cli.rolling import next_start
from asrsvc.release.cli.root_user import leave_root
from asrsvc.release.cli.running import COMMANDS as RUNNING
from asrsvc.release.cli.trying import COMMANDS as TRYING
from asrsvc.release.privileges import explained
from asrsvc.settings import SettingError

_CHECKOUT: Final = Path(__file__).resolve().parents[3]
_COMMANDS: Final[tuple[Command, ...]] = (
    *CHANGING,
    *RUNNING,
    *GETTING,
    *TRYING,
    *BAKING,
    *HISTORY,
    *COMPLETION,
)
_UNEXPECTED: Final = 3
_INTERRUPTED: Final = 130

# The first that fits counts; {tool} is bin/swap-model, {serve} is bin/serve.
_NEXT_COMMANDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (SettingError, "{serve} --check"),
    (NotRunning, "{serve} (or: systemctl start asr)"),
    (StatusError, "{serve} (or: systemctl restart asr)"),
    (ReloadRefused, "mend that, then {tool} reload"),
    (RollFailed, "{tool} status; the log has all that the worker said"),
    (RollAborted, "{tool} status"),
    (WaitTimeout, "{tool} status, or {tool} abort"),
    (AbortTooLate, "{tool} status"),
    (TrialFailed, "another version; or the same again with a higher --max-cer or --max-slowdown"),
    (ClipsError, "mend the files that are named, then the same again"),
    (BakeFailed, "{tool} status: the published file serves, only slower"),
    (TrialImpossible, "{serve}, which installs what is missing, then the same again"),
    (NotTried, "{tool} try VERSION, then the same again (or: with --force)"),
    (WatchFailed, "{tool} status; {tool} history has the reason"),
    (NothingToRollBack, "{tool} history; {tool} activate VERSION"),
    (NotPermitted, "the same as that user, or with sudo"),
    (RootRefused, "the same as the user whom the store belongs to, as in: sudo -u asr {tool} …"),
    (BadArgument, "{tool} --help"),
    (SourceError, "name another source, or mend this one; {tool} pull --help"),
    (DownloadFailed, "the same again: it goes on where it stopped"),
    (WrongDigest, "the same again; if it stays wrong, distrust the source"),
    (StoreFull, "make space ({tool} list shows what is stored, {tool} prune removes), then the same again"),
    (StoreLocked, "the same again when that has ended; {tool} abort undoes a roll"),
    (AmbiguousVersion, "the same again with more of the id; {tool} list shows all"),
    (UnknownVersion, "{tool} list"),
    (VersionInUse, "{tool} list; another version must serve first, and be pointed to"),
    (VersionDamaged, "pull it again under another name, or serve another version; {tool} list"),
    (PackageMissing, "{serve}"),
    (StoreError, "mend that, then the same again"),
    (Exception, "{tool} status"),
)

_EPILOG: Final = """\
deploy does it all; activate and rollback switch between versions of the store. One change is made at a
time: a second one waits for it, as long as --timeout says, or with --no-wait not at all.

SOURCE of a pull or deploy: modelscope:org/name[@revision], hf:org/name[@revision], https://….tar.gz, or a
folder. VERSION: an id of list, a beginning of one or the name alone, where that is one version's; or current,
previous, next.

ASR_RUNTIME_DIR and ASR_STORE, in the environment or in the file that ASR_CONFIG names, say which
service is meant: the same as for bin/serve, whose --check shows them.

The result goes to stdout, progress and errors to stderr. A command that fails says what failed,
what is serving now, and the next command; what served before serves on.

exit codes:
  0    done
  1    failed, for a reason that has no code of its own
  2    an unknown command or option, or an argument of no possible form
  3    an error that was not foreseen
  5    the store of model versions is damaged or cannot be written
  10   no service is running, or it ended meanwhile
  11   the service refused to reload: a setting or a pointer is wrong
  12   the roll failed; the workers have gone back to the version before
  13   the roll was called off
  14   the time to wait is over; the roll goes on
  15   too late to abort: the roll has succeeded, or there is nothing to go back to
  20   the source holds no model, or what no model holds
  21   the download failed; what has arrived is kept, the same command goes on
  22   a file is not the one that was promised: wrong size or SHA-256
  23   files of a version are not as they were stored
  24   no version is called so, or more than one is
  25   the disk of the store is full; what has arrived is kept
  26   a package that downloads need is not installed
  30   the version did not pass its trial; its record says why
  31   the recordings to try it on are not as they must be
  32   nothing can be tried here: what a trial needs is not installed
  33   the version cannot be baked on this host; its published file is served as it is
  40   another change is under way; who makes it, and since when, is said
  41   the version has passed no trial for its very files, or has never served
  42   the version cannot be removed: a pointer names it, or a worker has it loaded
  43   the version served and did badly; the one before serves again
  44   there is no version to go back to
  69   no Python from 3.11 to 3.14
  77   not permitted to this user
  78   a setting is wrong
  79   root may not work there: others could lead it astray, or it cannot become the store's owner
  130  interrupted; the last line says what goes on
"""


def main(arguments: Sequence[str] | None = None, *, on_behalf_of: str = "") -> int:
    """Run one command; the exit code.

    Args:
        arguments: those of the program by default.
        on_behalf_of: who asks for it, where that is not the user of this process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever the locale, say it
    options = _parser().parse_args(arguments)
    context = Context(program(), as_json=options.json, on_behalf_of=on_behalf_of)
    try:
        if touches_folders(options):
            context = leave_root(context, options)
        options.run(context, options)
    except AsrError as error:
        return _fail(context, error, error.message, error.code, error.exit_code)
    except SettingError as error:
        return _fail(context, error, str(error), "setting_error", error.exit_code)
    except KeyboardInterrupt:
        context.complain("", f"interrupted; {options.interrupted.format(tool=context.program)}")
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one place for what was not foreseen
        context.confess(traceback.format_exc())
        text = f"an error that was not foreseen: {type(error).__name__}: {error}"
        return _fail(context, error, text, "unexpected", _UNEXPECTED)
    return 0


def program() -> str:
    """How the tool is called."""
    return "bin/swap-model" if (_CHECKOUT / "bin" / "swap-model").is_file() else "asrsvc-swap-model"


def _parser() -> argparse.ArgumentParser:
    layout: Any = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog=program(),
        description="Change the model of a running service, and see what it serves.",
        epilog=_EPILOG,
        formatter_class=layout,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parsers: dict[str, argparse.ArgumentParser] = {}
    for command in _COMMANDS:
        described = command.summary[0].upper() + command.summary[1:] + "."
        sub = commands.add_parser(
            command.name, help=command.summary, description=described, allow_abbrev=False
        )
        parsers[command.name] = sub
        sub.set_defaults(
            run=command.run,
            command=command.name,
            parsers=parsers,
            interrupted=command.interrupted,
            apart=command.apart,
        )
        if command.arguments is not None:
            command.arguments(sub)
        sub.add_argument("--json", action="store_true", help="print the result as one JSON object")
        if command.timeout is not None:
            sub.add_argument(
                "--timeout",
                type=seconds,
                default=command.timeout,
                metavar="S",
                help="seconds to wait, at most (default: %(default)s)",
            )
        if command.changes:
            sub.add_argument(
                "--no-wait", action="store_true", help="fail at once if another change is under way"
            )
    return parser


def _fail(context: Context, error: Exception, message: str, code: str, exit_code: int) -> int:
    """Say what failed, what is serving now, and the next command."""
    next_command, version, later = tell(context, error, message)
    if context.as_json:
        failure: dict[str, Any] = {"message": message, "code": code, "exit_code": exit_code}
        if isinstance(error, VersionDamaged):
            failure["faults"] = error.faults
        if isinstance(error, TrialFailed):
            failure["trial"] = error.report
        content = {"error": failure, "serving": version, "next_start": later, "next": next_command}
        context.result("", content)
    return exit_code


def tell(
    context: Context, error: Exception, message: str, own: Sequence[tuple[type[Exception], str]] = ()
) -> tuple[str, str | None, str | None]:
    """Say what failed, what is serving now, and the next command.

    Args:
        context: of the command.
        error: what failed.
        message: the same for people.
        own: next commands that come before the usual ones.

    Returns:
        the next command; the id of what serves; without a service what the next start does.
    """
    if isinstance(error, RootRefused):  # to look would be what root is refused
        serving, version, later = "unknown", None, None
    else:
        serving, version, later = _serving(context)
    serve = context.program.replace("swap-model", "serve")
    next_command = next(text for kind, text in (*own, *_NEXT_COMMANDS) if isinstance(error, kind))
    next_command = next_command.format(tool=context.program, serve=serve)
    message = explained(error, message)
    context.complain(f"asrsvc: {message}", f"serving now: {serving}", f"next: {next_command}")
    return next_command, version, later


def _serving(context: Context) -> tuple[str, str | None, str | None]:
    """What serves now, for people; its id; and without a service what the next start does."""
    try:
        found = context.service.status()
    except NotRunning:
        later = _next_start(context)
        return f"nothing; {later}" if later else "nothing", None, later
    except (AsrError, SettingError):
        return "unknown", None, None
    ready = sum(worker.state == "ready" for worker in found.workers)
    state = "" if found.state == "serving" else f", {found.state}"
    text = f"{found.version or 'no model'} ({ready} of {found.wanted} workers ready{state})"
    return text, found.version, None


def _next_start(context: Context) -> str | None:
    try:
        return next_start(context.store(lock_timeout=0))
    except (AsrError, SettingError):
        return None  # what is wrong with the store or its settings is told in the first line
