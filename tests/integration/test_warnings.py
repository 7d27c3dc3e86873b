"""What is missing of a recording is said, in every answer that there is; or it is refused, on request."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from incomplete import CODE, cut, part_of_wav, wav
from inspection import Inspection
from job_client import JobClient, each_has_ended_once
from prometheus_client.parser import text_string_to_metric_families
from service import Service, running, wait_for
from streams import joined, streaming
from waiting import PATIENCE

from asrsvc.web.openai_fields import FORMATS

WHOLE = wav(2)
CUT = cut(WHOLE)
JOB_FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
HEADER = "X-Warnings"
REFUSAL = "audio_truncated"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose operator wants no part of a recording."""
    folder = tmp_path_factory.mktemp("strict")
    with running(folder, ASR_WORKERS="1", ASR_THREADS="1", ASR_INCOMPLETE="refuse") as started:
        yield started


def told(body: dict[str, Any]) -> None:
    """One warning, whole, with nothing else in it."""
    (warning,) = body["warnings"]
    assert list(warning) == ["code", "message", "param"]
    assert (warning["code"], warning["param"]) == (CODE, "file")
    assert warning["message"].isprintable()
    assert len(warning["message"]) < 300


def refused(answer: httpx.Response) -> None:
    assert answer.status_code == 400, answer.text
    assert HEADER not in answer.headers
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (REFUSAL, "file")


def ask(service: Service, content: bytes, **fields: str) -> httpx.Response:
    with service.client() as client:
        return client.post("/v1/audio/transcriptions", files={"file": ("a.wav", content)}, data=fields)


# /api/transcribe


@pytest.mark.parametrize("timestamps", ["none", "segment", "word"])
def test_what_is_there_is_transcribed_and_what_is_missing_is_said(service: Service, timestamps: str) -> None:
    answer = service.transcribe("a.wav", CUT, timestamps=timestamps)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    told(body)
    assert answer.headers[HEADER] == CODE
    part = service.transcribe("a.wav", part_of_wav(CUT), timestamps=timestamps).json()
    assert part["text"]
    left_out = {"request_id", "warnings"}
    assert {k: v for k, v in body.items() if k not in left_out} == {
        k: v for k, v in part.items() if k not in left_out
    }


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC"])
def test_it_is_said_of_every_container(service: Service, form: str) -> None:
    whole = wav(2, form)
    answer = service.transcribe("a", whole)
    assert answer.status_code == 200, answer.text
    assert "warnings" not in answer.json()
    answer = service.transcribe("a", cut(whole, 0.8))
    assert answer.status_code == 200, answer.text
    assert answer.headers[HEADER] == CODE
    told(answer.json())
    assert answer.json()["text"].startswith("Book a table")
    refused(service.transcribe("a", cut(whole, 0.8), incomplete="refuse"))


def test_of_a_whole_recording_nothing_is_said(service: Service) -> None:
    answer = service.transcribe("a.wav", WHOLE)
    assert answer.status_code == 200
    assert "warnings" not in answer.json()
    assert HEADER not in answer.headers
    with streaming(service, WHOLE) as (_head, events):
        assert not any("warnings" in event for event in events)
    for form in FORMATS:
        answer = ask(service, WHOLE, response_format=form)
        assert answer.status_code == 200
        assert HEADER not in answer.headers
        assert "warnings" not in answer.text
    jobs = JobClient(service)
    job = jobs.begin(WHOLE)
    assert "warnings" not in jobs.wait_ended(job)
    for form in JOB_FORMATS:
        answer = jobs.get(f"/{job}/result", format=form)
        assert HEADER not in answer.headers
        assert "warnings" not in answer.text


def test_the_end_of_a_stream_says_it(service: Service) -> None:
    with streaming(service, CUT) as (head, events):
        *others, done, end = events
    assert HEADER not in head.headers  # it was sent before the file was read to its end
    assert end == "[DONE]"
    assert isinstance(done, dict)
    told(done)
    assert done["type"] == "done"
    assert not any("warnings" in event for event in others)


def test_a_stream_says_at_its_end_what_nobody_knew_before(service: Service) -> None:
    content = cut(joined(40))
    with streaming(service, content) as (_head, events):
        *before, done, _end = events
    assert isinstance(done, dict)
    told(done)
    texts = [event["segment"]["text"] for event in before if isinstance(event, dict) and "segment" in event]
    assert len(texts) > 5
    assert all(text in done["text"] for text in texts)


def test_the_log_and_a_counter_say_it(service: Service) -> None:
    inspection = Inspection(service)

    def counted() -> float:
        with service.client() as client:
            text = client.get("/metrics").text
        (found,) = (
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "asr_warnings_total" and sample.labels == {"code": CODE}
        )
        return found

    settled = {line["job"] for line in service.log_lines() if line["message"] == "job begun"}
    wait_for("no job is in hand", lambda: settled <= ended_jobs(service), 60)
    answers = [service.transcribe("a.wav", content) for content in (CUT, WHOLE, CUT)]
    lines = [inspection.access_line(answer.headers["X-Request-Id"]) for answer in answers]
    assert [line.get("warnings") for line in lines] == [[CODE], None, [CODE]]
    with streaming(service, CUT) as (head, events):
        list(events)
    assert inspection.access_line(head.headers["X-Request-Id"])["warnings"] == [CODE]
    jobs = JobClient(service)
    job = jobs.begin(CUT)
    jobs.wait_ended(job)
    wait_for("the worker's word for it", lambda: job in ended_jobs(service), 20)
    (line,) = (one for one in service.log_lines() if one["message"] == "job ended" and one["job"] == job)
    assert line["warnings"] == [CODE]
    # Of earlier requests too: one may be counted when its client has long had the answer.
    wait_for("all are counted that the log says, and no other", lambda: counted() == said(service) >= 4)


def said(service: Service) -> int:
    return sum((line.get("warnings") or []).count(CODE) for line in service.log_lines())


def ended_jobs(service: Service) -> set[str]:
    return {line["job"] for line in service.log_lines() if line["message"] == "job ended"}


# /v1


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_of_openai_says_it(service: Service, form: str) -> None:
    answer = ask(service, CUT, response_format=form)
    assert answer.status_code == 200, answer.text
    assert answer.headers[HEADER] == CODE
    whole = ask(service, part_of_wav(CUT), response_format=form)
    if form.endswith("json"):
        told(answer.json())
        assert answer.json() == {**whole.json(), "warnings": answer.json()["warnings"]}
    else:
        assert answer.text == whole.text  # there is no place for it in these


def test_openais_client_reads_the_answers(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    path.write_bytes(CUT)
    with openai.OpenAI(
        base_url=f"{service.url}/v1", api_key="none", timeout=2 * PATIENCE, max_retries=0
    ) as client:
        create = client.audio.transcriptions.create
        said = create(file=path, model="whisper-1")
        assert said.text
        told(said.model_extra or {})
        verbose = create(file=path, model="whisper-1", response_format="verbose_json")
        assert verbose.text == said.text
        told(verbose.model_extra or {})
        *deltas, done = create(file=path, model="gpt-4o-transcribe", stream=True)
        assert done.type == "transcript.text.done"
        assert done.text == said.text
        told(done.model_extra or {})
        assert not any("warnings" in (event.model_extra or {}) for event in deltas)
        raw = client.audio.transcriptions.with_raw_response.create(
            file=path, model="whisper-1", response_format="srt"
        )
        assert raw.headers[HEADER] == CODE
        with pytest.raises(openai.BadRequestError) as caught:
            create(file=path, model="whisper-1", extra_body={"incomplete": "refuse"})
        assert caught.value.code == REFUSAL


# Jobs


def test_a_job_says_it_wherever_it_is_asked(service: Service) -> None:
    jobs = JobClient(service)
    job = jobs.begin(CUT)
    body = jobs.wait_ended(job)
    assert (body["status"], body["incomplete"]) == ("succeeded", "transcribe")
    told(body)
    assert next(one for one in jobs.all() if one["id"] == job) == body
    *_, (name, _number, last) = jobs.events(job)
    assert (name, last) == ("end", body)
    text = service.transcribe("a.wav", CUT).json()["text"]
    for form in JOB_FORMATS:
        answer = jobs.get(f"/{job}/result", format=form)
        assert answer.status_code == 200
        assert answer.headers[HEADER] == CODE
        if form.endswith("json"):
            told(answer.json())
            assert answer.json()["text"] == text
    assert jobs.get(f"/{job}/result", format="text").text == text


@pytest.mark.timeout(900)
def test_a_job_says_it_after_its_worker_has_died_and_the_service_has_started_anew(tmp_path: Path) -> None:
    # A job keeps what it has found every half second; it must last until its worker has been killed.
    content = cut(wav(200), 0.9)
    with running(tmp_path, ASR_WORKERS="1", ASR_THREADS="1") as service:
        jobs = JobClient(service)
        job = jobs.begin(content)
        wait_for("something is found", lambda: jobs.job(job)["progress"]["segments"] > 2, 60)
        (victim,) = service.workers()
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait(PATIENCE)
        there = wait_for("the worker that follows", lambda: set(service.workers()) - {victim}, 60)
        assert there
        body = wait_for("the end of the job", lambda: ended(service, job), 120)
        assert body["status"] == "succeeded"
        told(body)
        assert_resumed(service, job)
        each_has_ended_once(service, [job])
        service.stop()
        service.start()
        jobs = JobClient(service)
        assert jobs.job(job) == body
        assert jobs.get(f"/{job}/result", format="srt").headers[HEADER] == CODE
        told(jobs.result(job))


def ended(service: Service, job: str) -> dict[str, Any] | None:
    """The job, once it has ended; None as long as it has not, or no worker answers."""
    try:
        body = JobClient(service).job(job)
    except httpx.TransportError:
        return None
    return body if body["ended"] else None


def assert_resumed(service: Service, job: str) -> None:
    """A second worker has gone on from where the first one was."""
    begun = [line for line in service.log_lines() if line["message"] == "job begun" and line["job"] == job]
    assert len({line["pid"] for line in begun}) == 2
    assert begun[-1]["audio_seconds"] > 0


# Refusing


def test_a_request_may_have_it_refused(service: Service) -> None:
    refused(service.transcribe("a.wav", CUT, incomplete="refuse"))
    for form in FORMATS:
        refused(ask(service, CUT, response_format=form, incomplete="refuse"))
    with service.client() as client:
        files = {"file": ("a.wav", CUT)}
        refused(client.post("/api/transcribe", files=files, data={"stream": "true", "incomplete": "refuse"}))
    jobs = JobClient(service)
    job = jobs.wait_ended(jobs.begin(CUT, incomplete="refuse"))
    assert (job["status"], job["incomplete"]) == ("failed", "refuse")
    assert job["error"]["code"] == REFUSAL
    assert "warnings" not in job
    whole = service.transcribe("a.wav", WHOLE, incomplete="refuse")
    assert whole.status_code == 200
    assert jobs.wait_ended(jobs.begin(WHOLE, incomplete="refuse"))["status"] == "succeeded"


def test_a_stream_that_has_sent_segments_ends_with_the_refusal(service: Service) -> None:
    content = cut(joined(40))  # FLAC: nobody knows what is missing before its end has been read
    with streaming(service, content, incomplete="refuse") as (head, events):
        *before, error, end = events
    assert head.status_code == 200
    assert end == "[DONE]"
    kinds = [event["type"] for event in before if isinstance(event, dict)]
    assert set(kinds) == {"progress", "segment"}
    assert kinds.count("segment") > 5
    assert isinstance(error, dict)
    assert error["type"] == "error"
    assert (error["error"]["code"], error["error"]["param"]) == (REFUSAL, "file")
    line = Inspection(service).access_line(head.headers["X-Request-Id"])
    assert (line["status"], line["error"]) == (400, REFUSAL)
    assert "warnings" not in line
    with openai.OpenAI(
        base_url=f"{service.url}/v1", api_key="none", timeout=2 * PATIENCE, max_retries=0
    ) as client:
        stream = client.audio.transcriptions.create(
            file=("a.flac", content),
            model="gpt-4o-transcribe",
            stream=True,
            extra_body={"incomplete": "refuse"},
        )
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == REFUSAL
    jobs = JobClient(service)
    job = jobs.wait_ended(jobs.begin(content, incomplete="refuse"))
    assert (job["status"], job["error"]["code"]) == ("failed", REFUSAL)
    # Not `progress`, which is written down now and then: a fast machine comes to the end before.
    line = wait_for("the line of its end", lambda: end_of_job(service, job["id"]))
    assert (line["outcome"], line["turn"]) == ("failed", 1)
    assert line["spans"] > 5, "it was worked on until its end was reached"
    assert jobs.get(f"/{job['id']}/result").status_code == 409


def end_of_job(service: Service, job: str) -> dict[str, Any] | None:
    lines = (line for line in service.log_lines() if line["message"] == "job ended")
    return next((line for line in lines if line["job"] == job), None)


def test_the_setting_refuses_it_and_a_request_may_have_it_transcribed(strict: Service) -> None:
    refused(strict.transcribe("a.wav", CUT))
    refused(ask(strict, CUT))
    jobs = JobClient(strict)
    job = jobs.wait_ended(jobs.begin(CUT))
    assert (job["status"], job["incomplete"]) == ("failed", "refuse")
    assert job["error"]["code"] == REFUSAL
    told(strict.transcribe("a.wav", CUT, incomplete="transcribe").json())
    told(ask(strict, CUT, incomplete="transcribe").json())
    job = jobs.wait_ended(jobs.begin(CUT, incomplete="transcribe"))
    assert (job["status"], job["incomplete"]) == ("succeeded", "transcribe")
    told(job)


@pytest.mark.parametrize("wish", ["yes", "Refuse", "transcribe,refuse"])
@pytest.mark.parametrize("path", ["/api/transcribe", "/v1/audio/transcriptions", "/api/jobs"])
def test_a_wrong_wish_is_named(service: Service, path: str, wish: str) -> None:
    with service.client() as client:
        answer = client.post(path, files={"file": ("a.wav", WHOLE)}, data={"incomplete": wish})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "incomplete")
    assert "transcribe, refuse" in error["message"]
