"""Where jobs are kept: a table and a folder of uploads below the service's state folder.

    $ASR_STATE_DIR/jobs/
      jobs.sqlite3       the table, see `asrsvc.jobs.database`
      uploads/<job>      what has not been transcribed to its end; locked by who receives or works on it

Every change is one transaction; the lock of an upload says whether its worker is alive. So each job is
ended exactly once: only who holds the claim that the table names may write, and a claim is given to
somebody else only when the kernel has taken the lock from the one who had it.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from asrsvc.jobs.database import Database
from asrsvc.jobs.rows import error_text
from asrsvc.jobs.types import JobError, Limits
from asrsvc.jobs.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Storage:
    """One service's jobs, used by all its workers."""

    database: Database
    uploads: Uploads
    limits: Limits

    @classmethod
    def at(cls, state_dir: Path, limits: Limits) -> Storage:
        """The jobs below a state folder; nothing is opened or made before the first one comes.

        Args:
            state_dir: on a local disk.
            limits: of the service.
        """
        folder = state_dir / "jobs"
        return cls(Database(folder / "jobs.sqlite3"), Uploads(folder / "uploads"), limits)


def note_failed(table: sqlite3.Connection, job: str, error: JobError) -> None:
    """In a transaction: a job has failed. Its upload is swept away later, if not removed before."""
    table.execute(
        "UPDATE jobs SET state = 'failed', ended = ?, bytes = 0, error = ? WHERE id = ?",
        (time.time(), error_text(error), job),
    )
