"""One stretch of a job, in a thread: from where it stands to its end, or until it is told to stop."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from asrsvc.errors import AsrError, Cancelled, JobsUnavailable, NoSpace, NotReady, OutOfDescriptors
from asrsvc.jobs.claims import Claim, Claims, Findings
from asrsvc.jobs.types import JobError
from asrsvc.speech.transcribe import Progress, Transcriber
from asrsvc.speech.types import SAMPLE_RATE, Segment
from asrsvc.system.disk import lacks_descriptors

log = logging.getLogger(__name__)

# How much work a worker that dies may take with it; each time, the disk is waited for.
_KEEP_EVERY_SECONDS: Final = 0.5
_TRY_AGAIN_SECONDS: Final = 1.0
_DISK_PATIENCE_SECONDS: Final = 600.0

# What may go better with another worker, or later.
_PASSING: Final = (NotReady, JobsUnavailable, NoSpace, OutOfDescriptors)


@dataclass(slots=True, eq=False)
class Stretch:
    """The work of one process on one job."""

    claim: Claim
    progress: Progress = field(default_factory=Progress)
    stop: threading.Event = field(default_factory=threading.Event)
    """set: let it go at the next span"""
    segments: list[Segment] = field(default_factory=list)
    """found and not kept yet"""
    spoke: bool = False
    """whether any text has been found in the recording"""
    spoken_seconds: float = 0.0
    sure_seconds: float = 0.0
    """of what was spoken in this stretch, and the same times its confidence"""
    outcome: str = ""
    """how it ended: succeeded, failed, given back, left (as given back, and not written), lost (cancelled)"""
    status: int = 0
    """HTTP's number for the end of the job; 0: it has not ended here"""

    def __post_init__(self) -> None:
        self.spoke = self.claim.job.segments > 0

    @property
    def advanced(self) -> bool:
        """Whether it has come farther than whoever had the job before."""
        return self.progress.reached > self.claim.job.reached

    def take(self, segment: Segment) -> None:
        """A segment has been found."""
        self.segments.append(segment)
        if segment.text:
            self.spoke = True
            self.spoken_seconds += segment.end - segment.start
            self.sure_seconds += (segment.end - segment.start) * segment.confidence

    def findings(self, version: str, duration: float | None = None) -> Findings:
        """What has been found and not kept yet.

        Args:
            version: of the model.
            duration: of the recording, if it has been heard to its end.
        """
        return Findings(
            version,
            tuple(self.segments),
            self.progress.reached,
            self.progress.declared_seconds if duration is None else duration,
            self.progress.warnings,
        )

    def note(self) -> dict[str, Any]:
        """What a log line says of it; metrics are made of it too."""
        job = self.claim.job
        note: dict[str, Any] = {
            "job": job.id,
            "outcome": self.outcome,
            "turn": self.claim.turn,
            "audio_seconds": round(max(0, self.progress.reached - job.reached) / SAMPLE_RATE, 3),
            "decode_ms": round(self.progress.decode_seconds * 1000, 1),
            "inference_ms": round(self.progress.inference_seconds * 1000, 1),
            "spans": self.progress.spans,
        }
        if self.outcome == "succeeded":
            note["empty"] = not self.spoke
            if self.spoken_seconds:
                note["confidence"] = round(self.sure_seconds / self.spoken_seconds, 3)
            if self.progress.warnings:
                note["warnings"] = [notice.code for notice in self.progress.warnings]
        return note


def work(stretch: Stretch, claims: Claims, transcriber: Transcriber) -> None:
    """Work on a job; whatever happens is written into the store, and its lock is let go."""
    with stretch.claim.lock:
        try:
            _transcribe(stretch, claims, transcriber)
        except Cancelled:
            _give_back(stretch, claims, transcriber)
        except _PASSING as error:
            log.warning("a job is put back: %s", error.message, extra={"job": stretch.claim.job.id})
            _give_back(stretch, claims, transcriber)
        except AsrError as error:
            _fail(stretch, claims, JobError(error.code, error.message), error.status)
        except Exception:
            job = stretch.claim.job.id
            log.exception("a job failed unexpectedly", extra={"job": job})
            reason = JobError(AsrError.default_code, f"the service failed; its log says why under job {job}")
            _fail(stretch, claims, reason, AsrError.status)


def _transcribe(stretch: Stretch, claims: Claims, transcriber: Transcriber) -> None:
    claim, progress = stretch.claim, stretch.progress
    try:
        descriptor = claim.lock.open()
    except OSError as error:
        if lacks_descriptors(error):
            raise OutOfDescriptors(f"the upload cannot be opened: {error.strerror}") from error
        raise
    try:
        kept = time.monotonic()
        found = transcriber.hear(
            descriptor,
            claim.job.options,
            progress,
            stretch.stop,
            resume_at=claim.job.reached,
            keep_begun=True,
        )
        with closing(found) as segments:
            for segment in segments:
                if segment is not None:
                    stretch.take(segment)
                if time.monotonic() - kept >= _KEEP_EVERY_SECONDS:
                    _keep(stretch, claims, transcriber)
                    kept = time.monotonic()
    finally:
        os.close(descriptor)
    findings = stretch.findings(transcriber.model.version, round(progress.audio_seconds, 3))
    if _patiently(stretch, lambda: claims.finish(claim, findings)):
        stretch.outcome, stretch.status = "succeeded", 200
    else:
        stretch.outcome = "lost"


def _keep(stretch: Stretch, claims: Claims, transcriber: Transcriber) -> None:
    """Write what has been found.

    Raises:
        Cancelled: the job is no longer this process's.
    """
    findings = stretch.findings(transcriber.model.version)
    if not _patiently(stretch, lambda: claims.keep(stretch.claim, findings)):
        raise Cancelled("the job has been cancelled")
    stretch.segments.clear()


def _patiently(stretch: Stretch, write: Callable[[], bool]) -> bool:
    """Write; while the disk is full, wait for room as long as nobody wants the work to stop.

    Raises:
        NoSpace: there was none.
    """
    deadline = time.monotonic() + _DISK_PATIENCE_SECONDS
    while True:
        try:
            return write()
        except NoSpace as error:
            if time.monotonic() > deadline:
                raise
            log.warning("a job waits: %s", error.message, extra={"job": stretch.claim.job.id})
            if stretch.stop.wait(_TRY_AGAIN_SECONDS):
                raise


def _give_back(stretch: Stretch, claims: Claims, transcriber: Transcriber) -> None:
    try:
        mine = claims.give_back(stretch.claim, stretch.findings(transcriber.model.version))
        stretch.outcome = "given back" if mine else "lost"
    except AsrError as error:
        stretch.outcome = "left"
        # It is said to be running still; whoever finds its lock free goes on.
        log.warning("a job cannot be put back: %s", error.message, extra={"job": stretch.claim.job.id})


def _fail(stretch: Stretch, claims: Claims, error: JobError, status: int) -> None:
    stretch.outcome, stretch.status = "failed", status
    try:
        if not _patiently(stretch, lambda: claims.fail(stretch.claim, error)):
            stretch.outcome, stretch.status = "lost", 0
    except AsrError as refusal:  # as in _give_back
        log.warning("a job's end cannot be written: %s", refusal.message, extra={"job": stretch.claim.job.id})
