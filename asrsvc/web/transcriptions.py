"""`POST /api/transcribe`: an uploaded file in, its transcript out, whole or span by span."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, NotRequired, TypedDict, cast

from starlette.requests import Request
from starlette.responses import Response

from asrsvc.errors import BadRequest
from asrsvc.speech.transcribe import Options
from asrsvc.speech.types import LANGUAGES, Language, Segment, Transcript, probability_of
from asrsvc.web.answers import JsonResponse, by_language
from asrsvc.web.desk import Desk
from asrsvc.web.events import Event, stream
from asrsvc.web.fields import OTHER_NAMES, Field, parse
from asrsvc.web.form import Form
from asrsvc.web.notices import INCOMPLETE, WarningBody, headers, refuses, warning_bodies
from asrsvc.web.run import Moved, Step
from asrsvc.web.structured import is_absent
from asrsvc.web.url_field import URL

TIMESTAMPS: Final = ("none", "segment", "word")

FIELDS: Final = (
    Field(
        "language",
        f"what is spoken; auto finds it out for each span; {OTHER_NAMES}",
        kind="language",
        values=LANGUAGES,
        default="auto",
    ),
    Field(
        "use_itn",
        "true: punctuation, capitals and digits; false: the words as spoken",
        kind="boolean",
        default="true",
    ),
    Field(
        "punctuation",
        "false: none; digits and capitals stay as use_itn has them",
        kind="boolean",
        default="true",
    ),
    Field(
        "timestamps",
        "segment adds segments; word adds words to each segment",
        values=TIMESTAMPS,
        default="none",
    ),
    Field("stream", "true: server-sent events, each span as it is done", kind="boolean", default="false"),
    INCOMPLETE,
    URL,
)
"""that may stand beside `file`"""


class WordBody(TypedDict):
    """A word in an answer; see `asrsvc.speech.types.Word`."""

    word: str
    start: float
    end: float
    confidence: float


class SegmentBody(TypedDict):
    """A segment in an answer; see `asrsvc.speech.types.Segment`."""

    start: float
    end: float
    text: str
    language: str
    language_probability: float | None
    language_probabilities: dict[str, float]
    emotion: str
    events: list[str]
    confidence: float
    words: NotRequired[list[WordBody]]


class Answer(TypedDict):
    """The whole answer; see `asrsvc.speech.types.Transcript`."""

    text: str
    language: str
    language_probability: float | None
    language_probabilities: dict[str, float]
    emotion: str
    events: list[str]
    duration: float
    warnings: NotRequired[list[WarningBody]]
    segments: NotRequired[list[SegmentBody]]
    model_version: NotRequired[str]
    request_id: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Wishes:
    """The text fields of a request, checked."""

    options: Options
    timestamps: str
    stream: bool


def parse_fields(form: Form, *, refuse_incomplete: bool = False) -> Wishes:
    """Check the text fields.

    Args:
        form: of the request.
        refuse_incomplete: what is done with an incomplete recording where the request does not say.

    Raises:
        BadRequest: a value is not among those that the message lists.
    """
    found = parse(FIELDS, form)
    options = Options(
        language=cast("Language", found["language"]),
        use_itn=found["use_itn"],
        punctuation=found["punctuation"],
        words=found["timestamps"] == "word",
        refuse_incomplete=refuses(found, by_default=refuse_incomplete),
    )
    return Wishes(options, found["timestamps"], found["stream"])


@dataclass(frozen=True, slots=True)
class Transcriptions:
    """The endpoint."""

    desk: Desk
    refuse_incomplete: bool = False
    """what is done with an incomplete recording where the request does not say"""

    async def transcribe(self, request: Request) -> Response:
        """Answer one request."""
        form = await self.desk.read(request, FIELDS)
        try:
            _take_from_query(request, form)
            wishes = parse_fields(form, refuse_incomplete=self.refuse_incomplete)
            await self.desk.fetch(request, form)
            if wishes.stream:
                return await stream(self._events(request, form, wishes))
            transcript = await self.desk.transcribe(request, form, wishes.options)
        finally:
            form.close()
        return JsonResponse(self._answer(request, transcript, wishes), headers=headers(transcript.warnings))

    def _answer(self, request: Request, transcript: Transcript, wishes: Wishes) -> Answer:
        body = answer(transcript, wishes.timestamps)
        body["model_version"] = self.desk.version
        body["request_id"] = request.scope["state"]["request_id"]
        return body

    async def _events(self, request: Request, form: Form, wishes: Wishes) -> AsyncGenerator[Event, None]:
        async with aclosing(self.desk.follow(request, form, wishes.options)) as steps:
            async for step in steps:
                yield self._event(request, step, wishes)

    def _event(self, request: Request, step: Step, wishes: Wishes) -> dict[str, Any]:
        if isinstance(step, Moved):
            return {"type": "progress", "audio_seconds": step.audio_seconds, "duration": step.duration}
        if isinstance(step, Segment):
            return {"type": "segment", "segment": segment_body(step, words=wishes.options.words)}
        return {"type": "done", **self._answer(request, step, wishes)}


def _take_from_query(request: Request, form: Form) -> None:
    """`?stream=true` does what the field does, for clients whose form is made by something else."""
    given = [text for text in request.query_params.getlist("stream") if not is_absent(text)]
    if given and (len(given) > 1 or not is_absent(form.fields.get("stream", ""))):
        raise BadRequest("stream is given twice", param="stream")
    if given:
        form.fields["stream"] = given[0]


def answer(transcript: Transcript, timestamps: str) -> Answer:
    """The answer's keys that come from the transcript, in their documented order."""
    body: Answer = {
        "text": transcript.text,
        "language": transcript.language,
        "language_probability": probability_of(transcript.language, transcript.language_probabilities),
        "language_probabilities": by_language(transcript.language_probabilities),
        "emotion": transcript.emotion,
        "events": list(transcript.events),
        "duration": transcript.duration,
    }
    if transcript.warnings:
        body["warnings"] = warning_bodies(transcript.warnings)
    if timestamps != "none":
        body["segments"] = [segment_body(s, words=timestamps == "word") for s in transcript.segments]
    return body


def segment_body(segment: Segment, *, words: bool) -> SegmentBody:
    """A segment's keys, in their documented order."""
    body: SegmentBody = {
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "language": segment.language,
        "language_probability": probability_of(segment.language, segment.language_probabilities),
        "language_probabilities": by_language(segment.language_probabilities),
        "emotion": segment.emotion,
        "events": list(segment.events),
        "confidence": segment.confidence,
    }
    if words:
        body["words"] = [
            {"word": w.word, "start": w.start, "end": w.end, "confidence": w.confidence}
            for w in segment.words
        ]
    return body
