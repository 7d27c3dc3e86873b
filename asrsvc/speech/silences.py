"""Where a span is silent: its words begin and end there, which the recogniser's 60 ms frames do not see."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np

from asrsvc.speech.types import SAMPLE_RATE, FloatArray

Silence: TypeAlias = tuple[float, float]
"""start and end, seconds from the start of the span"""

_FRAME: Final = 160  # samples: 10 ms
# Silence is 40 dB below the loudest frame, or twice the noise, where it is no louder than -26 dB: in
# more noise nothing is called silent.
_QUIET: Final = 0.01
_OVER_NOISE: Final = 2.0
_LOUDEST_NOISE: Final = 0.05
_NOISE_SHARE: Final = 5.0  # percent of the frames that are taken for the noise
_SHORTEST: Final = 12  # frames: what stops the breath inside a word is shorter (voiceless stops: 0.1 s)


def silences(samples: FloatArray) -> list[Silence]:
    """The silent stretches of a span, in order; those at its very ends may be of any length.

    Args:
        samples: shape (n,), float32, 16 kHz.
    """
    count = len(samples) // _FRAME
    if not count:
        return []
    levels = np.sqrt(np.square(samples[: count * _FRAME].reshape(count, _FRAME)).mean(axis=1))
    peak = float(levels.max())
    noise = min(_OVER_NOISE * float(np.percentile(levels, _NOISE_SHARE)), _LOUDEST_NOISE * peak)
    silent = levels <= max(_QUIET * peak, noise)
    steps = np.diff(np.concatenate([[0], silent, [0]]).astype(np.int8))
    seconds = _FRAME / SAMPLE_RATE
    return [
        (int(start) * seconds, int(end) * seconds)
        for start, end in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True)
        if end - start >= _SHORTEST or start == 0 or end == count
    ]
