"""The status of the service, put together from what the machine and the master know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from asrsvc.serving import status
from asrsvc.serving.roll import Machine, WorkerState


@dataclass(frozen=True, slots=True)
class Known:
    """What the master knows beside the machine."""

    myself: status.Master
    pids: Mapping[int, int]
    """number of a worker → its process"""
    stopping: bool
    problems: tuple[str, ...]
    refused: status.Refused | None
    counters: status.Counters
    forced: frozenset[int] = frozenset()
    """numbers of the workers whose text and speed were not compared"""
    baked: frozenset[int] = frozenset()
    """numbers of the workers that serve the faster twin of their version"""
    numbers: tuple[status.VersionNumbers, ...] = ()


def build(machine: Machine, known: Known) -> status.Status:
    """The status as the file says it."""
    return status.Status(
        master=known.myself,
        state=_state(machine, known),
        version=machine.base,
        workers=tuple(
            status.WorkerStatus(
                pid=known.pids[worker.number],
                version=worker.version,
                state=_public_state(worker.state),
                since=status.at(worker.since),
                forced=worker.number in known.forced,
                baked=worker.number in known.baked,
            )
            for worker in machine.workers.values()
            if worker.number in known.pids
        ),
        wanted=machine.wanted,
        roll=_roll(machine),
        problems=known.problems,
        refused=known.refused,
        counters=known.counters,
        numbers=known.numbers,
    )


def _state(machine: Machine, known: Known) -> status.State:
    if known.stopping:
        return "stopping"
    if machine.ready == 0:
        return "down"
    if machine.rolling:
        return "rolling"
    return "degraded" if known.problems or machine.ready < machine.wanted else "serving"


def _roll(machine: Machine) -> status.Roll | None:
    roll = machine.roll
    if roll is None:
        return None
    return status.Roll(
        id=roll.id,
        source=roll.source,
        target=roll.target,
        step=roll.step.value,
        started=status.at(roll.started),
        result=None if roll.result is None else roll.result.value,
        error=roll.error,
        ended=None if roll.ended is None else status.at(roll.ended),
        forced=not roll.tried,
    )


def _public_state(state: WorkerState) -> status.WorkerState:
    match state:
        case WorkerState.LOADING:
            return "loading"
        case WorkerState.READY:
            return "ready"
        case _:
            return "draining"
