"""The way of a request, on one screen: decode → segment → features → batch → engine → text."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Final

from asrsvc.errors import Cancelled
from asrsvc.speech.batch import Batcher, Inference, Promise
from asrsvc.speech.decode import Limits, Recording
from asrsvc.speech.features import MIN_SAMPLES
from asrsvc.speech.ffmpeg import HelperPool
from asrsvc.speech.model import Model
from asrsvc.speech.segment import Segmenter
from asrsvc.speech.text import read
from asrsvc.speech.types import SAMPLE_RATE, FloatArray, Language, Segment, Span, Transcript
from asrsvc.speech.words import edges, words

log = logging.getLogger(__name__)

_PROGRESS_EVERY_SECONDS: Final = 5.0
# Between these languages a text is joined without spaces.
_WITHOUT_SPACES: Final = frozenset({"zh", "yue", "ja"})


@dataclass(frozen=True, slots=True)
class Options:
    """What a request may choose."""

    language: Language = "auto"
    use_itn: bool = True
    words: bool = False
    """whether segments carry words"""


@dataclass(slots=True)
class Progress:
    """Where a request stands; written by its thread, read by whoever reports on it."""

    audio_seconds: float = 0.0
    """seconds of the recording decoded so far"""
    decode_seconds: float = 0.0
    """time spent decoding and looking for speech"""
    inference_seconds: float = 0.0
    """time spent in the engine; spans that are run at the same time count each"""
    spans: int = 0
    """spans recognised so far"""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A span, and the engine's promise; none where there is too little to hear."""

    span: Span
    promise: Promise | None

    def done(self) -> bool:
        """Whether nothing is to be waited for."""
        return self.promise is None or self.promise.done()

    def cancel(self) -> None:
        """Nobody wants it any more."""
        if self.promise is not None:
            self.promise.cancel()


class Transcriber:
    """Everything one worker needs to turn files into words; used by several threads at once."""

    def __init__(
        self,
        model: Model,
        *,
        segmenter: Segmenter,
        helpers: HelperPool,
        limits: Limits,
        batcher: Batcher,
        queue_timeout: float,
    ) -> None:
        """Put the parts together.

        Args:
            model: the version's files.
            segmenter: finds speech in long recordings.
            helpers: decode what libsndfile cannot.
            limits: of a recording.
            batcher: in front of the model's engine.
            queue_timeout: seconds that a span may wait for the engine.
        """
        self.model = model
        self._segmenter = segmenter
        self._helpers = helpers
        self._limits = limits
        self._batcher = batcher
        self._queue_timeout = queue_timeout

    def segments(
        self,
        descriptor: int,
        options: Options,
        progress: Progress | None = None,
        cancelled: threading.Event | None = None,
    ) -> Iterator[Segment]:
        """Transcribe a file span by span, in order of time.

        Args:
            descriptor: of the file, open for reading and seekable.
            options: of the request.
            progress: kept up to date while the work goes on.
            cancelled: set by another thread to drop the rest.

        Raises:
            BadAudio: the file cannot be decoded.
            TooLarge: the recording is longer than the limit.
            InferenceFailed: the engine failed.
            NotReady: the engine was busy for too long.
            Cancelled: `cancelled` was set.
        """
        progress = progress if progress is not None else Progress()
        recording = Recording(descriptor, self._limits, self._helpers)
        with contextlib.closing(_followed(recording, progress, cancelled)) as blocks:
            spans = self._segmenter.spans(blocks, self.model.max_span_seconds)
            yield from self._read(spans, options, progress, cancelled)

    def _read(
        self,
        spans: Iterator[Span],
        options: Options,
        progress: Progress,
        cancelled: threading.Event | None,
    ) -> Iterator[Segment]:
        reported = time.monotonic()
        ahead: deque[_Asked] = deque()
        try:
            for asked in self._ask_all(spans, options, progress, cancelled):
                ahead.append(asked)
                while ahead and (len(ahead) > self._batcher.width or ahead[0].done()):
                    yield from self._hear(ahead.popleft(), options, progress)
                if time.monotonic() - reported > _PROGRESS_EVERY_SECONDS:
                    reported = time.monotonic()
                    _report(asked.span, progress)
            while ahead:
                yield from self._hear(ahead.popleft(), options, progress)
                _check(cancelled)
        finally:
            for asked in ahead:
                asked.cancel()

    def _ask_all(
        self,
        spans: Iterator[Span],
        options: Options,
        progress: Progress,
        cancelled: threading.Event | None,
    ) -> Iterator[_Asked]:
        """Each span with what the engine will say of it: one is looked for while others are run."""
        request = object()
        while True:
            started = time.monotonic()
            span = next(spans, None)
            progress.decode_seconds += time.monotonic() - started
            _check(cancelled)
            if span is None:
                return
            if len(span.waveform.samples) < MIN_SAMPLES:
                yield _Asked(span, None)
                continue
            features = self.model.extractor.features(span.waveform.samples)
            promise = self._batcher.submit(
                features,
                options.language,
                use_itn=options.use_itn,
                timeout=self._queue_timeout,
                asker=request,
            )
            yield _Asked(span, promise)

    def _hear(self, asked: _Asked, options: Options, progress: Progress) -> Iterator[Segment]:
        """The segment of a span, if there is anything in it; waits for the engine."""
        if asked.promise is None:
            return
        inference = asked.promise.result()
        progress.inference_seconds += inference.seconds
        progress.spans += 1
        segment = self._segment(asked.span, inference, options)
        if segment.text or segment.events:
            yield segment

    def transcribe(
        self,
        descriptor: int,
        options: Options,
        progress: Progress | None = None,
        cancelled: threading.Event | None = None,
    ) -> Transcript:
        """Transcribe a whole file; arguments and errors are those of `segments`."""
        progress = progress if progress is not None else Progress()
        found = tuple(self.segments(descriptor, options, progress, cancelled))
        return Transcript(
            text=join_texts(found),
            language=_majority(found, lambda s: s.language, "nospeech"),
            emotion=_majority(found, lambda s: s.emotion, "unknown"),
            events=tuple(dict.fromkeys(event for s in found for event in s.events)),
            duration=round(progress.audio_seconds, 3),
            segments=found,
        )

    def _segment(self, span: Span, inference: Inference, options: Options) -> Segment:
        offset = span.waveform.offset / SAMPLE_RATE
        limit = span.waveform.end / SAMPLE_RATE
        reading = read(inference.frames, self.model.vocabulary)
        heard = words(reading, offset, limit) if options.words else ()
        start, end = span.start / SAMPLE_RATE, span.end / SAMPLE_RATE
        if reading.tokens and span.end - span.start == len(span.waveform.samples):
            # Nobody looked for the edges of the speech in a span without margins: the tokens know.
            start, end = edges(reading, offset, limit)
        return Segment(
            start=round(start, 3),
            end=round(end, 3),
            text=reading.text,
            language=reading.language,
            emotion=reading.emotion,
            events=reading.events,
            confidence=round(reading.confidence, 4),
            words=heard,
        )


def _followed(
    recording: Recording, progress: Progress, cancelled: threading.Event | None
) -> Generator[FloatArray, None, None]:
    """The blocks of a recording: in silence, no span would come for a long time.

    Closed, it lets go of the helper process that may wait behind it.
    """
    for block in recording.blocks():
        progress.audio_seconds = recording.seconds
        yield block
        _check(cancelled)


def _check(cancelled: threading.Event | None) -> None:
    if cancelled is not None and cancelled.is_set():
        raise Cancelled("the client has gone")


def _report(span: Span, progress: Progress) -> None:
    log.info(
        "at %.0f s of the recording, %d spans",
        span.end / SAMPLE_RATE,
        progress.spans,
        extra={"audio_seconds": round(span.end / SAMPLE_RATE, 1), "spans": progress.spans},
    )


def join_texts(segments: tuple[Segment, ...]) -> str:
    """The texts of all segments, with a space between two unless both are written without spaces."""
    text = ""
    before = ""
    for segment in segments:
        if not segment.text:
            continue
        close = before in _WITHOUT_SPACES and segment.language in _WITHOUT_SPACES
        text += segment.text if not text or close else " " + segment.text
        before = segment.language
    return text


def _majority(segments: tuple[Segment, ...], value: Callable[[Segment], str], default: str) -> str:
    """The value that most of the speaking time has; segments without text count only if all are."""
    spoken = [s for s in segments if s.text] or list(segments)
    seconds: dict[str, float] = {}
    for segment in spoken:
        seconds[value(segment)] = seconds.get(value(segment), 0.0) + segment.end - segment.start
    return max(seconds, key=lambda name: seconds[name], default=default)
