"""Which model versions a job's result names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from asrsvc.jobs.types import Found, Job
from asrsvc.speech.transcribe import Options
from asrsvc.speech.types import Segment
from asrsvc.web.job_answers import result_response

OLD, NEW = "old-11111111", "new-22222222"


def result(versions: Sequence[str], *, ended_by: str, form: str) -> dict[str, Any]:
    """Of a job whose segments come from `versions`, and that a worker of `ended_by` brought to its end."""
    found = [
        Found(number, version, Segment(number, number + 0.5, "早晨", "yue", "happy", (), 0.9, ()))
        for number, version in enumerate(versions, start=1)
    ]
    job = Job(
        id="a",
        number=1,
        client="",
        state="succeeded",
        options=Options(),
        created=1.0,
        started=2.0,
        ended=3.0,
        reached=160_000,
        duration=10.0,
        segments=len(found),
        version=ended_by,
        versions=tuple(dict.fromkeys(versions)),
        error=None,
    )
    response = result_response(job, found, form=form, timestamps="segment", request_id="r")
    body: dict[str, Any] = json.loads(bytes(response.body))
    return body


@pytest.mark.parametrize("form", ["json", "verbose_json"])
@pytest.mark.parametrize(
    ("versions", "named"),
    [([OLD, OLD], OLD), ([OLD, NEW], NEW), ([NEW, NEW], NEW), ([NEW, OLD, NEW], NEW), ([], NEW)],
)
def test_a_result_names_the_version_that_heard_it_not_the_one_that_only_ended_the_job(
    versions: list[str], named: str, form: str
) -> None:
    body = result(versions, ended_by=NEW, form=form)
    assert body["model_version"] == named
    assert body["model_versions"] == list(dict.fromkeys(versions))
    told = [segment.get("model_version") for segment in body["segments"]]
    assert told == (versions if len(set(versions)) > 1 else [None] * len(versions))
