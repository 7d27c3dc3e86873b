"""Jobs as their clients see them: received, looked at, cancelled, removed; and forgotten when it is time."""

from __future__ import annotations

import secrets
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from asrsvc.errors import NoSpace, NotFound, TooManyJobs
from asrsvc.jobs.rows import job_in, job_of, options_text, segment_of
from asrsvc.jobs.storage import Storage
from asrsvc.jobs.types import Found, Job
from asrsvc.jobs.uploads import Lock
from asrsvc.jobs.webhook_table import HAS_PENDING_WEBHOOK, cancel_webhook, note_webhook
from asrsvc.speech.transcribe import Options
from asrsvc.system.disk import storage_error

_SPARE_BYTES: Final = 64 * 2**20
"""of the disk, which an upload may not take: the table has to grow"""
_SHARE: Final = 4
"""times the free bytes that the jobs of one key may take: four fifths, if there are no others (dynamic
thresholds, see `asrsvc.serving.limits`); without keys all clients are one"""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job whose upload is being received."""

    id: str
    lock: Lock


class JobStore:
    """The jobs of a service. All methods wait for the disk: call them from a thread.

    All raise JobsUnavailable and NoSpace, see `asrsvc.jobs.database.Database.transaction`.
    """

    def __init__(self, storage: Storage) -> None:
        self._database = storage.database
        self._uploads = storage.uploads
        self._limits = storage.limits

    # Receiving.

    def receive(self, client: str, size: int) -> Arrival:
        """Reserve a place for a job whose upload is about to come; its bytes are reserved as they come.

        Args:
            client: whose it will be.
            size: bytes of the upload as far as it is said: there must be room for them now.

        Raises:
            TooManyJobs: as many are kept as may be kept.
            NoSpace: there is no room for so many bytes.
        """
        now = time.time()
        job = secrets.token_hex(16)
        with self._database.transaction() as table:
            self._forget_expired(table, now)
            self._check_room(table, client, size)
            try:
                lock = self._uploads.create(job)
            except OSError as error:
                raise storage_error("the upload cannot be stored", error, param="file") from error
            try:
                table.execute(
                    "INSERT INTO jobs (id, client, state, bytes, created) VALUES (?, ?, 'receiving', 0, ?)",
                    (job, client, now),
                )
            except BaseException:
                self._uploads.remove(job)
                lock.close()
                raise
        return Arrival(job, lock)

    def reserve(self, arrival: Arrival, size: int) -> None:
        """Reserve bytes for a job, with those that it has: they have come, or are about to.

        Args:
            arrival: of the job.
            size: bytes.

        Raises:
            NoSpace: there is no room for so many bytes.
        """
        with self._database.transaction() as table:
            found = table.execute("SELECT client, bytes FROM jobs WHERE id = ?", (arrival.id,)).fetchone()
            client, had = found if found is not None else ("", 0)
            self._check_bytes(table, client, size - had)
            table.execute("UPDATE jobs SET bytes = ? WHERE id = ?", (size, arrival.id))

    def _check_room(self, table: sqlite3.Connection, client: str, size: int) -> None:
        limits = self._limits
        kept, of_client = table.execute(
            "SELECT count(*), coalesce(sum(client = ?), 0) FROM jobs", (client,)
        ).fetchone()
        if of_client >= limits.kept_of_client:
            raise TooManyJobs(f"{of_client} of your jobs are kept, and no more may be: {self._advice}")
        if kept >= limits.kept:
            raise TooManyJobs(f"{kept} jobs are kept, and no more may be: {self._advice}")
        self._check_bytes(table, client, size)

    @property
    def _advice(self) -> str:
        return (
            f"delete those that you have fetched; they expire {self._limits.keep_seconds:g} s after their end"
        )

    def _check_bytes(self, table: sqlite3.Connection, client: str, size: int) -> None:
        used, of_client = table.execute(
            "SELECT coalesce(sum(bytes), 0), coalesce(sum(bytes * (client = ?)), 0) FROM jobs", (client,)
        ).fetchone()
        most = self._limits.bytes
        if used + size > most:
            raise NoSpace(
                f"the jobs that are kept take {used // 2**20} of {most // 2**20} MiB: "
                f"no room for {size} bytes more; {self._advice}",
                param="file",
            )
        if client and of_client + size > _SHARE * (most - used - size):
            raise NoSpace(
                f"your jobs take {of_client // 2**20} MiB and {(most - used) // 2**20} MiB are free:"
                f" no room for {size} bytes more of one client; {self._advice}",
                param="file",
            )
        if size + _SPARE_BYTES > self._uploads.free_bytes():
            raise NoSpace(f"the disk has no room for {size} bytes more", param="file")

    def queue(self, arrival: Arrival, options: Options, webhook: str | None = None) -> Job:
        """The upload is whole: the job waits for a worker from now on, whatever happens to this process.

        Args:
            arrival: of the job.
            options: that its request chose.
            webhook: address that is told of its end.

        Raises:
            NoSpace: the disk refuses; `discard` the arrival.
        """
        try:
            size = arrival.lock.sync()
        except OSError as error:
            raise storage_error("the upload cannot be stored", error, param="file") from error
        with self._database.transaction() as table:
            table.execute(
                "UPDATE jobs SET state = 'queued', bytes = ?, options = ? WHERE id = ?",
                (size, options_text(options), arrival.id),
            )
            if webhook is not None:
                note_webhook(table, arrival.id, webhook)
            job = job_in(table, arrival.id)
        arrival.lock.close()
        return job

    def discard(self, arrival: Arrival) -> None:
        """Forget a job whose upload has failed."""
        self._uploads.remove(arrival.id)
        arrival.lock.close()
        with self._database.transaction() as table:
            table.execute("DELETE FROM jobs WHERE id = ? AND state = 'receiving'", (arrival.id,))

    # Asking.

    def read(self, job: str, client: str) -> Job:
        """One job.

        Raises:
            NotFound: there is none of this id, it is another client's, or it has expired.
        """
        with self._database.transaction(writes=False) as table:
            return self._of_client(table, job, client)

    def page(self, client: str, *, before: int, limit: int) -> list[Job]:
        """A client's jobs, the newest first.

        Args:
            client: who asks.
            before: those with a lower number.
            limit: of jobs.
        """
        with self._database.transaction(writes=False) as table:
            rows = table.execute(
                "SELECT * FROM seen WHERE client = ? AND number < ? AND coalesce(ended, ?) >= ?"
                " ORDER BY number DESC LIMIT ?",
                (client, before, *self._expiry(), limit),
            ).fetchall()
            return [job_of(row) for row in rows]

    def look(self, job: str, client: str, *, after: int = 0, limit: int = -1) -> tuple[Job, list[Found]]:
        """A job with what it has found, of one moment.

        Args:
            job: its id.
            client: who asks.
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

    def _of_client(self, table: sqlite3.Connection, job: str, client: str) -> Job:
        row = table.execute(
            "SELECT * FROM seen WHERE id = ? AND client = ? AND coalesce(ended, ?) >= ?",
            (job, client, *self._expiry()),
        ).fetchone()
        if row is None:
            raise NotFound(
                f"no job has the id {job[:40]!r}; one is kept {self._limits.keep_seconds:g} s after its end",
                code="unknown_job",
            )
        return job_of(row)

    # Ending.

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
            cancel_webhook(table, job)
            cancelled = job_in(table, job)
        self._uploads.remove(job)
        return cancelled

    def sweep(self) -> None:
        """Forget what has expired, and what processes left that died while they received it."""
        if not self._database.exists():
            return
        with self._database.transaction() as table:
            self._forget_expired(table, time.time())
            for (job,) in table.execute("SELECT id FROM jobs WHERE state = 'receiving'").fetchall():
                with suppress(FileNotFoundError):
                    lock = self._uploads.lock(job)
                    if lock is None:
                        continue  # somebody receives it
                    lock.close()
                table.execute("DELETE FROM jobs WHERE id = ?", (job,))
            needed = {job for (job,) in table.execute("SELECT id FROM jobs WHERE ended IS NULL")}
            for name in self._uploads.names() - needed:
                self._uploads.remove(name)
        with self._database.transaction() as table:
            table.execute("PRAGMA incremental_vacuum").fetchall()

    def _expiry(self) -> tuple[float, float]:
        """Now, and the end of a job that expires now."""
        now = time.time()
        return now, now - self._limits.keep_seconds

    def _forget_expired(self, table: sqlite3.Connection, now: float) -> None:
        table.execute(
            f"DELETE FROM jobs WHERE ended < ? AND NOT {HAS_PENDING_WEBHOOK}",  # noqa: S608 - a constant
            (now - self._limits.keep_seconds,),
        )

    def close(self) -> None:
        """Let the table go."""
        self._database.close()
