"""Whether a version is slow against what is known: the one rule of trial, warm-up, soak and watch.

Two measurements of the same work are never equal: other processes share the caches and the core's units, a
run in a new process meets pages that are not there yet, and a clip of milliseconds is over before its time
can be told well. So each gate compares the best of several runs, in CPU time; a difference of less than
`LEAST_SECONDS` is none; and a gate measures again before it says no. `benchmarks/gate_noise.py` records what
a busy machine does to each measurement, and `tests/test_gates_replayed.py` has every gate decide by that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

LEAST_SECONDS: Final = 0.005
"""CPU seconds for a second of sound that a version must take more than the other one, to be called slow"""

_PER_OCTAVE: Final = 4
_LOWEST_MS: Final = 0.05
COST_CLASSES: Final = 72
"""classes of cost that requests are counted in, four an octave, from 0.05 ms of CPU time for a second of
sound (the first, with all below) to 11 s (the last, with all above)"""
_LEAST_SOUND: Final = 1.0


def slow(cost: float, known: float, times: float) -> bool:
    """Whether a cost is too high.

    Args:
        cost: CPU seconds for a second of sound, the best of several runs.
        known: the cost that it is compared with.
        times: how often it may be that.
    """
    return cost > times * known and cost - known > LEAST_SECONDS


def cost_class(cpu_seconds: float, sound_seconds: float) -> int:
    """The class that a request is counted in, 0 to `COST_CLASSES` - 1.

    Args:
        cpu_seconds: of the engine.
        sound_seconds: length of the recording; less than a second counts as one, since a run has costs that
            are not the sound's.
    """
    cost = 1000 * cpu_seconds / max(sound_seconds, _LEAST_SOUND)
    if cost <= _LOWEST_MS:
        return 0
    return min(COST_CLASSES - 1, int(_PER_OCTAVE * math.log2(cost / _LOWEST_MS)))


def quantile(counts: Sequence[int], share: float) -> float:
    """CPU seconds for a second of sound that this share of the requests did not exceed.

    Args:
        counts: requests in each class, at least one in all.
        share: 0 to 1.

    Returns:
        the (geometric) middle of the class: at most 9 % off.
    """
    wanted = max(1, math.ceil(share * sum(counts)))
    number = 0
    for number, count in enumerate(counts):  # noqa: B007 - it is where the loop ends
        wanted -= count
        if wanted <= 0:
            break
    return _LOWEST_MS / 1000 * 2 ** ((number + 0.5) / _PER_OCTAVE)


def milliseconds(seconds: float) -> str:
    """A cost as messages say it."""
    return f"{1000 * seconds:.2f} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"
