"""The answers of OpenAI's transcription contract, made from a transcript."""

from __future__ import annotations

import math
import zlib
from typing import Literal, NotRequired, TypedDict

from asrsvc.speech.joining import Joiner
from asrsvc.speech.types import Segment, Transcript, probability_of
from asrsvc.web.answers import by_language
from asrsvc.web.notices import WarningBody, warning_bodies
from asrsvc.web.openai_fields import Wishes


class LanguageBody(TypedDict):
    """A language that was heard."""

    code: str


class Logprob(TypedDict):
    """How sure a token is."""

    token: str
    bytes: list[int]
    logprob: float


class Usage(TypedDict):
    """What was worked on."""

    type: Literal["duration"]
    seconds: float


class Json(TypedDict):
    """response_format json; `warnings` is not OpenAI's."""

    text: str
    languages: list[LanguageBody]
    logprobs: NotRequired[list[Logprob]]
    usage: Usage
    warnings: NotRequired[list[WarningBody]]


class Word(TypedDict):
    """A word; `confidence` is not OpenAI's."""

    word: str
    start: float
    end: float
    confidence: float


class VerboseSegment(TypedDict):
    """A segment; the last six keys are not OpenAI's."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    language: str
    language_probability: float | None
    language_probabilities: dict[str, float]
    emotion: str
    events: list[str]
    confidence: float


class Verbose(TypedDict):
    """response_format verbose_json; the probabilities and `warnings` are not OpenAI's."""

    task: Literal["transcribe"]
    language: str
    language_probability: float | None
    language_probabilities: dict[str, float]
    duration: float
    text: str
    segments: NotRequired[list[VerboseSegment]]
    words: NotRequired[list[Word]]
    logprobs: NotRequired[list[Logprob]]
    usage: Usage
    warnings: NotRequired[list[WarningBody]]


class Delta(TypedDict):
    """Event of a stream: what a span adds to the text."""

    type: Literal["transcript.text.delta"]
    delta: str
    logprobs: NotRequired[list[Logprob]]


class SegmentEvent(TypedDict):
    """Event of a stream with verbose_json: a span's segment; the last keys are not OpenAI's."""

    type: Literal["transcript.text.segment"]
    id: str
    start: float
    end: float
    text: str
    language: str
    language_probability: float | None
    language_probabilities: dict[str, float]
    emotion: str
    events: list[str]
    confidence: float
    words: NotRequired[list[Word]]


class Done(TypedDict):
    """Event at the end of a stream; `duration` and `warnings` are not OpenAI's."""

    type: Literal["transcript.text.done"]
    text: str
    languages: list[LanguageBody]
    logprobs: NotRequired[list[Logprob]]
    duration: float
    warnings: NotRequired[list[WarningBody]]


class Writer:
    """Writes one request's segments, in order; what it writes joins to the text of the whole."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._joiner = Joiner()
        self._count = 0
        self._logprobs: list[Logprob] = []

    def events(self, segment: Segment) -> list[Delta | SegmentEvent]:
        """What a stream says of a segment."""
        number, self._count = self._count, self._count + 1
        added = self._joiner.add(segment)
        found: list[Delta | SegmentEvent] = []
        if added:
            delta: Delta = {"type": "transcript.text.delta", "delta": added}
            if self._wishes.logprobs:
                delta["logprobs"] = logprobs(segment, added)
                self._logprobs += delta["logprobs"]
            found.append(delta)
        if self._wishes.format == "verbose_json":
            event: SegmentEvent = {
                "type": "transcript.text.segment",
                "id": f"seg_{number}",
                "start": segment.start,
                "end": segment.end,
                "text": added,
                "language": segment.language,
                "language_probability": probability_of(segment.language, segment.language_probabilities),
                "language_probabilities": by_language(segment.language_probabilities),
                "emotion": segment.emotion,
                "events": list(segment.events),
                "confidence": segment.confidence,
            }
            if "word" in self._wishes.granularities:
                event["words"] = _words(segment)
            found.append(event)
        return found

    def done(self, transcript: Transcript) -> Done:
        """The end of a stream whose segments have been written."""
        event: Done = {
            "type": "transcript.text.done",
            "text": transcript.text,
            "languages": languages(transcript),
            "duration": transcript.duration,
        }
        if self._wishes.logprobs:
            event["logprobs"] = self._logprobs
        if transcript.warnings:
            event["warnings"] = warning_bodies(transcript.warnings)
        return event

    def json(self, transcript: Transcript) -> Json:
        """The whole answer in response_format json."""
        body: Json = {
            "text": transcript.text,
            "languages": languages(transcript),
            "usage": {"type": "duration", "seconds": transcript.duration},
        }
        if self._wishes.logprobs:
            body["logprobs"] = [
                row for segment in transcript.segments for row in logprobs(segment, self._joiner.add(segment))
            ]
        if transcript.warnings:
            body["warnings"] = warning_bodies(transcript.warnings)
        return body

    def verbose(self, transcript: Transcript) -> Verbose:
        """The whole answer in response_format verbose_json."""
        body: Verbose = {
            "task": "transcribe",
            "language": transcript.language,
            "language_probability": probability_of(transcript.language, transcript.language_probabilities),
            "language_probabilities": by_language(transcript.language_probabilities),
            "duration": transcript.duration,
            "text": transcript.text,
            "usage": {"type": "duration", "seconds": transcript.duration},
        }
        added = [self._joiner.add(segment) for segment in transcript.segments]
        pairs = list(zip(transcript.segments, added, strict=True))
        if "segment" in self._wishes.granularities:
            body["segments"] = [
                _verbose_segment(number, segment, text) for number, (segment, text) in enumerate(pairs)
            ]
        if "word" in self._wishes.granularities:
            body["words"] = [word for segment in transcript.segments for word in _words(segment)]
        if self._wishes.logprobs:
            body["logprobs"] = [row for segment, text in pairs for row in logprobs(segment, text)]
        if transcript.warnings:
            body["warnings"] = warning_bodies(transcript.warnings)
        return body


def languages(transcript: Transcript) -> list[LanguageBody]:
    """The languages that were heard, in the order in which they were."""
    return [{"code": code} for code in dict.fromkeys(s.language for s in transcript.segments if s.text)]


def logprobs(segment: Segment, added: str) -> list[Logprob]:
    """How sure each token is; the tokens joined are what the segment adds to the text."""
    rows: list[Logprob] = []
    for token in segment.tokens:
        text = segment.text[token.begin : token.stop]
        if not rows:
            text = added[: len(added) - len(segment.text)] + text
        rows.append({"token": text, "bytes": list(text.encode()), "logprob": _log(token.confidence)})
    return rows


def _verbose_segment(number: int, segment: Segment, added: str) -> VerboseSegment:
    sure = [_log(token.confidence) for token in segment.tokens]
    return {
        "id": number,
        "seek": round(segment.start * 100),  # Whisper's frames of 10 ms
        "start": segment.start,
        "end": segment.end,
        "text": added,
        "tokens": [token.id for token in segment.tokens],
        "temperature": 0.0,
        "avg_logprob": round(sum(sure) / len(sure), 4) if sure else 0.0,
        "compression_ratio": _compression_ratio(segment.text),
        "no_speech_prob": segment.no_speech,
        "language": segment.language,
        "language_probability": probability_of(segment.language, segment.language_probabilities),
        "language_probabilities": by_language(segment.language_probabilities),
        "emotion": segment.emotion,
        "events": list(segment.events),
        "confidence": segment.confidence,
    }


def _words(segment: Segment) -> list[Word]:
    return [
        {"word": w.word, "start": w.start, "end": w.end, "confidence": w.confidence} for w in segment.words
    ]


def _log(probability: float) -> float:
    return round(math.log(min(max(probability, 1e-9), 1.0)), 4) + 0.0


def _compression_ratio(text: str) -> float:
    """How repetitive a text is, as Whisper reckons it (`whisper.utils.compression_ratio`)."""
    content = text.encode()
    return round(len(content) / len(zlib.compress(content)), 4)
