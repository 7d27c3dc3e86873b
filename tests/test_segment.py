"""Where recordings are cut: properties that hold for any recording, and real clips in known places."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asrsvc.speech.segment import Segmenter

RATE = 16_000
BATCH = 65_536  # samples that are taken at a time: what a span may be late by, beside its own length
CLIPS = Path(__file__).parent / "data" / "clips"

FloatArray = NDArray[np.float32]


@cache
def segmenter() -> Segmenter:
    return Segmenter()


@cache
def clips() -> tuple[FloatArray, ...]:
    manifest = json.loads((CLIPS / "manifest.json").read_text())
    names = [clip["file"] for clip in manifest if clip["language"] != "nospeech"]
    return tuple(soundfile.read(CLIPS / name, dtype="float32")[0] for name in names)


def silence(seconds: float) -> FloatArray:
    return np.zeros(int(seconds * RATE), np.float32)


def hiss(seconds: float, level: float = 0.001) -> FloatArray:
    noise = np.random.default_rng(0).standard_normal(int(seconds * RATE))
    return (level * noise).astype(np.float32)


def speech_edges(clip: FloatArray) -> tuple[int, int]:
    """First and last + 1 sample of a clean clip that is within 40 dB of its peak."""
    loud = np.flatnonzero(np.abs(clip) > 0.01 * np.abs(clip).max())
    return int(loud[0]), int(loud[-1]) + 1


def joined(count: int, seed: int, shortest: float = 0.5) -> tuple[FloatArray, list[tuple[int, int]]]:
    """Clips in random order, 0.5 to 3 s apart, and the samples where each one's speech begins and ends."""
    rng = np.random.default_rng(seed)
    parts: list[FloatArray] = []
    edges: list[tuple[int, int]] = []
    at = 0
    for _ in range(count):
        clip = clips()[int(rng.integers(len(clips())))]
        gap = silence(float(rng.uniform(shortest, 3)))
        start, end = speech_edges(clip)
        at += len(gap)
        edges.append((at + start, at + end))
        at += len(clip)
        parts += [gap, clip]
    return np.concatenate([*parts, silence(1)]), edges


def blocks(samples: FloatArray, size: int) -> Iterator[FloatArray]:
    for at in range(0, len(samples), size):
        yield samples[at : at + size]


@pytest.mark.parametrize(
    "samples",
    [silence(1), silence(8), hiss(3), np.zeros(1, np.float32), np.ones(3, np.float32)],
    ids=["silence", "just fits", "noise", "one sample", "three samples"],
)
def test_a_recording_that_fits_is_one_span_with_everything(samples: FloatArray) -> None:
    (span,) = segmenter().spans([samples], 8)

    assert (span.start, span.end, span.waveform.offset) == (0, len(samples), 0)
    np.testing.assert_array_equal(span.waveform.samples, samples)


@pytest.mark.parametrize("parts", [[], [np.zeros(0, np.float32)] * 2], ids=["no block", "empty blocks"])
def test_an_empty_recording_has_no_span(parts: list[FloatArray]) -> None:
    assert list(segmenter().spans(parts, 8)) == []


@pytest.mark.parametrize(
    "samples", [silence(20), hiss(20), hiss(20, 0.1)], ids=["digital silence", "quiet noise", "loud noise"]
)
def test_a_long_recording_without_speech_has_no_span(samples: FloatArray) -> None:
    assert list(segmenter().spans([samples], 8)) == []


@pytest.mark.parametrize("seconds", [0, 0.99, -1, float("nan")])
def test_spans_too_short_to_be_cut_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="max_span_seconds"):
        list(segmenter().spans([silence(1)], seconds))


@pytest.mark.parametrize("seconds", [8, 30])
@pytest.mark.parametrize("noise", [0, 0.001], ids=["clean", "-60 dBFS of noise"])
def test_every_clip_is_a_span_of_its_own_within_a_tenth_of_a_second(seconds: float, noise: float) -> None:
    samples, edges = joined(40, seed=1, shortest=0.5)
    samples = samples + hiss(len(samples) / RATE + 1, noise)[: len(samples)]

    spans = list(segmenter().spans(blocks(samples, 4096), seconds))

    assert len(spans) == len(edges)
    for span, (start, end) in zip(spans, edges, strict=True):
        assert abs(span.start - start) < 0.1 * RATE
        assert abs(span.end - end) < 0.15 * RATE


@pytest.mark.parametrize("gap", [0.5, 0.55, 0.7, 1, 3])
def test_a_sentence_sounds_the_same_to_the_recogniser_wherever_it_stands(gap: float) -> None:
    # Silences of odd lengths put the sentence anywhere between two frames of the detector.
    for clip in clips():
        heard = []
        for odd in (0, 101, 333):
            before = np.concatenate([clips()[0], silence(gap), np.zeros(odd, np.float32)])
            samples = np.concatenate([before, clip, silence(6)])
            span = list(segmenter().spans([samples], 8))[1]
            heard.append(span.waveform.offset - len(before))
        assert heard[0] == heard[1] == heard[2]
        assert 0 <= heard[0] < 0.025 * RATE  # the clips have 0.15 s of silence in front


def test_sentences_are_not_told_apart_by_their_own_pauses_when_spans_are_long() -> None:
    start, end = speech_edges(clips()[1])
    halves = [clips()[1][:end], silence(0.5), clips()[1][start:], silence(30)]

    assert len(list(segmenter().spans([np.concatenate(halves)], 30))) == 1
    assert len(list(segmenter().spans([np.concatenate(halves)], 8))) == 2


def test_unbroken_speech_is_divided_and_nothing_of_it_is_lost() -> None:
    parts = []
    for clip in clips() * 3:
        start, end = speech_edges(clip)
        parts.append(clip[start:end])
    samples = np.concatenate(parts)

    spans = list(segmenter().spans([samples], 8))

    assert all(len(span.waveform.samples) >= 2 * RATE for span in spans[:-1])
    assert sum(len(span.waveform.samples) for span in spans) > 0.98 * len(samples)


def test_a_long_silence_in_speech_that_fills_a_span_is_where_it_is_divided() -> None:
    start, end = speech_edges(clips()[0])
    spoken = clips()[0][start:end]
    samples = np.concatenate([np.concatenate([spoken, silence(0.3)]) for _ in range(10)])

    spans = list(segmenter().spans([samples], 8))

    period = len(spoken) + len(silence(0.3))
    for span in spans[1:]:
        assert min(span.start % period, period - span.start % period) < 0.1 * RATE


def test_quiet_speech_is_found() -> None:
    samples, edges = joined(10, seed=2)

    assert len(list(segmenter().spans([samples * np.float32(0.01)], 8))) == len(edges)


def test_spans_come_while_the_recording_is_still_being_read() -> None:
    samples, _ = joined(100, seed=3)
    taken = 0

    def read() -> Iterator[FloatArray]:
        nonlocal taken
        for block in blocks(samples, 1000):
            taken += len(block)
            yield block

    for span in segmenter().spans(read(), 8):
        assert taken <= max(span.waveform.end, 8 * RATE) + 2 * BATCH
    assert taken == len(samples)


def test_blocks_may_be_reused_by_whoever_hands_them_over() -> None:
    samples, _ = joined(10, seed=4)

    def read() -> Iterator[FloatArray]:
        buffer = np.empty(5000, np.float32)
        for block in blocks(samples, len(buffer)):
            buffer[: len(block)] = block
            yield buffer[: len(block)]
            buffer[:] = np.nan

    spans = list(segmenter().spans(read(), 8))

    assert len(spans) == 10
    for span in spans:
        expected = samples[span.waveform.offset : span.waveform.end]
        np.testing.assert_array_equal(span.waveform.samples, expected)


def test_threads_share_a_segmenter() -> None:
    recordings = [joined(8, seed=seed)[0] for seed in range(6)]

    def cuts(samples: FloatArray) -> list[tuple[int, int]]:
        return [(span.start, span.end) for span in segmenter().spans(blocks(samples, 7000), 8)]

    alone = [cuts(samples) for samples in recordings]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(cuts, recordings)) == alone


PIECES = st.lists(
    st.one_of(
        st.integers(0, 9).map(lambda index: clips()[index]),
        st.tuples(st.integers(0, 9), st.integers(1, 30_000)).map(lambda p: clips()[p[0]][-p[1] :]),
        st.integers(1, 40_000).map(lambda count: np.zeros(count, np.float32)),
        st.integers(1, 40_000).map(lambda count: hiss(3, 0.02)[:count]),
    ),
    max_size=12,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow],
)
@given(
    pieces=PIECES,
    seconds=st.sampled_from([1.0, 1.5, 3.0, 8.0, 11.37, 30.0]),
    sizes=st.lists(st.integers(1, 50_000), min_size=1, max_size=5),
)
def test_spans_are_in_order_apart_short_enough_and_the_same_for_any_blocks(
    pieces: list[FloatArray], seconds: float, sizes: list[int]
) -> None:
    samples = np.concatenate([np.zeros(0, np.float32), *pieces])

    spans = list(segmenter().spans([samples], seconds))

    free = 0
    for span in spans:
        wave = span.waveform
        assert free <= wave.offset <= span.start < span.end <= wave.end <= len(samples)
        assert len(wave.samples) <= seconds * RATE
        assert wave.samples.dtype == np.float32
        np.testing.assert_array_equal(wave.samples, samples[wave.offset : wave.end])
        free = wave.end

    def uneven() -> Iterator[FloatArray]:
        at = turn = 0
        while at < len(samples):
            size = sizes[turn % len(sizes)]
            yield samples[at : at + size]
            at += size
            turn += 1

    again = list(segmenter().spans(uneven(), seconds))

    assert [(s.waveform.offset, s.start, s.end, s.waveform.end) for s in again] == [
        (s.waveform.offset, s.start, s.end, s.waveform.end) for s in spans
    ]
