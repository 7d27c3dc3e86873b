"""What the first requests of a new version say against those of the old one."""

from __future__ import annotations

import re

import pytest

from asrsvc import settings
from asrsvc.release.numbers import compare, compare_silence, in_doubt, trimmed
from asrsvc.release.speed import COST_CLASSES, cost_class
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


def numbers(requests: int, *, errors: int = 0, empty: int = 0, cost: float = 20, in_hand: int = 0) -> Numbers:
    """Each of a second of sound.

    Args:
        cost: milliseconds of CPU time that each took of the engine.
    """
    costs = [0] * COST_CLASSES
    costs[cost_class(cost / 1000, 1.0)] = requests
    return Numbers(in_hand, requests, errors, empty, 1000 * requests, round(cost * requests), trimmed(costs))


@pytest.mark.parametrize(
    ("new", "old", "says"),
    [
        (numbers(20), numbers(20), None),
        (numbers(9, errors=9), numbers(20), None),  # too few to tell
        (numbers(20, errors=20), numbers(9), None),
        (numbers(20, errors=1), numbers(20), None),
        (numbers(20, errors=12), numbers(20), None),  # it may be chance
        (numbers(20, errors=13), numbers(20), "65% errors against 0% .* (13 of 20 answers against 0 of 20)"),
        (numbers(40, errors=8), numbers(200), "20% errors against 0%"),
        (numbers(10_000, errors=490), numbers(10_000), None),
        (numbers(20, errors=12), numbers(20, errors=12), None),  # the clients' fault, it seems
        (numbers(20, empty=12), numbers(20), None),
        (numbers(20, empty=13), numbers(20), "65% empty texts against 0%"),
        (numbers(10_000, empty=1900), numbers(10_000), None),
        (numbers(20, cost=55), numbers(20), None),
        (numbers(20, cost=80), numbers(20), "4.0 times the engine's CPU time"),
        (numbers(19, cost=80), numbers(20), None),  # more must be known to say no
        (numbers(20, cost=80), numbers(20).plus(numbers(20, cost=100)), "4.0 times"),
        (numbers(6, cost=20).plus(numbers(14, cost=900)), numbers(20), None),  # the best of them count
        (numbers(4, cost=20).plus(numbers(16, cost=900)), numbers(20), "times the engine's"),
        (numbers(20, cost=5.0), numbers(20, cost=0.6), None),  # less than 5 ms more: nothing
        (numbers(20, cost=6.5), numbers(20, cost=0.6), "times the engine's"),
    ],
)
def test_a_version_that_falls_behind_is_told_by_its_numbers(
    loaded: Settings, new: Numbers, old: Numbers, says: str | None
) -> None:
    found = compare(new, old, thresholds(loaded))
    assert (found is None) == (says is None), found
    assert says is None or re.search(says.replace("(", r"\(").replace(")", r"\)"), found or ""), found


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


@pytest.mark.parametrize(
    ("idle_until", "answered", "falls"), [(6.9, 20, True), (7.1, 20, False), (6.9, 9, False)]
)
def test_long_silence_counts_when_the_time_is_over(
    loaded: Settings, idle_until: float, answered: int, falls: bool
) -> None:
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
    board.row(old).add(Column.REQUESTS, answered)
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


def test_a_version_that_looks_slow_soaks_on_until_enough_is_known(loaded: Settings) -> None:
    slow, old = numbers(15, cost=200), numbers(20)
    assert compare(slow, old, thresholds(loaded)) is None
    assert in_doubt(slow, old, thresholds(loaded))
    assert not in_doubt(numbers(15), old, thresholds(loaded))
    assert not in_doubt(numbers(9, cost=200), old, thresholds(loaded))

    machine = Machine(1, LIMITS, ["a"])
    board = Scoreboard.create()
    soak = Soak(board)
    machine.handle(Wish(0.0, None))
    machine.handle(Ready(0.0, 1))
    machine.handle(Wish(1.0, "b"))
    machine.handle(Ready(2.0, 2))
    soak.look(machine, loaded, 2.0)
    for _ in range(20):
        board.row(1).add_cost(cost_class(0.02, 1.0))
    board.row(1).add(Column.REQUESTS, 20)
    board.row(2).add(Column.REQUESTS, 50)  # of which few had speech in them
    for _ in range(15):
        board.row(2).add_cost(cost_class(0.2, 1.0))
    assert soak.look(machine, loaded, 3.0) == (False, None)
    for _ in range(5):
        board.row(2).add_cost(cost_class(0.2, 1.0))
    decided, error = soak.look(machine, loaded, 4.0)
    assert decided
    assert "it falls behind in the soak: 9.5 times the engine's CPU time" in (error or "")


@pytest.mark.parametrize(
    ("comparable", "errors", "says"), [(True, 0, "empty"), (False, 0, None), (False, 13, "65% er")]
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
