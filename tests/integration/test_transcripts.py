"""The main job: every clip gives its true text, over HTTP, from real workers."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from service import CLIPS, Service, manifest, wait_for

CASES = [
    (clip, itn, language)
    for clip in manifest()
    for itn in (True, False)
    for language in ("auto", clip["language"])
    if language != "nospeech"
]


def ask(service: Service, clip: dict[str, Any], *, itn: bool, language: str, **fields: str) -> httpx.Response:
    content = (CLIPS / clip["file"]).read_bytes()
    return service.transcribe(clip["file"], content, use_itn=str(itn).lower(), language=language, **fields)


def test_every_clip_gives_its_exact_text_fifty_at_a_time(service: Service) -> None:
    rounds = CASES * 6
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda c: ask(service, c[0], itn=c[1], language=c[2]), rounds))
    wrong = [
        (clip["file"], itn, language, answer.status_code, answer.text)
        for (clip, itn, language), answer in zip(rounds, answers, strict=True)
        if answer.status_code != 200 or answer.json()["text"] != clip["withitn" if itn else "woitn"]
    ]
    assert not wrong

    def logged() -> set[int]:
        return {line["pid"] for line in service.log_lines() if line["logger"] == "asrsvc.access"}

    wait_for("the lines of both workers", lambda: logged() == service.worker_pids())


@pytest.mark.parametrize("clip", manifest(speech_only=True), ids=lambda c: c["file"])
def test_the_answer_has_the_documented_keys(service: Service, clip: dict[str, Any]) -> None:
    answer = ask(service, clip, itn=True, language="auto", timestamps="word")
    body = answer.json()
    assert list(body) == [
        *("text", "language", "language_probability", "language_probabilities", "emotion", "events"),
        *("duration", "segments", "model_version", "request_id"),
    ]
    assert body["language"] == clip["language"]
    assert body["duration"] == pytest.approx(clip["seconds"], abs=0.01)
    assert answer.headers["x-model-version"] == body["model_version"]
    assert answer.headers["x-request-id"] == body["request_id"]
    (segment,) = body["segments"]
    assert list(segment) == [
        *("start", "end", "text", "language", "language_probability", "language_probabilities"),
        *("emotion", "events", "confidence", "words"),
    ]
    glue = " " if clip["language"] in ("en", "ko") else ""
    words = segment["words"]
    assert glue.join(word["word"] for word in words) == body["text"]
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= body["duration"]
    assert all(0 < word["confidence"] <= 1 for word in words)


def test_segments_and_words_come_only_when_asked_for(service: Service) -> None:
    clip = manifest()[0]
    assert "segments" not in ask(service, clip, itn=True, language="auto").json()
    body = ask(service, clip, itn=True, language="auto", timestamps="segment").json()
    assert "words" not in body["segments"][0]


def test_music_has_an_event_and_no_text(service: Service) -> None:
    (clip,) = (c for c in manifest() if c["file"] == "bgm.flac")
    body = ask(service, clip, itn=True, language="auto").json()
    assert (body["text"], body["language"], body["events"]) == ("", "nospeech", ["bgm"])


def test_the_same_upload_gives_the_same_bytes(service: Service) -> None:
    clip = manifest()[2]
    answers = {
        ask(service, clip, itn=True, language="auto", timestamps="word").text.partition(',"request_id"')[0]
        for _ in range(10)
    }
    assert len(answers) == 1


def test_the_client_may_name_its_request(service: Service) -> None:
    with service.client() as client:
        assert client.get("/health", headers={"X-Request-Id": "job-17"}).headers["x-request-id"] == "job-17"
        answer = client.get("/health", headers={"X-Request-Id": "a b" * 50})
        assert len(answer.headers["x-request-id"]) == 32


def test_health_says_what_is_served(service: Service) -> None:
    with service.client() as client:
        body = client.get("/health").json()
    assert body["status"] == "healthy"
    assert body["model_loaded"] is True
    assert body["model_version"].startswith("sensevoice-nano-")


def test_a_request_leaves_one_log_line(service: Service) -> None:
    answer = ask(service, manifest()[0], itn=True, language="auto")

    def lines() -> list[dict[str, Any]]:
        own = answer.headers["x-request-id"]
        return [line for line in service.log_lines() if line.get("request_id") == own]

    wait_for("the line, which comes after the answer", lines)
    # Whatever else that worker would write of it stands before the line of a request that came later.
    later = ask(service, manifest()[0], itn=True, language="auto").headers["x-request-id"]
    wait_for("the line of another", lambda: f'"{later}"' in service.log())
    (line,) = lines()
    assert line["status"] == 200
    assert line["audio_seconds"] == pytest.approx(2.83, abs=0.01)
    assert line["bytes"] == (CLIPS / manifest()[0]["file"]).stat().st_size
    assert line["version"] == answer.headers["x-model-version"]
    for name in ("queue_ms", "decode_ms", "inference_ms", "total_ms"):
        assert line[name] >= 0


def test_process_titles_tell_master_from_worker(service: Service) -> None:
    assert service.master.cmdline()[0] == "gunicorn: master [asrsvc]"
    for worker in service.workers():
        assert worker.cmdline()[0].startswith("gunicorn: worker [asrsvc] sensevoice-nano-")
