"""What a header claims, judged against what is there: whole, a slip, a placeholder, or incomplete.

The length in a header was written by a program that may have died, or that could not know it because it
wrote into a pipe. So a claim is compared with what is there, in this order:

- *placeholder*: nothing can be concluded. The claim is 0 although sound is there; or it lies at the end of
  what its field can hold, signed or unsigned (the last 1/128: programs put there all ones, the header's
  length less, a multiple of a block or of a page); or it is absurd, which a recording that was cut off does
  not come near: over a hundred times what is there from 256 Mi on, over a thousand times below that.
- *slip*: what is missing is up to a quarter of a second, or 1 % of the claim (a program that counted its
  header, or a last block that was never filled).
- *incomplete*: anything else that claims more than is there.

A claim of less than is there is believed, as every player does, unless it is a placeholder or what follows
the sound cannot be anything else (`asrsvc.speech.headers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asrsvc.speech.decoded import Incomplete

SLIP_SECONDS: Final = 0.25
SLIP_SHARE: Final = 0.01

ABSURD: Final = 100
"""how many times more or less than what is there a claim must be to say nothing"""
_LARGE: Final = 2**28
_ABSURD_IF_SMALL: Final = 1000  # a claim that is not large may be a recording of which a hundredth arrived
_END_OF_FIELD: Final = 128  # the share of a field's range, 1/128, that placeholders lie in
# 0x80000000 itself and what programs add to it (a header, a block) still say "the end of the field".
_BEYOND_SIGNED: Final = 2**16


@dataclass(frozen=True, slots=True)
class Claim:
    """A length that a header declares, and what is there; both in the same unit."""

    declared: int
    """bytes or samples, by the header"""
    held: int
    """bytes or samples that are there"""
    bits: int = 32
    """of the field in the header"""

    @property
    def placeholder(self) -> bool:
        """Whether the claim says nothing."""
        if self.declared <= 0 or at_end_of_field(self.declared, self.bits):
            return True
        times = ABSURD if self.declared >= _LARGE else _ABSURD_IF_SMALL
        return self.declared > times * self.held

    def missing(self, seconds: float) -> float:
        """Seconds that are missing, where so many are there; 0 for a placeholder, a slip and a whole file."""
        if self.placeholder or self.declared <= self.held or self.held <= 0:
            return 0.0
        return not_a_slip(seconds * (self.declared / self.held - 1), seconds)


def at_end_of_field(value: int, bits: int) -> bool:
    """Whether a number lies at the end of what a field of so many bits holds, signed or unsigned.

    A field of 64 bits may hold what was made for one of 32.
    """
    for width in {32, bits}:
        top, middle = 2**width, 2 ** (width - 1)
        if middle - middle // _END_OF_FIELD <= value <= middle + _BEYOND_SIGNED:
            return True
        if top - middle // _END_OF_FIELD <= value < top:
            return True
    return False


def not_a_slip(missing: float, seconds: float) -> float:
    """Seconds that are missing beside so many that are there, or 0 where they are too few to mention."""
    return missing if missing > max(SLIP_SECONDS, SLIP_SHARE * (seconds + missing)) else 0.0


def cut_off(declared: float, held: float) -> Incomplete:
    """That a recording ends before the length that it declares; both in seconds."""
    return Incomplete(f"cut off: it declares {declared:.2f} s of sound and {held:.2f} s are there")


def damaged(seconds: float) -> Incomplete:
    """That something behind so many seconds of a recording could not be decoded."""
    return Incomplete(f"damaged: some of it could not be decoded, {seconds:.0f} s or more from its start")
