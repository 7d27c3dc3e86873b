"""The acceptance set: recordings with what is said in them, which every version is tried on.

    golden/            in the store, or any folder that `try --clips` names
      call-17.m4a        a recording in any format that the service takes
      call-17.txt        beside it, what is said, in UTF-8: written as the service is to write it
      zh/  en/  yue/  ja/  ko/
                         the same again, where error rates are wanted for each language

While there are none, the clips that come with asrsvc serve.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asrsvc.errors import ClipsError
from asrsvc.release.error_rate import normalise
from asrsvc.release.files import open_plain, read_plain

FOLDER: Final = "golden"
LANGUAGES: Final = ("zh", "en", "yue", "ja", "ko")
NO_LANGUAGE: Final = "-"
"""for a recording that lies in no folder of a language"""

MOST_CLIPS: Final = 1000
MOST_CLIP_SECONDS: Final = 600.0
MOST_SECONDS: Final = 7200.0
"""of all clips together"""
MOST_FILE_BYTES: Final = 256 * 2**20
MOST_TEXT_BYTES: Final = 64 * 2**10
_MOST_FAULTS: Final = 20
"""told at once"""

_EMBEDDED: Final = Path(__file__).resolve().parent.parent / "clips"
_NOT_CLIPS: Final = "readme"


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording and what is said in it."""

    name: str
    """its path in the set, as zh/call-17.m4a"""
    path: Path
    language: str
    """zh, en, yue, ja, ko, or `NO_LANGUAGE`"""
    text: str
    """what is said"""


@dataclass(frozen=True, slots=True)
class ClipSet:
    """Recordings that versions are tried on."""

    name: str
    """where they come from, for people"""
    clips: tuple[Clip, ...]
    """at least one, ordered by name"""
    digest: str
    """16 hex digits; error rates on sets of another digest cannot be compared"""


def acceptance_set(root: Path, folder: Path | None = None) -> ClipSet:
    """The recordings that a trial is to use.

    Args:
        root: of the store.
        folder: takes the place of the store's own.

    Raises:
        ClipsError: something in the folder is not as it must be; names every file.
    """
    if folder is not None:
        return read_folder(folder)
    golden = root / FOLDER
    if not os.path.lexists(golden) or (golden.is_dir() and not any(_files(golden))):
        return embedded()
    return read_folder(golden)


def embedded() -> ClipSet:
    """The clips that come with asrsvc.

    Raises:
        ClipsError: the installation is damaged.
    """
    try:
        known = json.loads((_EMBEDDED / "manifest.json").read_bytes())
        clips = [Clip(c["file"], _EMBEDDED / c["file"], c["language"], c["withitn"]) for c in known]
        return _set("the clips that come with asrsvc", clips)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClipsError(f"{_EMBEDDED} is damaged: {error}") from error


def read_folder(folder: Path) -> ClipSet:
    """The recordings of a folder of the layout above.

    Raises:
        ClipsError: something in it is not as it must be; names every file.
    """
    try:
        return _read_folder(folder)
    except OSError as error:
        raise ClipsError(f"{error.filename or folder} cannot be read: {error.strerror}") from error


def _read_folder(folder: Path) -> ClipSet:
    if not folder.is_dir():
        raise ClipsError(f"{folder} is not a folder of recordings and their transcripts")
    faults: list[str] = []
    clips: list[Clip] = []
    places = [(folder, NO_LANGUAGE), *((folder / name, name) for name in LANGUAGES)]
    for place, language in places:
        if place.is_dir() and _inside(place, folder):
            clips += _pairs(place, language, folder, faults)
    for path in _files(folder):
        if path.is_dir() and path.name not in LANGUAGES:
            faults.append(f"{path} is a folder; only {', '.join(LANGUAGES)} can be in there")
        elif path.is_dir() and not _inside(path, folder):
            faults.append(f"{path} leads out of {folder}")
    if len(clips) > MOST_CLIPS:
        faults = [f"{folder} holds {len(clips)} recordings; {MOST_CLIPS} is the limit"]
    if not clips and not faults:
        faults = [f"{folder} holds no recordings: put NAME.wav (or another format) and NAME.txt there"]
    if faults:
        raise clips_error(faults)
    return _set(str(folder), clips)


def clips_error(faults: list[str]) -> ClipsError:
    """All that is wrong, in one error."""
    more = len(faults) - _MOST_FAULTS
    told = "; ".join(faults[:_MOST_FAULTS])
    return ClipsError(f"the acceptance set cannot be used: {told}" + (f"; and {more} more" * (more > 0)))


def _pairs(place: Path, language: str, folder: Path, faults: list[str]) -> list[Clip]:
    """The clips that lie in one folder; what is wrong is added to the faults."""
    sounds: dict[str, Path] = {}
    texts: dict[str, Path] = {}
    faulty: set[str] = set()
    for path in _files(place):
        if path.is_dir():
            if place != folder:
                faults.append(f"{path} is a folder; recordings lie in {place} itself")
            continue
        kind = texts if path.suffix.lower() == ".txt" else sounds
        fault = _fault(path, folder, MOST_TEXT_BYTES if kind is texts else MOST_FILE_BYTES)
        if path.stem in kind:
            fault = f"{path} and {kind[path.stem].name} have the same name: give each an own transcript"
        if fault:
            faults.append(fault)
            faulty.add(path.stem)
        kind[path.stem] = path
    faults += [f"{path} has no transcript {name}.txt" for name, path in sounds.items() if name not in texts]
    faults += [f"{path} has no recording beside it" for name, path in texts.items() if name not in sounds]
    whole = {name: path for name, path in sounds.items() if name in texts and name not in faulty}
    return list(_transcribed(whole, texts, language, folder, faults))


def _transcribed(
    sounds: dict[str, Path], texts: dict[str, Path], language: str, folder: Path, faults: list[str]
) -> Iterator[Clip]:
    for name, path in sounds.items():
        try:
            text = read_plain(texts[name], MOST_TEXT_BYTES).decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            faults.append(f"{texts[name]} is not UTF-8 (byte {error.start})")
            continue
        if not normalise(text):
            faults.append(f"{texts[name]} says nothing: write what is said in {path.name}, or remove both")
            continue
        yield Clip(str(path.relative_to(folder)), path, language, text)


def _fault(path: Path, folder: Path, most_bytes: int) -> str | None:
    try:
        if not _inside(path, folder):
            return f"{path} leads out of {folder}"
        found = path.stat()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is no file"
    if not os.access(path, os.R_OK):
        return f"{path} cannot be read: permission denied"
    if found.st_size > most_bytes:
        return f"{path} has {found.st_size} bytes; {most_bytes} is the limit"
    return None


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve(strict=True).is_relative_to(folder.resolve(strict=True))


def _files(folder: Path) -> Iterator[Path]:
    """What counts in a folder, in order: a hidden file or a README is no clip."""
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and path.stem.lower() != _NOT_CLIPS:
            yield path


def _set(name: str, clips: list[Clip]) -> ClipSet:
    ordered = sorted(clips, key=lambda clip: clip.name)
    digest = hashlib.sha256()
    for clip in ordered:
        with open_plain(clip.path) as reader:
            sound = hashlib.file_digest(reader, "sha256").hexdigest()
        digest.update(json.dumps([clip.name, clip.language, clip.text, sound]).encode())
    return ClipSet(name, tuple(ordered), digest.hexdigest()[:16])
