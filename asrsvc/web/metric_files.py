"""The files in which workers count, one set a process, and their sum.

A worker writes through a memory map (prometheus_client's multiprocess mode), so a killed one loses
nothing. What the dead have counted is added up into one file a kind when a worker starts; otherwise a
thousand rolls would leave thousands of files. `merged.json` says which sums count and which files are
in them already, and is replaced in one step: whenever a process dies, each number counts once.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from asrsvc.errors import NotReady
from asrsvc.release.files import write_file
from asrsvc.serving.status import start_ticks

log = logging.getLogger(__name__)

KINDS: Final = ("counter", "histogram")
"""kinds of metrics that outlive their process"""
MOST_VERSIONS: Final = 20
"""versions of the model whose numbers outlive their workers"""
_GAUGES: Final = ("gauge_livesum", "gauge_livemax")
_BYTES: Final = {"counter": 128 * 1024, "histogram": 512 * 1024}
_GAUGE_BYTES: Final = 16 * 1024
_SPARE_BYTES: Final = 4096
_MERGED: Final = "merged.json"
_WAIT_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class _Sums:
    """What `merged.json` says."""

    generation: int = 0
    """of the sums that count"""
    absorbed: tuple[str, ...] = ()
    """names of files whose numbers are in them"""


class MetricFiles:
    """The files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # Of this process.

    def identity(self) -> str:
        """What the names of this process's files end with: no other process ever has the same."""
        pid = os.getpid()
        return f"{pid}-{start_ticks(pid) or 0}"

    def reserve(self) -> None:
        """Make this process's files, with all the space that they will need.

        A page of a memory map that finds no space on the disk would end the process (SIGBUS).

        Raises:
            OSError: the folder is not there, or there is no space.
        """
        for kind in (*KINDS, *_GAUGES):
            path = self.folder / f"{kind}_{self.identity()}.db"
            _allocate(path, _BYTES.get(kind, _GAUGE_BYTES))

    # Of all.

    def collect(self) -> Iterator[Metric]:
        """The sums of all processes.

        Raises:
            NotReady: another process holds the files for too long.
        """
        with self._lock(fcntl.LOCK_SH) as locked:
            if not locked:
                raise NotReady("the metrics are being added up: try again")
            paths = [path for path in self._counting() if _is_whole(path)]
            yield from MultiProcessCollector.merge([str(path) for path in paths])

    def absorb_dead(self) -> int:
        """Add up what processes have counted that have ended; how many files that were.

        Raises:
            OSError: the disk refuses; nothing is lost.
        """
        with self._lock(fcntl.LOCK_EX) as locked:
            if not locked:
                return 0  # the next start does it
            sums = self._sums()
            self._tidy(sums)
            dead = [path for path in self._files() if _owner(path) is not None and not _lives(path)]
            if not dead:
                return 0
            following = _Sums(sums.generation + 1, tuple(path.name for path in dead))
            for kind in KINDS:
                old = self._sum_of(kind, sums.generation)
                parts = [path for path in (old, *dead) if _kind(path) == kind and _is_whole(path)]
                _write_sum(self._sum_of(kind, following.generation), parts)
            content = {"generation": following.generation, "absorbed": following.absorbed}
            write_file(self.folder / _MERGED, json.dumps(content).encode())
            self._tidy(following)
            return len(dead)

    def _counting(self) -> list[Path]:
        """The files whose numbers count now."""
        sums = self._sums()
        found = [self._sum_of(kind, sums.generation) for kind in KINDS]
        for path in self._files():
            if _owner(path) is None or path.name in sums.absorbed:
                continue
            if _kind(path) in KINDS or _lives(path):
                found.append(path)
        return found

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.db"))

    def _sum_of(self, kind: str, generation: int) -> Path:
        return self.folder / f"{kind}_merged.{generation}.db"

    def _sums(self) -> _Sums:
        try:
            found = json.loads((self.folder / _MERGED).read_bytes())
            return _Sums(int(found["generation"]), tuple(map(str, found["absorbed"])))
        except FileNotFoundError:
            return _Sums()
        except (ValueError, KeyError, TypeError) as error:
            log.error("%s is damaged: %s", self.folder / _MERGED, error)
            return _Sums()

    def _tidy(self, sums: _Sums) -> None:
        """Remove what counts no more."""
        kept = {self._sum_of(kind, sums.generation) for kind in KINDS}
        for path in self._files():
            if path.name in sums.absorbed or (_owner(path) is None and path not in kept):
                path.unlink(missing_ok=True)

    @contextmanager
    def _lock(self, how: int) -> Iterator[bool]:
        """Readers share, one adds up alone; False if it could not be had in time."""
        deadline = time.monotonic() + _WAIT_SECONDS
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, how | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        yield False
                        return
                    time.sleep(_LOOK_SECONDS)
            yield True
        finally:
            os.close(descriptor)


def _allocate(path: Path, size: int) -> None:
    with path.open("xb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            path.unlink()
            raise


def _kind(path: Path) -> str:
    return path.name.partition("_")[0]


def _owner(path: Path) -> tuple[int, int] | None:
    """The process of a file, and when it was started; None: the file is a sum."""
    pid, _, ticks = path.stem.rpartition("_")[2].partition("-")
    return (int(pid), int(ticks)) if pid.isdecimal() and ticks.isdecimal() else None


def _lives(path: Path) -> bool:
    owner = _owner(path)
    return owner is not None and start_ticks(owner[0]) == owner[1]


def _is_whole(path: Path) -> bool:
    """Whether it can be read to its end; one that cannot must not hide the others."""
    try:
        for _ in MmapedDict.read_all_values_from_file(str(path)):
            pass
    except FileNotFoundError:
        return False
    except Exception as error:  # noqa: BLE001 - whatever struct, json and unicode make of garbage
        log.error("%s is left out of the metrics: %s", path, error)
        return False
    return True


def _write_sum(target: Path, parts: list[Path]) -> None:
    """Write the sum of some files; it counts only once `merged.json` says so."""
    sums: dict[str, float] = {}
    for path in parts:
        for key, value, _timestamp, _position in MmapedDict.read_all_values_from_file(str(path)):
            # Put in again, what was counted last stands last.
            sums[key] = sums.pop(key, 0.0) + value
    sums = _of_newest_versions(sums)
    target.unlink(missing_ok=True)  # of one who died on the way
    _allocate(target, _SPARE_BYTES + sum(len(key.encode()) + 32 for key in sums))
    written = MmapedDict(str(target))
    try:
        for key, value in sums.items():
            written.write_value(key, value, 0.0)
    finally:
        written.close()
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _of_newest_versions(sums: dict[str, float]) -> dict[str, float]:
    """Without the numbers of versions that are long gone."""
    version_of = {key: json.loads(key)[2].get("version") for key in sums}
    newest = list(dict.fromkeys(version for version in reversed(version_of.values()) if version))
    gone = set(newest[MOST_VERSIONS:])
    return {key: value for key, value in sums.items() if version_of[key] not in gone}


def give_up(files: MetricFiles) -> None:
    """Remove this process's files: it cannot count."""
    for path in files.folder.glob(f"*_{files.identity()}.db"):
        with suppress(OSError):
            path.unlink()
