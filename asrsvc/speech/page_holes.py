"""Where in a page of Ogg a hole lies.

A page says when its last packet ends. If it ends later than its packets take, there is a hole in front of
it, or between two of them: some writers begin a new page behind a hole, others fill pages as usual. Sound
that goes on from the page before into this one says that the hole is not between them; then it is where
the page is quiet.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

_QUIET: Final = 1e-3  # of the energy of the loudest packet: -30 dB


def packet_behind_hole(before: float, energies: Sequence[float]) -> int:
    """The index of the packet that the hole is in front of.

    Args:
        before: mean square of the last packet of the page before.
        energies: mean square of each packet of the page; one at least.
    """
    threshold = _QUIET * max(before, *energies)
    if before <= threshold or energies[0] <= threshold:
        return 0
    runs = [
        (quiet, [*run]) for quiet, run in groupby(range(len(energies)), lambda n: energies[n] <= threshold)
    ]
    quiet_runs = [run for quiet, run in runs if quiet]
    if not quiet_runs:
        return 0
    longest = max(quiet_runs, key=len)
    return longest[len(longest) // 2]
