"""What is said of a job: frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from asrsvc.speech.transcribe import Options
from asrsvc.speech.types import SAMPLE_RATE, Notice, Segment

State: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled"]
WebhookState: TypeAlias = Literal["pending", "delivered", "failed", "cancelled"]
ENDED: Final[frozenset[State]] = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What the jobs of a service may be at most."""

    running: int
    """jobs that are worked on at the same time, over all workers"""
    kept: int
    """jobs that are kept, ended ones included"""
    kept_of_client: int
    """of these, jobs of one client"""
    bytes: int
    """on disk: uploads that are still needed, and results"""
    keep_seconds: float
    """from the end of a job until it is forgotten"""
    deaths: int
    """of workers, one after the other without any progress, after which a job is given up"""


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that is told when a job has ended; times are seconds of the epoch."""

    url: str
    state: WebhookState
    """pending: the job has not ended, or is told of again; failed: given up"""
    attempts: int
    """begun so far"""
    next: float | None
    """when it is told of again; None: it is not, or the job has not ended"""
    error: str | None
    """why the last attempt failed"""


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it stands; times are seconds of the epoch."""

    id: str
    number: int
    """counts up; later jobs have higher ones"""
    client: str
    """whose it is: who asks for it must be the same; empty: of all who need no key"""
    state: State
    options: Options
    created: float
    started: float | None
    ended: float | None
    reached: int
    """samples at 16 kHz from the start of the recording up to which all is recognised"""
    duration: float | None
    """seconds of the recording: by its header while the job runs; None: not known yet"""
    segments: int
    """segments found so far"""
    version: str | None
    """model version that last worked on it"""
    versions: tuple[str, ...]
    """model versions that its segments come from, in order of time"""
    error: JobError | None
    warnings: tuple[Notice, ...] = ()
    """about the recording; complete once the job has succeeded"""
    webhook: Webhook | None = None

    @property
    def audio_seconds(self) -> float:
        """Seconds of the recording that are done."""
        if self.state == "succeeded" and self.duration is not None:
            return self.duration
        return round(self.reached / SAMPLE_RATE, 3)


@dataclass(frozen=True, slots=True)
class Found:
    """One segment of a job, with the version that recognised it."""

    number: int
    """counts up from 1 in each job"""
    version: str
    segment: Segment
