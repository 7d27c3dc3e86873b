"""What is said of a job over HTTP, and its result in each format."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from starlette.responses import PlainTextResponse, Response

from asrsvc.jobs.types import Found, Job, Webhook
from asrsvc.speech.joining import whole
from asrsvc.speech.subtitles import to_srt, to_vtt
from asrsvc.web.answers import JsonResponse, json_text
from asrsvc.web.notices import REFUSE, TRANSCRIBE, headers, warning_bodies
from asrsvc.web.openai_answers import Writer
from asrsvc.web.openai_fields import Wishes
from asrsvc.web.transcriptions import answer

FORMATS: Final = ("json", "text", "srt", "vtt", "verbose_json")


def job_body(job: Job, keep_seconds: float) -> dict[str, Any]:
    """A job as the API tells it.

    Args:
        job: as it stands.
        keep_seconds: see `asrsvc.jobs.types.Limits`.
    """
    path = f"/api/jobs/{job.id}"
    body: dict[str, Any] = {
        "id": job.id,
        "status": job.state,
        "created": _moment(job.created),
        "started": _moment(job.started),
        "ended": _moment(job.ended),
        "expires": _moment(None if job.ended is None else job.ended + keep_seconds),
        "language": job.options.language,
        "use_itn": job.options.use_itn,
        "punctuation": job.options.punctuation,
        "incomplete": REFUSE if job.options.refuse_incomplete else TRANSCRIBE,
        "progress": {
            "audio_seconds": job.audio_seconds,
            "duration": None if job.duration is None else round(job.duration, 3),
            "segments": job.segments,
        },
        "model_versions": list(job.versions),
        "error": None if job.error is None else asdict(job.error),
        "webhook": None if job.webhook is None else _webhook(job.webhook),
        "links": {"self": path, "events": f"{path}/events", "result": f"{path}/result"},
    }
    if job.warnings:
        body["warnings"] = warning_bodies(job.warnings)
    return body


def event_body(job: Job, keep_seconds: float) -> bytes:
    """What a webhook is told of a job that has ended, as Standard Webhooks has it."""
    data = job_body(job, keep_seconds)
    del data["webhook"]  # how its delivery goes is not told
    event = {"type": f"job.{job.state}", "timestamp": _moment(job.ended), "data": data}
    return json_text(event).encode()


def _webhook(webhook: Webhook) -> dict[str, Any]:
    return {
        "url": webhook.url,
        "status": webhook.state,
        "attempts": webhook.attempts,
        "next": _moment(webhook.next),
        "error": webhook.error,
    }


def _moment(seconds: float | None) -> str | None:
    """UTC, ISO 8601."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def result_response(job: Job, found: list[Found], *, form: str, timestamps: str, request_id: str) -> Response:
    """The result of a job that has succeeded.

    Args:
        job: that has succeeded.
        found: all its segments.
        form: of `FORMATS`.
        timestamps: what `json` holds, as in a request for transcription.
        request_id: of this request.
    """
    segments = tuple(one.segment for one in found)
    transcript = whole(segments, job.duration or 0.0, job.warnings)
    said = headers(job.warnings)
    body: dict[str, Any]
    match form:
        case "text":
            return PlainTextResponse(transcript.text, headers=said)
        case "srt":
            return PlainTextResponse(to_srt(segments), headers=said)
        case "vtt":
            return PlainTextResponse(to_vtt(segments), media_type="text/vtt", headers=said)
        case "verbose_json":
            wishes = Wishes(job.options, form, frozenset({"segment", "word"}), logprobs=False, stream=False)
            body = {**Writer(wishes).verbose(transcript)}
        case _:
            body = {**answer(transcript, timestamps)}
    if len(job.versions) > 1:
        for segment, one in zip(body.get("segments", []), found, strict=False):
            segment["model_version"] = one.version
    body["model_version"] = found[-1].version if found else job.version
    body["model_versions"] = list(job.versions)
    body["job"] = job.id
    body["request_id"] = request_id
    return JsonResponse(body, headers=said)
