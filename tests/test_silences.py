"""Where a span is silent."""

from __future__ import annotations

import numpy as np
import pytest

from asrsvc.speech.silences import silences

RATE = 16_000


def sound(*parts: tuple[float, float], noise: float = 0.0) -> np.ndarray:
    """Parts of so many seconds, each with a tone of so much level."""
    tones = [
        level * np.sin(2 * np.pi * 220 * np.arange(round(seconds * RATE)) / RATE) for seconds, level in parts
    ]
    samples = np.concatenate(tones)
    return (samples + noise * np.random.default_rng(1).normal(size=len(samples))).astype(np.float32)


@pytest.mark.parametrize("noise", [0.0, 1e-4, 0.005])
def test_silence_lies_between_sounds(noise: float) -> None:
    found = silences(sound((0.3, 0), (0.5, 0.4), (0.4, 0), (0.5, 0.2), (0.2, 0), noise=noise))
    assert sum(found, ()) == pytest.approx((0.0, 0.3, 0.8, 1.2, 1.7, 1.9), abs=0.011)


def test_what_stops_the_breath_inside_a_word_is_no_silence() -> None:
    assert silences(sound((0.5, 0.4), (0.1, 0), (0.5, 0.4))) == []


def test_in_much_noise_nothing_is_silent() -> None:
    assert silences(sound((0.5, 0), (0.5, 0.3), (0.5, 0), noise=0.1)) == []


def test_a_moment_and_digital_silence() -> None:
    assert silences(np.zeros(100, np.float32)) == []
    assert silences(np.zeros(1600, np.float32)) == [(0.0, 0.1)]
