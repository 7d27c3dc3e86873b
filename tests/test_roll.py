"""The roll as a table of cases, and as a machine that a simulated world drives at random.

A line of a case is an event and, after the arrow, what the machine asks for:

    10 wish b              -> spawn 3 b
    12 gone 3 no memory    -> settle 1 b failed: no memory

The first number is the time. `wish -` calls off; `wish b forced` is one with tried=False, `wish b back`
one with soaks=False; a worker without a model has the version `-`. A line with a question mark asks:
`? base a`, `? step soak`, `? deadline 20`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asrsvc.serving.roll import (
    Action,
    Drains,
    Event,
    Gone,
    Kill,
    Leave,
    Limits,
    Machine,
    Ready,
    Result,
    Scale,
    Settle,
    Soaked,
    Spawn,
    Step,
    Tick,
    Wish,
    WorkerState,
    Worn,
)

READY, LEAVE, DRAIN, SOAK = 30.0, 5.0, 600.0, 10.0


def machine(workers: int, candidates: str = "a", max_draining: int | None = None) -> Machine:
    return Machine(
        workers, Limits(READY, LEAVE, DRAIN, SOAK, max_draining or workers), candidates=candidates.split()
    )


def serving(workers: int, candidates: str = "a", max_draining: int | None = None) -> Machine:
    """One whose workers 1 to n have served the first candidate for long, at the time 0."""
    result = machine(workers, candidates, max_draining)
    result.handle(Tick(-1000))
    for worker in range(1, workers + 1):
        result.handle(Ready(-1000, worker))
    return result


def parse(at: float, words: list[str]) -> Event:
    match words:
        case ["wish", version, *how]:
            wished = None if version == "-" else version
            return Wish(at, wished, tried="forced" not in how, soaks="back" not in how)
        case ["ready", worker]:
            return Ready(at, int(worker))
        case ["worn", worker]:
            return Worn(at, int(worker))
        case ["drains", worker]:
            return Drains(at, int(worker))
        case ["gone", worker, *error]:
            return Gone(at, int(worker), " ".join(error) or "exit 1")
        case ["soaked", *error]:
            return Soaked(at, " ".join(error) or None)
        case ["scale", workers]:
            return Scale(at, int(workers))
        case ["tick"]:
            return Tick(at)
    raise ValueError(words)


def show(action: Action) -> str:
    match action:
        case Spawn(worker, version, tried):
            return f"spawn {worker} {version or '-'}" + ("" if tried else " forced")
        case Leave(worker):
            return f"leave {worker}"
        case Kill(worker):
            return f"kill {worker}"
        case Settle(roll, version, result, error):
            return f"settle {roll} {version} {result}" + (f": {error}" if error else "")


def answer(subject: Machine, question: str) -> str:
    match question:
        case "base":
            return str(subject.base)
        case "step":
            return subject.roll.step if subject.rolling and subject.roll else "none"
        case "deadline":
            return "none" if (end := subject.deadline()) is None else f"{end:g}"
        case "ready":
            return str(subject.ready)
        case "pending":
            return subject.pending.version or "-" if subject.pending else "none"
    raise ValueError(question)


def check(subject: Machine, case: str) -> None:
    for line in filter(None, map(str.strip, case.splitlines())):
        if line.startswith("?"):
            _, question, expected = line.split()
            assert answer(subject, question) == expected, line
            continue
        told, _, wanted = (part.strip() for part in line.partition("->"))
        at, *words = told.split()
        actions = subject.handle(parse(float(at), words))
        assert "; ".join(map(show, actions)) == wanted, line
        assert subject.handle(Tick(float(at))) == (), f"{line}: a second look changes it"


CASES: dict[str, tuple[Machine, str]] = {
    # The happy path.
    "one worker is replaced": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
        ? step first
        ? deadline 30
         3 ready 2   ->
        ? step soak
        ? deadline 13
        13 tick      -> leave 1
        ? step replace
        ? deadline 18
        14 drains 1  -> settle 1 b succeeded
        ? base b
        ? step none
        ? deadline 614
        60 gone 1    ->
        ? deadline none
        """,
    ),
    "two workers are replaced one after the other": (
        serving(2),
        """
         0 wish b    -> spawn 3 b
         3 ready 3   ->
        13 tick      -> leave 1; spawn 4 b
        14 drains 1  ->
        15 gone 1    ->
        16 ready 4   -> leave 2
        ? base a
        17 drains 2  -> settle 1 b succeeded
        ? base b
        """,
    ),
    "four workers are replaced one after the other": (
        serving(4),
        """
         0 wish b    -> spawn 5 b
         3 ready 5   ->
        13 tick      -> leave 1; spawn 6 b
        14 drains 1  ->
        16 ready 6   -> leave 2; spawn 7 b
        17 drains 2  ->
        20 ready 7   -> leave 3; spawn 8 b
        21 drains 3  ->
        24 ready 8   -> leave 4
        25 drains 4  -> settle 1 b succeeded
        """,
    ),
    "the same version again": (
        serving(1),
        """
         0 wish a    -> spawn 2 a
         3 ready 2   ->
        13 tick      -> leave 1
        14 drains 1  -> settle 1 a succeeded
        """,
    ),
    "enough requests end the soak": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         3 ready 2   ->
         5 soaked    -> leave 1
        """,
    ),
    "what has served before does not soak": (
        serving(2, "b a"),
        """
         0 wish a back -> spawn 3 a
         3 ready 3     -> leave 1; spawn 4 a
         4 drains 1    ->
         5 ready 4     -> leave 2
         6 drains 2    -> settle 1 a succeeded
         7 wish b      -> spawn 5 b
         8 ready 5     ->
        ? step soak
        """,
    ),
    "a new worker that crashes without a soak fails its roll too": (
        serving(2, "b a"),
        """
         0 wish a back     -> spawn 3 a
         3 ready 3         -> leave 1; spawn 4 a
         4 gone 3 signal 9 -> kill 4; spawn 5 b; settle 1 a failed: signal 9
        ? base b
        """,
    ),
    "an old worker that ends without a word no longer takes requests either": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         3 ready 2   ->
         5 soaked    -> leave 1
         6 gone 1    -> settle 1 b succeeded
        """,
    ),
    # The new version is bad.
    "the first new worker hangs": (
        serving(2),
        """
         0 wish b    -> spawn 3 b
        29 tick      ->
        30 tick      -> kill 3; settle 1 b failed: it was not ready within 30 s
        31 gone 3    ->
        31 ready 3   ->
        ? base a
        ? ready 2
        ? deadline none
        """,
    ),
    "the first new worker says why it failed": (
        serving(2),
        """
         0 wish b                   -> spawn 3 b
         1 gone 3 NaN in the output -> settle 1 b failed: NaN in the output
        """,
    ),
    "a new worker crashes in the soak": (
        serving(2),
        """
         0 wish b          -> spawn 3 b
         3 ready 3         ->
         4 gone 3 signal 9 -> settle 1 b failed: signal 9
        ? ready 2
        """,
    ),
    "a new worker leaves by itself in the soak": (
        serving(2),
        """
         0 wish b     -> spawn 3 b
         3 ready 3    ->
         4 drains 3   -> settle 1 b failed: it left unasked
        """,
    ),
    "the new version falls behind in the soak": (
        serving(1),
        """
         0 wish b              -> spawn 2 b
         3 ready 2             ->
         4 soaked too slow     -> leave 2
        ? step undo
         5 drains 2            -> settle 1 b failed: too slow
        ? base a
        """,
    ),
    "the comparison comes with the end of the soak": (
        serving(1),
        """
         0 wish b              -> spawn 2 b
         3 ready 2             ->
        13 soaked too slow     -> leave 2
        """,
    ),
    "a new worker crashes while the others follow": (
        serving(2),
        """
         0 wish b          -> spawn 3 b
         3 ready 3         ->
        13 tick            -> leave 1; spawn 4 b
        14 gone 4 signal 9 -> spawn 5 a
        ? step undo
        16 ready 5         -> leave 3
        17 drains 3        -> settle 1 b failed: signal 9
        ? ready 2
        """,
    ),
    "a new worker crashes when most have followed": (
        serving(4),
        """
         0 wish b    -> spawn 5 b
         3 ready 5   ->
        13 tick      -> leave 1; spawn 6 b
        14 drains 1  ->
        16 ready 6   -> leave 2; spawn 7 b
        17 drains 2  ->
        18 gone 1    ->
        18 gone 2    ->
        20 ready 7   -> leave 3; spawn 8 b
        21 gone 5    -> kill 8; spawn 9 a; spawn 10 a
        22 ready 9   ->
        23 drains 3  ->
        23 ready 10  -> leave 6; spawn 11 a
        24 ready 11  -> leave 7
        25 drains 6  ->
        26 drains 7  -> settle 1 b failed: exit 1
        """,
    ),
    "a new worker hangs while the others follow": (
        serving(2),
        """
         0 wish b    -> spawn 3 b
         3 ready 3   ->
        13 tick      -> leave 1; spawn 4 b
        14 drains 1  ->
        43 tick      -> kill 4; spawn 5 a
        44 ready 5   -> leave 3
        45 drains 3  -> settle 1 b failed: it was not ready within 30 s
        """,
    ),
    "a failed version is no candidate any more": (
        serving(1, "a b"),
        """
         0 wish b    -> spawn 2 b
         1 gone 2    -> settle 1 b failed: exit 1
         2 gone 1    -> spawn 3 a
         3 gone 3    ->
         4 tick      -> spawn 4 a; spawn 5 -
        """,
    ),
    # Old workers die.
    "an old worker dies while the first new one loads": (
        serving(2),
        """
         0 wish b    -> spawn 3 b
         1 gone 1    -> spawn 4 a
         2 ready 3   ->
         3 ready 4   ->
        12 tick      -> leave 2; spawn 5 b
        """,
    ),
    "both old workers die while the first new one loads": (
        serving(2),
        """
         0 wish b    -> spawn 3 b
         1 gone 1    -> spawn 4 a
         2 gone 2    -> spawn 5 a
        """,
    ),
    "an old worker dies in the soak": (
        serving(2),
        """
         0 wish b    -> spawn 3 b
         2 ready 3   ->
         3 gone 2    -> spawn 4 a
         4 ready 4   ->
        12 tick      -> leave 1; spawn 5 b
        """,
    ),
    "an old worker dies in the soak and its successor is still loading when it ends": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         2 ready 2   ->
        11 gone 1    -> spawn 3 a
        12 tick      -> kill 3; settle 1 b succeeded
        """,
    ),
    "an old worker dies while the others follow": (
        serving(2),
        """
         0 wish b    -> spawn 3 b
         3 ready 3   ->
        13 tick      -> leave 1; spawn 4 b
        14 drains 1  ->
        15 gone 2    -> spawn 5 a
        16 ready 4   -> kill 5; settle 1 b succeeded
        """,
    ),
    "an old worker's successor is ready before the new one": (
        serving(2),
        """
         0 wish b    -> spawn 3 b
         3 ready 3   ->
        13 tick      -> leave 1; spawn 4 b
        15 gone 2    -> spawn 5 a
        16 ready 5   ->
        17 ready 4   -> leave 5
        18 drains 1  ->
        19 drains 5  -> settle 1 b succeeded
        """,
    ),
    "an old worker dies during the undo": (
        serving(2),
        """
         0 wish b    -> spawn 3 b
         3 ready 3   ->
        13 tick      -> leave 1; spawn 4 b
        14 gone 4    -> spawn 5 a
        15 gone 2    -> spawn 6 a
        16 drains 1  ->
        16 ready 5   ->
        17 ready 6   -> leave 3
        18 drains 3  -> settle 1 b failed: exit 1
        """,
    ),
    "a worker that dies is replaced at once, then after 1, 2, 4 s; never a halt": (
        serving(1),
        """
         0 gone 1    -> spawn 2 a
         1 ready 2   ->
         2 gone 2    ->
        ? deadline 3
         3 tick      -> spawn 3 a; spawn 4 -
         4 ready 3   -> kill 4
         5 gone 3    ->
         6 tick      ->
         7 tick      -> spawn 5 a; spawn 6 -
         8 ready 5   -> kill 6
         9 gone 5    ->
        12 tick      ->
        13 tick      -> spawn 7 a; spawn 8 -
        """,
    ),
    "one that had served for long is replaced at once again": (
        serving(1),
        """
          0 gone 1    -> spawn 2 a
          1 ready 2   ->
          2 gone 2    ->
          3 tick      -> spawn 3 a; spawn 4 -
          4 ready 3   -> kill 4
         70 gone 3    -> spawn 5 a
        """,
    ),
    "a slot that got over its trouble is replaced at once again": (
        serving(2),
        """
          0 gone 1    -> spawn 3 a
          1 gone 3    ->
          2 tick      -> spawn 4 a
          3 ready 4   ->
         99 scale 3   -> spawn 5 a
        100 gone 5    -> spawn 6 a
        """,
    ),
    "workers that die together count once": (
        machine(4),
        """
         0 tick      -> spawn 1 a; spawn 2 a; spawn 3 a; spawn 4 a
         1 ready 1   ->
         1 ready 2   ->
         1 ready 3   ->
         2 gone 1    -> spawn 5 a
         3 gone 2    -> spawn 6 a
         4 gone 3    -> spawn 7 a
         5 gone 4    -> spawn 8 a
        """,
    ),
    "the base does not load while others serve it: back-off, and no other version": (
        serving(2, "a z"),
        """
         0 gone 1    -> spawn 3 a
         1 gone 3    ->
         2 tick      -> spawn 4 a
         3 gone 4    ->
         5 tick      -> spawn 5 a
         6 gone 5    ->
        10 tick      -> spawn 6 a
        ? base a
        """,
    ),
    # Leaving.
    "one that never says that it drains is killed": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         3 ready 2   ->
         5 soaked    -> leave 1
         9 tick      ->
        10 tick      -> kill 1; settle 1 b succeeded
        """,
    ),
    "a new one that never says that it drains is killed": (
        serving(1),
        """
         0 wish b         -> spawn 2 b
         3 ready 2        ->
         4 soaked slow    -> leave 2
         9 tick           -> kill 2; settle 1 b failed: slow
        """,
    ),
    "one that drains for ever is killed": (
        serving(1),
        """
          0 wish b    -> spawn 2 b
          3 ready 2   ->
          5 soaked    -> leave 1
          7 drains 1  -> settle 1 b succeeded
        100 drains 1  ->
        606 tick      ->
        607 tick      -> kill 1
        607 gone 1    ->
        607 gone 1    ->
        """,
    ),
    "one that leaves by itself is replaced at once": (
        serving(1),
        """
         0 drains 1  -> spawn 2 a
         1 gone 1    ->
        """,
    ),
    "a roll waits for room to drain": (
        serving(2, max_draining=1),
        """
         0 wish b    -> spawn 3 b
         3 ready 3   ->
         5 soaked    -> leave 1; spawn 4 b
         6 drains 1  ->
         7 ready 4   ->
        ? ready 3
        99 gone 1    -> leave 2
        99 drains 2  -> settle 1 b succeeded
        """,
    ),
    "a stuck request does not hold up the others": (
        serving(2),
        """
         0 wish b    -> spawn 3 b
         3 ready 3   ->
         5 soaked    -> leave 1; spawn 4 b
         6 drains 1  ->
         7 ready 4   -> leave 2
         8 drains 2  -> settle 1 b succeeded
         9 wish c    -> spawn 5 c
        10 ready 5   ->
        11 soaked    ->
        ? ready 3
        20 gone 2    -> leave 3; spawn 6 c
        """,
    ),
    # Wishes during a roll.
    "the same wish again: remembered once, rolled again after": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         1 wish b    ->
         2 wish b    ->
         3 ready 2   ->
         4 wish b    ->
         5 soaked    -> leave 1
        ? pending b
         6 drains 1  -> settle 1 b succeeded; spawn 3 b
        ? pending none
        ? base b
         7 ready 3   ->
         7 gone 1    ->
         8 soaked    -> leave 2
         9 drains 2  -> settle 2 b succeeded
        ? step none
        """,
    ),
    "another wish while the first new worker loads: undone first, then the other": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         1 wish c    -> kill 2; settle 1 b aborted: called off; spawn 3 c
         1 ready 2   ->
        ? step first
        """,
    ),
    "another wish in the soak": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         3 ready 2   ->
         4 wish c    -> leave 2
        ? step undo
         5 drains 2  -> settle 1 b aborted: called off; spawn 3 c
        """,
    ),
    "another wish while the others follow": (
        serving(2),
        """
         0 wish b    -> spawn 3 b
         3 ready 3   ->
         5 soaked    -> leave 1; spawn 4 b
         6 wish c    -> kill 4; spawn 5 a
         7 ready 5   -> leave 3
         8 drains 3  -> settle 1 b aborted: called off; spawn 6 c
        """,
    ),
    "a wish for the version that serves undoes the roll too": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         1 wish a    -> kill 2; settle 1 b aborted: called off; spawn 3 a
        """,
    ),
    "abort": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         3 ready 2   ->
         4 wish -    -> leave 2
         5 drains 2  -> settle 1 b aborted: called off
        ? base a
        ? step none
        ? ready 1
        """,
    ),
    "abort forgets what was remembered": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         1 wish b    ->
         2 wish -    -> kill 2; settle 1 b aborted: called off
        ? pending none
        """,
    ),
    "abort at the last moment": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         3 ready 2   ->
         5 soaked    -> leave 1
         6 wish -    -> spawn 3 a
         7 drains 1  ->
         7 gone 1    ->
         8 ready 3   -> leave 2
         9 drains 2  -> settle 1 b aborted: called off
        """,
    ),
    "abort without a roll": (serving(1), "0 wish - ->"),
    "wishes during the undo: the last one wins": (
        serving(1),
        """
         0 wish b        -> spawn 2 b
         3 ready 2       ->
         4 soaked slow   -> leave 2
         5 wish c        ->
         5 wish b        ->
         6 drains 2      -> settle 1 b failed: slow; spawn 3 b
        """,
    ),
    "abort during the undo": (
        serving(1),
        """
         0 wish b        -> spawn 2 b
         3 ready 2       ->
         4 soaked slow   -> leave 2
         5 wish c        ->
         5 wish -        ->
         6 drains 2      -> settle 1 b failed: slow
        ? step none
        """,
    ),
    "twenty wishes in a row: the last one wins": (
        serving(1),
        "0 wish v0 -> spawn 2 v0\n"
        + "".join(
            f"0 wish v{n} -> kill {n + 1}; settle {n} v{n - 1} aborted: called off; spawn {n + 2} v{n}\n"
            for n in range(1, 20)
        )
        + """
         3 ready 21   ->
         5 soaked     -> leave 1
         6 drains 1   -> settle 20 v19 succeeded
        ? base v19
        """,
    ),
    "a wish at boot waits until the base serves": (
        machine(2),
        """
         0 wish b    -> spawn 1 a; spawn 2 a
         1 ready 1   ->
         2 ready 2   -> spawn 3 b
        """,
    ),
    # More and fewer workers.
    "one more, one fewer": (
        serving(2),
        """
         0 scale 3   -> spawn 3 a
         1 ready 3   ->
         2 scale 2   -> leave 1
         3 scale 3   -> spawn 4 a
         4 scale 2   -> kill 4
         5 scale 0   -> leave 2
        ? ready 1
        """,
    ),
    "one more while the first new worker loads": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         1 scale 2   -> spawn 3 a
         2 ready 2   ->
         3 ready 3   ->
         4 soaked    -> leave 1; spawn 4 b
        """,
    ),
    "one fewer while the first new worker loads": (
        serving(2),
        """
         0 wish b    -> spawn 3 b
         1 scale 1   -> leave 1
         2 ready 3   ->
         4 soaked    -> leave 2
         5 drains 1  ->
         6 drains 2  -> settle 1 b succeeded
        """,
    ),
    "one more and one fewer in the soak": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         1 ready 2   ->
         2 scale 2   -> spawn 3 a
         3 ready 3   ->
         4 scale 1   -> leave 1
         5 soaked    ->
        ? ready 2
         6 gone 1    -> leave 3
         7 drains 3  -> settle 1 b succeeded
        """,
    ),
    "one more while the others follow": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         1 ready 2   ->
         2 soaked    -> leave 1
         3 scale 2   -> spawn 3 a; spawn 4 b
         4 ready 4   -> kill 3
         5 drains 1  -> settle 1 b succeeded
        """,
    ),
    "far fewer while the others follow": (
        serving(4),
        """
         0 wish b    -> spawn 5 b
         1 ready 5   ->
         2 soaked    -> leave 1; spawn 6 b
         3 ready 6   -> leave 2; spawn 7 b
         4 scale 1   -> leave 3; leave 4; kill 7
        ? ready 2
         5 gone 1    -> leave 5
         6 gone 2    ->
         7 drains 3  ->
         8 drains 5  ->
         9 drains 4  -> settle 1 b succeeded
        ? ready 1
        """,
    ),
    "one more during the undo": (
        serving(1),
        """
         0 wish b        -> spawn 2 b
         1 ready 2       ->
         2 scale 2       -> spawn 3 a
         3 soaked slow   ->
         4 ready 3       -> leave 2
         5 drains 2      -> settle 1 b failed: slow
        """,
    ),
    "one fewer during the undo": (
        serving(2),
        """
         0 wish b    -> spawn 3 b
         1 ready 3   ->
         2 soaked    -> leave 1; spawn 4 b
         3 gone 4    -> spawn 5 a
         4 scale 1   -> kill 5; leave 3
         5 drains 3  -> settle 1 b failed: exit 1
        """,
    ),
    # Boot, and nothing that loads.
    "boot: all at once": (
        machine(4),
        """
         0 tick      -> spawn 1 a; spawn 2 a; spawn 3 a; spawn 4 a
        ? deadline 30
         1 ready 1   ->
         1 ready 2   ->
         1 ready 3   ->
         1 ready 4   ->
        ? deadline none
        """,
    ),
    "boot: the best candidate does not load, the next one serves": (
        machine(1, "a y z"),
        """
         0 tick      -> spawn 1 a
         1 gone 1    -> spawn 2 a
         2 gone 2    ->
        ? deadline 3
         3 tick      -> spawn 3 y
        ? base y
         4 gone 3    ->
         6 tick      -> spawn 4 z
         7 ready 4   ->
        ? base z
         9 wish b    -> spawn 5 b
        """,
    ),
    "boot: the next candidate has to wait for the last one that loads still": (
        machine(2, "a z"),
        """
         0 tick      -> spawn 1 a; spawn 2 a
         1 gone 1    -> spawn 3 a
         2 gone 3    ->
         3 tick      ->
        20 ready 2   -> spawn 4 a
        ? base a
        """,
    ),
    "boot: a load that fails now and then is no reason to try another": (
        machine(1, "a z"),
        """
          0 tick      -> spawn 1 a
          1 gone 1    -> spawn 2 a
          2 ready 2   ->
          3 gone 2    ->
          4 tick      -> spawn 3 a
          5 gone 3    ->
          7 tick      -> spawn 4 a; spawn 5 -
        ? base a
        """,
    ),
    "boot: a candidate that hangs": (
        machine(2, "a z"),
        """
         0 tick      -> spawn 1 a; spawn 2 a
        30 tick      -> kill 1; kill 2; spawn 3 a; spawn 4 a
        60 tick      -> kill 3; kill 4
        61 tick      -> spawn 5 z; spawn 6 z
        """,
    ),
    "boot: no candidate loads, so one worker without a model says so": (
        machine(2, "a z"),
        """
         0 tick      -> spawn 1 a; spawn 2 a
         1 gone 1    -> spawn 3 a
         1 gone 2    -> spawn 4 a
         2 gone 3    ->
         2 gone 4    ->
         3 tick      -> spawn 5 z; spawn 6 z
         4 gone 5    ->
         4 gone 6    ->
         6 tick      -> spawn 7 a; spawn 8 a; spawn 9 -
         7 ready 9   ->
         8 gone 7    ->
         8 gone 8    ->
        ? deadline 12
        12 tick      -> spawn 10 z; spawn 11 z
        13 ready 10  -> leave 9
        14 drains 9  ->
        15 gone 9    ->
        16 ready 11  ->
        ? base z
        """,
    ),
    "boot: no candidate at all, then a wish for a good version": (
        machine(1, ""),
        """
         0 tick      -> spawn 1 -
         1 ready 1   ->
        ? deadline none
         2 wish b    -> spawn 2 b
         3 ready 2   -> leave 1
         4 soaked    ->
         5 drains 1  -> settle 1 b succeeded
        ? base b
        """,
    ),
    "no candidate at all, and a wish that is called off: nothing serves, as before": (
        machine(1, ""),
        """
         0 tick      -> spawn 1 -
         2 wish b    -> spawn 2 b
         3 ready 2   -> kill 1
         4 wish -    -> leave 2; spawn 3 -
         5 drains 2  -> settle 1 b aborted: called off
        """,
    ),
    "the worker without a model dies": (
        machine(1, ""),
        """
         0 tick      -> spawn 1 -
         1 gone 1    -> spawn 2 -
         2 gone 2    ->
        ? deadline 3
         3 tick      -> spawn 3 -
        33 tick      -> kill 3
        ? deadline 35
        """,
    ),
    "a wish for a good version while nothing loads": (
        machine(2),
        """
         0 tick      -> spawn 1 a; spawn 2 a
         1 gone 1    -> spawn 3 a
         1 gone 2    -> spawn 4 a
         2 gone 3    ->
         2 gone 4    ->
         3 tick      -> spawn 5 a; spawn 6 a; spawn 7 -
         4 ready 7   ->
         5 wish b    -> spawn 8 b
         6 ready 8   -> leave 7
         7 drains 7  ->
        16 tick      -> kill 5; spawn 9 b
        17 ready 9   -> kill 6; settle 1 b succeeded
        """,
    ),
    "the base does not load, and the undo needs it: the next candidate": (
        serving(2, "a z"),
        """
         0 wish b        -> spawn 3 b
         1 ready 3       ->
         2 soaked        -> leave 1; spawn 4 b
         3 drains 1      ->
         3 gone 4 oops   -> spawn 5 a
         4 gone 5        -> spawn 6 a
         5 gone 6        ->
         6 tick          -> spawn 7 z
         7 ready 7       -> leave 3
         8 drains 3      -> settle 1 b failed: oops; spawn 8 z
        ? base z
         8 gone 1        ->
         9 ready 8       -> leave 2
        """,
    ),
    "after a roll the version of before is the next candidate": (
        serving(1, "a z"),
        """
         0 wish b    -> spawn 2 b
         1 ready 2   ->
         2 soaked    -> leave 1
         3 drains 1  -> settle 1 b succeeded
         4 gone 2    -> spawn 3 b
         5 gone 3    ->
         6 tick      -> spawn 4 b
         7 gone 4    ->
         9 tick      -> spawn 5 a
        """,
    ),
    "after a roll the version of before is the next candidate, though not the best at boot": (
        machine(1, "a z"),
        """
          0 tick      -> spawn 1 a
          1 gone 1    -> spawn 2 a
          2 gone 2    ->
          3 tick      -> spawn 3 z
          4 ready 3   ->
          5 wish b    -> spawn 4 b
          6 ready 4   ->
          7 soaked    -> leave 3
          8 drains 3  -> settle 1 b succeeded
         90 gone 4    -> spawn 5 b
         91 gone 5    ->
         92 tick      -> spawn 6 b
         93 gone 6    ->
         95 tick      -> spawn 7 z
        """,
    ),
    "a roll that succeeds ends the back-off": (
        serving(1),
        """
          0 gone 1    -> spawn 2 a
          1 gone 2    ->
          2 tick      -> spawn 3 a; spawn 4 -
          3 ready 3   -> kill 4
          4 wish b    -> spawn 5 b
          5 ready 5   ->
          6 soaked    -> leave 3
          7 drains 3  -> settle 1 b succeeded
          8 gone 5    -> spawn 6 b
        """,
    ),
    # A version that is not compared.
    "only the new workers go without the comparison": (
        serving(2),
        """
         0 wish b forced -> spawn 3 b forced
         1 ready 3       ->
         2 gone 1        -> spawn 4 a
         3 ready 4       ->
         4 soaked        -> leave 2; spawn 5 b forced
        """,
    ),
    "once it has served, its successors go without it too": (
        serving(1),
        """
         0 wish b forced -> spawn 2 b forced
         1 ready 2       ->
         2 soaked        -> leave 1
         3 drains 1      -> settle 1 b succeeded
         4 gone 2        -> spawn 3 b forced
         5 ready 3       ->
         5 gone 1        ->
         6 wish b        -> spawn 4 b
         7 ready 4       ->
         8 soaked        -> leave 3
         9 drains 3      -> settle 2 b succeeded
        99 gone 4        -> spawn 5 b
        """,
    ),
    # Workers that have served enough.
    "one that is worn leaves when another has taken its place": (
        serving(2),
        """
         0 worn 1    -> spawn 3 a
         1 worn 1    ->
         2 ready 3   -> leave 1
        """,
    ),
    "workers that are worn together are replaced one after the other": (
        serving(2),
        """
         0 worn 1    -> spawn 3 a
         1 worn 2    ->
         2 ready 3   -> leave 1; spawn 4 a
         3 ready 4   -> leave 2
        """,
    ),
    "a worn one serves on while its successor does not load": (
        serving(1, "a z"),
        """
         0 worn 1    -> spawn 2 a
         1 gone 2    -> spawn 3 a
         2 gone 3    ->
         3 tick      -> spawn 4 a
        ? ready 1
        """,
    ),
    "one that is worn during a roll is replaced by it, or after it": (
        serving(1),
        """
         0 wish b    -> spawn 2 b
         1 worn 1    ->
         2 ready 2   ->
         3 worn 2    ->
         4 soaked    -> leave 1
         5 drains 1  -> settle 1 b succeeded; spawn 3 b
         5 gone 1    ->
         6 ready 3   -> leave 2
        """,
    ),
    # What means nothing any more.
    "late, unknown and repeated events": (
        serving(1),
        """
         0 ready 1       ->
         0 ready 99      ->
         0 drains 99     ->
         0 worn 99       ->
         0 gone 99       ->
         0 soaked bad    ->
         1 wish b        -> spawn 2 b
         2 soaked bad    ->
         3 worn 2        ->
        31 tick          -> kill 2; settle 1 b failed: it was not ready within 30 s
        32 ready 2       ->
        33 drains 2      ->
        34 gone 2        ->
        35 gone 2        ->
        ? ready 1
        36 scale 2       -> spawn 3 a
        37 worn 3        ->
        38 ready 3       ->
        39 scale 1       -> leave 1
        40 ready 1       ->
        41 drains 1      ->
        42 ready 1       ->
        ? ready 1
        """,
    ),
}


@pytest.mark.parametrize(("subject", "case"), CASES.values(), ids=CASES.keys())
def test_the_machine_answers(subject: Machine, case: str) -> None:
    check(copy.deepcopy(subject), case)


def test_a_crash_loop_of_weeks_is_no_arithmetic_error() -> None:
    subject = machine(1)
    actions = subject.handle(Tick(0))
    at = 0.0
    for _ in range(2000):
        for action in actions:
            if isinstance(action, Spawn):
                at += 1
                subject.handle(Gone(at, action.worker, "exit 1"))
        end = subject.deadline()
        assert end is not None
        assert end <= at + 60
        at = end
        actions = subject.handle(Tick(at))
        assert actions


def test_a_kill_says_why() -> None:
    subject = serving(1)
    subject.handle(Wish(0, "b"))
    kill, settle = subject.handle(Tick(30))
    assert kill == Kill(2, "it was not ready within 30 s")
    assert settle == Settle(1, "b", Result.FAILED, "it was not ready within 30 s")
    subject.handle(Wish(40, "b"))
    assert subject.handle(Wish(41, None))[0] == Kill(3, "it is not needed any more")


def test_a_base_is_taken_before_the_candidates() -> None:
    subject = Machine(1, Limits(READY, LEAVE, DRAIN, SOAK, 1), ["a", "b"], base="b")
    assert subject.handle(Tick(0)) == (Spawn(1, "b"),)
    assert subject.candidates == ["b", "a"]


# The same in a world that does what it likes.


@dataclass
class Process:
    """A worker as the world sees it."""

    version: str | None
    new: int
    """the roll that it was started for; 0 for the base"""
    state: WorkerState
    deadline: float


STAYING = (WorkerState.LOADING, WorkerState.READY)
VERSIONS = ("a", "b", "c")
SECONDS = st.sampled_from([0.0, 0.5, 2.0, 4.0, 11.0, 31.0, 61.0, 700.0])
PICK = st.integers(0, 30)


class World(RuleBasedStateMachine):
    """Carries the actions out, late or never, and lets everything else happen at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.processes: dict[int, Process] = {}
        self.number = 0
        self.settled = 0

    @initialize(
        workers=st.integers(1, 4),
        candidates=st.sampled_from([["a"], ["a", "b"], []]),
        max_draining=st.integers(1, 4),
        soak=st.sampled_from([0.0, SOAK]),
    )
    def boot(self, workers: int, candidates: list[str], max_draining: int, soak: float) -> None:
        self.good = set(candidates)
        self.machine = Machine(workers, Limits(READY, LEAVE, DRAIN, soak, max_draining), candidates)
        self.tell(Tick(self.now))

    # What it does with the machine.

    def tell(self, event: Event) -> tuple[Action, ...]:
        actions = self.machine.handle(event)
        for action in actions:
            match action:
                case Spawn():
                    self.spawn(action)
                case Leave(worker):
                    self.leave(worker)
                case Kill(worker):
                    self.kill(worker)
                case Settle():
                    self.settle(action)
        assert self.machine.handle(Tick(event.at)) == (), "a second look changes it"
        return actions

    def serving(self, *states: WorkerState) -> list[Process]:
        return [p for p in self.processes.values() if p.version is not None and p.state in states]

    def spawn(self, action: Spawn) -> None:
        assert action.worker > self.number, "numbers are unique and rise"
        self.number = action.worker
        new = self.machine.workers[action.worker].roll
        if new:
            assert new == self.settled + 1
            assert self.machine.roll is not None
            assert action.version == self.machine.roll.target
        else:
            assert action.version is None or action.version in self.good, "started with an untried version"
        self.processes[action.worker] = Process(action.version, new, WorkerState.LOADING, self.now + READY)
        if action.version is not None:
            assert len(self.serving(*STAYING)) <= self.machine.wanted + 1, "too many"

    def leave(self, worker: int) -> None:
        process = self.processes[worker]
        assert process.state is WorkerState.READY
        process.state, process.deadline = WorkerState.LEAVING, self.now + LEAVE
        ready = len(self.serving(WorkerState.READY))
        if process.version is None:
            assert ready, "the last one that answers was told to leave"
        elif self.good:
            assert ready >= self.machine.wanted, "too few serve"
            gone = len(self.serving(WorkerState.LEAVING, WorkerState.DRAINING))
            assert gone <= self.machine.limits.max_draining, "too many drain"

    def kill(self, worker: int) -> None:
        process = self.processes.pop(worker)
        assert process.state is not WorkerState.READY, "one that serves was killed"

    def settle(self, action: Settle) -> None:
        assert action.roll == self.settled + 1, "settled twice"
        self.settled = action.roll
        taking = [p for p in self.processes.values() if p.state is not WorkerState.DRAINING]
        if action.result is Result.SUCCEEDED:
            assert action.error is None
            assert all(p.new == action.roll for p in taking), "an old one takes requests"
            assert sum(p.state is WorkerState.READY for p in taking) >= self.machine.wanted
            self.good.add(action.version)
            if self.machine.roll is not None:
                assert self.machine.base == action.version
        else:
            assert action.error
            assert all(p.new != action.roll for p in taking), "a new one outlives its roll"

    # What happens.

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Tick(self.now))

    @precondition(lambda self: self.machine.deadline() is not None)
    @rule()
    def a_deadline_passes(self) -> None:
        end = self.machine.deadline()
        assert end is not None
        assert math.isfinite(end)
        assert end > self.now, "a deadline that has passed changed nothing"
        self.now = end
        before = copy.deepcopy(self.machine)
        self.tell(Tick(self.now))
        assert self.machine != before, "a deadline changed nothing"

    def pick(self, number: int, *states: WorkerState) -> int | None:
        choice = [n for n, p in self.processes.items() if p.state in states]
        return choice[number % len(choice)] if choice else None

    @rule(number=PICK, seconds=st.sampled_from([0.0, 1.0]))
    def one_gets_ready(self, number: int, seconds: float) -> None:
        worker = self.pick(number, WorkerState.LOADING)
        if worker is not None:
            self.now += seconds
            self.processes[worker].state = WorkerState.READY
            self.tell(Ready(self.now, worker))

    @rule()
    def all_get_ready(self) -> None:
        for worker in [n for n, p in self.processes.items() if p.state is WorkerState.LOADING]:
            if worker in self.processes:
                self.processes[worker].state = WorkerState.READY
                self.tell(Ready(self.now, worker))

    @rule(number=PICK, asked=st.sampled_from([True, True, True, False]))
    def one_drains(self, number: int, asked: bool) -> None:
        states = (WorkerState.LEAVING,) if asked else tuple(WorkerState)
        worker = self.pick(number, *states)
        if worker is not None:
            process = self.processes[worker]
            if process.state is not WorkerState.DRAINING:
                process.state, process.deadline = WorkerState.DRAINING, self.now + DRAIN
            self.tell(Drains(self.now, worker))

    @rule(number=PICK, asked=st.booleans())
    def one_ends(self, number: int, asked: bool) -> None:
        worker = self.pick(number, *([WorkerState.LEAVING, WorkerState.DRAINING] if asked else WorkerState))
        if worker is not None:
            del self.processes[worker]
            self.tell(Gone(self.now, worker, "exit 1"))

    @rule(number=PICK)
    def one_is_worn(self, number: int) -> None:
        worker = self.pick(number, WorkerState.READY)
        if worker is not None:
            self.tell(Worn(self.now, worker))

    @rule(number=st.integers(0, 99), kind=st.sampled_from([Ready, Drains, Worn, None]))
    def one_that_is_no_more_speaks(self, number: int, kind: type[Ready | Drains | Worn] | None) -> None:
        if number not in self.processes:
            assert self.tell(kind(self.now, number) if kind else Gone(self.now, number, "late")) == ()

    @rule(version=st.sampled_from([*VERSIONS, None]), tried=st.booleans())
    def a_wish(self, version: str | None, tried: bool) -> None:
        self.tell(Wish(self.now, version, tried))
        roll, pending = self.machine.roll, self.machine.pending
        if version is None:
            assert pending is None
            assert not self.machine.rolling or (roll is not None and roll.step is Step.UNDO)
        elif pending is not None:
            assert pending.version == version
        else:
            assert self.machine.rolling
            assert roll is not None
            assert (roll.target, roll.tried, roll.step) == (version, tried, Step.FIRST)

    @rule(error=st.sampled_from([None, "slow"]))
    def the_soak_is_decided(self, error: str | None) -> None:
        self.tell(Soaked(self.now, error))

    @rule(workers=st.integers(0, 4))
    def another_number(self, workers: int) -> None:
        self.tell(Scale(self.now, workers))

    @rule(behave=st.sampled_from([False, False, True]))
    def all_goes_well_from_now_on(self, behave: bool) -> None:
        """Every worker gets ready, drains and ends: it comes to rest, with the base alone."""
        if not behave:
            return
        pending = self.machine.pending
        for _ in range(120):
            self.now += 0.1
            worker = self.pick(0, WorkerState.LOADING, WorkerState.LEAVING, WorkerState.DRAINING)
            if worker is None:
                end = self.machine.deadline()
                if end is None:
                    break
                self.now = max(self.now, end)
                self.tell(Tick(self.now))
            elif self.processes[worker].state is WorkerState.LOADING:
                self.processes[worker].state = WorkerState.READY
                self.tell(Ready(self.now, worker))
            elif self.processes[worker].state is WorkerState.LEAVING:
                self.processes[worker].state = WorkerState.DRAINING
                self.tell(Drains(self.now, worker))
            else:
                del self.processes[worker]
                self.tell(Gone(self.now, worker, "exit 0"))
        assert self.machine.deadline() is None, "it does not come to rest"
        assert not self.machine.rolling
        assert self.machine.pending is None
        assert pending is None or self.machine.base == pending.version
        versions = [p.version for p in self.processes.values()]
        if self.good:
            assert versions == [self.machine.base] * self.machine.wanted
        else:
            assert versions == [None]

    # What holds at any time.

    @invariant()
    def both_know_the_same(self) -> None:
        known = {n: (w.version, w.state) for n, w in self.machine.workers.items()}
        assert known == {n: (p.version, p.state) for n, p in self.processes.items()}

    @invariant()
    def every_state_has_a_deadline(self) -> None:
        end = self.machine.deadline()
        for process in self.processes.values():
            if process.state is not WorkerState.READY:
                assert end is not None
                assert self.now < end <= process.deadline
        if self.machine.rolling:
            assert end is not None
            assert math.isfinite(end)

    @invariant()
    def somebody_answers_or_is_on_the_way(self) -> None:
        """Nothing is missing without a deadline at which it is started."""
        staying = [p for p in self.processes.values() if p.state in STAYING]
        assert staying or self.machine.deadline() is not None

    @invariant()
    def no_untried_version_outlives_its_roll(self) -> None:
        for process in self.processes.values():
            if process.state in STAYING and process.version is not None:
                assert process.version in self.good or (
                    self.machine.rolling and process.new == self.settled + 1
                )

    @invariant()
    def the_base_is_good(self) -> None:
        assert self.machine.base in (self.good or {None})
        if self.machine.rolling and self.machine.roll is not None:
            assert (self.machine.roll.result is not None) == (self.machine.roll.step is Step.UNDO)


TestWorld = World.TestCase
TestWorld.settings = settings(
    derandomize=True,
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    # A world of many rules is slow to draw from; the run is bounded by its numbers.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
