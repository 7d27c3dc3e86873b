"""`bin/api-keys`: make, list and take back API keys; a running service sees it at once.

The standard library is enough here. A key is printed once, when it is made: the file keeps its digest.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from asrsvc import settings
from asrsvc.errors import AsrError, BadArgument, KeysError, UnknownKey
from asrsvc.release.files import make_folder
from asrsvc.release.privileges import Place, explained, heir, is_root
from asrsvc.serving.keys import MOST_KEYS, NAME, Key, digest_of, new_secret, read_keys, write_keys
from asrsvc.serving.root_user import config_places, take_over
from asrsvc.settings import SettingError
from asrsvc.system.printable import printable

_LOCK_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.05
_DAYS: Final = re.compile(r"(\d{1,5})d")
_UNFORESEEN: Final = 3
_INTERRUPTED: Final = 130
_EPILOG: Final = """\
The file is that of ASR_API_KEYS, or of --file. A running service sees a change at once.

exit codes:
  0    done
  2    an unknown command or option, or an argument of no possible form
  3    an error that was not foreseen
  6    the file cannot be read or written, or is no file of keys; or no file is named
  7    no key of this name
  69   no Python from 3.11 to 3.14
  78   a setting is wrong
  79   root may not work there: others could lead it astray, or it cannot become the file's owner
  130  interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    options = _parser().parse_args(arguments)
    # The service reads the file, whoever has made it: it holds nothing that must be hidden.
    os.umask(0o022)
    try:
        path = options.file.absolute() if options.file is not None else settings.value("ASR_API_KEYS")
        if path is None:
            raise KeysError(
                "ASR_API_KEYS names no file: set it, as in ASR_API_KEYS=/etc/asr/keys.json, or say --file"
            )
        _leave_root(path)
        options.run(path, options)
    except SettingError as error:
        _complain(explained(error, str(error)))
        return error.exit_code
    except AsrError as error:
        _complain(explained(error, error.message))
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - what must not happen has an exit code too
        _complain(f"{type(error).__name__}: {error}")
        return _UNFORESEEN
    return 0


def _leave_root(path: Path) -> None:
    """Become the user whom the file belongs to, or would: root follows no links of other users.

    Raises:
        RootRefused: that cannot be told, or cannot be done.
    """
    if not is_root():
        return
    place = Place("ASR_API_KEYS", path, is_file=True)
    user = heir(place, config_places())
    if user is not None:
        take_over(user, place, starts_processes=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/api-keys",
        description="Make, list and take back the API keys of the service.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--file", type=Path, help="of the keys (default: that of ASR_API_KEYS)")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        name: str, summary: str, run: Callable[[Path, argparse.Namespace], None]
    ) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        found.set_defaults(run=run)
        return found

    add = command("add", "make a key and print it; it is never shown again", _add)
    add.add_argument("name", help="whose it is: logs and limits go by it")
    add.add_argument("--rate", type=_count, help="requests a minute; 0: any (default: ASR_CLIENT_RATE)")
    add.add_argument(
        "--concurrency",
        type=_count,
        help="requests at the same time; 0: any (default: ASR_CLIENT_CONCURRENCY)",
    )
    add.add_argument(
        "--expires", metavar="WHEN", help="30d, or a time as 2027-01-31 or 2027-01-31T12:00+08:00"
    )
    listing = command("list", "the keys, without their secrets", _list)
    listing.add_argument("--json", action="store_true", help="for programs")
    command("revoke", "take a key back for good: nobody reads its jobs any more", _revoke).add_argument(
        "name"
    )
    command("rotate", "give a key another secret; its limits and jobs stay; print it", _rotate).add_argument(
        "name"
    )
    return parser


def _count(text: str) -> int:
    if not re.fullmatch(r"\d{1,7}", text) or int(text) > 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number to 1000000")
    return int(text)


def _add(path: Path, options: argparse.Namespace) -> None:
    if not NAME.fullmatch(options.name):
        raise BadArgument(f"{options.name!r} is no name: letters, digits and ._@-, up to 64")
    expires = _moment(options.expires) if options.expires is not None else None
    secret = new_secret()
    key = Key(options.name, digest_of(secret), _moment_of_birth(), expires, options.rate, options.concurrency)
    with _changing(path) as keys:
        if any(other.name == key.name for other in keys):
            raise BadArgument(f"there is a key of {key.name}: rotate or revoke it, or choose another name")
        if len(keys) >= MOST_KEYS:
            raise BadArgument(f"{path} holds {len(keys)} keys, the most that there may be: revoke one")
        keys.append(key)
    print(secret)


def _list(path: Path, options: argparse.Namespace) -> None:
    keys = read_keys(path)
    now = datetime.now(UTC)
    if options.json:
        found = [
            {name: value for name, value in asdict(key).items() if name != "sha256"}
            | {"expired": key.has_expired(now)}
            for key in keys
        ]
        print(json.dumps({"keys": found}))
        return
    rows = [("NAME", "CREATED", "EXPIRES", "RATE", "CONCURRENCY")]
    for key in keys:
        expires = "never" if key.expires is None else key.expires[:16] + " over" * key.has_expired(now)
        rows.append((key.name, key.created[:16], expires, _limit(key.rate), _limit(key.concurrency)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _limit(value: int | None) -> str:
    return "default" if value is None else str(value) if value else "any"


def _revoke(path: Path, options: argparse.Namespace) -> None:
    with _changing(path) as keys:
        keys.remove(_named(options.name, keys, path))
    print(f"the key of {options.name} is taken back")


def _rotate(path: Path, options: argparse.Namespace) -> None:
    secret = new_secret()
    with _changing(path) as keys:
        old = _named(options.name, keys, path)
        keys[keys.index(old)] = replace(old, sha256=digest_of(secret))
    print(secret)


def _named(name: str, keys: list[Key], path: Path) -> Key:
    for key in keys:
        if key.name == name:
            return key
    raise UnknownKey(f"{path} holds no key of {name!r}: see bin/api-keys list")


@contextmanager
def _changing(path: Path) -> Iterator[list[Key]]:
    """The keys, to be changed; written when the block ends well. One change at a time.

    Raises:
        KeysError: the file is damaged, or cannot be written, or another change goes on for too long.
    """
    try:
        make_folder(path.parent)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KeysError(f"{path.parent} cannot be used: {error.strerror}") from error
    try:
        _lock(folder, path)
        keys = list(read_keys(path)) if _is_there(path) else []
        yield keys
        write_keys(path, keys)
    finally:
        os.close(folder)


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        pass  # why, the reading says
    return True


def _lock(folder: int, path: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise KeysError(f"another change of {path} has gone on for {_LOCK_SECONDS:g} s") from None
            time.sleep(_LOOK_SECONDS)


def _moment_of_birth() -> str:
    """Now, to the nanosecond: with its name it is a key's identity. Older code reads it too."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09}+00:00"


def _moment(text: str) -> str:
    """A time to come.

    Raises:
        BadArgument: it is none.
    """
    now = datetime.now(UTC)
    days = _DAYS.fullmatch(text)
    try:
        moment = now + timedelta(days=int(days[1])) if days else datetime.fromisoformat(text)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadArgument(f"--expires {text!r} is wrong: 30d, or a time as 2027-01-31, is right") from None
    if moment <= now:
        raise BadArgument(f"--expires {text!r} is over already")
    return moment.isoformat(timespec="seconds")


def _complain(text: str) -> None:
    print(f"api-keys: {printable(text)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
