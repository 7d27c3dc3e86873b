from __future__ import annotations

import pytest

from asrsvc.release.numbers import NOTHING, Numbers, Thresholds, compare
from asrsvc.release.speed import cost_class
from asrsvc.serving.tally import MOST_VERSIONS, Tally

ALLOWED = Thresholds(min_samples=20, max_errors=0.05, max_empty=0.2, max_slowdown=3)
CHEAP, DEAR = cost_class(0.02, 1.0), cost_class(0.08, 1.0)
GOOD = Numbers(0, 100, 0, 5, 100_000, 2000, (*(0,) * CHEAP, 100))


@pytest.mark.parametrize(
    ("new", "said", "said_if_forced"),
    [
        (GOOD, None, None),
        (Numbers(0, 19, 19, 19, 1, 9), None, None),
        (Numbers(0, 20, 6, 0, 9, 0), "30% errors against 0%", "30% errors"),
        (Numbers(0, 20, 5, 0, 9, 0), None, None),
        (Numbers(0, 20, 0, 11, 9, 0), "55% empty texts against 5%", None),
        (Numbers(0, 20, 0, 10, 9, 0), None, None),
        (Numbers(0, 40, 0, 0, 40_000, 3200, (*(0,) * DEAR, 40)), "4.0 times the engine's CPU time", None),
        (Numbers(0, 40, 0, 0, 40_000, 3200, (*(0,) * DEAR, 39)), None, None),
        (Numbers(0, 40, 0, 0, 40_000, 400_000), None, None),  # a master that does not say what they cost
    ],
)
def test_a_version_is_compared_by_shares(new: Numbers, said: str | None, said_if_forced: str | None) -> None:
    for expected, forced in ((said, False), (said_if_forced, True)):
        found = compare(new, GOOD, ALLOWED, forced=forced)
        assert (found is None) if expected is None else (expected in (found or "")), found


def test_with_too_few_of_the_old_nothing_is_said() -> None:
    assert compare(Numbers(0, 50, 50, 0, 0, 0), Numbers(0, 19, 0, 0, 0, 0), ALLOWED) is None


def test_sums_by_version_include_the_workers_that_have_ended() -> None:
    tally = Tally()
    tally.bury("a", GOOD, died=False)
    tally.bury("a", GOOD, died=True)
    tally.bury(None, NOTHING, died=True)
    a, b = tally.sums([("b", GOOD), ("a", GOOD), (None, GOOD)])
    assert (a.version, a.requests, a.busy_ms, a.deaths, a.costs[-1]) == ("a", 300, 6000, 1, 300)
    assert (b.version, b.requests, b.deaths, b.costs[-1]) == ("b", 100, 0, 100)


def test_versions_of_long_ago_are_forgotten() -> None:
    tally = Tally()
    for number in range(3 * MOST_VERSIONS):
        tally.bury(f"v{number:02}", GOOD, died=False)
        tally.bury("v00", GOOD, died=False)
    found = [numbers.version for numbers in tally.sums([])]
    assert len(found) == MOST_VERSIONS
    assert "v00" in found
