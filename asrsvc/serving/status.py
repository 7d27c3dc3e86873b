"""The status file: what the master says of itself, its workers and its roll.

The master writes it, in one step, whenever something has changed; everybody may read it. Times are
UTC in ISO 8601. A reader ignores keys that it does not know: the master may be newer.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from asrsvc.errors import StatusError
from asrsvc.release.files import read_plain

FILE_NAME: Final = "status.json"
"""below ASR_RUNTIME_DIR"""

State: TypeAlias = Literal["serving", "degraded", "rolling", "stopping", "down"]
WorkerState: TypeAlias = Literal["loading", "ready", "draining"]
Result: TypeAlias = Literal["succeeded", "failed", "aborted"]

_MOST_BYTES: Final = 16 * 2**20
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Master:
    """The process that writes the file; start_ticks and boot_id tell it from a later one of its pid."""

    pid: int
    code: str
    """version of the code that it runs"""
    since: str
    start_ticks: int
    """when it was started, as in /proc/<pid>/stat; proc_pid_stat(5)"""
    boot_id: str = ""
    """which run of the machine; random(4)"""


@dataclass(frozen=True, slots=True)
class Roll:
    """One replacement of all workers: the one under way, else the last one."""

    id: int
    """counts up from 1 in each master"""
    source: str | None = field(metadata={"key": "from"})
    """version that served before; None: there was none"""
    target: str = field(metadata={"key": "to"})
    step: str
    """where it stands, one word"""
    started: str
    result: Result | None = None
    """None: under way"""
    error: str | None = None
    """why it did not succeed: the worker's own words"""
    ended: str | None = None
    """None: under way"""
    forced: bool = field(default=False, metadata={"optional": True})
    """whether the comparison of text and speed is left out"""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker."""

    pid: int
    version: str | None
    """None: it has no model, and says so to every request"""
    state: WorkerState
    since: str
    """when it came to this state"""
    forced: bool = field(default=False, metadata={"optional": True})
    """whether the comparison of text and speed was left out when it loaded"""
    baked: bool = field(default=False, metadata={"optional": True})
    """whether it serves the faster twin of its version"""


@dataclass(frozen=True, slots=True)
class VersionNumbers:
    """What the workers of one version have answered since this master started."""

    version: str
    requests: int
    """answered by the engine"""
    errors: int
    """of these, with a 5xx"""
    empty: int
    """of these, without text"""
    audio_ms: int
    """recognised, milliseconds of sound"""
    busy_ms: int
    """spent on it in the engine, milliseconds"""
    deaths: int
    """of workers that were to serve"""
    costs: tuple[int, ...] = field(default=(), metadata={"optional": True})
    """of the requests that the engine has run for, how many are in each class of CPU time for a second of
    sound, see `asrsvc.release.speed.cost_class`"""


@dataclass(frozen=True, slots=True)
class Refused:
    """The last SIGHUP that was not obeyed; what served before serves on."""

    at: str
    error: str
    """which setting or pointer is wrong"""


@dataclass(frozen=True, slots=True)
class Count:
    """How often something has happened."""

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Counters:
    """What has happened since the service started, under masters before this one too."""

    restarts: int = 0
    """workers that died and were replaced"""
    killed_draining: int = 0
    """workers that did not finish in time"""
    lost_requests: int = 0
    """requests that a killed worker had in hand"""
    reasons: tuple[Count, ...] = field(default=(), metadata={"optional": True})
    """why workers were replaced, or could not be started; see `asrsvc.serving.happenings`"""
    rolls: tuple[Count, ...] = field(default=(), metadata={"optional": True})
    """by result"""


@dataclass(frozen=True, slots=True)
class Status:
    """All that the file says."""

    master: Master
    state: State
    version: str | None
    """what last served well; None before that"""
    workers: tuple[WorkerStatus, ...]
    wanted: int
    """workers"""
    roll: Roll | None = None
    problems: tuple[str, ...] = ()
    """why it is degraded; sentences"""
    refused: Refused | None = None
    counters: Counters = field(default_factory=Counters)
    numbers: tuple[VersionNumbers, ...] = field(default=(), metadata={"optional": True})
    """up to a second old"""

    @property
    def rolling(self) -> bool:
        """Whether a roll is under way."""
        return self.roll is not None and self.roll.ended is None


def now() -> str:
    """The time as the file says it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def at(moment: float) -> str:
    """A moment of time.monotonic() as the file says it; a clock that is set meanwhile shifts it."""
    seconds = time.time() - (time.monotonic() - moment)
    return datetime.fromtimestamp(round(seconds, 1), UTC).isoformat(timespec="milliseconds")


def myself(code: str) -> Master:
    """This process as the master.

    Args:
        code: version of the code that it runs.
    """
    pid = os.getpid()
    return Master(pid=pid, code=code, since=now(), start_ticks=start_ticks(pid) or 0, boot_id=_boot_id())


def is_alive(status: Status) -> bool:
    """Whether the master that wrote this is running, and not another process under its pid."""
    master = status.master
    if master.boot_id and master.boot_id != _boot_id():
        return False
    return start_ticks(master.pid) == master.start_ticks


def write(path: Path, status: Status) -> None:
    """Replace the file in one step; for the master.

    Raises:
        StatusError: the folder is not there, is not writable, or the disk refuses.
    """
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    content = json.dumps(_to_json(status), ensure_ascii=False).encode() + b"\n"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o644), "wb") as writer:  # noqa: PTH123 - a descriptor
            writer.write(content)
            writer.flush()
            os.fsync(writer.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StatusError(f"{path} cannot be written: {error.strerror}") from error


def read(path: Path) -> Status:
    """What the master last said; it may be gone since (`is_alive`).

    Raises:
        StatusError: there is no such file, or it does not hold a status.
    """
    try:
        # root reads it in the folder of another user: a link could lead anywhere
        content = json.loads(read_plain(path, _MOST_BYTES, follow=False))
    except FileNotFoundError as error:
        raise StatusError(f"{path} is not there: no service has run with this folder") from error
    except OSError as error:
        raise StatusError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise StatusError(f"{path} is not JSON ({error})") from error
    try:
        status = _from_json(Status, content, "status")
    except ValueError as error:
        raise StatusError(f"{path} is not the status of a service: {error}") from error
    assert isinstance(status, Status)
    return status


def to_json(status: Status) -> dict[str, Any]:
    """The status as the file holds it."""
    found = _to_json(status)
    assert isinstance(found, dict)
    return found


def roll_to_json(roll: Roll) -> dict[str, Any]:
    """A roll as the file holds it."""
    found = _to_json(roll)
    assert isinstance(found, dict)
    return found


def _to_json(value: Any) -> Any:
    if is_dataclass(value):
        return {_key(f): _to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    return value


def _from_json(kind: Any, value: Any, where: str) -> Any:
    """A value of this type; ValueError names the place and what would be right."""
    if get_origin(kind) in {UnionType, Union}:  # `str | None`, `Literal[…] | None`
        (other,) = (k for k in get_args(kind) if k is not NoneType)
        return None if value is None else _from_json(other, value, where)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{where} must be one of {', '.join(get_args(kind))}")
        return value
    if get_origin(kind) is tuple:
        return _items(get_args(kind)[0], value, where)
    if is_dataclass(kind):
        return _object(kind, value, where)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} must be of type {kind.__name__}")
    return value


def _items(kind: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list")
    return tuple(_from_json(kind, item, f"{where}[{number}]") for number, item in enumerate(value))


def _object(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be an object")
    hints = get_type_hints(kind)
    found = {}
    for attribute in fields(kind):
        key = _key(attribute)
        if key not in value and attribute.metadata.get("optional"):
            continue  # the master may be older than its reader
        if key not in value:
            raise ValueError(f"{where}.{key} is missing")
        found[attribute.name] = _from_json(hints[attribute.name], value[key], f"{where}.{key}")
    return kind(**found)


def _key(attribute: Any) -> str:
    return str(attribute.metadata.get("key", attribute.name))


def users_of(pid: int) -> frozenset[int]:
    """The users whose rights a process has: real, effective, saved; proc_pid_status(5).

    Raises:
        ProcessLookupError: it has ended.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessLookupError(f"process {pid} has ended") from error
    return frozenset(int(uid) for line in lines if line.startswith("Uid:") for uid in line.split()[1:])


def start_ticks(pid: int) -> int | None:
    """When a process was started, in clock ticks since the machine was; None if it has ended."""
    try:
        # the name in brackets may hold anything, brackets and spaces too
        columns = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if columns[0] in {b"Z", b"X"} else int(columns[19])
    except (OSError, ValueError, IndexError):
        return None


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
