"""Which version of the store a source has given before: a start fetches nothing that is here already."""

from __future__ import annotations

import os
from pathlib import Path

from asrsvc.errors import BadArgument, StoreError
from asrsvc.release import pinned
from asrsvc.release.manifest import is_model_name, measure, read_manifest
from asrsvc.release.sources import Folder, Hub, Source, identity, parse
from asrsvc.release.store import Store, Version
from asrsvc.release.versions import check_files


def known_version(store: Store, text: str) -> Version | None:
    """The version that was last pulled from a source; None: it must be pulled.

    A repository or an archive is not asked whether it has changed: to get what is new there is `pull`. A
    folder is looked at, since that takes no network; one that is gone gives what it gave last.

    Args:
        store: which one; it is only read.
        text: the source, as an operator names it; see `sources.FORMS`.

    Raises:
        BadArgument: it has no form of a source.
        StoreError: the store cannot be read.
    """
    try:
        source = parse(text)
    except BadArgument:
        place = os.path.realpath(os.path.expanduser(text.replace("\0", "")))  # noqa: PTH111 - fails for none
        gone = _newest(store, place) if text else None
        if gone is None:
            raise
        return gone
    found = _newest(store, identity(source), source)
    if found is not None and isinstance(source, Folder) and _has_changed(source.path, found):
        return None
    return found


def _newest(store: Store, key: str, source: Source | None = None) -> Version | None:
    best: tuple[str, Version] | None = None
    for version in store.versions():
        try:
            when = store.record(version.id).sources.get(key) or _by_manifest(version, source)
            if when is not None and (best is None or when > best[0]):
                check_files(version.path)
                best = when, version
        except StoreError:
            continue  # a damaged one is pulled again
    return best[1] if best is not None else None


def _by_manifest(version: Version, source: Source | None) -> str | None:
    """When a version came from this repository, for one whose record does not say it."""
    if not isinstance(source, Hub):
        return None
    manifest = read_manifest(version.path)
    if manifest is None or manifest.origin.source != f"{source.kind}:{source.repository}":
        return None
    same = source.revision in {None, manifest.origin.revision}
    return manifest.created if same else None


def _has_changed(folder: Path, version: Version) -> bool:
    """Whether a folder holds other files of a model than those that were taken from it."""
    manifest = read_manifest(version.path)
    if manifest is None:
        return True
    try:
        names = {path.name for path in folder.iterdir() if is_model_name(path.name)}
        missing = set(manifest.files) - names - {pinned.VOCABULARY_FILE}  # that may be from elsewhere
        return bool(missing) or any(measure(folder / name) != manifest.files.get(name) for name in names)
    except OSError:
        return True  # what is wrong with it, the pull says
