"""Noise, music, applause and babble made with numpy: no recording is needed for the events.

Every generator returns `count` samples at 16 kHz, shape (count,), at most 1 in magnitude, and draws
from the given generator in a fixed order.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from recipes.nano.shards import SAMPLE_RATE, Shard

Samples = NDArray[np.float64]

MAJOR: Final = (0, 2, 4, 5, 7, 9, 11)
MINOR: Final = (0, 2, 3, 5, 7, 8, 10)
"""Semitones above the key."""


def coloured_noise(rng: Generator, count: int, exponent: float) -> Samples:
    """Noise whose power falls with frequency ** exponent."""
    frequency = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    frequency[0] = frequency[1]
    spectrum = np.fft.rfft(rng.standard_normal(count)) / frequency ** (exponent / 2)
    samples = np.fft.irfft(spectrum, count)
    return samples / np.abs(samples).max()


def band_pass(samples: Samples, low: float, high: float) -> Samples:
    """Second-order band pass, Hz."""
    band = [low, min(high, 7900)]
    return sosfilt(butter(2, band, "band", fs=SAMPLE_RATE, output="sos"), samples)


def _swelling(rng: Generator, count: int) -> Samples:
    time = np.arange(count) / SAMPLE_RATE
    colour = coloured_noise(rng, count, rng.uniform(0, 2.2))
    return colour * (1 + 0.8 * np.sin(2 * np.pi * rng.uniform(0.1, 3) * time + rng.uniform(0, 6)))


def _hum(rng: Generator, count: int) -> Samples:
    time = np.arange(count) / SAMPLE_RATE
    base = rng.choice([50, 60, 100, 120])
    harmonics = range(1, rng.integers(3, 20))
    hum = sum(
        np.sin(2 * np.pi * base * harmonic * time + rng.uniform(0, 6)) / harmonic ** rng.uniform(0.5, 1.5)
        for harmonic in harmonics
    )
    return hum + rng.uniform(0.05, 0.6) * rng.standard_normal(count)


def _band(rng: Generator, count: int) -> Samples:
    low = rng.uniform(80, 3000)
    band = band_pass(rng.standard_normal(count), low, low * rng.uniform(1.5, 4))
    return band + 0.05 * rng.standard_normal(count)


def _clicks(rng: Generator, count: int) -> Samples:
    """Typing and knocks over a floor."""
    samples = 0.02 * rng.standard_normal(count)
    for _ in range(rng.integers(3, 60)):
        first = rng.integers(0, count - 1600)
        length = rng.integers(80, 1500)
        click = rng.uniform(0.2, 1) * rng.standard_normal(length)
        samples[first : first + length] += click * np.exp(-np.arange(length) / (length / 6))
    return samples


def _engine(rng: Generator, count: int) -> Samples:
    base = rng.uniform(25, 110)
    phase = np.cumsum(base * (1 + 0.02 * coloured_noise(rng, count, 2))) / SAMPLE_RATE
    samples = np.sign(np.sin(2 * np.pi * phase)) * 0.3 + 0.3 * coloured_noise(rng, count, 1.5)
    return lfilter([1], [1, -0.9], samples)


def _wind(rng: Generator, count: int) -> Samples:
    knots = np.arange(0, count + 4000, 4000)
    levels = rng.standard_normal(count // 4000 + 2)[: len(knots)]
    loudness = np.abs(np.interp(np.arange(count), knots, levels))
    return coloured_noise(rng, count, 1.5) * loudness


def noise(rng: Generator, count: int) -> Samples:
    """One of nine kinds of noise."""
    kinds = (
        lambda: rng.standard_normal(count),
        lambda: coloured_noise(rng, count, 1),
        lambda: coloured_noise(rng, count, 2),
        lambda: _swelling(rng, count),
        lambda: _hum(rng, count),
        lambda: _band(rng, count),
        lambda: _clicks(rng, count),
        lambda: _engine(rng, count),
        lambda: _wind(rng, count),
    )
    samples = kinds[rng.integers(0, len(kinds))]()
    return samples / (np.abs(samples).max() + 1e-9)


def applause(rng: Generator, count: int) -> Samples:
    """20 to 400 claps a second in a room, sometimes swelling or dying down."""
    samples = np.zeros(count)
    density = 10 ** rng.uniform(1.3, 2.6)
    claps = []
    for _ in range(12):
        length = rng.integers(160, 520)
        burst = band_pass(rng.standard_normal(length), rng.uniform(500, 1400), rng.uniform(1800, 4500))
        clap = burst * np.exp(-np.arange(length) / (length / rng.uniform(4, 8)))
        claps.append(clap / (np.abs(clap).max() + 1e-9))
    for first in rng.integers(0, count - 600, int(density * count / SAMPLE_RATE)):
        clap = claps[rng.integers(0, 12)] * rng.uniform(0.15, 1)
        samples[first : first + len(clap)] += clap
    room = np.exp(-np.arange(4000) / rng.uniform(300, 1500)) * rng.standard_normal(4000)
    room[0] = 6
    samples = fftconvolve(samples, room)[:count]
    loudness = np.ones(count)
    ramp = rng.integers(1, count // 3)
    if rng.random() < 0.5:
        loudness[:ramp] = np.linspace(rng.uniform(0, 0.4), 1, ramp)
    if rng.random() < 0.5:
        loudness[-ramp:] = np.linspace(1, rng.uniform(0, 0.4), ramp)
    samples = samples * loudness + 0.005 * rng.standard_normal(count)
    return samples / np.abs(samples).max()


class _Instrument:
    """Additive tones with one spectrum for a whole piece."""

    def __init__(self, rng: Generator) -> None:
        self._rng = rng
        self._harmonics = [
            1 / harmonic ** rng.uniform(0.6, 2.5) * rng.uniform(0.3, 1)
            for harmonic in range(1, rng.integers(3, 12))
        ]

    def note(self, midi: float, seconds: float, amplitude: float, kind: int) -> Samples:
        """One tone; kind 0 is plucked, 1 sustained, 2 sustained with vibrato."""
        base = 440 * 2 ** ((midi - 69) / 12)
        count = int(seconds * SAMPLE_RATE)
        time = np.arange(count) / SAMPLE_RATE
        vibrato = 1 + (0.004 * np.sin(2 * np.pi * 5.5 * time) if kind == 2 else 0)
        phase = 2 * np.pi * np.cumsum(base * vibrato * np.ones(count)) / SAMPLE_RATE
        tone = sum(
            level * np.sin((harmonic + 1) * phase + harmonic)
            for harmonic, level in enumerate(self._harmonics)
            if base * (harmonic + 1) < 7500
        )
        if kind == 0:
            envelope = np.exp(-time / (seconds * self._rng.uniform(0.2, 0.6)))
        else:
            envelope = np.minimum(1, time / 0.03) * np.minimum(1, (seconds - time) / 0.05)
        return amplitude * tone * envelope


def _drum(rng: Generator, beat: int) -> Samples:
    """A snare on odd beats, a bass drum on even ones."""
    time = np.arange(2400)
    burst = rng.standard_normal(2400) * np.exp(-time / (250 if beat % 2 else 700))
    if beat % 2:
        return burst * 0.5
    return np.sin(2 * np.pi * 60 * time / SAMPLE_RATE) * np.exp(-time / 700)


def music(rng: Generator, count: int) -> Samples:
    """Chords, a melody and drums, each of them sometimes."""
    samples = np.zeros(count + SAMPLE_RATE)
    beat_seconds = 60 / rng.uniform(60, 160)
    key = rng.integers(0, 12)
    scale = MAJOR if rng.random() < 0.6 else MINOR
    instrument = _Instrument(rng)
    progression = rng.choice([0, 3, 4, 5, 1], 4)
    kind = int(rng.integers(0, 3))
    melody = rng.random() < 0.8
    chords = rng.random() < 0.8 or not melody
    drums = rng.random() < 0.5
    time = 0.0
    beat = 0

    def add(sound: Samples) -> None:
        first = int(time * SAMPLE_RATE)
        length = min(len(sound), len(samples) - first)
        if length > 0:
            samples[first : first + length] += sound[:length]

    while time < count / SAMPLE_RATE:
        root = progression[(beat // 4) % 4]
        if chords and beat % 4 == 0:
            for step in (root, root + 2, root + 4):
                midi = 48 + key + scale[step % 7] + 12 * (step // 7)
                add(instrument.note(midi, beat_seconds * 4, 0.3, kind))
        if melody and rng.random() < 0.85:
            step = rng.integers(0, 10)
            midi = 60 + key + scale[step % 7] + 12 * (step // 7)
            add(instrument.note(midi, beat_seconds * rng.choice([1, 0.9, 0.5]), 0.5, kind))
        if drums:
            add(_drum(rng, beat))
        time += beat_seconds
        beat += 1
    result = samples[:count] + 0.002 * rng.standard_normal(count)
    return result / np.abs(result).max()


def babble(rng: Generator, shard: Shard, count: int) -> Samples:
    """Four to eight voices at once."""
    samples = np.zeros(count)
    for _ in range(rng.integers(4, 9)):
        first = 0
        while first < count:
            utterance = shard.utterances[rng.integers(0, len(shard.utterances))]
            voice = shard.waveform(utterance).astype(np.float64)
            length = min(len(voice), count - first)
            samples[first : first + length] += rng.uniform(0.4, 1) * voice[:length]
            first += length
    return samples / np.abs(samples).max()
