"""Several channels to one: the mean, except where channels cancel each other."""

from __future__ import annotations

import numpy as np
import pytest
from formats import clip
from hypothesis import given, settings
from hypothesis import strategies as st

from asrsvc.speech.downmix import DownMix

RATE = 16_000
SPEECH = clip()[:, 0]
NOISE = np.random.default_rng(1).normal(0, 1, (8, len(SPEECH))).astype(np.float32)


def mixed(*channels: np.ndarray, rate: int = RATE, cuts: tuple[int, ...] = ()) -> np.ndarray:
    """The mono sound of these channels, given in blocks that end at the cuts."""
    samples = np.stack(channels, axis=1).astype(np.float32)
    mix = DownMix(rate, len(channels))
    parts = [mix.push(block) for block in np.split(samples, sorted(cuts))]
    found = np.concatenate([*parts, mix.finish()])
    assert len(found) == len(samples)
    assert found.dtype == np.float32
    return found


def likeness(found: np.ndarray, wanted: np.ndarray) -> float:
    """Correlation of two sounds, whatever their levels and signs."""
    return float(abs(np.corrcoef(found, wanted)[0, 1]))


def level(found: np.ndarray, wanted: np.ndarray) -> float:
    """Of one sound relative to another, dB."""
    return float(10 * np.log10(np.square(found).mean() / np.square(wanted).mean()))


@pytest.mark.parametrize(
    "channels",
    [
        (SPEECH,),
        (SPEECH, SPEECH),
        (SPEECH, np.zeros_like(SPEECH)),
        (SPEECH, SPEECH[::-1]),
        (SPEECH + 0.1 * NOISE[0], SPEECH + 0.1 * NOISE[1]),
        (SPEECH, np.roll(SPEECH, 80)),
        (*(0.02 * NOISE[:2]), SPEECH, *(0.02 * NOISE[2:5])),
        (SPEECH + 0.001 * NOISE[0], SPEECH - 0.001 * NOISE[0]),
        (0.2 * NOISE[0], NOISE[1]),
    ],
    ids=[
        "one",
        "equal",
        "one silent",
        "two speakers",
        "partly alike",
        "a delay",
        "speech in the centre of six",
        "noise upside down far below the speech",
        "noise",
    ],
)
def test_channels_that_do_not_cancel_are_averaged(channels: tuple[np.ndarray, ...]) -> None:
    wanted = np.stack(channels, axis=1).astype(np.float32).mean(axis=1, dtype=np.float32)
    assert (mixed(*channels) == wanted).all()


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 384_000])
@pytest.mark.parametrize("gain", [1.0, 0.9, 0.6])
def test_a_channel_upside_down_is_turned(rate: int, gain: float) -> None:
    speech = clip(rate)[:, 0]
    for channels in ((speech, -gain * speech), (-gain * speech, speech)):
        found = mixed(*channels, rate=rate)
        assert likeness(found, speech) > 0.9999
        assert level(found, speech) == pytest.approx(20 * np.log10((1 + gain) / 2), abs=0.01)


def test_a_channel_upside_down_with_noise_of_its_own_is_turned() -> None:
    quiet = 0.1 * float(np.abs(SPEECH).std())
    found = mixed(SPEECH + quiet * NOISE[0], -0.8 * SPEECH + quiet * NOISE[1])
    assert likeness(found, SPEECH) > 0.99
    assert likeness((0.2 * SPEECH + quiet * (NOISE[0] + NOISE[1])), SPEECH) < 0.9, "the mean is worse"


def test_a_frequency_response_of_its_own_does_not_hide_a_channel_upside_down() -> None:
    dull = -np.convolve(SPEECH, [0.2, 0.6, 0.2], "same").astype(np.float32)
    assert likeness(mixed(SPEECH, dull), SPEECH) > 0.98


def test_channels_of_many_are_turned_pair_by_pair() -> None:
    other = SPEECH[::-1]
    found = mixed(SPEECH, SPEECH, other, -other)
    assert likeness(found, SPEECH + other) > 0.999
    found = mixed(SPEECH, -SPEECH, np.zeros_like(SPEECH), 0.01 * NOISE[0], -SPEECH, SPEECH)
    assert likeness(found, SPEECH) > 0.99


@pytest.mark.parametrize("hum", [50, 0], ids=["hum", "offset"])
def test_hum_and_offsets_upside_down_still_cancel(hum: int) -> None:
    times = np.arange(len(SPEECH)) / RATE
    disturbance = (0.3 * np.cos(2 * np.pi * hum * times)).astype(np.float32)
    found = mixed(SPEECH + disturbance, SPEECH - disturbance)
    assert likeness(found, SPEECH) > 0.9999


def test_the_sign_may_change_inside_a_recording() -> None:
    found = mixed(np.concatenate([SPEECH] * 3), np.concatenate([SPEECH, -SPEECH, SPEECH]))
    for part in np.split(found, 3):
        # pieces of half a second: the one in which the sign changes is partly lost
        assert likeness(part[RATE // 2 : -RATE // 2], SPEECH[RATE // 2 : -RATE // 2]) > 0.999


def test_noise_in_pauses_does_not_turn_channels() -> None:
    """The choice for the speech stays while nothing but the noise of a cable, upside down, is there."""
    pause = 1e-4 * NOISE[0]
    left, right = np.concatenate([SPEECH, pause, SPEECH]), np.concatenate([SPEECH, -pause, SPEECH])
    assert (mixed(left, right) == (left + right) / 2).all()


@settings(max_examples=50, deadline=None)
@given(
    cuts=st.lists(st.integers(0, len(SPEECH)), max_size=30).map(tuple),
    gains=st.lists(st.floats(-1, 1), min_size=1, max_size=6),
)
def test_how_the_sound_is_cut_into_blocks_changes_nothing(cuts: tuple[int, ...], gains: list[float]) -> None:
    channels = [np.float32(gain) * SPEECH + 0.01 * noise for gain, noise in zip(gains, NOISE, strict=False)]
    assert (mixed(*channels, cuts=cuts) == mixed(*channels)).all()


def test_no_samples_give_no_sound() -> None:
    mix = DownMix(RATE, 2)
    assert len(mix.finish()) == 0
    assert len(mix.push(np.zeros((0, 2), np.float32))) == 0
    assert len(mix.push(np.ones((5, 2), np.float32))) == 0
    assert len(mix.finish()) == 5
