"""What each version's workers have answered since this master started, those that have ended included."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from asrsvc.release.numbers import NOTHING, Numbers
from asrsvc.serving.status import VersionNumbers

MOST_VERSIONS: Final = 8
"""that are remembered after their last worker has ended"""


class Tally:
    """The sums of workers that have ended, by version; the others' rows are given when it is asked."""

    def __init__(self) -> None:
        self._ended: dict[str, Numbers] = {}
        self._deaths: dict[str, int] = {}

    def bury(self, version: str | None, numbers: Numbers, *, died: bool) -> None:
        """Keep what a worker that has ended had answered.

        Args:
            version: that it served; None: it had no model.
            numbers: its row.
            died: whether it ended while it was to serve.
        """
        if version is None:
            return
        # Taken out and put in again, it is the last to be forgotten.
        before, deaths = self._ended.pop(version, NOTHING), self._deaths.pop(version, 0)
        self._ended[version] = before.plus(numbers)
        self._deaths[version] = deaths + died
        for oldest in list(self._ended)[:-MOST_VERSIONS]:
            del self._ended[oldest], self._deaths[oldest]

    def sums(self, rows: Iterable[tuple[str | None, Numbers]]) -> tuple[VersionNumbers, ...]:
        """All together, ordered by version.

        Args:
            rows: of the workers that live: version and numbers.
        """
        found = dict(self._ended)
        for version, numbers in rows:
            if version is not None:
                found[version] = found.get(version, NOTHING).plus(numbers)
        return tuple(
            VersionNumbers(
                version=version,
                requests=numbers.requests,
                errors=numbers.errors,
                empty=numbers.empty,
                audio_ms=numbers.audio_ms,
                busy_ms=numbers.busy_ms,
                deaths=self._deaths.get(version, 0),
                costs=numbers.costs,
            )
            for version, numbers in sorted(found.items())
        )
