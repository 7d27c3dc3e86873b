"""Whose turn it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asrsvc.speech.turns import Turns


def served(turns: Turns[str]) -> str:
    return "".join(turns.drain())


def test_one_askers_items_come_in_their_order() -> None:
    turns: Turns[str] = Turns()
    for item in "abc":
        turns.put(1, item)
    assert served(turns) == "abc"


def test_askers_take_turns() -> None:
    turns: Turns[str] = Turns()
    for asker, items in (("long", "LMNO"), ("other", "XYZ"), ("short", "s")):
        for item in items:
            turns.put(asker, item)
    assert served(turns) == "LXsMYNZO"


def test_who_comes_while_another_has_just_been_served_is_next() -> None:
    turns: Turns[str] = Turns()
    for item in "LMN":
        turns.put("long", item)
    assert turns.take() == "L"
    turns.put("short", "s")
    assert served(turns) == "sMN"


def test_nobody_is_passed_over_by_one_that_fits() -> None:
    turns: Turns[str] = Turns()
    for asker, item in enumerate("aab"):
        turns.put(asker, item)
    assert turns.take(lambda item: item == "b") is None
    assert turns.take(lambda item: item == "a") == "a"
    assert len(turns) == 2
    assert served(turns) == "ab"


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_all_come_out_once_in_their_askers_order_and_nobody_twice_while_others_wait(
    steps: list[tuple[int, bool]],
) -> None:
    turns: Turns[tuple[int, int]] = Turns()
    waiting: dict[int, list[int]] = {asker: [] for asker in range(4)}
    last = None
    for number, (asker, takes) in enumerate([*steps, *[(0, True)] * len(steps)]):
        if not takes:
            turns.put(asker, (asker, number))
            waiting[asker].append(number)
            continue
        taken = turns.take()
        assert len(turns) == sum(map(len, waiting.values())) - (taken is not None)
        if taken is None:
            continue
        assert waiting[taken[0]].pop(0) == taken[1]
        others = any(line for other, line in waiting.items() if other != taken[0])
        assert not (taken[0] == last and others)
        last = taken[0]
    assert not any(waiting.values())
