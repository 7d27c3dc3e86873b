"""Where frames stand: holes become silence, wrong clocks do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.speech.decoded import Refused
from asrsvc.speech.timeline import Timeline

LIMIT = 1000.0


def after(seconds: float, *, clock: float = 0.0) -> Timeline:
    """So many seconds at 16 kHz have been given out; the clock showed `clock` at their start."""
    timeline = Timeline(LIMIT)
    timeline.set_clock(clock)
    timeline.advance(round(seconds * 16_000), 16_000)
    return timeline


@pytest.mark.parametrize(
    ("time", "silence"),
    [
        (10.0, 0.0),
        (10.05, 0.0),
        (9.5, 0.0),
        (12.0, 2.0),
        (710.0, 700.0),
        (LIMIT, LIMIT - 10),
        (10 + 86_401, 0.0),
        (1e12, 0.0),
        (-5e6, 0.0),
    ],
)
@pytest.mark.parametrize("clock", [0.0, 50_000.0, -7.0])
def test_a_hole_is_silence_and_a_wrong_clock_is_not(time: float, silence: float, clock: float) -> None:
    assert after(10, clock=clock).silence_before(clock + time) == pytest.approx(silence)


@pytest.mark.parametrize("time", [LIMIT + 1, LIMIT + 80_000])
def test_a_hole_over_the_limit_is_refused(time: float) -> None:
    with pytest.raises(Refused, match="the limit is 1000 s") as caught:
        after(10).silence_before(time)
    assert caught.value.code == "audio_too_long"


@pytest.mark.parametrize("jump", [-5.0, -1e6, 1e6])
def test_holes_behind_a_wrong_clock_are_measured_from_it(jump: float) -> None:
    timeline = after(10)
    assert timeline.silence_before(10 + jump) == 0
    timeline.advance(16_000, 16_000)
    assert timeline.silence_before(11 + jump) == 0
    assert timeline.silence_before(14 + jump) == pytest.approx(3)


def test_without_a_known_start_the_first_time_stamp_is_it() -> None:
    timeline = Timeline(LIMIT)
    assert timeline.silence_before(70_000) == 0
    timeline.advance(8_000, 8_000)
    assert timeline.silence_before(70_003) == pytest.approx(2)


@given(st.lists(st.tuples(st.sampled_from([8_000, 44_100, 48_000]), st.integers(1, 200_000)), max_size=20))
def test_seconds_are_the_sum_of_all_stretches(stretches: list[tuple[int, int]]) -> None:
    timeline = Timeline(LIMIT)
    for rate, samples in stretches:
        timeline.advance(samples, rate)
    assert timeline.seconds == pytest.approx(sum(samples / rate for rate, samples in stretches))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=50))
def test_no_time_stamps_make_it_longer_than_the_limit(times: list[float]) -> None:
    timeline = Timeline(LIMIT)
    for time in times:
        try:
            timeline.advance(round(timeline.silence_before(time) * 16_000), 16_000)
        except Refused:
            return
        assert timeline.seconds <= LIMIT + 0.001
