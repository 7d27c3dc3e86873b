"""Costs, their classes, and when a version is slow."""

from __future__ import annotations

import pytest

from asrsvc.release.numbers import trimmed
from asrsvc.release.speed import COST_CLASSES, cost_class, milliseconds, quantile, slow


@pytest.mark.parametrize(
    ("cost", "known", "is_slow"),
    [
        (0.5, 0.1, False),
        (0.51, 0.1, True),
        (0.0059, 0.001, False),  # less than 5 ms more
        (0.0061, 0.001, True),
        (0.027, 0.0027, True),  # the embedded model, ten times slower
        (0.0052, 0.0, True),
    ],
)
def test_a_version_is_slow_by_a_factor_and_by_milliseconds(cost: float, known: float, is_slow: bool) -> None:
    assert slow(cost, known, 5) == is_slow


@pytest.mark.parametrize("milliseconds_of_cpu", [0.06, 0.5, 2.7, 30, 400, 9000])
def test_a_class_tells_a_cost_to_nine_percent(milliseconds_of_cpu: float) -> None:
    counts = [0] * COST_CLASSES
    counts[cost_class(milliseconds_of_cpu * 2 / 1000, 2.0)] = 3
    assert quantile(counts, 0.5) * 1000 == pytest.approx(milliseconds_of_cpu, rel=0.095)


def test_costs_beyond_all_classes_are_in_the_first_and_the_last() -> None:
    assert cost_class(0.0, 5.0) == 0
    assert cost_class(1e-9, 5.0) == 0
    assert cost_class(1e9, 5.0) == COST_CLASSES - 1


def test_a_recording_of_less_than_a_second_counts_as_one() -> None:
    assert cost_class(0.01, 0.1) == cost_class(0.01, 0.0) == cost_class(0.01, 1.0)
    assert cost_class(0.01, 2.0) < cost_class(0.01, 1.0)


def test_a_quantile_is_that_of_the_share_of_requests() -> None:
    counts = [0] * COST_CLASSES
    counts[20], counts[40] = 3, 1
    assert quantile(counts, 0.25) == quantile(counts, 0.75) < quantile(counts, 0.76)
    assert quantile(trimmed(counts), 1.0) == quantile(counts, 1.0)


def test_counts_lose_the_zeros_at_their_end_alone() -> None:
    assert trimmed([0, 1, 0, 2, 0, 0]) == (0, 1, 0, 2)
    assert trimmed([0, 0]) == ()


def test_costs_are_said_in_milliseconds() -> None:
    assert [milliseconds(x) for x in (0.00271, 0.0271, 0.271)] == ["2.71 ms", "27.10 ms", "271 ms"]
