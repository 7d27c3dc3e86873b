"""Streams: what is heard is sent at once, a client that leaves stops the work, a roll cuts nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from inspection import Inspection, check_error
from rolling import nginx, operated
from service import CLIPS, Service, free_port, wait_for
from streams import joined, poisoned, spoken, streaming, texts

LONG = 150
"""clips: about ten minutes"""
TRIES = 5
"""to see a stream in the middle, on a machine that is busy with something else"""


def plain(service: Service, content: bytes, **fields: str) -> dict[str, Any]:
    answer = service.transcribe("a.flac", content, **fields)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("timestamps", ["none", "segment", "word"])
def test_a_stream_says_what_the_plain_answer_says(service: Service, timestamps: str) -> None:
    content = joined(8)
    with streaming(service, content, timestamps=timestamps) as (head, found):
        assert head.status_code == 200
        assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert head.headers["cache-control"] == "no-store"
        assert head.headers["x-accel-buffering"] == "no"
        assert head.headers["x-model-version"]
        *told, done, end = found
    assert end == "[DONE]"
    assert done.pop("type") == "done"
    assert done.pop("request_id") == head.headers["x-request-id"]
    whole = plain(service, content, timestamps=timestamps)
    del whole["request_id"]
    assert done == whole
    segments = [event["segment"] for event in told if event["type"] == "segment"]
    assert [segment["text"] for segment in segments] == texts(8)
    if timestamps == "none":
        assert "words" not in segments[0]
    else:
        assert segments == whole["segments"]
    progress = [event for event in told if event["type"] == "progress"]
    assert len(progress) + len(segments) == len(told)
    seconds = [event["audio_seconds"] for event in progress]
    assert seconds == sorted(seconds)
    assert all(event["duration"] == pytest.approx(whole["duration"], abs=0.01) for event in progress)


def test_the_query_asks_for_a_stream_too(service: Service) -> None:
    content = (CLIPS / "en_1.flac").read_bytes()
    with service.client() as client:
        answer = client.post("/api/transcribe?stream=true", files={"file": ("a", content)})
        assert answer.text.endswith("data: [DONE]\n\n")
        empty = client.post("/api/transcribe?stream=", files={"file": ("a", content)})
        assert empty.json()["text"] == texts(1)[0]
        for query, fields in (
            ("stream=true", {"stream": "true"}),
            ("stream=1&stream=1", {}),
            ("stream=perhaps", {}),
        ):
            wrong = client.post(f"/api/transcribe?{query}", files={"file": ("a", content)}, data=fields)
            assert wrong.status_code == 400
            check_error(wrong.json(), "invalid_value", "stream", param="stream")


def test_openai_s_stream_joins_to_the_text(service: Service) -> None:
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": "word", "include[]": "logprobs"}
    with streaming(service, joined(8), "/v1/audio/transcriptions", **fields) as (head, found):
        assert head.status_code == 200
        *told, done, end = found
    assert end == "[DONE]"
    deltas = [event for event in told if event["type"] == "transcript.text.delta"]
    assert len(deltas) == 8
    assert "".join(event["delta"] for event in deltas) == done["text"]
    assert all("".join(p["token"] for p in e["logprobs"]) == e["delta"] for e in deltas)
    assert done["logprobs"] == [p for event in deltas for p in event["logprobs"]]
    assert done["type"] == "transcript.text.done"
    assert {row["code"] for row in done["languages"]} == {clip["language"] for clip in spoken()[:8]}
    segments = [event for event in told if event["type"] == "transcript.text.segment"]
    assert [event["id"] for event in segments] == [f"seg_{n}" for n in range(8)]
    assert all(event["words"] for event in segments)


def ended(service: Service, request_id: str) -> bool:
    return any(line.get("request_id") == request_id for line in service.log_lines())


def test_the_first_words_of_ten_minutes_come_when_a_twentieth_has_been_heard(service: Service) -> None:
    """By the sound that was decoded, not by a clock: that would tell how busy this machine is."""
    for _ in range(TRIES):
        heard = 0.0
        with streaming(service, joined(LONG)) as (head, found):
            for event in found:
                assert isinstance(event, dict)
                if event["type"] == "segment":
                    break
                heard = event["audio_seconds"]
            at_work = not ended(service, head.headers["x-request-id"])
            *_told, done, _end = found
        assert isinstance(done, dict)
        assert done["duration"] > 540
        assert heard <= done["duration"] * 0.05
        if at_work:
            return
    pytest.fail(f"each of {TRIES} streams had ended before this process read its first words")


@pytest.mark.parametrize("path", ["/api/transcribe", "/v1/audio/transcriptions"])
def test_what_cannot_be_decoded_is_an_error_before_the_stream(service: Service, path: str) -> None:
    with streaming(service, b"no sound" * 100, path) as (head, _found):
        head.read()
    assert head.status_code == 400
    check_error(head.json(), "audio_undecodable", param="file")


@pytest.mark.parametrize("path", ["/api/transcribe", "/v1/audio/transcriptions"])
def test_what_fails_in_the_middle_is_the_last_event(service: Service, path: str) -> None:
    with streaming(service, poisoned(LONG), path) as (head, found):
        assert head.status_code == 200
        *told, error, end = found
        request_id = head.headers["x-request-id"]
    assert end == "[DONE]"
    assert list(error) == ["type", "error"]
    assert error["type"] == "error"
    assert error["error"]["code"] == "audio_undecodable"
    assert any("segment" in event["type"] or "delta" in event["type"] for event in told)
    line = Inspection(service).access_line(request_id)
    assert (line["status"], line["error"]) == (400, "audio_undecodable")


def test_a_client_that_leaves_stops_the_work(service: Service) -> None:
    inspection = Inspection(service)
    whole = plain(service, joined(LONG))
    for _ in range(TRIES):
        with streaming(service, joined(LONG)) as (head, found):
            first_segment(found)
        line = inspection.access_line(head.headers["x-request-id"])
        inspection.check()
        if line["status"] == 200:
            continue  # it had ended before this process could leave
        assert (line["status"], line["error"]) == (499, "client_gone")
        if line["audio_seconds"] < whole["duration"] and line["spans"] < LONG:
            return
    pytest.fail(f"no work of {TRIES} was stopped in the middle when its client left")


def test_a_roll_does_not_cut_a_stream(tmp_path: Path) -> None:
    with operated(tmp_path, ASR_WORKERS="1") as service:
        versions = (service.good, service.other)
        service.wait_whole(versions[0])
        for number in range(TRIES):
            serving, next_one = versions[number % 2], versions[1 - number % 2]
            with streaming(service, joined(3 * LONG)) as (head, found):
                assert head.headers["x-model-version"] == serving.id
                first_segment(found)
                before = service.wish(next_one)
                service.wait_status(
                    "a worker that leaves",
                    # One that has nothing in hand any more may have left before it is seen.
                    lambda now, last=before: (
                        any(w.state == "draining" for w in now.workers)
                        or (now.roll is not None and now.roll.id > last and now.roll.ended)
                    ),
                )
                at_work = not ended(service, head.headers["x-request-id"])
                *_told, done, end = found
            assert end == "[DONE]"
            assert isinstance(done, dict)
            assert (done["type"], done["model_version"]) == ("done", serving.id)
            assert len(done["text"]) > 3000
            assert service.end_of_roll(before).result == "succeeded"
            assert service.status.counters.lost_requests == 0
            if at_work:
                return
            service.wait_whole(next_one)
    pytest.fail(f"each of {TRIES} streams had ended before its worker was told to leave")


def first_segment(found: Iterator[dict[str, Any] | str]) -> None:
    """Read to the first one."""
    for event in found:
        assert isinstance(event, dict)
        if event["type"] == "segment":
            return


def test_nginx_passes_a_stream_on_as_it_comes(service: Service, tmp_path: Path) -> None:
    inspection = Inspection(service)
    with nginx(tmp_path / "nginx", free_port(), service.port) as front:
        for _ in range(TRIES):
            with streaming(service, joined(LONG), port=front) as (head, found):
                first_segment(found)
                at_work = not ended(service, head.headers["x-request-id"])
            line = inspection.access_line(head.headers["x-request-id"])
            if at_work and line["status"] == 499:  # and it passes on that the client has left
                inspection.check()
                return
    pytest.fail(f"each of {TRIES} streams had ended before this process read its first words")


def test_a_stream_holds_its_place_until_it_ends(service: Service) -> None:
    """Other requests are answered while a long one streams."""
    with streaming(service, joined(LONG)) as (_head, found):
        next(found)
        answer = service.transcribe("a.flac", (CLIPS / "en_1.flac").read_bytes())
        assert answer.json()["text"] == "Book a table at 1:25 a.m."
        *_told, done, _end = found
    assert isinstance(done, dict)
    assert done["type"] == "done"


def test_a_client_without_stream_events_reads_lines(service: Service) -> None:
    """Every event is one line, whatever is said."""
    with streaming(service, joined(3), timestamps="word") as (head, _found):
        text = head.read().decode()
    assert all(
        block.startswith("data: ") and len(block.splitlines()) == 1 for block in text.split("\n\n") if block
    )
    assert isinstance(head, httpx.Response)
    wait_for("no upload is open", lambda: not Inspection(service).open_uploads())
