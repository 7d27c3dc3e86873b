"""What the first requests of a new version say against those of the old one."""

from __future__ import annotations

import pytest

from asrsvc import settings
from asrsvc.release.numbers import compare, compare_silence
from asrsvc.serving.roll import Limits, Machine, Ready, Step, Wish
from asrsvc.serving.scoreboard import Column, Numbers, Scoreboard
from asrsvc.serving.soak import Soak, thresholds
from asrsvc.settings import Settings

LIMITS = Limits(ready_seconds=60, leave_seconds=10, drain_seconds=60, soak_seconds=10, max_draining=2)


@pytest.fixture(scope="module")
def loaded() -> Settings:
    return settings.load(
        {
            "ASR_SOAK_MIN_SAMPLES": "10",
            "ASR_SOAK_REQUESTS": "50",
            "ASR_SOAK_MAX_ERRORS": "0.05",
            "ASR_SOAK_MAX_EMPTY": "0.2",
            "ASR_SOAK_MAX_SLOWDOWN": "3",
        }
    )


def numbers(requests: int, *, errors: int = 0, empty: int = 0, busy: int = 100, in_hand: int = 0) -> Numbers:
    return Numbers(in_hand, requests, errors, empty, 1000 * requests, busy * requests)


@pytest.mark.parametrize(
    ("new", "old", "says"),
    [
        (numbers(20), numbers(20), None),
        (numbers(9, errors=9), numbers(20), None),  # too few to tell
        (numbers(20, errors=20), numbers(9), None),
        (numbers(20, errors=1), numbers(20), None),
        (numbers(20, errors=2), numbers(20), "10% errors against 0%"),
        (numbers(20, errors=12), numbers(20, errors=12), None),  # the clients' fault, it seems
        (numbers(20, empty=4), numbers(20), None),
        (numbers(20, empty=5), numbers(20), "25% empty texts against 0%"),
        (numbers(20, busy=300), numbers(20), None),
        (numbers(20, busy=310), numbers(20), "3.1 times the engine's time"),
    ],
)
def test_a_version_that_falls_behind_is_told_by_its_numbers(
    loaded: Settings, new: Numbers, old: Numbers, says: str | None
) -> None:
    found = compare(new, old, thresholds(loaded))
    assert (found is None) == (says is None), found
    assert says is None or says in (found or "")


@pytest.mark.parametrize(
    ("new", "old", "falls"),
    [
        (numbers(0, in_hand=2), numbers(10), True),
        (numbers(1, in_hand=2), numbers(10), False),
        (numbers(0, in_hand=0), numbers(10), False),  # it has had nothing to do
        (numbers(0, in_hand=2), numbers(9), False),  # all have little to do, or long recordings
    ],
)
def test_a_version_that_takes_and_never_answers_falls_behind(
    loaded: Settings, new: Numbers, old: Numbers, falls: bool
) -> None:
    assert (compare_silence(new, old, thresholds(loaded)) is not None) == falls


@pytest.mark.parametrize(("idle_until", "falls"), [(6.9, True), (7.1, False)])
def test_long_silence_counts_when_the_time_is_over(loaded: Settings, idle_until: float, falls: bool) -> None:
    machine = Machine(1, LIMITS, ["a"])
    board = Scoreboard.create()
    soak = Soak(board)
    machine.handle(Wish(0.0, None))
    (old,) = machine.workers
    machine.handle(Ready(0.0, old))
    machine.handle(Wish(1.0, "b"))
    new = max(machine.workers)
    machine.handle(Ready(2.0, new))
    assert machine.roll is not None
    assert machine.roll.step is Step.SOAK
    assert soak.look(machine, loaded, 2.0) == (False, None)
    board.row(old).add(Column.REQUESTS, 20)
    assert soak.look(machine, loaded, idle_until) == (False, None)
    board.row(new)[Column.IN_HAND] = 2
    assert soak.look(machine, loaded, 11.9) == (False, None)
    decided, error = soak.look(machine, loaded, 12.0)
    assert decided == falls
    if not falls:  # it has had them in hand for a moment only
        return
    assert error is not None
    assert "took 2 requests and answered none, the old version answered 20" in error


def test_enough_requests_end_the_soak_early(loaded: Settings) -> None:
    machine = Machine(1, LIMITS, ["a"])
    board = Scoreboard.create()
    soak = Soak(board)
    machine.handle(Wish(0.0, None))
    machine.handle(Ready(0.0, 1))
    assert soak.look(machine, loaded, 0.5) == (False, None)
    machine.handle(Wish(1.0, "b"))
    machine.handle(Ready(2.0, 2))
    soak.look(machine, loaded, 2.0)
    board.row(2).add(Column.REQUESTS, 49)
    assert soak.look(machine, loaded, 3.0) == (False, None)
    board.row(2).add(Column.REQUESTS)
    assert soak.look(machine, loaded, 3.0) == (True, None)


@pytest.mark.parametrize(
    ("comparable", "errors", "says"), [(True, 0, "empty"), (False, 0, None), (False, 9, "45% er")]
)
def test_against_what_is_for_demonstration_errors_alone_count(
    loaded: Settings, *, comparable: bool, errors: int, says: str | None
) -> None:
    """Texts and speed of the new version are as bad as can be."""
    machine = Machine(1, LIMITS, ["a"])
    board = Scoreboard.create()
    asked: list[str | None] = []

    def may_compare(version: str | None) -> bool:
        asked.append(version)
        return comparable

    soak = Soak(board, may_compare)
    machine.handle(Wish(0.0, None))
    machine.handle(Ready(0.0, 1))
    machine.handle(Wish(1.0, "b"))
    machine.handle(Ready(2.0, 2))
    soak.look(machine, loaded, 2.0)
    for row, empty, busy, bad in ((1, 0, 100, 0), (2, 20, 10_000, errors)):
        for column, value in (
            (Column.REQUESTS, 20),
            (Column.EMPTY, empty),
            (Column.ERRORS, bad),
            (Column.AUDIO_MS, 20_000),
            (Column.BUSY_MS, busy),
        ):
            board.row(row).add(column, value)
    _, error = soak.look(machine, loaded, 3.0)
    assert (error is None) == (says is None), error
    assert says is None or says in (error or "")
    assert asked == ["a"]
