"""What a version is made of: the names of its files, their sizes and digests, and where they are from.

The manifest carries a digest of itself, the seal, so that a change by hand is told from damage to
the files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from asrsvc.errors import BadArgument, SourceError, StoreError
from asrsvc.release.files import open_plain
from asrsvc.system.documents import parse_json, read_bytes

MODEL_FILE: Final = "model_quant.onnx"
REQUIRED_FILES: Final = (MODEL_FILE, "am.mvn", "config.yaml", "tokens.json")
"""beside exactly one file *.bpe.model"""
COMPANION_FILES: Final = ("MODEL_CARD.md", "LICENSE")
"""stored where a source has them"""
VOCABULARY_SUFFIX: Final = ".bpe.model"
MANIFEST_FILE: Final = "manifest.json"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE_NAME: Final = re.compile(r"[^./\0][^/\0]{0,254}")
_MOST_BYTES: Final = 1 << 18
"""of a manifest; one of ours has 1 KB"""
_MOST_VALUES: Final = 10_000
_LONGEST_VOCABULARY_NAME: Final = 60
"""characters: in UTF-8 the longest name of a file has 255 bytes"""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file as it was stored."""

    size: int
    """bytes"""
    sha256: str
    """hex digits"""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a version was taken from."""

    source: str
    """as an operator names it; without user names, passwords and queries"""
    revision: str | None = None
    """what the source calls this state of itself, as a commit"""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a version from the time when it was stored."""

    id: str
    origin: Origin
    created: str
    """UTC, ISO 8601; empty if it is not known"""
    files: Mapping[str, FileRecord]
    """by file name"""
    sealed: bool | None
    """whether it is as it was written; None: it has no seal"""


def model_names(names: Iterable[str], place: str) -> list[str]:
    """Those of some file names that make a model, required ones first.

    Args:
        names: of the files in one folder.
        place: what the folder is called in a message.

    Raises:
        SourceError: one is missing, or the vocabulary is not the only one.
    """
    found = set(names)
    missing = [name for name in REQUIRED_FILES if name not in found]
    vocabularies = vocabulary_names(found)
    if not vocabularies:
        missing.append(f"*{VOCABULARY_SUFFIX}")
    if missing:
        raise SourceError(f"{place} holds no whole model: {', '.join(missing)} missing")
    if len(vocabularies) > 1:
        raise SourceError(f"{place} must hold one *{VOCABULARY_SUFFIX}; it holds {', '.join(vocabularies)}")
    return [*REQUIRED_FILES, vocabularies[0], *(name for name in COMPANION_FILES if name in found)]


def vocabulary_names(names: Iterable[str]) -> list[str]:
    """Those of some file names that are vocabularies, in order."""
    return sorted(name for name in names if name.endswith(VOCABULARY_SUFFIX) and not name.startswith("."))


def is_model_name(name: str) -> bool:
    """Whether a file of this name may belong to a model; a stranger's name must be one for people too."""
    if name in {*REQUIRED_FILES, *COMPANION_FILES}:
        return True
    return bool(vocabulary_names([name])) and name.isprintable() and len(name) <= _LONGEST_VOCABULARY_NAME


def check_name(name: str) -> str:
    """The name, if a version can be called so.

    Raises:
        BadArgument: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise BadArgument(
            f"{name!r} cannot name a version: up to 64 letters, digits and . - _ can, a letter or digit first"
        )
    return name


def measure(path: Path) -> FileRecord:
    """Size and digest of a file.

    Raises:
        OSError: it cannot be read.
    """
    with open_plain(path) as reader:
        digest = hashlib.file_digest(reader, "sha256").hexdigest()
        return FileRecord(reader.tell(), digest)


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest as it is stored, with its seal."""
    content: dict[str, Any] = {
        "id": manifest.id,
        "source": manifest.origin.source,
        "revision": manifest.origin.revision,
        "created": manifest.created,
        "files": {name: asdict(record) for name, record in manifest.files.items()},
    }
    return json.dumps({**content, "seal": _seal(content)}, indent=2).encode() + b"\n"


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a version; None for a folder without one, which was stored by hand.

    Raises:
        StoreError: it cannot be read, or is none.
    """
    path = folder / MANIFEST_FILE
    try:
        content = parse_json(read_bytes(path, _MOST_BYTES), most_values=_MOST_VALUES)
        seal = content.pop("seal", None)
        files = {
            _plain(name): FileRecord(int(record["size"]), str(record["sha256"]))
            for name, record in dict(content["files"]).items()
        }
        return Manifest(
            id=str(content.get("id", "")),
            origin=Origin(str(content.get("source", "")), content.get("revision")),
            created=str(content.get("created", "")),
            files=files,
            sealed=None if seal is None else seal == _seal(content),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error


def _plain(name: str) -> str:
    if not _FILE_NAME.fullmatch(name) or name == MANIFEST_FILE:
        raise ValueError(f"{name!r} is no file of a version")
    return name


def _seal(content: Mapping[str, Any]) -> str:
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(plain.encode()).hexdigest()
