"""Webhooks as those see them who deliver them: taken, delivered, tried again, given up.

Each is taken for a limited time; a worker that dies over it leaves it to another one when the time is over.
Then its event is sent once more, with the same id and the next number of an attempt.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from asrsvc.jobs.rows import job_in
from asrsvc.jobs.storage import Storage
from asrsvc.jobs.types import Job

AT_ONE_HOST: Final = 2
"""deliveries at the same time, of all workers: a host that hangs holds up nobody else's"""

_DUE: Final = (
    " FROM webhooks JOIN jobs ON jobs.number = webhooks.job"
    " WHERE webhooks.state = 'pending' AND jobs.state IN ('succeeded', 'failed')"
    " AND webhooks.next <= :now AND webhooks.lease <= :now AND ("
    "  SELECT count(*) FROM webhooks AS other WHERE other.host = webhooks.host AND other.lease > :now"
    " ) < :most ORDER BY webhooks.next LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to tell of a job."""

    number: int
    """of the job"""
    job: str
    """its id"""
    ended: float
    """when the job did, seconds of the epoch"""
    event: str
    """id of what is told"""
    url: str
    attempt: int
    """counts from 1"""
    body: bytes


class Webhooks:
    """What a worker asks and tells of webhooks. All methods wait for the disk: call them from a thread.

    All raise JobsUnavailable and NoSpace, see `asrsvc.jobs.database.Database.transaction`.
    """

    def __init__(self, storage: Storage, render: Callable[[Job], bytes]) -> None:
        """Prepare.

        Args:
            storage: of the jobs.
            render: what is told of a job that has ended.
        """
        self._database = storage.database
        self._render = render

    def take(self, seconds: float) -> Delivery | None:
        """The one that is due for longest, if there is any, for so many seconds."""
        if not self._database.exists():
            return None
        with self._database.transaction(writes=False) as table:
            if table.execute(f"SELECT 1{_DUE}", {"now": time.time(), "most": AT_ONE_HOST}).fetchone() is None:
                return None
        with self._database.transaction() as table:
            now = time.time()
            row = table.execute(
                "SELECT jobs.number, jobs.id, jobs.ended, webhooks.id, webhooks.url, webhooks.attempts,"
                f" webhooks.body{_DUE}",
                {"now": now, "most": AT_ONE_HOST},
            ).fetchone()
            if row is None:
                return None  # another worker was quicker
            number, job, ended, event, url, attempts, body = row
            if body is None:
                body = self._render(job_in(table, job))
            table.execute(
                "UPDATE webhooks SET attempts = attempts + 1, lease = ?, body = ? WHERE job = ?",
                (now + seconds, body, number),
            )
        return Delivery(number, job, ended, event, url, attempts + 1, body)

    def delivered(self, delivery: Delivery) -> None:
        """It has arrived."""
        with self._database.transaction() as table:
            table.execute(
                "UPDATE webhooks SET state = 'delivered', next = 0, lease = 0, body = NULL, error = NULL"
                " WHERE job = ? AND state = 'pending'",
                (delivery.number,),
            )

    def failed(self, delivery: Delivery, error: str, again: float | None) -> None:
        """It has not arrived.

        Args:
            delivery: what was tried.
            error: why.
            again: when it is tried again, seconds of the epoch; None: it is given up.
        """
        with self._database.transaction() as table:
            table.execute(
                "UPDATE webhooks SET state = ?, next = ?, lease = 0, error = ?,"
                " body = CASE WHEN ? THEN body END WHERE job = ? AND attempts = ? AND state = 'pending'",
                (
                    "failed" if again is None else "pending",
                    again or 0,
                    error,
                    again is not None,
                    delivery.number,
                    delivery.attempt,
                ),
            )
