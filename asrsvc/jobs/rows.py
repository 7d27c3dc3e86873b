"""Jobs and segments as the table holds them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, astuple, fields
from typing import Any, Final

from asrsvc.jobs.types import Job, JobError, Webhook
from asrsvc.speech.transcribe import Options
from asrsvc.speech.types import LanguageProbability, Notice, Segment, Token, Word

VIEW: Final = """
CREATE TEMP VIEW seen AS SELECT
  id, number, client, state, options, created, started, ended, reached, duration, version, error,
  (SELECT count(*) FROM segments WHERE job = jobs.number) AS segments,
  (SELECT json_group_array(version) FROM (
    SELECT version FROM segments WHERE job = jobs.number GROUP BY version ORDER BY min(number)
  )) AS versions,
  warnings,
  (SELECT json_array(url, state, attempts, nullif(next, 0), error)
    FROM webhooks WHERE job = jobs.number) AS webhook
FROM jobs WHERE state != 'receiving'
"""
"""a view of each connection's own, whose rows `job_of` reads"""


def job_of(row: Sequence[Any]) -> Job:
    """A job from its row in the view `seen`."""
    id_, number, client, state, options, created, started, ended, reached, duration, *rest = row
    version, error, count, versions, warnings, webhook = rest
    return Job(
        id=id_,
        number=number,
        client=client,
        state=state,
        options=options_of(options),
        created=created,
        started=started,
        ended=ended,
        reached=reached,
        duration=duration,
        segments=count,
        version=version,
        versions=tuple(json.loads(versions)),
        error=JobError(**json.loads(error)) if error is not None else None,
        warnings=warnings_of(warnings),
        webhook=Webhook(*json.loads(webhook)) if webhook is not None else None,
    )


def job_in(table: sqlite3.Connection, job: str) -> Job:
    """A job that is in the table."""
    return job_of(table.execute("SELECT * FROM seen WHERE id = ?", (job,)).fetchone())


def options_text(options: Options) -> str:
    """As `options_of` reads it."""
    chosen = {
        "language": options.language,
        "use_itn": options.use_itn,
        "punctuation": options.punctuation,
        "refuse_incomplete": options.refuse_incomplete,
    }
    return json.dumps(chosen)


def options_of(text: str) -> Options:
    """What the job's request chose; all is kept, since a result's form is chosen later."""
    found = json.loads(text)
    return Options(
        language=found.get("language", "auto"),
        use_itn=bool(found.get("use_itn", True)),
        punctuation=bool(found.get("punctuation", True)),
        words=True,
        tokens=True,
        refuse_incomplete=bool(found.get("refuse_incomplete", False)),
    )


def error_text(error: JobError) -> str:
    """As `job_of` reads it."""
    return json.dumps(asdict(error), ensure_ascii=False)


def warnings_text(warnings: Sequence[Notice]) -> str:
    """As `warnings_of` reads it."""
    return json.dumps([asdict(notice) for notice in warnings], ensure_ascii=False)


def warnings_of(text: str) -> tuple[Notice, ...]:
    """Warnings from `warnings_text`; keys of newer code are left out."""
    known = {field.name for field in fields(Notice)}
    return tuple(
        Notice(**{name: value for name, value in found.items() if name in known})
        for found in json.loads(text)
    )


def segment_text(segment: Segment) -> str:
    """A segment with its words and tokens, as JSON."""
    content = asdict(segment)
    content["tokens"] = [astuple(token) for token in segment.tokens]  # many: without the names
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def segment_of(text: str) -> Segment:
    """A segment from `segment_text`; keys of newer code are left out."""
    found = json.loads(text)
    known = {field.name: found[field.name] for field in fields(Segment) if field.name in found}
    known["events"] = tuple(found["events"])
    known["words"] = tuple(
        Word(**{field.name: word[field.name] for field in fields(Word)}) for word in found["words"]
    )
    known["language_probabilities"] = tuple(
        LanguageProbability(**one) for one in found.get("language_probabilities", ())
    )
    known["tokens"] = tuple(Token(*token) for token in found.get("tokens", ()))
    return Segment(**known)
