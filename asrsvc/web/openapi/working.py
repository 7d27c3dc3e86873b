"""The operations of jobs: recordings that are taken now and transcribed when there is time."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, get_args

from asrsvc.errors import (
    BadRequest,
    FetchFailed,
    FetchTimeout,
    JobHasNoResult,
    JobNotFinished,
    JobsUnavailable,
    NoSpace,
    NotFound,
    NotReady,
    OutOfDescriptors,
    OverCapacity,
    RequestTimeout,
    TooLarge,
    TooManyJobs,
    UnsupportedMediaType,
    UrlRefused,
)
from asrsvc.jobs.types import WebhookState
from asrsvc.speech.types import LANGUAGES
from asrsvc.web import jobs, notices, openai_answers, transcriptions
from asrsvc.web.job_answers import FORMATS
from asrsvc.web.openapi.operations import EVENTS, FORM, JSON, Good, Operation, events, parameter
from asrsvc.web.openapi.schemas import KEYS, Schema, Schemas, form

GROUP: Final = "Jobs"

_JOB: Final[Schema] = {"$ref": "#/components/schemas/Job"}
_SECONDS: Final[Schema] = {"type": "number", "minimum": 0}
_CREATE: Final = """Upload a long recording and come back later: the answer comes as soon as the upload is on
disk. The job outlives reloads, workers and restarts.

```sh
job=$(curl -s -F file=@lecture.m4a http://127.0.0.1:7860/api/jobs | jq -r .id)
curl -sN http://127.0.0.1:7860/api/jobs/$job/events
curl -s "http://127.0.0.1:7860/api/jobs/$job/result?format=srt"
```

```python
import time

import httpx

service = httpx.Client(base_url="http://127.0.0.1:7860", timeout=600)
with open("lecture.m4a", "rb") as sound:
    job = service.post("/api/jobs", files={"file": sound}).raise_for_status().json()
while job["status"] in {"queued", "running"}:
    time.sleep(2)
    job = service.get(job["links"]["self"]).raise_for_status().json()
print(service.get(job["links"]["result"], params={"format": "srt"}).raise_for_status().text)
```

`url=https://…` instead of `file` is fetched before the answer. `webhook=https://…` is told by a signed `POST`
when the job has succeeded or failed, and again until it answers with 200 to 299. Both are for hosts that the
setting `ASR_URL_HOSTS` lists.
"""
_EVENTS: Final = """Server-sent events, each with a name:

| event | data |
|---|---|
| `segment` | a segment with its words and `model_version`; its `id` counts from 1 |
| `progress` | `status`, `audio_seconds`, `duration`, `segments` |
| `end` | the job, with its `warnings`; the stream ends |

A stream that ends without `end` has lost its worker: ask again with `Last-Event-ID`, as browsers do by
themselves, and it goes on behind that segment.
"""


def job(warning: Schema) -> Schema:
    """A job as it stands.

    Args:
        warning: schema of one.
    """
    moment: Schema = {"type": ["string", "null"], "description": "UTC, ISO 8601"}
    text: Schema = {"type": "string"}
    keys: dict[str, Schema] = {
        "id": text,
        "status": {
            "type": "string",
            "enum": ["queued", "running", "succeeded", "failed", "cancelled"],
        },
        "created": {**moment, "type": "string"},
        "started": moment,
        "ended": moment,
        "expires": {**moment, "description": "when it is forgotten with its result; UTC, ISO 8601"},
        "language": {"type": "string", "enum": list(LANGUAGES)},
        "use_itn": {"type": "boolean"},
        "punctuation": {"type": "boolean"},
        "incomplete": {"type": "string", "enum": [notices.TRANSCRIBE, notices.REFUSE]},
        "progress": _object(
            {
                "audio_seconds": {**_SECONDS, "description": "seconds of the recording that are done"},
                "duration": {
                    **_SECONDS,
                    "type": ["number", "null"],
                    "description": "of the recording: by its header until it is done; null: not known yet",
                },
                "segments": {"type": "integer", "minimum": 0, "description": "found so far"},
            }
        ),
        "model_versions": {
            "type": "array",
            "items": text,
            "description": "that its segments come from: several if the model was changed meanwhile",
        },
        "error": {"anyOf": [_object({"code": text, "message": text}), {"type": "null"}]},
        "webhook": {
            "anyOf": [
                _object(
                    {
                        "url": text,
                        "status": {"type": "string", "enum": list(get_args(WebhookState))},
                        "attempts": {"type": "integer", "minimum": 0, "description": "begun so far"},
                        "next": {**moment, "description": "when it is told again; UTC, ISO 8601"},
                        "error": {"type": ["string", "null"], "description": "of the last attempt"},
                    }
                ),
                {"type": "null"},
            ],
            "description": "who is told when the job has succeeded or failed",
        },
        "links": _object({"self": text, "events": text, "result": text}),
    }
    described = _object(keys)
    described["properties"]["warnings"] = {"type": "array", "items": warning, **KEYS["warnings"]}
    return {**described, "description": "A job"}


def operations(schemas: Schemas) -> list[Operation]:
    """All of them.

    Args:
        schemas: take the types of the answers.
    """
    one = parameter("path", "job", {"type": "string", "minLength": 1}, "the job's `id`")
    return [
        _create(),
        Operation(
            "get",
            "/api/jobs",
            "listJobs",
            GROUP,
            "Your jobs, the newest first",
            parameters=(
                parameter(
                    "query",
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": jobs.LARGEST_PAGE},
                    "of a page",
                ),
                parameter(
                    "query",
                    "before",
                    {"type": "integer", "minimum": 1, "maximum": jobs.LARGEST_NUMBER},
                    "`next` of the page before",
                ),
            ),
            good=(
                Good(
                    "A page",
                    {
                        JSON: _object(
                            {
                                "jobs": {"type": "array", "items": _JOB},
                                "next": {"type": ["integer", "null"], "description": "null: that was all"},
                            }
                        )
                    },
                ),
            ),
            errors=(BadRequest, JobsUnavailable, NotReady),
        ),
        Operation(
            "get",
            "/api/jobs/{job}",
            "job",
            GROUP,
            "How far a job is",
            parameters=(one,),
            good=(Good("The job", {JSON: _JOB}),),
            errors=(BadRequest, NotFound, JobsUnavailable, NotReady),
        ),
        Operation(
            "delete",
            "/api/jobs/{job}",
            "endJob",
            GROUP,
            "Cancel a job that has not ended, remove one that has",
            parameters=(one,),
            good=(
                Good("It is cancelled", {JSON: _JOB}),
                Good("It is removed", {}, status=HTTPStatus.NO_CONTENT),
            ),
            errors=(BadRequest, NotFound, NoSpace, JobsUnavailable, NotReady),
        ),
        _tell(one),
        _result(schemas, one),
    ]


def _create() -> Operation:
    return Operation(
        "post",
        "/api/jobs",
        "createJob",
        GROUP,
        "Have a long recording transcribed",
        _CREATE,
        body={FORM: form(jobs.FIELDS)},
        good=(Good("It waits", {JSON: _JOB}, status=HTTPStatus.ACCEPTED, headers=("Location",)),),
        errors=(
            BadRequest,
            RequestTimeout,
            TooLarge,
            UnsupportedMediaType,
            UrlRefused,
            FetchFailed,
            FetchTimeout,
            TooManyJobs,
            JobsUnavailable,
            NotReady,
            NoSpace,
            OutOfDescriptors,
        ),
    )


def _tell(one: Schema) -> Operation:
    last = {
        **parameter("header", "Last-Event-ID", {"type": "integer", "minimum": 0}, "the last that you have"),
        "required": False,
    }
    return Operation(
        "get",
        "/api/jobs/{job}/events",
        "jobEvents",
        GROUP,
        "What a job finds, as it goes on",
        _EVENTS,
        parameters=(one, last),
        good=(Good("The events", {EVENTS: events([{"type": "object"}])}),),
        errors=(BadRequest, NotFound, OverCapacity, JobsUnavailable, NotReady),
    )


def _result(schemas: Schemas, one: Schema) -> Operation:
    return Operation(
        "get",
        "/api/jobs/{job}/result",
        "jobResult",
        GROUP,
        "What a job has found",
        parameters=(
            one,
            parameter("query", "format", {"type": "string", "enum": list(FORMATS)}, "`json` by default"),
            parameter(
                "query",
                "timestamps",
                {"type": "string", "enum": list(transcriptions.TIMESTAMPS)},
                "what `json` holds, as in `/api/transcribe`",
            ),
        ),
        good=(
            Good(
                "The result in the format that was asked for",
                {
                    JSON: {
                        "anyOf": [
                            schemas.of(transcriptions.Answer),
                            schemas.of(openai_answers.Verbose),
                        ]
                    },
                    "text/plain": {"type": "string"},
                    "text/vtt": {"type": "string"},
                },
                headers=(notices.HEADER,),
            ),
        ),
        errors=(BadRequest, NotFound, JobNotFinished, JobHasNoResult, JobsUnavailable, NotReady),
    )


def _object(keys: dict[str, Schema]) -> Schema:
    return {"type": "object", "required": list(keys), "properties": keys}
