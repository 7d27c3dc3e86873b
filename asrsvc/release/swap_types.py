"""What a change of the version that serves is given: the running service, the trial, the terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from asrsvc.release.numbers import Numbers, Thresholds
from asrsvc.release.versions import Version


@dataclass(frozen=True, slots=True)
class Serving:
    """What the service says of itself, as far as a change of its version needs it."""

    version: str | None
    """id of what last served well"""
    rolling_to: str | None
    """id of what a roll under way leads to"""
    numbers: Mapping[str, Numbers]
    """what each version's workers have answered since the master started"""
    deaths: Mapping[str, int]
    """of workers of each version that were to serve"""


class Service(Protocol):
    """The running service."""

    def serving(self) -> Serving | None:
        """What it says now; None while none runs."""

    def roll(self, version: Version) -> None:
        """Have the master take its wish, and wait until the roll to this version has succeeded.

        Raises:
            AsrError: it has not; the class says how it ended.
        """

    def thresholds(self) -> Thresholds:
        """How far a new version may fall behind."""


class Verdict(Protocol):
    """What a trial found."""

    @property
    def passed(self) -> bool:
        """Whether the version may serve."""

    @property
    def reason(self) -> str:
        """Why, in one sentence."""

    def to_record(self) -> dict[str, Any]:
        """All that it found, as JSON can say it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a version is switched to."""

    watch_seconds: float
    """for which the numbers are watched afterwards"""
    forced: bool = False
    """leaves out the demand for a trial, and the comparison of text and speed in the worker too"""
    say: Callable[[str], None] = lambda _text: None
    """hears of each step"""
