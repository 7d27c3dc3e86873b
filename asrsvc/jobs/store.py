"""The jobs of a service, kept in its state folder: taken, worked on by one worker at a time, forgotten.

    $ASR_STATE_DIR/jobs/
      jobs.sqlite3       the table, see `asrsvc.jobs.database`
      uploads/<job>      what has not been transcribed to its end; locked by who receives or works on it

Every change is one transaction; the lock of an upload says whether its worker is alive. So each job is
ended exactly once: only who holds the claim that the table names may write, and a claim is given to
somebody else only when the kernel has taken the lock from the one who had it.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asrsvc.errors import NoSpace, NotFound, TooManyJobs
from asrsvc.jobs.database import Database, make_private_folder
from asrsvc.jobs.rows import COLUMNS, error_text, job_of, segment_of, segment_text
from asrsvc.jobs.types import Found, Job, JobError, Limits
from asrsvc.jobs.uploads import Lock, Uploads
from asrsvc.speech.transcribe import Options
from asrsvc.speech.types import Segment

_SPARE_BYTES: Final = 64 * 2**20
"""of the disk, which an upload may not take: the table has to grow"""
_ALONE_FROM: Final = 2
"""deaths after which a job is worked on with no other one beside it, which it may take with it"""
_EXPIRED: Final = "ended IS NOT NULL AND ended < ?"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job whose upload is being received."""

    id: str
    lock: Lock


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this process works on."""

    job: Job
    lock: Lock
    turn: int
    """which of the job's claims this is"""
    alone: bool
    """whether no other job should be worked on beside it"""


class JobStore:
    """The jobs below one state folder. All methods wait for the disk: call them from a thread."""

    def __init__(self, state_dir: Path, limits: Limits) -> None:
        """Prepare; nothing is opened or made before the first use.

        Args:
            state_dir: on a local disk.
            limits: of the service.
        """
        self._folder = state_dir / "jobs"
        self._limits = limits
        self._database = Database(self._folder / "jobs.sqlite3")
        self._uploads = Uploads(self._folder / "uploads")

    # Receiving.

    def receive(self, client: str, size: int) -> Arrival:
        """Reserve a place for a job whose upload is about to come.

        Args:
            client: name of the key that makes it.
            size: bytes of the upload, at most.

        Raises:
            TooManyJobs: as many are kept as may be kept.
            NoSpace: there is no room for so many bytes.
        """
        now = time.time()
        with self._database.transaction() as table:
            self._forget_expired(table, now)
            self._check_room(table, client, size)
            job = secrets.token_hex(16)
            try:
                make_private_folder(self._folder / "uploads")
                lock = self._uploads.create(job)
            except OSError as error:
                raise NoSpace(f"the upload cannot be stored: {error.strerror}", param="file") from error
            try:
                table.execute(
                    "INSERT INTO jobs (id, client, state, bytes, created) VALUES (?, ?, 'receiving', ?, ?)",
                    (job, client, size, now),
                )
            except BaseException:
                self._uploads.remove(job)
                lock.close()
                raise
        return Arrival(job, lock)

    def _check_room(self, table: sqlite3.Connection, client: str, size: int) -> None:
        limits = self._limits
        counted = "SELECT count(*), coalesce(sum(bytes), 0), coalesce(sum(client = ?), 0) FROM jobs"
        kept, used, of_client = table.execute(counted, (client,)).fetchone()
        advice = f"delete those that you have fetched; they expire {limits.keep_seconds:g} s after their end"
        if of_client >= limits.kept_of_client:
            raise TooManyJobs(f"{of_client} of your jobs are kept, and no more may be: {advice}")
        if kept >= limits.kept:
            raise TooManyJobs(f"{kept} jobs are kept, and no more may be: {advice}")
        if used + size > limits.bytes:
            raise NoSpace(
                f"the jobs that are kept take {used // 2**20} of {limits.bytes // 2**20} MiB: there is no room "
                f"for {size // 2**20} MiB more; {advice}",
                param="file",
            )
        try:
            free = self._uploads.free_bytes()
        except FileNotFoundError:
            return  # the very first one makes the folder
        if size + _SPARE_BYTES > free:
            raise NoSpace(f"the disk has no room for {size // 2**20} MiB more", param="file")

    def queue(self, arrival: Arrival, options: Options) -> Job:
        """The upload is whole: the job waits for a worker from now on, whatever happens to this process.

        Raises:
            NoSpace: the disk refuses; `discard` the arrival.
        """
        try:
            size = arrival.lock.sync()
        except OSError as error:
            raise NoSpace(f"the upload cannot be stored: {error.strerror}", param="file") from error
        chosen = {"language": options.language, "use_itn": options.use_itn}
        with self._database.transaction() as table:
            table.execute(
                "UPDATE jobs SET state = 'queued', bytes = ?, options = ? WHERE id = ?",
                (size, json.dumps(chosen), arrival.id),
            )
            job = self._one(table, arrival.id)
        arrival.lock.close()
        return job

    def discard(self, arrival: Arrival) -> None:
        """Forget a job whose upload has failed."""
        self._uploads.remove(arrival.id)
        arrival.lock.close()
        with self._database.transaction() as table:
            table.execute("DELETE FROM jobs WHERE id = ? AND state = 'receiving'", (arrival.id,))

    # Working.

    def claim(self, *, beside: int) -> Claim | None:
        """Take over a job whose worker has died, else the next one that waits, if one more may run.

        Clients take turns; a job that somebody has begun comes before one that nobody has.

        Args:
            beside: jobs that this process works on already.
        """
        with self._database.transaction(writes=False) as table:
            waiting = table.execute("SELECT 1 FROM jobs WHERE state IN ('queued', 'running') LIMIT 1")
            if waiting.fetchone() is None:
                return None
        lock: Lock | None = None
        try:
            with self._database.transaction() as table:
                running = 0
                for row in table.execute(
                    "SELECT id, deaths FROM jobs WHERE state = 'running' ORDER BY number"
                ).fetchall():
                    job, deaths = row
                    lock = self._lock(table, job)
                    if lock is None:
                        running += self._is(table, job, "running")
                    elif deaths >= self._limits.deaths:
                        self._give_up_on(table, job, deaths)
                        lock.close()
                        lock = None
                    elif deaths >= _ALONE_FROM and beside:
                        lock.close()  # for a process that has nothing else in hand
                        lock = None
                    else:
                        return self._begin(table, job, lock)
                if running >= self._limits.running:
                    return None
                for (job,) in table.execute(
                    "SELECT id FROM jobs AS waiting WHERE state = 'queued' ORDER BY started IS NULL, (SELECT"
                    " coalesce(max(claimed), 0) FROM jobs AS other WHERE other.client = waiting.client), number LIMIT 20"
                ).fetchall():
                    lock = self._lock(table, job)
                    if lock is not None:
                        return self._begin(table, job, lock)
        except BaseException:
            if lock is not None:
                lock.close()
            raise
        return None

    def _lock(self, table: sqlite3.Connection, job: str) -> Lock | None:
        """The lock of a job, if nobody has it; a job whose upload has been lost fails."""
        try:
            return self._uploads.lock(job)
        except FileNotFoundError:
            self._fail(table, job, JobError("upload_lost", "the file of the upload is not there any more"))
        return None

    def _begin(self, table: sqlite3.Connection, job: str, lock: Lock) -> Claim:
        now = time.time()
        table.execute(
            "UPDATE jobs SET state = 'running', claim = claim + 1, deaths = deaths + 1, claimed = ?,"
            " started = coalesce(started, ?) WHERE id = ?",
            (now, now, job),
        )
        turn, deaths = table.execute("SELECT claim, deaths FROM jobs WHERE id = ?", (job,)).fetchone()
        return Claim(self._one(table, job), lock, turn, alone=deaths > _ALONE_FROM)

    def checkpoint(
        self,
        claim: Claim,
        version: str,
        segments: Sequence[Segment],
        reached: int,
        duration: float | None,
    ) -> bool:
        """Keep what has been found since the last time; whether the job is still this process's.

        Args:
            claim: of the job.
            version: of the model that found it.
            segments: in order of time.
            reached: see `Job`.
            duration: see `Job`.
        """
        with self._database.transaction() as table:
            return self._progress(table, claim, version, segments, reached, duration)

    def _progress(
        self,
        table: sqlite3.Connection,
        claim: Claim,
        version: str,
        segments: Sequence[Segment],
        reached: int,
        duration: float | None,
    ) -> bool:
        changed = table.execute(
            "UPDATE jobs SET deaths = CASE WHEN ? > reached THEN 1 ELSE deaths END, reached = max(reached, ?),"
            " duration = coalesce(?, duration), version = ? WHERE id = ? AND claim = ? AND state = 'running'",
            (reached, reached, duration, version, claim.job.id, claim.turn),
        )
        if changed.rowcount == 0:
            return False
        job = claim.job.number
        (last,) = table.execute(
            "SELECT coalesce(max(number), 0) FROM segments WHERE job = ?", (job,)
        ).fetchone()
        table.executemany(
            "INSERT INTO segments VALUES (?, ?, ?, ?)",
            [
                (job, number, version, segment_text(segment))
                for number, segment in enumerate(segments, start=last + 1)
            ],
        )
        return True

    def finish(
        self, claim: Claim, version: str, segments: Sequence[Segment], reached: int, duration: float
    ) -> bool:
        """The job has succeeded; arguments are those of `checkpoint`, and so is the answer."""
        with self._database.transaction() as table:
            if not self._progress(table, claim, version, segments, reached, duration):
                return False
            table.execute(
                "UPDATE jobs SET state = 'succeeded', ended = ?, deaths = 0, bytes = (SELECT"
                " coalesce(sum(length(content)), 0) FROM segments WHERE job = jobs.number) WHERE id = ?",
                (time.time(), claim.job.id),
            )
        self._uploads.remove(claim.job.id)
        return True

    def fail(self, claim: Claim, error: JobError) -> bool:
        """The job has failed, and would fail again; whether it was still this process's."""
        with self._database.transaction() as table:
            mine = "id = ? AND claim = ? AND state = 'running'"
            found = table.execute(f"SELECT 1 FROM jobs WHERE {mine}", (claim.job.id, claim.turn)).fetchone()
            if found is None:
                return False
            self._fail(table, claim.job.id, error)
        self._uploads.remove(claim.job.id)
        return True

    def give_back(
        self,
        claim: Claim,
        version: str,
        segments: Sequence[Segment],
        reached: int,
        duration: float | None,
    ) -> bool:
        """Let another worker go on; arguments are those of `checkpoint`, and so is the answer."""
        with self._database.transaction() as table:
            if not self._progress(table, claim, version, segments, reached, duration):
                return False
            table.execute(
                "UPDATE jobs SET state = 'queued', deaths = max(deaths - 1, 0) WHERE id = ?",
                (claim.job.id,),
            )
        return True

    def lost(self, claims: Iterable[Claim]) -> list[Claim]:
        """Those that are no longer this process's: somebody has cancelled them."""
        with self._database.transaction(writes=False) as table:
            return [claim for claim in claims if not self._is(table, claim.job.id, "running")]

    def _is(self, table: sqlite3.Connection, job: str, state: str) -> bool:
        found = table.execute("SELECT 1 FROM jobs WHERE id = ? AND state = ?", (job, state))
        return found.fetchone() is not None

    def _give_up_on(self, table: sqlite3.Connection, job: str, deaths: int) -> None:
        reached = self._one(table, job).audio_seconds
        self._fail(
            table,
            job,
            JobError(
                "job_kills_workers",
                f"given up: {deaths} workers in a row ended while they worked on it, the last one behind"
                f" {reached:g} s of the recording",
            ),
        )

    def _fail(self, table: sqlite3.Connection, job: str, error: JobError) -> None:
        table.execute(
            "UPDATE jobs SET state = 'failed', ended = ?, bytes = 0, error = ? WHERE id = ?",
            (time.time(), error_text(error), job),
        )

    # Asking.

    def read(self, job: str, client: str) -> Job:
        """One job.

        Raises:
            NotFound: there is none of this id, it is another client's, or it has expired.
        """
        with self._database.transaction(writes=False) as table:
            return self._of_client(table, job, client)

    def page(self, client: str, *, before: int | None, limit: int) -> list[Job]:
        """A client's jobs, the newest first.

        Args:
            client: name of its key.
            before: those with a lower number.
            limit: of jobs.
        """
        with self._database.transaction(writes=False) as table:
            rows = table.execute(
                f"SELECT {COLUMNS} FROM jobs WHERE client = ? AND number < ? AND state != 'receiving'"
                f" AND NOT ({_EXPIRED}) ORDER BY number DESC LIMIT ?",
                (client, 2**62 if before is None else before, time.time() - self._limits.keep_seconds, limit),
            ).fetchall()
            return [job_of(row) for row in rows]

    def look(
        self, job: str, client: str, *, after: int = 0, limit: int = -1
    ) -> tuple[Job, list[Found]]:
        """A job with what it has found, of one moment.

        Args:
            job: its id.
            client: name of its key.
            after: only segments with a higher number.
            limit: of segments; -1: all.

        Raises:
            NotFound: as `read`.
        """
        with self._database.transaction(writes=False) as table:
            found = self._of_client(table, job, client)
            rows = table.execute(
                "SELECT number, version, content FROM segments WHERE job = ? AND number > ? ORDER BY number"
                " LIMIT ?",
                (found.number, after, limit),
            ).fetchall()
        return found, [Found(number, version, segment_of(content)) for number, version, content in rows]

    def end(self, job: str, client: str) -> Job | None:
        """Cancel a job that has not ended; remove one that has.

        Returns:
            the cancelled job; None: it has been removed.

        Raises:
            NotFound: as `read`.
        """
        with self._database.transaction() as table:
            if self._of_client(table, job, client).ended is not None:
                table.execute("DELETE FROM jobs WHERE id = ?", (job,))
                return None
            table.execute(
                "UPDATE jobs SET state = 'cancelled', ended = ?, bytes = 0 WHERE id = ?", (time.time(), job)
            )
            cancelled = self._one(table, job)
        self._uploads.remove(job)
        return cancelled

    def _of_client(self, table: sqlite3.Connection, job: str, client: str) -> Job:
        row = table.execute(
            f"SELECT {COLUMNS} FROM jobs WHERE id = ? AND client = ? AND state != 'receiving'"
            f" AND NOT ({_EXPIRED})",
            (job, client, time.time() - self._limits.keep_seconds),
        ).fetchone()
        if row is None:
            raise NotFound(
                f"no job has the id {job[:40]!r}; one is kept {self._limits.keep_seconds:g} s after its end",
                code="unknown_job",
            )
        return job_of(row)

    def _one(self, table: sqlite3.Connection, job: str) -> Job:
        return job_of(table.execute(f"SELECT {COLUMNS} FROM jobs WHERE id = ?", (job,)).fetchone())

    # Forgetting.

    def sweep(self) -> None:
        """Forget what has expired, and what processes left that died while they received it."""
        with self._database.transaction() as table:
            self._forget_expired(table, time.time())
            for (job,) in table.execute("SELECT id FROM jobs WHERE state = 'receiving'").fetchall():
                with suppress(OSError):
                    lock = self._uploads.lock(job)
                    if lock is None:
                        continue
                    lock.close()
                table.execute("DELETE FROM jobs WHERE id = ?", (job,))
            needed = table.execute("SELECT id FROM jobs WHERE ended IS NULL").fetchall()
            with suppress(FileNotFoundError):  # no job has ever come
                for name in self._uploads.names() - {job for (job,) in needed}:
                    self._uploads.remove(name)
        with self._database.transaction() as table:
            table.execute("PRAGMA incremental_vacuum").fetchall()

    def _forget_expired(self, table: sqlite3.Connection, now: float) -> None:
        table.execute(f"DELETE FROM jobs WHERE {_EXPIRED}", (now - self._limits.keep_seconds,))

    def close(self) -> None:
        """Let the table go."""
        self._database.close()
