"""Waveform to the features that SenseVoice hears: fbank, low frame rate, CMVN.

The computation is FunASR's `WavFrontend` at dither 0: 80 log-mel bins, 25 ms Hamming windows
every 10 ms, seven frames stacked every six (LFR 7/6), then `(x + shift) * scale` from am.mvn.
`asrfront` does it in C and gives the same numbers to 5e-4 (tests/test_reference.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from asrfront import sensevoice

from asrsvc.errors import ModelError
from asrsvc.speech.types import FloatArray
from asrsvc.system.documents import check_file

FEATURE_SIZE: Final = 560
"""values in a feature frame: 80 mel bins x 7 stacked frames"""
FRAME_SECONDS: Final = 0.06
"""time from one feature frame to the next: 6 x 10 ms"""
MIN_SAMPLES: Final = 400
"""samples of the shortest waveform that gives a frame: one 25 ms window at 16 kHz"""
_MOST_CMVN_BYTES: Final = 2**18
"""of am.mvn; the published one has 11 KB"""


class FbankExtractor:
    """Features with one version's normalisation. Safe to use from several threads."""

    def __init__(self, cmvn_path: Path) -> None:
        """Read `am.mvn`.

        Raises:
            ModelError: the file is missing, is too large, is no Kaldi nnet file, or holds other than 560
                values.
        """
        try:
            check_file(cmvn_path, _MOST_CMVN_BYTES)
            shift, scale = sensevoice.load_cmvn(cmvn_path)
        except OSError as error:
            raise ModelError(f"{cmvn_path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            text = str(error).removeprefix(f"{cmvn_path}:")
            raise ModelError(f"{cmvn_path}: cannot be read as CMVN statistics: {text[:300]}") from error
        if shift.size != FEATURE_SIZE or not (np.isfinite(shift).all() and np.isfinite(scale).all()):
            raise ModelError(f"{cmvn_path}: holds {shift.size} values; {FEATURE_SIZE} finite ones are right")
        self._cmvn = (shift, scale)

    def features(self, samples: FloatArray) -> FloatArray:
        """Compute the features of one waveform.

        Args:
            samples: shape (n,), float32, 16 kHz mono, in [-1, 1].

        Returns:
            shape (T, 560), float32, with T = ceil((1 + (n - 400) // 160) / 6); T is 0 for n < 400.
        """
        frames: FloatArray = sensevoice.fbank(samples, cmvn=self._cmvn)
        return frames
