"""Every gate of speed decides by measurements that were recorded on a busy machine, ten thousand times.

tests/data/gate_times.json holds what tests/integration/record_gates.py has measured: two good versions, and
one that takes ten times as long, while a busy loop held each core. What is drawn is what a gate sees: the
runs of one load in their order, rounds of a trial, requests of a worker one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from asrsvc.release.error_rate import Errors
from asrsvc.release.numbers import Numbers, Thresholds, compare, compare_errors, compare_silence, trimmed
from asrsvc.release.speed import COST_CLASSES, cost_class
from asrsvc.release.trial.run import MORE_ROUNDS, REQUESTS
from asrsvc.release.trial.types import ClipResult, Measured, Reference, TrialOptions
from asrsvc.release.trial.verdict import judge, looks_slow
from asrsvc.serving.warmup import Expected, too_slow
from asrsvc.speech.sample import CLIPS, Runs

DRAWS = 10_000
GOOD = ("embedded", "earlier")
SLOW = "tenfold"
ALLOWED = Thresholds(min_samples=20, max_errors=0.05, max_empty=0.2, max_slowdown=3)
"""what the settings say where nobody has changed them"""

TIMES: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "gate_times.json").read_text(encoding="utf-8")
)
MANIFEST: list[dict[str, Any]] = json.loads((CLIPS / "manifest.json").read_text(encoding="utf-8"))
SECONDS = {clip["file"]: float(clip["seconds"]) for clip in MANIFEST}


def test_enough_was_recorded() -> None:
    for name in (*GOOD, SLOW):
        assert sum(len(runs) for runs in TIMES["warm_up"][name]) >= 150
        assert len(TIMES["trial"][name]) * len(SECONDS) >= 100
        assert sum(len(requests) for requests in TIMES["serving"][name]) >= 150


# The warm-up of a worker.


def warmed_up(chance: Random, name: str) -> tuple[Runs, Iterator[float]]:
    """The runs that a worker makes of the clip, and those that it would make if it were in doubt."""
    recorded = iter([run / 1e6 for run in chance.choice(TIMES["warm_up"][name])])
    runs = Runs(min(SECONDS.values()))
    while runs.few:
        runs.add(next(recorded))
    return runs, recorded


def refused_in_warm_up(chance: Random, name: str, reference: float | None, trial: Expected | None) -> bool:
    first, recorded = warmed_up(chance, name)
    again = Runs(min(SECONDS.values()))

    def refusal() -> str | None:
        return too_slow(min(first.cost, again.cost), first.number + again.number, reference, trial)

    while refusal() is not None and again.few_for_no:
        run = next(recorded, None)
        if run is None:
            break  # no more was recorded: to decide with fewer runs is harder
        again.add(run)
    return refusal() is not None


@pytest.mark.parametrize("against", ["trial", "serving version", "both"])
def test_the_warm_up_refuses_no_good_version_and_every_slow_one(against: str) -> None:
    chance = Random(1)
    good = slow = 0
    for _ in range(DRAWS):
        costs = [warmed_up(chance, chance.choice(GOOD))[0].cost for _ in range(2)]
        reference = costs[0] if against != "trial" else None
        trial = Expected({"a": "b"}, costs[1]) if against != "serving version" else None
        good += refused_in_warm_up(chance, chance.choice(GOOD), reference, trial)
        slow += refused_in_warm_up(chance, SLOW, reference, trial)
    assert (good, slow) == (0, DRAWS)


# The trial.


def in_trial(chance: Random, name: str) -> Iterator[list[int]]:
    """Rounds of the clips in the order in which they were, from any of them on."""
    rounds: list[list[int]] = TIMES["trial"][name]
    start = chance.randrange(len(rounds))
    return iter(rounds[start:] + rounds[:start])


def hear_round(found: Measured, times: list[int]) -> None:
    found.rounds += 1
    for file, time in zip(SECONDS, times, strict=True):
        found.cpu_seconds[file] = min(found.cpu_seconds.get(file, 1e9), time / 1e6)


def refused_by_trial(chance: Random, name: str) -> bool:
    same = ClipResult("x", "en", 1.0, "a", "a", Errors(0, 1))
    tried, serving = Measured("new", clips=[same]), Measured("old", clips=[same])
    new, old = in_trial(chance, name), in_trial(chance, chance.choice(GOOD))
    options = TrialOptions()
    for number in range(REQUESTS // len(SECONDS) + MORE_ROUNDS):
        if number >= REQUESTS // len(SECONDS) and not looks_slow(tried, serving, options, SECONDS):
            break
        hear_round(tried, next(new))
        hear_round(serving, next(old))
    return not judge(tried, serving, options, SECONDS, Reference(skipped="")).passed


def test_the_trial_refuses_no_good_version_and_every_slow_one() -> None:
    chance = Random(2)
    assert not any(refused_by_trial(chance, chance.choice(GOOD)) for _ in range(DRAWS))
    # Each takes its additional rounds: fewer will do.
    assert all(refused_by_trial(chance, SLOW) for _ in range(DRAWS // 10))


# The soak and the watch.


def answered(chance: Random, name: str, number: int, *, cold: bool) -> list[int]:
    """Classes of cost of so many requests, one after the other; cold: the first ones of a worker."""
    requests = chance.choice(CLASSES[name])
    start = 0 if cold else chance.randrange(max(1, len(requests) - number))
    return requests[start : start + number]


CLASSES: dict[str, list[list[int]]] = {
    name: [[cost_class(cpu / 1e6, sound / 1e3) for sound, cpu in requests] for requests in starts]
    for name, starts in TIMES["serving"].items()
}


def numbers(classes: list[int]) -> Numbers:
    costs = [0] * COST_CLASSES
    for one in classes:
        costs[one] += 1
    return Numbers(0, len(classes), 0, 0, 0, 0, trimmed(costs))


def refused_while_it_serves(chance: Random, name: str, looks: tuple[int, ...]) -> bool:
    """Whether any of the looks, at a growing number of its requests, finds that it falls behind."""
    old = numbers(answered(chance, chance.choice(GOOD), chance.randrange(20, 80), cold=False))
    new = answered(chance, name, max(looks), cold=chance.random() < 0.5)
    return any(compare(numbers(new[:number]), old, ALLOWED) is not None for number in looks)


def test_the_soak_and_the_watch_refuse_no_good_version_and_every_slow_one() -> None:
    chance = Random(3)
    looks = (20, 40, 41, 42, 45, 50, 60, 70)
    assert not any(refused_while_it_serves(chance, chance.choice(GOOD), looks) for _ in range(DRAWS))
    assert all(refused_while_it_serves(chance, SLOW, (40,)) for _ in range(DRAWS))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.2, 0.5])
def test_shares_of_errors_and_empty_texts_are_told_from_chance(share: float) -> None:
    """Where the clients' recordings are the reason, both versions fail as often."""
    chance = Random(4)
    for _ in range(DRAWS // 2):
        old = sum(chance.random() < share for _ in range(100))
        new = [chance.random() < share for _ in range(60)]
        for number in (20, 30, 40, 60):
            bad = sum(new[:number])
            one = Numbers(0, number, bad, bad, 0, 0)
            assert compare(one, Numbers(0, 100, old, old, 0, 0), ALLOWED) is None
    for bad in (Numbers(0, 20, 20, 0, 0, 0), Numbers(0, 20, 0, 20, 0, 0), Numbers(0, 60, 54, 0, 0, 0)):
        found = compare(bad, Numbers(0, 100, round(100 * share), round(100 * share), 0, 0), ALLOWED)
        assert found is not None


def test_errors_alone_count_where_there_is_no_other_version() -> None:
    assert compare_errors(Numbers(0, 20, 1, 20, 0, 0), ALLOWED) is None
    assert compare_errors(Numbers(0, 19, 19, 0, 0, 0), ALLOWED) is None
    assert compare_errors(Numbers(0, 20, 4, 0, 0, 0), ALLOWED) == "20% errors (4 of 20 answers)"


def test_a_version_that_answers_nothing_is_told_by_what_the_other_one_answers_meanwhile() -> None:
    silent = Numbers(3, 0, 0, 0, 0, 0)
    assert compare_silence(silent, Numbers(0, 19, 0, 0, 0, 0), ALLOWED) is None
    assert compare_silence(silent, Numbers(0, 20, 0, 0, 0, 0), ALLOWED) is not None
