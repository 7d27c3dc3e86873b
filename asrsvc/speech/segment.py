"""Where a recording is cut: long waveform → spans of speech."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np

from asrsvc.speech.types import SAMPLE_RATE, FloatArray, Span, Waveform
from asrsvc.speech.vad import FRAME, SileroVad

SHORTEST_SPAN: Final = 1.0
"""seconds; a lower limit on the length of spans makes no sense"""

_BATCH: Final = 256 * FRAME  # samples that the detector is given at once: 8.2 s
_ON: Final = 0.5  # speech begins at this probability, Silero's own default
_OFF: Final = 0.35  # and goes on above this one
_UTTERANCE_SPAN: Final = 12.0  # seconds; a model whose spans are no longer is given utterances
_UTTERANCE_PAUSE: Final = 12  # frames of silence that end a span then: 0.38 s
_PAUSE: Final = 22  # frames of silence that end a span otherwise: 0.70 s
_MARGIN: Final = 6  # frames of sound before and behind speech, or half of the silence: 0.19 s
_FEWEST: Final = 3  # frames; less above _ON is a click, not speech


@dataclass(frozen=True, slots=True)
class _Cut:
    """A span in frames: the recogniser hears [left, right), speech is [start, end)."""

    left: int
    start: int
    end: int
    right: int


class Segmenter:
    """Cuts recordings; built once per process, and shared by its threads: it has no state."""

    def __init__(self) -> None:
        self._detector = SileroVad()

    def spans(self, blocks: Iterable[FloatArray], max_span_seconds: float) -> Iterator[Span]:
        """Speech of one recording, in order, without overlap, none longer than `max_span_seconds`.

        `blocks` are its consecutive samples: 16 kHz, mono, float32, each of shape (any,). They are
        taken as they are needed; what is held at a time is one span and a few seconds. A recording
        that fits into one span is that span, whatever is in it; one of silence alone has none.
        The same samples give the same spans, however they are cut into blocks.
        """
        if max_span_seconds < SHORTEST_SPAN:
            raise ValueError(f"max_span_seconds is {max_span_seconds:g}, below {SHORTEST_SPAN:g}")
        longest = int(max_span_seconds * SAMPLE_RATE)
        batches = _regroup(blocks)
        first: list[FloatArray] = []
        while sum(map(len, first)) <= longest:
            batch = next(batches, None)
            if batch is None:
                break
            first.append(batch)
        else:
            yield from self._cut(chain(first, batches), longest)
            return
        if first:
            samples = np.concatenate(first)
            yield Span(Waveform(samples), 0, len(samples))

    def _cut(self, batches: Iterator[FloatArray], longest: int) -> Iterator[Span]:
        tape = _Tape()
        cutter = _Cutter(longest)
        for scores in self._detector.listen(tape.record(batches)):
            levels = _levels(tape.newest)
            for score, level in zip(scores.tolist(), levels.tolist(), strict=True):
                cut = cutter.frame(score, level)
                if cut is not None:
                    yield tape.span(cut)
            tape.forget(cutter.needed * FRAME)
        cut = cutter.finish()
        if cut is not None:
            yield tape.span(cut)


class _Tape:
    """The samples that may still be needed."""

    def __init__(self) -> None:
        self._batches: deque[Waveform] = deque()
        self._end = 0

    def record(self, batches: Iterable[FloatArray]) -> Iterator[FloatArray]:
        """Pass batches on and keep them."""
        for batch in batches:
            self._batches.append(Waveform(batch, self._end))
            self._end += len(batch)
            yield batch

    @property
    def newest(self) -> FloatArray:
        """The batch that was recorded last."""
        return self._batches[-1].samples

    def forget(self, before: int) -> None:
        """Let go of batches that end before this sample."""
        while self._batches and self._batches[0].end <= before:
            self._batches.popleft()

    def span(self, cut: _Cut) -> Span:
        """The sound of a cut; what lies behind the recording's end is left off."""
        left, start, end, right = (
            min(frame * FRAME, self._end) for frame in (cut.left, cut.start, cut.end, cut.right)
        )
        parts = [
            piece.samples[max(0, left - piece.offset) : max(0, right - piece.offset)]
            for piece in self._batches
        ]
        return Span(Waveform(np.concatenate(parts), left), start, end)


class _Cutter:
    """Frames in, cuts out: hysteresis, pauses, margins and the longest span."""

    def __init__(self, longest: int) -> None:
        utterances = longest <= _UTTERANCE_SPAN * SAMPLE_RATE
        self._pause = _UTTERANCE_PAUSE if utterances else _PAUSE
        self._room = longest // FRAME - 2 * _MARGIN  # frames of speech that fit a span
        self._at = 0  # the frame that comes next
        self._free = 0  # the first frame that is in no span yet
        self._begin: int | None = None  # where the speech that goes on began
        self._last = 0  # the frame behind the last one of speech
        self._scores: list[float] = []  # of the frames since _begin
        self._levels: list[float] = []

    @property
    def needed(self) -> int:
        """The first frame that a later cut may hold."""
        begin = self._at if self._begin is None else self._begin
        return max(self._free, begin - _MARGIN)

    def frame(self, score: float, level: float) -> _Cut | None:
        """Take the next frame: probability of speech, and level in dB."""
        at = self._at
        self._at += 1
        if self._begin is None:
            if score < _ON:
                return None
            self._begin = at
        self._scores.append(score)
        self._levels.append(level)
        if score >= _OFF:
            self._last = at + 1
        if self._at - self._last >= self._pause:
            return self._close(self._last, self._last + _MARGIN, None)
        if self._at - self._begin >= self._room:
            return self._divide()
        return None

    def finish(self) -> _Cut | None:
        """The recording has ended."""
        if self._begin is None:
            return None
        return self._close(self._last, min(self._last + _MARGIN, self._at), None)

    def _divide(self) -> _Cut | None:
        """Speech fills the span: cut in its second half, at the longest silence or the quietest place."""
        assert self._begin is not None
        half = len(self._scores) // 2
        scores = np.array(self._scores[half:])
        edges = np.diff(np.concatenate([[0], scores < _OFF, [0]]).astype(np.int8))
        starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        offset = self._begin + half
        if len(starts):
            widest = int(np.argmax(ends - starts))
            start, end = offset + int(starts[widest]), offset + int(ends[widest])
            margin = min(_MARGIN, (end - start) // 2)
            return self._close(start, start + margin, end if end < self._at else None)
        # Running speech scores near 1 throughout, so that the level decides; 20 dB weigh as much
        # as the step from speech to silence.
        cost = np.array(self._levels[half:]) / 20 + scores
        place = offset + 1 + int(np.argmin(cost[:-1] + cost[1:]))
        return self._close(place, place, place)

    def _close(self, end: int, right: int, resume: int | None) -> _Cut | None:
        """End the span; speech goes on at `resume`, if at all."""
        assert self._begin is not None
        begin = self._begin
        spoken = sum(score >= _ON for score in self._scores[: end - begin])
        left = max(self._free, begin - _MARGIN)
        kept = 0 if resume is None else self._at - resume
        self._scores = self._scores[len(self._scores) - kept :]
        self._levels = self._levels[len(self._levels) - kept :]
        self._begin = resume
        if spoken < _FEWEST and begin != self._free:
            return None
        self._free = right
        return _Cut(left, begin, end, right)


def _regroup(blocks: Iterable[FloatArray]) -> Iterator[FloatArray]:
    """The same samples in batches of equal length, the last one shorter; copies."""
    batch = np.empty(_BATCH, np.float32)
    filled = 0
    for block in blocks:
        taken = 0
        while taken < len(block):
            part = block[taken : taken + _BATCH - filled]
            batch[filled : filled + len(part)] = part
            filled += len(part)
            taken += len(part)
            if filled == _BATCH:
                yield batch
                batch = np.empty(_BATCH, np.float32)
                filled = 0
    if filled:
        yield batch[:filled]


def _levels(samples: FloatArray) -> FloatArray:
    """Mean power of each frame in dB, at least -100; the last frame may be incomplete."""
    count = -(-len(samples) // FRAME)
    padded = np.pad(samples, (0, count * FRAME - len(samples)))
    power = np.square(padded.reshape(count, FRAME)).mean(axis=1)
    return np.asarray(10 * np.log10(power + 1e-10), np.float32)
