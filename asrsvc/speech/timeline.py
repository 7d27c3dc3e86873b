"""Where the frames of a recording stand: time stamps → silences between them.

A recording may have holes: a call on hold, a recorder that pauses, lost packets. Its times stay right
if a hole is filled with silence. Time stamps may also be wrong: clocks are set anew, counters begin
again, files are joined. The rules:

- what is late by up to 0.1 s is jitter, and no hole;
- a jump backwards by over a second is a new clock: what follows goes on without a gap;
- a hole may be as long as the recording may be. One that makes the recording longer is refused, but
  for a jump of over a day, which is a wrong clock, too (a date that was set, a damaged number, the
  26.5 hours after which the 33 bits of MPEG-TS begin again).
"""

from __future__ import annotations

from typing import Final

from asrsvc.speech.decoded import Refused

LATE_SECONDS: Final = 0.1
"""what is later than it should be by no more is jitter, and no hole"""

_NEW_CLOCK_SECONDS: Final = 1.0
_WRONG_CLOCK_SECONDS: Final = 86_400.0


class Timeline:
    """How much of a recording has been given out, and what is due next."""

    def __init__(self, max_seconds: float) -> None:
        """Begin at 0 s; the recording may be so long."""
        self._max_seconds = max_seconds
        self._closed = 0.0  # seconds at earlier sample rates
        self._samples = 0
        self._rate = 1
        self._origin: float | None = None  # what the clock of the time stamps shows at 0 s

    @property
    def seconds(self) -> float:
        """Length of what has been given out, silences with it."""
        return self._closed + self._samples / self._rate

    def advance(self, samples: int, rate: int) -> None:
        """Note that so many samples have been given out."""
        if rate != self._rate:
            self._closed, self._samples, self._rate = self.seconds, 0, rate
        self._samples += samples

    def set_clock(self, now: float | None = None) -> None:
        """Time stamps are another clock's from here on; it shows `now`, or what its next one says."""
        self._origin = None if now is None else now - self.seconds

    def silence_before(self, time: float) -> float:
        """Seconds of silence that are due before the frame of this time stamp (seconds).

        Raises:
            Refused: the silence would make the recording longer than it may be.
        """
        if self._origin is None:
            self.set_clock(time)
        hole = time - (self._origin or 0.0) - self.seconds
        too_long = self.seconds + hole > self._max_seconds
        if hole < -_NEW_CLOCK_SECONDS or (too_long and hole > _WRONG_CLOCK_SECONDS):
            self.set_clock(time)
            return 0.0
        if hole <= LATE_SECONDS:
            return 0.0
        if too_long:
            raise Refused(
                f"its time stamps have a gap of {hole:.0f} s, {self.seconds:.0f} s from its start;"
                f" the limit is {self._max_seconds:g} s",
                "audio_too_long",
            )
        return hole
