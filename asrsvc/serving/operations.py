"""Commands that the admin API starts, in processes that outlive the worker which was asked.

    $ASR_RUNTIME_DIR/operations/<id>.json   one operation: what, for whom, how far, how it ended

A process of its own runs the operator's tool and keeps the file up to date; every worker, of the old
version and the new one, answers from the file.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeAlias

from asrsvc import settings
from asrsvc.errors import NotFound, OperationUnderWay, StatusError
from asrsvc.release.files import write_file
from asrsvc.release.lock import now
from asrsvc.serving.status import start_ticks

State: TypeAlias = Literal["running", "succeeded", "failed", "lost"]

MOST: Final = 50
"""operations that are remembered"""
_MOST_LINES: Final = 100
"""of progress, the newest"""
_MOST_CHARACTERS: Final = 100_000
"""of a result; more is left out"""
_BEGIN_SECONDS: Final = 60.0
"""for a process to start and say so"""
_CODE: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Operation:
    """One command, and how far it is."""

    id: str
    command: tuple[str, ...]
    """arguments of swap-model"""
    on_behalf_of: str
    state: State
    """lost: its process has gone without a word"""
    started: str
    """UTC, ISO 8601"""
    ended: str | None = None
    exit_code: int | None = None
    """of swap-model"""
    progress: tuple[str, ...] = ()
    result: Any = None
    """what swap-model --json printed"""
    pid: int = 0
    """of its process; 0: it has not begun"""
    start_ticks: int = field(default=0)
    """when that process was started, proc_pid_stat(5)"""


class Operations:
    """The operations below one runtime folder."""

    def __init__(self, runtime_dir: Path) -> None:
        self._folder = runtime_dir / "operations"

    def start(self, command: Sequence[str], on_behalf_of: str) -> Operation:
        """Start a command in a process of its own.

        Args:
            command: arguments of swap-model.
            on_behalf_of: who asks for it.

        Raises:
            OperationUnderWay: another one has not ended; names it.
            StatusError: the folder cannot be written, or no process can be started.
        """
        self._make_room()
        found = Operation(secrets.token_hex(8), tuple(command), on_behalf_of, "running", now())
        try:
            self._folder.mkdir(exist_ok=True)
            save(self._folder, found)
            environ = settings.environment({})
            environ["PYTHONPATH"] = str(_CODE)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(self._folder), found.id],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Neither the signals of a terminal nor gunicorn's umask of 0 are for it, and listeners
                # and pipes stay behind.
                start_new_session=True,
                umask=0o022,
                close_fds=True,
            )
        except OSError as error:
            with suppress(OSError):
                self._path(found.id).unlink()
            raise StatusError(f"no operation can be started: {error}") from error
        # Reaped by this worker, or when it has left by process 1.
        threading.Thread(target=process.wait, name="asr-operation", daemon=True).start()
        return found

    def read(self, key: str) -> Operation:
        """One operation.

        Raises:
            NotFound: none has this id, or it has been forgotten.
        """
        found = self._load(self._path(key)) if re.fullmatch(r"[0-9a-f]{16}", key) else None
        if found is None:
            raise NotFound(f"no operation has the id {key[:40]!r}; the last {MOST} are remembered")
        return found

    def _make_room(self) -> None:
        """Forget the oldest.

        Raises:
            OperationUnderWay: one has not ended.
        """
        with suppress(OSError):
            paths = sorted(self._folder.glob("[0-9a-f]*.json"), key=_modified)
            for path in paths:
                found = self._load(path)
                if found is not None and found.state == "running":
                    raise OperationUnderWay(
                        f"operation {found.id} ({' '.join(found.command)}) has not ended:"
                        f" /admin/operations/{found.id}"
                    )
            for path in paths[: max(0, len(paths) - MOST + 1)]:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"

    def _load(self, path: Path, *, again: bool = True) -> Operation | None:
        try:
            content = json.loads(path.read_bytes())
            found = Operation(**{**content, "command": tuple(content["command"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        late = time.time() - _modified(path) > _BEGIN_SECONDS
        gone = start_ticks(found.pid) != found.start_ticks if found.pid else late
        if found.state == "running" and gone:
            # It may have ended between the two looks.
            return self._load(path, again=False) if again else replace(found, state="lost")
        return found


def save(folder: Path, operation: Operation) -> None:
    """Replace an operation's file.

    Raises:
        OSError: the disk refuses.
    """
    write_file(folder / f"{operation.id}.json", json.dumps(asdict(operation), ensure_ascii=False).encode())


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


# In the process of its own.


class _Lines(io.TextIOBase):
    """What the tool says on stderr; each whole line is kept at once."""

    def __init__(self, folder: Path, operation: Operation) -> None:
        self._folder = folder
        self.operation = operation
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        if lines:
            progress = (*self.operation.progress, *(line[:1000].strip() for line in lines))[-_MOST_LINES:]
            self.keep(replace(self.operation, progress=progress))
        return len(text)

    def keep(self, operation: Operation) -> None:
        """Replace what the file says; a disk that refuses does not stop the command."""
        self.operation = operation
        with suppress(OSError):
            save(self._folder, operation)


def main(arguments: Sequence[str]) -> int:
    """Run the command of an operation.

    Args:
        arguments: the folder, and the id of the operation in it.
    """
    from asrsvc.release.cli.main import main as swap_model  # noqa: PLC0415 - workers do not need it
    from asrsvc.serving.status import myself  # noqa: PLC0415

    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder, key = Path(arguments[0]), arguments[1]
    content = json.loads((folder / f"{key}.json").read_bytes())
    me = myself("")
    operation = Operation(**{**content, "command": tuple(content["command"])})
    said, out = _Lines(folder, operation), io.StringIO()
    said.keep(replace(operation, pid=me.pid, start_ticks=me.start_ticks))
    try:
        with redirect_stdout(out), redirect_stderr(said):
            code = swap_model(operation.command, on_behalf_of=operation.on_behalf_of)
    except SystemExit as end:  # argparse's
        code = end.code if isinstance(end.code, int) else 1
    state: State = "succeeded" if code == 0 else "failed"
    result = _result(out.getvalue())
    said.keep(replace(said.operation, state=state, ended=now(), exit_code=code, result=result))
    return code


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _result(text: str) -> Any:
    try:
        return json.loads(text) if len(text) <= _MOST_CHARACTERS else None
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
