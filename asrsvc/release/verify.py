"""All digests of a version again, and what is to blame where one differs: the file or the manifest."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from asrsvc.errors import SourceError, StoreError
from asrsvc.release.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    FileRecord,
    Manifest,
    measure,
    model_names,
    read_manifest,
)
from asrsvc.release.store import Store
from asrsvc.release.versions import Version


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one file."""

    file: str
    kind: Literal["missing", "extra", "differs", "unreadable", "manifest"]
    """manifest: the manifest itself is missing, damaged or was changed after it was written"""
    detail: str
    """a sentence for a person"""

    def __str__(self) -> str:
        return f"{self.file}: {self.detail}"

    def to_json(self) -> dict[str, str]:
        """As a JSON object."""
        return asdict(self)


def verify(store: Store, version: Version) -> list[Fault]:
    """Compare each file of a version with what was stored; what is wrong, nothing if all is well.

    The manifest may be wrong too. It carries a digest of itself, and the version's id holds the
    first digits of the model's digest: where the file agrees with the id and the manifest does not,
    the manifest was changed.

    Args:
        store: that the version belongs to.
        version: whole or not.

    Raises:
        UnknownVersion: it is not there.
        StoreError: its folder cannot be read.
    """
    store.find(version.id)
    try:
        present = {path.name for path in version.path.iterdir()}
    except OSError as error:
        raise StoreError(f"{version.path} cannot be read: {error.strerror}") from error
    try:
        manifest = read_manifest(version.path)
    except StoreError as error:
        return [Fault(MANIFEST_FILE, "manifest", error.message)]
    if manifest is None:
        text = "is missing: the version was stored by hand, or has lost it; nothing can be compared"
        return [Fault(MANIFEST_FILE, "manifest", text)]
    faults = _of_manifest(version, manifest)
    trusted = manifest.sealed is not False
    for name, record in manifest.files.items():
        faults += _of_file(version, name, record, trusted=trusted)
    for name in sorted(present - set(manifest.files) - {MANIFEST_FILE}):
        faults.append(Fault(name, "extra", "is not in the manifest"))
    return faults


def _of_manifest(version: Version, manifest: Manifest) -> list[Fault]:
    faults = []
    if manifest.sealed is False:
        text = "was changed after it was written: its own digest does not fit"
        faults.append(Fault(MANIFEST_FILE, "manifest", text))
    if manifest.id != version.id:
        faults.append(Fault(MANIFEST_FILE, "manifest", f"belongs to {manifest.id!r}, not to {version.id!r}"))
    faults += _of_names(manifest.files)
    model = manifest.files.get(MODEL_FILE)
    if model is not None and not version.id.endswith(f"-{model.sha256[:8]}"):
        text = f"says {model.sha256[:8]}… of {MODEL_FILE}, the version's id says otherwise"
        faults.append(Fault(MANIFEST_FILE, "manifest", text))
    return faults


def _of_names(files: Mapping[str, FileRecord]) -> list[Fault]:
    try:
        model_names(files, "it")
    except SourceError as error:
        return [Fault(MANIFEST_FILE, "manifest", error.message)]
    return []


def _of_file(version: Version, name: str, record: FileRecord, *, trusted: bool) -> list[Fault]:
    path = version.path / name
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return [Fault(name, "differs", "is no plain file")]
        found = measure(path)
    except FileNotFoundError:
        return [Fault(name, "missing", "is missing")]
    except OSError as error:
        return [Fault(name, "unreadable", f"cannot be read: {error.strerror}")]
    if found == record:
        return []
    if name == MODEL_FILE and version.id.endswith(f"-{found.sha256[:8]}"):
        text = "is as the version's id says; the manifest is wrong about it"
        return [Fault(name, "manifest", text)]
    size = (
        f"{found.size} bytes instead of {record.size}" if found.size != record.size else f"{found.size} bytes"
    )
    against = "the manifest" if trusted else "the manifest, which was changed"
    text = f"differs from {against}: SHA-256 {found.sha256[:8]}… instead of {record.sha256[:8]}…, {size}"
    return [Fault(name, "differs", text)]
