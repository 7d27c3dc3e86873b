"""Jobs as those see them who work on them: taken over, kept up to date, ended or given back."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from asrsvc.jobs.rows import job_in, segment_text, warnings_text
from asrsvc.jobs.storage import Storage, note_failed
from asrsvc.jobs.types import Job, JobError
from asrsvc.jobs.uploads import Lock
from asrsvc.speech.types import Notice, Segment

_ALONE_FROM: Final = 2
"""deaths after which a job is worked on with no other one beside it, which it may take with it"""
_TRIED_AT_ONCE: Final = 20
"""jobs that wait, of which one is expected to be free"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this process works on."""

    job: Job
    lock: Lock
    turn: int
    """which of the job's claims this is"""
    alone: bool
    """whether no other job should be worked on beside it"""


@dataclass(frozen=True, slots=True)
class Findings:
    """What has been found in a recording since the last time."""

    version: str
    """of the model that found it"""
    segments: tuple[Segment, ...]
    """in order of time"""
    reached: int
    """see `Job`"""
    duration: float | None
    """see `Job`"""
    warnings: tuple[Notice, ...] = ()
    """about the recording; none: what was found before stays"""


class Claims:
    """What a worker asks and tells of jobs. All methods wait for the disk: call them from a thread."""

    def __init__(self, storage: Storage) -> None:
        self._database = storage.database
        self._uploads = storage.uploads
        self._limits = storage.limits

    def take(self, *, beside: int) -> Claim | None:
        """Take over a job whose worker has died, else the next one that waits, if one more may run.

        Clients take turns; a job that somebody has begun comes before one that nobody has.

        Args:
            beside: jobs that this process works on already.

        Raises:
            JobsUnavailable, NoSpace: see `Database.transaction`.
        """
        if not self._database.exists():
            return None
        with self._database.transaction(writes=False) as table:
            waiting = table.execute("SELECT 1 FROM jobs WHERE state IN ('queued', 'running') LIMIT 1")
            if waiting.fetchone() is None:
                return None
        held: list[Lock] = []
        try:
            with self._database.transaction() as table:
                free, running = self._without_worker(table, beside, held)
                if free is None and running < self._limits.running:
                    free = self._next(table, held)
                return self._begin(table, free, held[-1]) if free is not None else None
        except BaseException:
            for lock in held:
                lock.close()
            raise

    def _without_worker(
        self, table: sqlite3.Connection, beside: int, held: list[Lock]
    ) -> tuple[str | None, int]:
        """A job that has lost its worker, its lock behind those that are held; or how many have one."""
        running = 0
        rows = table.execute("SELECT id, deaths FROM jobs WHERE state = 'running' ORDER BY number").fetchall()
        for job, deaths in rows:
            try:
                lock = self._uploads.lock(job)
            except FileNotFoundError:
                _note_lost(table, job)
                continue
            if lock is None:
                running += 1
            elif deaths >= self._limits.deaths:
                lock.close()
                _give_up_on(table, job, deaths)
            elif deaths >= _ALONE_FROM and beside:
                lock.close()  # for a process that has nothing else in hand
            else:
                held.append(lock)
                return job, running
        return None, running

    def _next(self, table: sqlite3.Connection, held: list[Lock]) -> str | None:
        """A job that waits, its lock behind those that are held."""
        rows = table.execute(
            "SELECT id FROM jobs AS waiting WHERE state = 'queued' ORDER BY started IS NULL, ("
            "  SELECT coalesce(max(claimed), 0) FROM jobs AS other WHERE other.client = waiting.client"
            "), number LIMIT ?",
            (_TRIED_AT_ONCE,),
        ).fetchall()
        for (job,) in rows:
            try:
                lock = self._uploads.lock(job)
            except FileNotFoundError:
                _note_lost(table, job)
                continue
            if lock is not None:
                held.append(lock)
                return str(job)
        return None

    def _begin(self, table: sqlite3.Connection, job: str, lock: Lock) -> Claim:
        now = time.time()
        table.execute(
            "UPDATE jobs SET state = 'running', claim = claim + 1, deaths = deaths + 1, claimed = ?,"
            " started = coalesce(started, ?) WHERE id = ?",
            (now, now, job),
        )
        turn, deaths = table.execute("SELECT claim, deaths FROM jobs WHERE id = ?", (job,)).fetchone()
        return Claim(job_in(table, job), lock, turn, alone=deaths > _ALONE_FROM)

    def keep(self, claim: Claim, findings: Findings) -> bool:
        """Keep what has been found; whether the job is still this process's.

        Raises:
            JobsUnavailable, NoSpace: see `Database.transaction`.
        """
        with self._database.transaction() as table:
            return _progress(table, claim, findings)

    def finish(self, claim: Claim, findings: Findings) -> bool:
        """The job has succeeded; the answer and the errors are those of `keep`."""
        with self._database.transaction() as table:
            if not _progress(table, claim, findings):
                return False
            table.execute(
                "UPDATE jobs SET state = 'succeeded', ended = ?, deaths = 0, bytes = ("
                "  SELECT coalesce(sum(length(content)), 0) FROM segments WHERE job = jobs.number"
                ") WHERE id = ?",
                (time.time(), claim.job.id),
            )
        self._uploads.remove(claim.job.id)
        return True

    def fail(self, claim: Claim, error: JobError) -> bool:
        """The job has failed, and would fail again; the answer and the errors are those of `keep`."""
        with self._database.transaction() as table:
            mine = table.execute(
                "SELECT 1 FROM jobs WHERE id = ? AND claim = ? AND state = 'running'",
                (claim.job.id, claim.turn),
            )
            if mine.fetchone() is None:
                return False
            note_failed(table, claim.job.id, error)
        self._uploads.remove(claim.job.id)
        return True

    def give_back(self, claim: Claim, findings: Findings) -> bool:
        """Let another worker go on; the answer and the errors are those of `keep`."""
        with self._database.transaction() as table:
            if not _progress(table, claim, findings):
                return False
            table.execute(
                "UPDATE jobs SET state = 'queued', deaths = max(deaths - 1, 0) WHERE id = ?",
                (claim.job.id,),
            )
        return True

    def lost(self, claims: Iterable[Claim]) -> list[Claim]:
        """Those that are no longer this process's: somebody has cancelled them."""
        with self._database.transaction(writes=False) as table:
            running = {job for (job,) in table.execute("SELECT id FROM jobs WHERE state = 'running'")}
        return [claim for claim in claims if claim.job.id not in running]


def _progress(table: sqlite3.Connection, claim: Claim, findings: Findings) -> bool:
    """Write down what has been found, if the job is still the claim's."""
    reached = findings.reached
    warnings = warnings_text(findings.warnings) if findings.warnings else None
    changed = table.execute(
        "UPDATE jobs SET deaths = CASE WHEN ? > reached THEN 1 ELSE deaths END,"
        " reached = max(reached, ?), duration = coalesce(?, duration), version = ?,"
        " warnings = coalesce(?, warnings)"
        " WHERE id = ? AND claim = ? AND state = 'running'",
        (reached, reached, findings.duration, findings.version, warnings, claim.job.id, claim.turn),
    )
    if changed.rowcount == 0:
        return False
    job = claim.job.number
    (last,) = table.execute("SELECT coalesce(max(number), 0) FROM segments WHERE job = ?", (job,)).fetchone()
    table.executemany(
        "INSERT INTO segments (job, number, version, content) VALUES (?, ?, ?, ?)",
        [
            (job, number, findings.version, segment_text(segment))
            for number, segment in enumerate(findings.segments, start=last + 1)
        ],
    )
    return True


def _note_lost(table: sqlite3.Connection, job: str) -> None:
    note_failed(table, job, JobError("upload_lost", "the file of the upload is not there any more"))


def _give_up_on(table: sqlite3.Connection, job: str, deaths: int) -> None:
    reached = job_in(table, job).audio_seconds
    message = (
        f"given up: {deaths} workers in a row ended while they worked on it, the last one behind"
        f" {reached:g} s of the recording"
    )
    note_failed(table, job, JobError("job_kills_workers", message))
