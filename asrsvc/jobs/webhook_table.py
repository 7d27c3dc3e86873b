"""What the table of webhooks holds: for each job that has one, its address and how far its delivery is.

A webhook is due when its job has succeeded or failed: that is asked of the table of jobs, so whoever ends a
job, code of before too, need not know of webhooks.
"""

from __future__ import annotations

import secrets
import sqlite3
from typing import Final
from urllib.parse import urlsplit

TABLE: Final = (
    """
CREATE TABLE webhooks (
  job INTEGER PRIMARY KEY REFERENCES jobs (number) ON DELETE CASCADE,
  id TEXT NOT NULL,                      -- of the event: the same at each attempt
  url TEXT NOT NULL,
  host TEXT NOT NULL,                    -- with its port: few of one are called at the same time
  state TEXT NOT NULL DEFAULT 'pending', -- or delivered, failed, cancelled
  attempts INTEGER NOT NULL DEFAULT 0,
  next REAL NOT NULL DEFAULT 0,          -- not before
  lease REAL NOT NULL DEFAULT 0,         -- until then, who took it is expected to say how it went
  body BLOB,                             -- as first sent: repeats are the same to the last bit
  error TEXT
)""",
    "CREATE INDEX webhooks_by_state ON webhooks (state, next)",
)

HAS_PENDING_WEBHOOK: Final = "EXISTS (SELECT 1 FROM webhooks WHERE job = jobs.number AND state = 'pending')"
"""of a row of jobs: it is not forgotten before it is known what became of its webhook"""


def note_webhook(table: sqlite3.Connection, job: str, url: str) -> None:
    """In a transaction: an address wants to be told of a job's end."""
    host = urlsplit(url).netloc.lower()
    table.execute(
        "INSERT INTO webhooks (job, id, url, host) SELECT number, ?, ?, ? FROM jobs WHERE id = ?",
        (f"msg_{secrets.token_hex(16)}", url, host, job),
    )


def cancel_webhook(table: sqlite3.Connection, job: str) -> None:
    """In a transaction: nobody is told of this job."""
    table.execute(
        "UPDATE webhooks SET state = 'cancelled' WHERE job = (SELECT number FROM jobs WHERE id = ?)", (job,)
    )
