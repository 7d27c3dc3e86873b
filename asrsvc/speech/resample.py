"""Sound whose sample rate may change → 16 kHz, without a gap where it does."""

from __future__ import annotations

from typing import Final

import numpy as np
import soxr

from asrsvc.speech.types import SAMPLE_RATE, FloatArray

_NOTHING: Final[FloatArray] = np.zeros(0, np.float32)
_MOST_KEPT: Final = 8  # resamplers that may be needed again: one takes up to 6 ms to make
_MOST_ADDED: Final = 16  # samples of silence that make up for what stretches lose by rounding


class Resampling:
    """The resamplers of one recording."""

    def __init__(self) -> None:
        self._kept: dict[int, soxr.ResampleStream] = {}
        self._rate = 0
        self._frames = 0  # since the sample rate changed last
        self._closed = 0.0  # seconds before that
        self._given = 0  # samples at 16 kHz

    @property
    def seconds(self) -> float:
        """Length of what has come."""
        return self._closed + (self._frames / self._rate if self._rate else 0.0)

    def push(self, rate: int, block: FloatArray) -> list[FloatArray]:
        """Give what is ready, each of shape (n,), n > 0, float32, 16 kHz.

        Args:
            rate: Hz, of this block.
            block: shape (n,), float32.
        """
        ready = []
        if rate != self._rate:
            if self._rate:
                ready.append(self._close())
            self._closed, self._rate, self._frames = self.seconds, rate, 0
        self._frames += len(block)
        out = block if rate == SAMPLE_RATE else self._resampler().resample_chunk(block)
        self._given += len(out)
        ready.append(out)
        return [out for out in ready if len(out)]

    def finish(self) -> FloatArray:
        """Give the rest, shape (n,); nothing may be pushed after that."""
        if self._rate in {0, SAMPLE_RATE}:
            return _NOTHING
        rest: FloatArray = self._resampler().resample_chunk(_NOTHING, last=True)
        return rest

    def _close(self) -> FloatArray:
        """The rest of a stretch, so that the next one begins at its time to the sample."""
        rest = _NOTHING
        if self._rate != SAMPLE_RATE:
            resampler = self._resampler()
            rest = resampler.resample_chunk(_NOTHING, last=True)
            resampler.clear()
        due = max(0, round(self.seconds * SAMPLE_RATE) - self._given)
        lacking = min(due - len(rest), _MOST_ADDED)
        rest = rest[:due] if lacking <= 0 else np.concatenate([rest, np.zeros(lacking, np.float32)])
        self._given += len(rest)
        return rest

    def _resampler(self) -> soxr.ResampleStream:
        resampler = self._kept.pop(self._rate, None)
        if resampler is None:
            resampler = soxr.ResampleStream(self._rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        self._kept[self._rate] = resampler  # the last that was needed is the last of all
        if len(self._kept) > _MOST_KEPT:
            self._kept.pop(next(iter(self._kept)))
        return resampler
