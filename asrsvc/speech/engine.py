"""The ONNX session over one version's files: the only place where a request meets ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from asrsvc.errors import InferenceFailed, ModelError
from asrsvc.speech.features import FEATURE_SIZE
from asrsvc.speech.runtime import onnxruntime
from asrsvc.speech.session import BAKED_MODEL_FILE, MODEL_FILE, first_line, open_session
from asrsvc.speech.types import FloatArray

LANGUAGE_QUERIES: Final = {"auto": 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12}
"""language → index of its query embedding (FunASR, SenseVoiceSmall.lid_dict)"""
ITN_QUERIES: Final = {True: 14, False: 15}
"""use_itn → index of its query embedding (FunASR, SenseVoiceSmall.textnorm_dict)"""

QUERY_FRAMES: Final = 4
"""output frames before the first one of sound: language, emotion, event, ITN"""

_INPUTS: Final = {
    "speech": "tensor(float)",
    "speech_lengths": "tensor(int32)",
    "language": "tensor(int32)",
    "textnorm": "tensor(int32)",
}
_OUTPUTS: Final = ("ctc_logits", "encoder_out_lens")


class Engine:
    """Runs feature frames through the network. `run` may be called from several threads."""

    def __init__(self, session: onnxruntime.InferenceSession, vocabulary_size: int) -> None:
        self._session = session
        self.vocabulary_size = vocabulary_size

    @classmethod
    def load(cls, folder: Path, *, threads: int, device: str = "cpu", baked: Path | None = None) -> Engine:
        """Open a version's network; arguments as for `open_session`.

        Raises:
            ModelError: as `open_session`, or its inputs or outputs are not SenseVoice's; the message
                names the file.
        """
        session = open_session(folder, threads=threads, device=device, baked=baked)
        path = folder / MODEL_FILE if baked is None else baked / BAKED_MODEL_FILE
        return cls(session, _check_graph(session, path))

    def run(
        self, batch: Sequence[FloatArray], languages: Sequence[str], use_itn: Sequence[bool]
    ) -> list[FloatArray]:
        """Run some spans at once.

        Args:
            batch: features, each of shape (T_i, 560), float32, T_i >= 1.
            languages: a name of `LANGUAGE_QUERIES` for each.
            use_itn: whether each is to be written with punctuation and digits.

        Returns:
            as many arrays as there are inputs: CTC logits, shape (4 + T_i, vocabulary), float32;
            the first four frames are the answers to the queries, see `asrsvc.speech.text`.

        Raises:
            InferenceFailed: ONNX Runtime refused, or gave another shape than the inputs ask for.
        """
        lengths = np.array([len(features) for features in batch], dtype=np.int32)
        speech = np.zeros((len(batch), int(lengths.max()), FEATURE_SIZE), dtype=np.float32)
        for row, features in zip(speech, batch, strict=True):
            row[: len(features)] = features
        feed = {
            "speech": speech,
            "speech_lengths": lengths,
            "language": np.array([LANGUAGE_QUERIES[name] for name in languages], dtype=np.int32),
            "textnorm": np.array([ITN_QUERIES[wanted] for wanted in use_itn], dtype=np.int32),
        }
        try:
            logits, out_lengths = self._session.run(_OUTPUTS, feed)
        except Exception as error:  # as in load
            raise InferenceFailed(f"the engine failed: {first_line(error)}") from error
        wanted = lengths + QUERY_FRAMES
        shape = (len(batch), int(wanted.max()), self.vocabulary_size)
        if logits.shape != shape or not np.array_equal(out_lengths, wanted):
            raise InferenceFailed(
                f"the engine answered {lengths.tolist()} frames of sound with logits of shape {logits.shape} "
                f"and lengths {out_lengths.tolist()}; {shape} and {wanted.tolist()} are right"
            )
        return [row[:length] for row, length in zip(logits, wanted.tolist(), strict=True)]

    def warm_up(self) -> None:
        """Run one second of zeros, so that the first request does not pay for first times.

        Raises:
            InferenceFailed: as `run`, or the numbers are not finite.
        """
        frames = np.zeros((17, FEATURE_SIZE), dtype=np.float32)
        (logits,) = self.run([frames], ["auto"], [True])
        if not np.isfinite(logits).all():
            raise InferenceFailed("the engine gives numbers that are not finite")


def _check_graph(session: onnxruntime.InferenceSession, path: Path) -> int:
    inputs = {node.name: node.type for node in session.get_inputs()}
    if inputs != _INPUTS:
        raise ModelError(f"{path}: has the inputs {inputs}; SenseVoice's are {_INPUTS}")
    (speech,) = (node for node in session.get_inputs() if node.name == "speech")
    if len(speech.shape) != 3 or speech.shape[2] != FEATURE_SIZE:
        raise ModelError(f"{path}: takes features of shape {speech.shape}; [B, T, {FEATURE_SIZE}] is right")
    outputs = {node.name: node for node in session.get_outputs()}
    for name in _OUTPUTS:
        if name not in outputs:
            raise ModelError(f"{path}: has the outputs {sorted(outputs)}; {name} is missing")
    logits = outputs["ctc_logits"]
    if logits.type != "tensor(float)":
        raise ModelError(f"{path}: gives ctc_logits as {logits.type}; tensor(float) is right")
    if len(logits.shape) != 3 or not isinstance(logits.shape[2], int):
        raise ModelError(f"{path}: gives ctc_logits of shape {logits.shape}; [B, T, a fixed size] is right")
    return logits.shape[2]
