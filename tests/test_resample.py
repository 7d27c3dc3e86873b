"""Sample rates that change inside a recording."""

from __future__ import annotations

import numpy as np
import pytest
import soxr

from asrsvc.speech.resample import Resampling

RATE = 16_000


def tone(rate: int, samples: int, start: float = 0.0) -> np.ndarray:
    return np.sin(2 * np.pi * 440 * (start + np.arange(samples) / rate)).astype(np.float32)


def resampled(stretches: list[tuple[int, np.ndarray]]) -> tuple[np.ndarray, float]:
    resampling = Resampling()
    ready = [out for rate, block in stretches for out in resampling.push(rate, block)]
    assert all(len(out) for out in ready)
    return np.concatenate([*ready, resampling.finish()]), resampling.seconds


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_one_rate_gives_what_one_resampler_gives(rate: int) -> None:
    sound = tone(rate, 3 * rate + 7)
    stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")
    pieces = [sound[at : at + 1000] for at in range(0, len(sound), 1000)]
    expected = [stream.resample_chunk(piece) for piece in pieces]
    expected.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    found, seconds = resampled([(rate, piece) for piece in pieces])
    assert np.array_equal(found, np.concatenate(expected))
    assert seconds == pytest.approx(len(sound) / rate)


def test_16_khz_passes_as_it_is() -> None:
    sound = tone(RATE, 1000)
    found, _seconds = resampled([(RATE, sound)])
    assert np.array_equal(found, sound)


def test_a_tone_goes_on_where_the_rate_changes() -> None:
    found, seconds = resampled(
        [(44_100, tone(44_100, 44_100)), (RATE, tone(RATE, RATE, 1.0)), (8_000, tone(8_000, 8_000, 2.0))]
    )
    assert seconds == pytest.approx(3)
    assert len(found) == pytest.approx(3 * RATE, abs=2)
    wanted = tone(RATE, len(found))
    near = np.ones(len(found), bool)
    for edge in (0, RATE, 2 * RATE, 3 * RATE):
        near[max(0, edge - 200) : edge + 200] = False
    assert np.abs(found - wanted)[near].max() < 0.01


def test_ten_thousand_changes_lose_no_time() -> None:
    sounds = {rate: tone(rate, 1024) for rate in (44_100, 48_000, 22_050)}
    stretches = [(rate, sounds[rate]) for _ in range(3334) for rate in sounds]
    found, seconds = resampled(stretches)
    assert seconds == pytest.approx(sum(1024 / rate for rate, _ in stretches))
    assert len(found) / RATE == pytest.approx(seconds, abs=0.002)
