"""Getting a version: parse → stage → (list and download | download and unpack | copy) → check → commit.

Nothing is visible before the last step. What a download has brought is kept for the next try.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

from asrsvc.errors import BadArgument, DownloadFailed, PackageMissing, SourceError, StoreFull, StoreLocked
from asrsvc.release import pinned
from asrsvc.release.archive import unpack
from asrsvc.release.files import disk_error
from asrsvc.release.job import Job, Obtained
from asrsvc.release.manifest import (
    MODEL_FILE,
    FileRecord,
    Origin,
    check_name,
    model_names,
    vocabulary_names,
)
from asrsvc.release.partial import require_space
from asrsvc.release.progress import Limits, Progress, Report
from asrsvc.release.source_folder import close, open_files
from asrsvc.release.sources import (
    Archive,
    Endpoints,
    Folder,
    Hub,
    Source,
    parse,
    staging_key,
    suggested_name,
)
from asrsvc.release.staging import Stage, keep_only
from asrsvc.release.store import Store
from asrsvc.release.versions import Version
from asrsvc.release.writing import copy_stream

_LFS_POINTER: bytes = b"version https://git-lfs"
_NOTHING: Mapping[str, str] = {}
_REAL_ENDPOINTS = Endpoints()
_LIMITS = Limits()


def pull(
    store: Store,
    source: str | Source,
    *,
    name: str | None = None,
    sha256: Mapping[str, str] = _NOTHING,
    endpoints: Endpoints = _REAL_ENDPOINTS,
    limits: Limits = _LIMITS,
    progress: Report = lambda _: None,
) -> Version:
    """Have the model of a source in the store; the same files again change nothing.

    It runs a loop of asyncio of its own: not to be called inside another one.

    Args:
        store: which one.
        source: see `sources.FORMS`, or what `parse` has made of it.
        name: what the id starts with; by default what the source is called.
        sha256: hex digits by file name, which must be met; an archive has its own name there.
        endpoints: where the hubs are.
        limits: what the source may cost.
        progress: is told what happens.

    Raises:
        BadArgument: the source, the name or a digest has no possible form.
        SourceError: there is no model, or what no model has.
        WrongDigest: a file is not the one that was promised.
        DownloadFailed: a hub fails; what has arrived is kept for the next pull of this source.
        StoreFull: there is no space; what has arrived is kept too.
        StoreError: the store is locked, or its disk refuses.
        PackageMissing: the package that downloads need is not installed.
    """
    found = parse(source) if isinstance(source, str) else source
    wish = check_name(suggested_name(found) or "model" if name is None else name)
    job = Job(store, wish, _digests(sha256), endpoints, limits, progress)
    kept_after = (DownloadFailed, StoreFull, StoreLocked, KeyboardInterrupt)
    key = staging_key(found, endpoints)
    with _disk(store), store.staged(key, kept_after=kept_after) as stage, _disk(store):
        obtained = _obtain(job, found, stage)
        if isinstance(obtained, Version):
            return obtained
        _check_pointers(stage, obtained.files)
        return store.commit(stage, job.name, obtained.origin, obtained.files)


def _obtain(job: Job, source: Hub | Archive | Folder, stage: Stage) -> Obtained | Version:
    if isinstance(source, Hub):
        obtained: Obtained | Version = _network().fetch_repository(job, source, stage)
        return obtained
    keep_only(stage.files, ())
    if isinstance(source, Archive):
        path = _network().fetch_archive(job, source, stage)
        job.report(Progress("unpack", source.file_name))
        files = unpack(path, stage.files, label=str(source), limits=job.limits)
        named = {source.file_name}
    else:
        files = _copy(job, source, stage)
        named = set()
    if not vocabulary_names(files) and MODEL_FILE in files and pinned.is_published(files[MODEL_FILE].sha256):
        files[pinned.VOCABULARY_FILE] = _network().fetch_vocabulary(job, stage)
    model_names(files, str(source))
    job.check_named(named | set(files), str(source))
    job.check_digests(files)
    return Obtained(files, Origin(str(source)))


def _copy(job: Job, source: Folder, stage: Stage) -> dict[str, FileRecord]:
    opened = source.opened if source.opened is not None else open_files(source.path)
    try:
        sizes = {name: os.fstat(reader.fileno()).st_size for name, reader in opened.items()}
        if sum(sizes.values()) > job.limits.total_bytes:
            raise SourceError(
                f"{source} has {sum(sizes.values())} bytes; {job.limits.total_bytes} are the limit"
            )
        require_space(stage.files, sum(sizes.values()))
        copied = {}
        for name, reader in opened.items():
            job.report(Progress("copy", name, 0, sizes[name]))
            copied[name] = copy_stream(reader, stage.files / name)
            job.report(Progress("done", name, copied[name].size, copied[name].size))
    finally:
        close(opened)
    return copied


def _network() -> ModuleType:
    """What needs httpx: a folder is taken before anything is installed."""
    try:
        from asrsvc.release import repository  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise PackageMissing(
            f"{error.name} is not installed, which downloads need: bin/serve installs it"
        ) from error
    return repository


def _digests(given: Mapping[str, str]) -> dict[str, str]:
    for name, digest in given.items():
        if not re.fullmatch(r"[0-9A-Fa-f]{64}", digest):
            raise BadArgument(f"{digest!r} for {name} is no SHA-256: 64 hex digits are")
    return {name: digest.lower() for name, digest in given.items()}


def _check_pointers(stage: Stage, files: Mapping[str, FileRecord]) -> None:
    """A clone without Git LFS has small texts in place of large files."""
    for name in files:
        with (stage.files / name).open("rb") as reader:
            if reader.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise SourceError(
                    f"{name} is a pointer of Git LFS, not the file: run git lfs pull there first"
                )


@contextmanager
def _disk(store: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = error.filename or store.root
        raise disk_error(f"{place} cannot be read or written", error) from error
