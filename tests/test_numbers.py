from __future__ import annotations

import pytest

from asrsvc.release.numbers import NOTHING, Numbers, Thresholds, compare
from asrsvc.serving.tally import MOST_VERSIONS, Tally

ALLOWED = Thresholds(min_samples=20, max_errors=0.05, max_empty=0.2, max_slowdown=3)
GOOD = Numbers(0, 100, 0, 5, 100_000, 10_000)


@pytest.mark.parametrize(
    ("new", "said", "said_if_forced"),
    [
        (GOOD, None, None),
        (Numbers(0, 19, 19, 19, 1, 9), None, None),
        (Numbers(0, 20, 2, 0, 9, 0), "10% errors against 0%", "10% errors"),
        (Numbers(0, 20, 1, 0, 9, 0), None, None),
        (Numbers(0, 20, 0, 6, 9, 0), "30% empty texts against 5%", None),
        (Numbers(0, 20, 0, 0, 20_000, 7000), "3.5 times the engine's time", None),
        (Numbers(0, 20, 0, 0, 0, 7000), None, None),
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
    assert (a.version, a.requests, a.busy_ms, a.deaths) == ("a", 300, 30_000, 1)
    assert (b.version, b.requests, b.deaths) == ("b", 100, 0)


def test_versions_of_long_ago_are_forgotten() -> None:
    tally = Tally()
    for number in range(3 * MOST_VERSIONS):
        tally.bury(f"v{number:02}", GOOD, died=False)
        tally.bury("v00", GOOD, died=False)
    found = [numbers.version for numbers in tally.sums([])]
    assert len(found) == MOST_VERSIONS
    assert "v00" in found
