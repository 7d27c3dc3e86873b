"""The faster twin of what a worker serves: looked at first, and made in the background where it is missing.

The worker serves the published file meanwhile, and asks to be replaced when the twin is there. What is
imported here needs little: the bytes of a twin are looked at while the rest is imported.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asrsvc.errors import AsrError, BakeFailed
from asrsvc.release.bake import Found, MakeLimits, find, make_if_missing
from asrsvc.release.manifest import MODEL_FILE, read_manifest
from asrsvc.release.versions import Version, check_digests
from asrsvc.settings import Settings
from asrsvc.system.priority import lower_thread

log = logging.getLogger(__name__)

_WORTH_BYTES: Final = 32 * 2**20
"""of a published file; a smaller one loads in a moment anyway, and nobody waits for its twin"""
_SETTLED_SECONDS: Final = 60.0
"""a damaged twin is not made again sooner after it was made: its disk may be at fault"""
_LOOK_SECONDS: Final = 5.0
_GIVE_UP_SECONDS: Final = 3600.0
_NICENESS: Final = 9  # the child adds ten


@dataclass(frozen=True, slots=True)
class Looked:
    """What the files of a version are."""

    twin: Found | None
    """its faster twin on this host, every byte of it looked at; None: none was looked for"""
    digests: Mapping[str, str]
    """SHA-256 (hex digits) of each file that the model is made of, by file name"""


def look(folder: Path, version: str, settings: Settings) -> Looked:
    """Read all files that a load will open, and see whether they are what they should be.

    Args:
        folder: of the version.
        version: its id.
        settings: in force.

    Raises:
        StoreError: its files are not those that were stored.
    """
    mode = settings.bake_mode()
    if mode == "off":
        return Looked(None, check_digests(folder))
    manifest = read_manifest(folder)
    known = manifest.files.get(MODEL_FILE) if manifest else None
    # A version that was stored by hand has no digest but that of what is there now.
    source = known.sha256 if known else check_digests(folder)[MODEL_FILE]
    twin = find(settings.store, version, mode, source)
    # A good twin proves the published file, which is not opened.
    unread = [MODEL_FILE] if twin.usable is not None else []
    return Looked(twin, check_digests(folder, unread=unread))


class Maker:
    """Makes the twin of one version in a thread; another process does the work."""

    def __init__(self, settings: Settings, version: Version, found: Found) -> None:
        """Prepare; `start` begins.

        Args:
            settings: in force.
            version: that is served.
            found: why it is not served by its twin.
        """
        self._settings = settings
        self._version = version
        self._found = found
        self.made = threading.Event()
        """set when the twin is there"""

    @property
    def wanted(self) -> bool:
        """Whether it is worth while, and may succeed."""
        if self._found.state == "missing":
            path = self._version.path / MODEL_FILE
            return path.is_file() and path.stat().st_size >= _WORTH_BYTES
        return self._found.due

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="asr-bake", daemon=True).start()

    def _run(self) -> None:
        lower_thread(_NICENESS)
        began = time.monotonic()
        twin = self._found.twin
        if self._found.state == "damaged" and twin is not None:
            time.sleep(min(_SETTLED_SECONDS, max(0.0, twin.created + _SETTLED_SECONDS - time.time())))
        while time.monotonic() - began < _GIVE_UP_SECONDS:
            try:
                if self._attempt():
                    self.made.set()
                return
            except BakeFailed as error:
                if error.code == "bake_busy":
                    time.sleep(_LOOK_SECONDS)  # the other workers do the same
                    continue
                log.warning("%s", error.message, extra={"version": self._version.id})
                return
            except (AsrError, OSError) as error:
                log.warning("%s cannot be baked: %s", self._version.id, error)
                return

    def _attempt(self) -> bool:
        mode = self._settings.bake_mode()
        found = make_if_missing(
            self._settings.store,
            self._version,
            mode,
            limits=MakeLimits(),
            progress=lambda text: log.info("%s", text, extra={"version": self._version.id}),
        )
        return found.state == "ready"


def described(found: Found, version: str, folder: Path) -> str:
    """For the log: why a version is served by its published file."""
    return f"{version} is served from {folder / MODEL_FILE}, which is slower: {found.problem}"
