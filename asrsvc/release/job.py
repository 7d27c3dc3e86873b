"""What one pull was asked for, and what it has obtained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from asrsvc.errors import BadArgument, WrongDigest
from asrsvc.release.manifest import FileRecord, Origin
from asrsvc.release.progress import Limits, Report
from asrsvc.release.sources import Endpoints
from asrsvc.release.store import Store


@dataclass(frozen=True, slots=True)
class Job:
    """What one pull was asked for."""

    store: Store
    name: str
    """what the version's id starts with"""
    digests: Mapping[str, str]
    """SHA-256 that must be met, by file name"""
    endpoints: Endpoints
    limits: Limits
    report: Report

    def check_named(self, files: Collection[str], place: str) -> None:
        """Whether each digest that was given is one of a file that is there.

        Raises:
            BadArgument: it is not.
        """
        for name in self.digests:
            if name not in files:
                raise BadArgument(f"a SHA-256 was given for {name!r}, which {place} does not have")

    def check_digests(self, files: Mapping[str, FileRecord]) -> None:
        """Whether files have the digests that were given.

        Raises:
            WrongDigest: one has another.
        """
        for name, record in files.items():
            if self.digests.get(name, record.sha256) != record.sha256:
                raise WrongDigest(f"{name} has the SHA-256 {record.sha256}, not {self.digests[name]}")


@dataclass(frozen=True, slots=True)
class Obtained:
    """Files in a stage, whole, on disk and checked."""

    files: Mapping[str, FileRecord]
    origin: Origin
