"""What a pull takes from the network: the files of a repository, an archive, a missing vocabulary."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from asrsvc.errors import DownloadFailed, SourceError, WrongDigest
from asrsvc.release import pinned
from asrsvc.release.fetch import Fetcher
from asrsvc.release.hubs import file_url, look
from asrsvc.release.job import Job, Obtained
from asrsvc.release.manifest import (
    MODEL_FILE,
    FileRecord,
    Origin,
    model_names,
    read_manifest,
    vocabulary_names,
)
from asrsvc.release.partial import Partial, Wanted, require_space
from asrsvc.release.sources import Archive, Hub
from asrsvc.release.staging import Stage, keep_only
from asrsvc.release.versions import Version, check_digests

_Found = TypeVar("_Found")


def fetch_repository(job: Job, hub: Hub, stage: Stage) -> Obtained | Version:
    """The files of a repository; or the version, if the store has these very files already.

    Raises:
        AsrError: see `pull`.
        OSError: the disk refuses.
    """
    return _run(job, lambda fetcher: _repository(job, fetcher, hub, stage))


def fetch_archive(job: Job, archive: Archive, stage: Stage) -> Path:
    """An archive, whole.

    Raises:
        AsrError: see `pull`.
        OSError: the disk refuses.
    """
    wanted = Wanted(archive.file_name, archive.url, sha256=job.digests.get(archive.file_name))
    partial = Partial(stage.parts, wanted)
    keep_only(stage.parts, partial.names)
    _run(job, lambda fetcher: fetcher.file(partial, None))
    return partial.path


def fetch_vocabulary(job: Job, stage: Stage) -> FileRecord:
    """The vocabulary of the published model, which lives in another repository than its export.

    Raises:
        AsrError: see `pull`.
        OSError: the disk refuses.
    """
    wanted = _vocabulary(job)
    partial = Partial(stage.parts, wanted)
    return _run(job, lambda fetcher: fetcher.file(partial, stage.files / wanted.name))


def _run(job: Job, work: Callable[[Fetcher], Awaitable[_Found]]) -> _Found:
    async def bounded() -> _Found:
        async with Fetcher(job.limits, job.report) as fetcher, asyncio.timeout(job.limits.seconds):
            return await work(fetcher)

    try:
        return asyncio.run(bounded())
    except TimeoutError as error:
        raise DownloadFailed(f"the download did not end within {job.limits.seconds:g} s") from error


async def _repository(job: Job, fetcher: Fetcher, hub: Hub, stage: Stage) -> Obtained | Version:
    place = pinned.pinned_place(hub)
    listing = await look(fetcher, place or hub, job.endpoints, job.limits)
    wanted = _wanted(job, listing.hub, listing.files, pinned.FILES if place else {})
    keep_only(stage.files, wanted)
    here = {name: _already(file, stage.files / name) for name, file in wanted.items()}
    missing = {name: Partial(stage.parts, file) for name, file in wanted.items() if here[name] is None}
    keep_only(stage.parts, [name for partial in missing.values() for name in partial.names])
    _check_size(job, wanted, missing, stage)
    for name, partial in sorted(missing.items(), key=lambda item: item[1].wanted.size or 0):
        known = {n: record.sha256 if record else wanted[n].sha256 for n, record in here.items()}
        stored = _stored(job, known)  # asked before each: the model, the largest, is the last
        if stored is not None:
            return stored
        here[name] = await fetcher.file(partial, stage.files / name)
    files = {name: record for name, record in here.items() if record is not None}
    return Obtained(files, Origin(str(replace(hub, revision=None)), listing.hub.revision))


def _wanted(
    job: Job, hub: Hub, listed: Mapping[str, Wanted], published: Mapping[str, FileRecord]
) -> dict[str, Wanted]:
    """The files to fetch, with all that is known of them."""
    found = {name: _pinned(file, published.get(name)) for name, file in listed.items()}
    model = found.get(MODEL_FILE)
    if model is not None and not vocabulary_names(found) and pinned.is_published(model.sha256):
        found[pinned.VOCABULARY_FILE] = _vocabulary(job)
    names = model_names(found, str(hub))
    job.check_named(names, str(hub))
    return {name: _with_digest(found[name], job.digests.get(name)) for name in names}


def _vocabulary(job: Job) -> Wanted:
    name = pinned.VOCABULARY_FILE
    record = pinned.FILES[name]
    return Wanted(name, file_url(pinned.VOCABULARY_HUB, job.endpoints, name), record.size, record.sha256)


def _pinned(file: Wanted, record: FileRecord | None) -> Wanted:
    if record is None:
        return file
    if file.size not in {None, record.size}:
        raise WrongDigest(f"{file.name} has {file.size} bytes at the hub, not the {record.size} published")
    return replace(_with_digest(file, record.sha256), size=record.size)


def _with_digest(file: Wanted, sha256: str | None) -> Wanted:
    if sha256 is None:
        return file
    if file.sha256 not in {None, sha256}:
        raise WrongDigest(f"{file.name} has the SHA-256 {file.sha256} at the hub, not {sha256}")
    return replace(file, sha256=sha256)


def _already(file: Wanted, path: Path) -> FileRecord | None:
    """A file that an earlier pull has brought whole, if it surely is the wanted one."""
    if not path.is_file():
        return None
    if file.is_certain:
        try:
            return file.check(path)
        except WrongDigest:
            pass  # the repository has changed
    path.unlink()
    return None


def _check_size(job: Job, wanted: Mapping[str, Wanted], missing: Mapping[str, Partial], stage: Stage) -> None:
    total = sum(file.size or 0 for file in wanted.values())
    if total > job.limits.total_bytes:
        raise SourceError(f"its files have {total} bytes together; {job.limits.total_bytes} are the limit")
    require_space(stage.files, sum(max(0, (p.wanted.size or 0) - p.size) for p in missing.values()))


def _stored(job: Job, digests: Mapping[str, str | None]) -> Version | None:
    """The version that has these very files, if there is one already."""
    model = digests[MODEL_FILE]
    for version in job.store.versions():
        if model is not None and version.id == f"{job.name}-{model[:8]}":
            manifest = read_manifest(version.path)
            stored = {name: record.sha256 for name, record in manifest.files.items()} if manifest else {}
            if stored == digests:
                check_digests(version.path)
                return version
    return None
