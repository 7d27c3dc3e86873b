"""Where a recording is cut: long waveform → spans of speech.

The detector (`asrsvc.speech.vad`) scores frames of 32 ms. Speech begins at a score of 0.5 and lasts
while the score stays above 0.35 (Silero's own defaults); a long enough pause ends the span.

SenseVoice hears one frame every 60 ms, and what a small model makes of a sentence depends on where
the sentence begins within those 60 ms: of the test clips, which the embedded model gets right as
they are, it got three in ten wrong when they were cut out anywhere between 0 and 0.44 s before their
speech. So a span begins a fixed time before the first sound of its speech, which is found to the
sample: the same words give the same text wherever they stand in a recording. Cut like that, all
780 clips of an hour of them (0.5 to 3 s of silence between two) gave their text, with and without ITN.
"""

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
"""seconds; spans can't be limited to less"""

_BATCH: Final = 128 * FRAME  # samples that the detector is given at once: 4.1 s
_ON: Final = 0.5
_OFF: Final = 0.35
_FEWEST: Final = 3  # frames; fewer at or above _ON are a click, not speech

# A model of short utterances is given utterances, which half a second of silence tells apart. One of
# long spans is given whole sentences: the pauses inside 72 synthetic ones were 0.64 s at most.
_UTTERANCES: Final = 12 * SAMPLE_RATE  # a model whose spans are no longer is of the first kind
_SHORT_PAUSE: Final = 12  # frames: 0.38 s
_LONG_PAUSE: Final = 22  # frames: 0.70 s

# Sound around the speech. The detector lets go 0.06 s late as a rule, so that there is about as much
# behind as in front. FunASR's own segmenter takes 0.2 and 0.1 s (`lookback_time_start_point`,
# `lookahead_time_end_point` of FSMN-VAD's config.yaml).
_LEAD: Final = 2400  # samples: 0.15 s
_TRAIL: Final = 3  # frames: 0.10 s
_STEP: Final = 960  # samples from one frame that SenseVoice hears to the next: 60 ms (LFR)

# The first sound is looked for in these frames around the detector's start; it is what rises above
# both -42 dB of the speech's peak and six times the quietest 20 ms (RMS) in front of it.
_BEFORE: Final = 6
_AFTER: Final = 4
_AUDIBLE: Final = 0.008
_OVER_NOISE: Final = 6
_QUIET: Final = 320  # samples


@dataclass(frozen=True, slots=True)
class _Cut:
    """Speech that makes a span, in frames."""

    free: int
    """what is in front of this frame belongs to the span before"""
    start: int
    end: int
    right: int
    """the recogniser hears nothing from this frame on; right >= end"""


class Segmenter:
    """Cuts recordings. Built once per process and shared by its threads: a request changes nothing in it."""

    def __init__(self) -> None:
        self._detector = SileroVad()

    def spans(self, blocks: Iterable[FloatArray], max_span_seconds: float) -> Iterator[Span]:
        """Speech of one recording: in order, without overlap, no span longer than `max_span_seconds`.

        `blocks` are its consecutive samples: 16 kHz, mono, float32, finite, each of shape (any,).
        They are taken as they are needed: what is held is two spans and twenty seconds at most. A
        recording that fits into one span is that span, whatever is in it; a longer one has a span
        for each utterance, and none if there is nothing but silence. The same samples give the same
        spans, however they are cut into blocks.
        """
        if not max_span_seconds >= SHORTEST_SPAN:
            raise ValueError(f"max_span_seconds is {max_span_seconds:g}, below {SHORTEST_SPAN:g}")
        longest = int(max_span_seconds * SAMPLE_RATE)
        batches = _regroup(blocks)
        first: list[FloatArray] = []
        while sum(map(len, first)) <= longest:
            batch = next(batches, None)
            if batch is None:
                if first:
                    whole = np.concatenate(first)
                    yield Span(Waveform(whole), 0, len(whole))
                return
            first.append(batch)
        yield from self._cut(chain(first, batches), longest)

    def _cut(self, batches: Iterator[FloatArray], longest: int) -> Iterator[Span]:
        tape = _Tape()
        cutter = _Cutter(longest)
        for scores in self._detector.listen(tape.record(batches)):
            levels = _levels(tape.newest)
            for score, level in zip(scores.tolist(), levels.tolist(), strict=True):
                cut = cutter.frame(score, level)
                if cut is not None:
                    yield _span(cut, tape)
            tape.forget(cutter.needed * FRAME)
        cut = cutter.finish()
        if cut is not None:
            yield _span(cut, tape)


class _Tape:
    """The samples that a span may still need."""

    def __init__(self) -> None:
        self._batches: deque[Waveform] = deque()
        self.end = 0
        """samples recorded so far"""

    def record(self, batches: Iterable[FloatArray]) -> Iterator[FloatArray]:
        """Pass batches on and keep them."""
        for batch in batches:
            self._batches.append(Waveform(batch, self.end))
            self.end += len(batch)
            yield batch

    @property
    def newest(self) -> FloatArray:
        """The batch that was recorded last."""
        return self._batches[-1].samples

    def forget(self, before: int) -> None:
        """Let go of the batches that end before this sample."""
        while self._batches and self._batches[0].end <= before:
            self._batches.popleft()

    def sound(self, start: int, end: int) -> FloatArray:
        """Samples [start, end) of the recording; a copy."""
        parts = [
            batch.samples[max(0, start - batch.offset) : max(0, end - batch.offset)]
            for batch in self._batches
        ]
        return np.concatenate(parts)


class _Cutter:
    """Frames in, cuts out."""

    def __init__(self, longest: int) -> None:
        self._pause = _SHORT_PAUSE if longest <= _UTTERANCES else _LONG_PAUSE
        self._lead = _BEFORE + -(-_LEAD // FRAME)  # frames in front of the start that a span may hold
        self._room = longest // FRAME - self._lead - _TRAIL  # frames of speech that fit a span
        self._at = 0  # the frame that comes next
        self._free = 0  # the first frame that no span holds
        self._begin: int | None = None  # where the speech that goes on began
        self._last = 0  # the frame behind the last one of speech
        self._scores: list[float] = []  # of the frames since _begin
        self._levels: list[float] = []

    @property
    def needed(self) -> int:
        """The first frame that a later span may hold."""
        begin = self._at if self._begin is None else self._begin
        return max(self._free, begin - self._lead)

    def frame(self, score: float, level: float) -> _Cut | None:
        """Take the next frame: its probability of speech and its level in dB."""
        if self._begin is None and score >= _ON:
            self._begin = self._at
        self._at += 1
        if self._begin is None:
            return None
        self._scores.append(score)
        self._levels.append(level)
        if score >= _OFF:
            self._last = self._at
        if self._at - self._last >= self._pause:
            return self._close(self._begin, self._last, self._last + _TRAIL, None)
        if self._at - self._begin >= self._room:
            return self._divide(self._begin)
        return None

    def finish(self) -> _Cut | None:
        """The recording has ended."""
        if self._begin is None:
            return None
        return self._close(self._begin, self._last, min(self._last + _TRAIL, self._at), None)

    def _divide(self, begin: int) -> _Cut | None:
        """Speech fills a span: cut in its second half, at the longest silence, else where it is quietest."""
        half = len(self._scores) // 2
        scores = np.array(self._scores[half:])
        edges = np.diff(np.concatenate([[0], scores < _OFF, [0]]).astype(np.int8))
        starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        if len(starts):
            longest = int(np.argmax(ends - starts))
            start, end = begin + half + int(starts[longest]), begin + half + int(ends[longest])
            right = min(start + _TRAIL, (start + end) // 2)
            return self._close(begin, start, right, end if end < self._at else None)
        # Running speech scores near 1 throughout, so that the level decides: 20 dB count as much
        # as the step from speech to silence. A cut lies between two frames, and both count.
        costs = np.array(self._levels[half:]) / 20 + scores
        place = begin + half + 1 + int(np.argmin(costs[:-1] + costs[1:]))
        return self._close(begin, place, place, place)

    def _close(self, begin: int, end: int, right: int, resume: int | None) -> _Cut | None:
        """Speech [begin, end) is a span; it goes on at `resume`, if at all."""
        spoken = sum(score >= _ON for score in self._scores[: end - begin])
        left_over = len(self._scores) if resume is None else resume - begin
        del self._scores[:left_over], self._levels[:left_over]
        self._begin = resume
        if spoken < _FEWEST:
            return None
        free, self._free = self._free, right
        return _Cut(free, begin, end, right)


def _span(cut: _Cut, tape: _Tape) -> Span:
    """The sound of a cut, beginning a fixed time before the first sound of its speech."""
    free, start = cut.free * FRAME, cut.start * FRAME
    end, right = min(cut.end * FRAME, tape.end), min(cut.right * FRAME, tape.end)
    if start > free:  # else the speech goes on from the span before, or the recording begins with it
        start = _onset(tape, max(free, start - _BEFORE * FRAME), start, end)
    left = start - _LEAD
    if left < free:  # too little silence: whole steps less, so that the recogniser's frames lie alike
        left += -(-(free - left) // _STEP) * _STEP
        left = left if left <= start else free
    return Span(Waveform(tape.sound(left, right), left), start, end)


def _onset(tape: _Tape, earliest: int, start: int, end: int) -> int:
    """The sample at which speech that the detector saw in [start, end) begins to be heard."""
    sound = np.abs(tape.sound(earliest, min(end, start + _AFTER * FRAME)))
    peak = float(np.abs(tape.sound(start, end)).max())
    stretches = sound[: len(sound) // _QUIET * _QUIET].reshape(-1, _QUIET)
    noise = float(np.sqrt(np.square(stretches).mean(axis=1).min()))
    heard = sound > max(_AUDIBLE * peak, _OVER_NOISE * noise)
    return earliest + int(heard.argmax()) if heard.any() else start


def _regroup(blocks: Iterable[FloatArray]) -> Iterator[FloatArray]:
    """The same samples in batches of one length, the last one shorter; copies."""
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
    """Mean power of each frame in dB, no less than -100; the last frame may be incomplete."""
    count = -(-len(samples) // FRAME)
    padded = np.pad(samples, (0, count * FRAME - len(samples)))
    power = np.square(padded.reshape(count, FRAME)).mean(axis=1)
    return np.asarray(10 * np.log10(power + 1e-10), np.float32)
