"""Faster twins on disk: which host they are for, what is known of them, whether they are as they were made.

Each load reads all bytes of a twin and compares their XXH3 (128 bits) with those of the moment when its
answers had been compared with the published file's. That costs a few hundredths of a second, for the
same pages are mapped next, and leaves a flipped bit or a cut file a chance of 2^-128. It is no guard
against malice: who can write here can write the service's code too.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import platform
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from asrsvc.release.files import open_plain
from asrsvc.speech.cpu import cpu_features

Mode: TypeAlias = Literal["auto", "uint8", "off"]
"""auto: with int8 matrices where that is exact; uint8: never; off: no twins at all"""
State: TypeAlias = Literal["ready", "missing", "refused", "damaged"]

RECIPE: Final = 2
"""Raise it when the same file on the same host gives another twin than before."""

FOLDER: Final = "baked"
MANIFEST_FILE: Final = "bake.json"
_MOST_BYTES: Final = 1 << 20
"""of a manifest; one of ours has 1 KB"""
_AGAIN_SECONDS: Final = 3600.0
"""after which a twin that could not be made may be tried again"""


@dataclass(frozen=True, slots=True)
class FileDigest:
    """One file of a twin."""

    size: int
    """bytes"""
    xxh3: str
    """hex digits of its 128 bits"""


@dataclass(frozen=True, slots=True)
class Twin:
    """What is known of a twin, or of the attempt to make one."""

    version: str
    key: str
    """of the host that it is for"""
    source: str
    """SHA-256 of the published model_quant.onnx, hex digits"""
    files: Mapping[str, FileDigest]
    """by file name"""
    matrices: int = 0
    """of integers that the network multiplies by"""
    int8: int = 0
    """of these, re-encoded from uint8"""
    seconds: float = 0.0
    """that it took"""
    created: float = 0.0
    """time.time()"""
    note: str = ""
    """what was tried and left out, a sentence"""
    refused: str | None = None
    """why there is none"""


@dataclass(frozen=True, slots=True)
class Found:
    """Whether a version can be served by its twin."""

    state: State
    path: Path
    """folder of the twin"""
    twin: Twin | None = None
    problem: str | None = None
    """why it cannot be served; a sentence"""

    @property
    def usable(self) -> Path | None:
        """The folder, if what is in it may be served."""
        return self.path if self.state == "ready" else None

    @property
    def due(self) -> bool:
        """Whether one is to be made now."""
        if self.state == "refused":
            return self.twin is None or not 0 <= time.time() - self.twin.created < _AGAIN_SECONDS
        return self.state != "ready"


def host_key(mode: Mode) -> str:
    """What a twin depends on beside the published file; a name of a folder."""
    own = "-uint8" if mode == "uint8" else ""
    return f"ort{_runtime_version()}-{platform.machine()}-{cpu_features()[:8]}-b{RECIPE}{own}"


def folder_of(root: Path, version_id: str, mode: Mode) -> Path:
    """Where this host's twin of a version is, or would be.

    Args:
        root: of the store.
        version_id: of the version.
        mode: as the settings say.
    """
    return root / FOLDER / version_id / host_key(mode)


def find(root: Path, version_id: str, mode: Mode, source: str | None = None) -> Found:
    """This host's twin of a version, every byte of it looked at.

    Args:
        root: of the store.
        version_id: of the version.
        mode: as the settings say; not `off`.
        source: SHA-256 of the published model_quant.onnx; None: it is not compared.
    """
    path = folder_of(root, version_id, mode)
    try:
        twin = _read(path)
    except FileNotFoundError:
        # A folder without a manifest is no twin at all: it was put there by hand.
        state: State = "damaged" if path.exists() else "missing"
        return Found(state, path, problem=f"{path / MANIFEST_FILE} is missing")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Found("damaged", path, problem=f"{path / MANIFEST_FILE} cannot be read: {error}")
    if (twin.version, twin.key) != (version_id, path.name):
        problem = f"{path} was made for {twin.version} on {twin.key}"
        return Found("damaged", path, twin, problem)
    if twin.refused is not None:
        return Found("refused", path, twin, f"{path} could not be made: {twin.refused}")
    if source is not None and twin.source != source:
        return Found("damaged", path, twin, f"{path} was made of another model_quant.onnx")
    problem_found = _damage(path, twin)
    if problem_found is not None:
        return Found("damaged", path, twin, problem_found)
    return Found("ready", path, twin)


def is_there(root: Path, version_id: str, mode: Mode) -> bool:
    """Whether a twin is there that was made to the end; its bytes are not looked at."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _read(folder_of(root, version_id, mode)).refused is None
    return False


def measure(path: Path) -> FileDigest:
    """Size and digest of a file.

    Raises:
        OSError: it cannot be read.
    """
    import xxhash  # noqa: PLC0415 - the tool's other commands need the standard library alone

    with open_plain(path) as reader:
        size = os.fstat(reader.fileno()).st_size
        if size == 0:  # which cannot be mapped
            return FileDigest(0, xxhash.xxh3_128(b"").hexdigest())
        # In one piece, for whose time Python's lock is free: others import meanwhile.
        with mmap.mmap(reader.fileno(), size, access=mmap.ACCESS_READ) as content:
            return FileDigest(size, xxhash.xxh3_128(content).hexdigest())


def manifest_bytes(twin: Twin) -> bytes:
    """A twin's manifest as it is stored, with a digest of itself."""
    content = asdict(twin)
    return json.dumps({**content, "seal": _seal(content)}, indent=2).encode() + b"\n"


def remove_stale(root: Path, version_id: str) -> tuple[str, ...]:
    """Remove twins that only this host could have made, and would make otherwise now; their keys.

    Twins of other processors stay: the store may be shared.

    Raises:
        OSError: the disk refuses.
    """
    processor = f"-{platform.machine()}-{cpu_features()[:8]}-b"
    wanted = {host_key("auto"), host_key("uint8")}
    removed = []
    for path in sorted((root / FOLDER / version_id).glob("*")):
        if path.is_dir() and processor in path.name and path.name not in wanted:
            shutil.rmtree(path)
            removed.append(path.name)
    return tuple(removed)


def _runtime_version() -> str:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with suppress(PackageNotFoundError):
            return version(name)
    return "unknown"


def _read(folder: Path) -> Twin:
    with open_plain(folder / MANIFEST_FILE) as reader:
        content: dict[str, Any] = json.loads(reader.read(_MOST_BYTES))
    seal = content.pop("seal", None)
    if seal != _seal(content):
        raise ValueError("it has been changed")
    files = {str(name): FileDigest(**record) for name, record in content.pop("files").items()}
    return Twin(files=files, **content)


def _damage(folder: Path, twin: Twin) -> str | None:
    if not twin.files:
        return f"{folder / MANIFEST_FILE} names no files"
    for name, known in twin.files.items():
        path = folder / name
        try:
            # A file that was cut needs no reading.
            found = measure(path) if path.stat().st_size == known.size else None
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        if found != known:
            return f"{path} is not the file that was made"
    return None


def _seal(content: Mapping[str, Any]) -> str:
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(plain.encode()).hexdigest()
