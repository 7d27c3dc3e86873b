"""Where in a page of Ogg a hole lies."""

from __future__ import annotations

import pytest

from asrsvc.speech.page_holes import packet_behind_hole

LOUD, SOFT, QUIET = 1.0, 0.1, 1e-5


@pytest.mark.parametrize(
    ("before", "energies", "behind"),
    [
        (QUIET, [LOUD, QUIET, QUIET, LOUD], 0),  # the page before ended in silence
        (LOUD, [QUIET, QUIET, LOUD, LOUD], 0),  # the page begins with silence
        (LOUD, [LOUD, QUIET, QUIET, QUIET, LOUD], 2),
        (LOUD, [LOUD, QUIET, LOUD, QUIET, QUIET, LOUD], 4),  # the longest silence of two
        (LOUD, [SOFT, LOUD, SOFT], 0),  # somebody spoke on when it began
        (LOUD, [LOUD], 0),
        (0.0, [0.0, 0.0], 0),
    ],
)
def test_a_hole_lies_where_the_sound_does_not_go_on(
    before: float, energies: list[float], behind: int
) -> None:
    assert packet_behind_hole(before, energies) == behind
