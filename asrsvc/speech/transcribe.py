"""The way of a request, on one screen: decode → segment → features → batch → engine → text."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from asrsvc.errors import Cancelled
from asrsvc.speech.decode import Limits, Recording
from asrsvc.speech.features import MIN_SAMPLES
from asrsvc.speech.ffmpeg import HelperPool
from asrsvc.speech.joining import whole
from asrsvc.speech.line import Inference, Line, Promise
from asrsvc.speech.model import Model
from asrsvc.speech.punctuation import without_punctuation
from asrsvc.speech.segment import Segmenter
from asrsvc.speech.silences import silences
from asrsvc.speech.text import NO_SPEECH, Reading, read
from asrsvc.speech.types import SAMPLE_RATE, FloatArray, Language, Notice, Segment, Span, Transcript, Waveform
from asrsvc.speech.words import edges, words

log = logging.getLogger(__name__)

_PROGRESS_EVERY_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """What a request may choose."""

    language: Language = "auto"
    use_itn: bool = True
    punctuation: bool = True
    """False: no punctuation; digits and capitals are as `use_itn` has them"""
    words: bool = False
    """whether segments carry words"""
    tokens: bool = False
    """whether segments carry tokens"""
    candidates: tuple[Language, ...] = ()
    """with the language `auto`: what may be spoken; none: any of the languages"""
    refuse_incomplete: bool = False
    """whether a recording of which parts are missing is an error, not a warning"""


@dataclass(slots=True)
class Progress:
    """Where a request stands; written by its thread, read by whoever reports on it."""

    audio_seconds: float = 0.0
    """seconds of the recording decoded so far"""
    decode_seconds: float = 0.0
    """time spent decoding and looking for speech"""
    inference_seconds: float = 0.0
    """time spent in the engine; spans that are run at the same time count each"""
    inference_cpu_seconds: float = 0.0
    """CPU time of that, of the threads that ask the engine"""
    spans: int = 0
    """spans recognised so far"""
    reached: int = 0
    """samples at 16 kHz from the start of the recording up to which all is recognised"""
    declared_seconds: float | None = None
    """length of the recording by its own header, which may be wrong; None: unknown"""
    client: Hashable = None
    """who asks: clients take turns in the engine"""
    is_long: bool = True
    """whether it takes turns with long ones; short ones have every other turn"""
    warnings: tuple[Notice, ...] = ()
    """about the recording; complete once all of it has been decoded"""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A span, its features, and the engine's promise; no promise where there is too little to hear."""

    span: Span
    features: FloatArray | None = None
    promise: Promise | None = None

    def done(self) -> bool:
        """Whether nothing is to be waited for."""
        return self.promise is None or self.promise.done()

    def cancel(self) -> bool:
        """Nobody wants it any more; False: nothing is saved by that."""
        return self.promise is not None and self.promise.cancel()


class Transcriber:
    """Everything one worker needs to turn files into words; used by several threads at once."""

    def __init__(
        self,
        model: Model,
        *,
        segmenter: Segmenter,
        helpers: HelperPool,
        limits: Limits,
        batcher: Line,
        queue_timeout: float,
        give_way: Callable[[], None] = lambda: None,
    ) -> None:
        """Put the parts together.

        Args:
            model: the version's files.
            segmenter: finds speech in long recordings.
            helpers: decode files.
            limits: of a recording.
            batcher: in front of the model's engine.
            queue_timeout: seconds that a span may wait for the engine.
            give_way: called before each block that is decoded and each span that is recognised; may wait.
        """
        self.model = model
        self._segmenter = segmenter
        self._helpers = helpers
        self._limits = limits
        self._batcher = batcher
        self._queue_timeout = queue_timeout
        self._give_way = give_way

    def segments(
        self,
        descriptor: int,
        options: Options,
        progress: Progress | None = None,
        cancelled: threading.Event | None = None,
    ) -> Generator[Segment, None, None]:
        """Transcribe a file, in order of time; arguments and errors are those of `hear`."""
        with contextlib.closing(self.hear(descriptor, options, progress, cancelled)) as heard:
            for segment in heard:
                if segment is not None:
                    yield segment

    def hear(
        self,
        descriptor: int,
        options: Options,
        progress: Progress | None = None,
        cancelled: threading.Event | None = None,
        *,
        resume_at: int = 0,
        keep_begun: bool = False,
    ) -> Generator[Segment | None, None, None]:
        """Transcribe a file span by span, in order of time: the segment of each, None if nothing is in it.

        Args:
            descriptor: of the file, open for reading and seekable.
            options: of the request.
            progress: kept up to date while the work goes on.
            cancelled: set by another thread to drop the rest.
            resume_at: the `reached` of an earlier run over the same file: what lies before is cut as it
                was then, and not recognised again.
            keep_begun: whether, once `cancelled` is set, what the engine has begun is still given.

        Raises:
            BadAudio: the file cannot be decoded.
            TooLarge: the recording is longer than the limit.
            InferenceFailed: the engine failed.
            NotReady: the engine was busy for too long.
            Cancelled: `cancelled` was set.
        """
        progress = progress if progress is not None else Progress()
        recording = Recording(
            descriptor, self._limits, self._helpers, refuse_incomplete=options.refuse_incomplete
        )
        with contextlib.closing(self._followed(recording, progress, cancelled)) as blocks:
            spans = self._segmenter.spans(blocks, self.model.max_span_seconds)
            progress.reached = resume_at
            rest = _after(spans, resume_at)
            yield from self._read(rest, options, progress, cancelled, keep_begun=keep_begun)

    def _read(
        self,
        spans: Iterator[Span],
        options: Options,
        progress: Progress,
        cancelled: threading.Event | None,
        *,
        keep_begun: bool,
    ) -> Iterator[Segment | None]:
        reported = time.monotonic()
        ahead: deque[_Asked] = deque()
        room = 0  # the first words come as soon as they can; from then on, all cores have work
        try:
            for asked in self._ask_all(spans, options, progress, cancelled):
                ahead.append(asked)
                while ahead and (len(ahead) > room or ahead[0].done()):
                    yield self._segment_of(ahead.popleft(), options, progress)
                    room = self._batcher.width
                if time.monotonic() - reported > _PROGRESS_EVERY_SECONDS:
                    reported = time.monotonic()
                    _report(asked.span, progress)
            while ahead:
                yield self._segment_of(ahead.popleft(), options, progress)
                _check(cancelled)
        except Cancelled:
            while keep_begun and ahead and not ahead[0].cancel():
                yield self._segment_of(ahead.popleft(), options, progress)
            raise
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
                yield _Asked(span)
                continue
            self._give_way()
            features = self.model.extractor.features(span.waveform.samples)
            promise = self._batcher.submit(
                features,
                options.language,
                use_itn=options.use_itn,
                timeout=self._queue_timeout,
                asker=(progress.is_long, progress.client, request),
            )
            yield _Asked(span, features, promise)

    def _segment_of(self, asked: _Asked, options: Options, progress: Progress) -> Segment | None:
        """The segment of a span, if there is anything in it; waits for the engine."""
        segment = None
        if asked.promise is not None and asked.features is not None:
            reading = self._read_out(asked.promise.result(), options, progress)
            progress.spans += 1
            if options.candidates and reading.language not in {*options.candidates, NO_SPEECH}:
                reading = self._likeliest(asked.features, options, progress)
            segment = self._segment(asked.span, reading, options)
        progress.reached = asked.span.waveform.end
        return segment if segment is not None and (segment.text or segment.events) else None

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
        return whole(found, progress.audio_seconds, progress.warnings)

    def _followed(
        self, recording: Recording, progress: Progress, cancelled: threading.Event | None
    ) -> Generator[FloatArray, None, None]:
        """The blocks of a recording: in silence, no span would come for a long time.

        Closed, it lets go of the helper process that may wait behind it.
        """
        for block in recording.blocks():
            progress.audio_seconds = recording.seconds
            progress.declared_seconds = recording.declared_seconds
            yield block
            _check(cancelled)
            self._give_way()
        progress.warnings = tuple(recording.warnings)

    def _read_out(self, inference: Inference, options: Options, progress: Progress) -> Reading:
        progress.inference_seconds += inference.seconds
        progress.inference_cpu_seconds += inference.cpu_seconds
        reading = read(inference.frames, self.model.vocabulary)
        return reading if options.punctuation else without_punctuation(reading)

    def _likeliest(self, features: FloatArray, options: Options, progress: Progress) -> Reading:
        """What is heard best when it is told that one of the candidates is spoken."""
        told = (self._told(features, language, options, progress) for language in options.candidates)
        return max(told, key=lambda reading: reading.confidence)

    def _told(
        self, features: FloatArray, language: Language, options: Options, progress: Progress
    ) -> Reading:
        """What is heard when it is told that this language is spoken; it may answer another one's tag."""
        timeout = self._queue_timeout
        inference = self._batcher.infer(features, language, use_itn=options.use_itn, timeout=timeout)
        reading = self._read_out(inference, options, progress)
        kept = reading.language in {*options.candidates, NO_SPEECH}
        return reading if kept else replace(reading, language=language)

    def _segment(self, span: Span, reading: Reading, options: Options) -> Segment:
        offset = span.waveform.offset / SAMPLE_RATE
        limit = span.waveform.end / SAMPLE_RATE
        whole_sound = span.end - span.start == len(span.waveform.samples)
        silent = silences(span.waveform.samples) if options.words or whole_sound else []
        heard = words(reading, offset, limit, silent) if options.words else ()
        start, end = span.start / SAMPLE_RATE, span.end / SAMPLE_RATE
        if reading.tokens and whole_sound:
            # Nobody looked for the edges of the speech in a span without margins: the tokens know.
            start, end = edges(reading, offset, limit, silent)
        return Segment(
            start=round(start, 3),
            end=round(end, 3),
            text=reading.text,
            language=reading.language,
            emotion=reading.emotion,
            events=reading.events,
            confidence=round(reading.confidence, 4),
            words=heard,
            tokens=reading.tokens if options.tokens else (),
            no_speech=round(reading.no_speech, 4),
            language_probabilities=tuple(
                replace(one, probability=round(one.probability, 4)) for one in reading.language_probabilities
            ),
        )


def _after(spans: Iterator[Span], sample: int) -> Iterator[Span]:
    """The spans behind a sample up to which all is done; one that it divides loses what lies before.

    The same model cuts a recording in the same places; one of longer spans may cut in others.
    """
    for span in spans:
        sound = span.waveform
        if sound.end <= sample:
            continue
        if sound.offset < sample:
            if span.end <= sample:
                continue
            rest = Waveform(sound.samples[sample - sound.offset :], sample)
            yield Span(rest, max(span.start, sample), span.end)
        else:
            yield span


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
