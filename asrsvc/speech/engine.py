"""The ONNX session over one version's files: the only place where a request meets ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from asrsvc.errors import InferenceFailed, ModelError
from asrsvc.speech.features import FEATURE_SIZE
from asrsvc.speech.frames import Frames
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
_INPUTS_OF_ONE: Final = {name: kind for name, kind in _INPUTS.items() if name != "speech_lengths"}
"""of a transformed graph, which takes one span without padding"""

LOGITS: Final = "ctc_logits"
OUT_LENGTHS: Final = "encoder_out_lens"
FRAME_OUTPUTS: Final = ("token_ids", "best_logits", "spoken_frames", "odds_sums", "first_logits")
"""of a transformed graph beside the logits: the arguments of `Frames.of_sums`, in order"""


@dataclass(frozen=True, slots=True)
class _Form:
    """What a graph takes and gives."""

    one: bool
    """one span without padding, and no lengths; else any number, padded to one length"""
    frames: bool
    """whether it gives `FRAME_OUTPUTS`"""
    vocabulary_size: int


class Stop:
    """Ends runs early, from another thread: each at its next node, within milliseconds of its own time."""

    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()

    @property
    def is_set(self) -> bool:
        """Whether `set` was called."""
        return bool(self.options.terminate)

    def set(self) -> None:
        """End those that are under way, and those that are still to come."""
        self.options.terminate = True


class Engine:
    """Runs feature frames through the network. `run` may be called from several threads."""

    def __init__(self, session: onnxruntime.InferenceSession, form: _Form) -> None:
        self._session = session
        self._form = form
        self.vocabulary_size = form.vocabulary_size

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
        self,
        batch: Sequence[FloatArray],
        languages: Sequence[str],
        use_itn: Sequence[bool],
        *,
        stop: Stop | None = None,
    ) -> list[Frames]:
        """Run some spans at once; one after the other, if the graph was made for one (a twin's is).

        Args:
            batch: features, each of shape (T_i, 560), float32, T_i >= 1.
            languages: a name of `LANGUAGE_QUERIES` for each.
            use_itn: whether each is to be written with punctuation and digits.
            stop: may end the run early.

        Returns:
            as many results as there are inputs, of 4 + T_i frames each; the first four are the answers
            to the queries, see `asrsvc.speech.text`.

        Raises:
            InferenceFailed: ONNX Runtime refused, was told to stop, or gave another shape than the inputs
                ask for.
        """
        if not self._form.frames:
            return [Frames.of_logits(logits) for logits in self.logits(batch, languages, use_itn, stop=stop)]
        asked = zip(batch, languages, use_itn, strict=True)
        return [self._frames(features, language, use_itn=itn, stop=stop) for features, language, itn in asked]

    def logits(
        self,
        batch: Sequence[FloatArray],
        languages: Sequence[str],
        use_itn: Sequence[bool],
        *,
        stop: Stop | None = None,
    ) -> list[FloatArray]:
        """As `run`, but all CTC logits, each of shape (4 + T_i, vocabulary), float32."""
        if not self._form.one:
            return self._logits(batch, languages, use_itn, stop)
        asked = zip(batch, languages, use_itn, strict=True)
        return [self._logits([features], [language], [itn], stop)[0] for features, language, itn in asked]

    def warm_up(self) -> None:
        """Run once, on one frame of zeros: a load that fails should fail here.

        Raises:
            InferenceFailed: as `run`, or the numbers are not finite.
        """
        silence = [np.zeros((1, FEATURE_SIZE), dtype=np.float32)]
        if self._form.frames:
            finite = all(frames.finite for frames in self.run(silence, ["auto"], [True]))
        else:
            finite = all(np.isfinite(logits).all() for logits in self.logits(silence, ["auto"], [True]))
        if not finite:
            raise InferenceFailed("the engine gives numbers that are not finite")

    def _logits(
        self,
        batch: Sequence[FloatArray],
        languages: Sequence[str],
        use_itn: Sequence[bool],
        stop: Stop | None,
    ) -> list[FloatArray]:
        feed = self._feed(batch, languages, use_itn)
        wanted = np.array([len(features) + QUERY_FRAMES for features in batch], dtype=np.int32)
        if self._form.one:
            (logits,), out_lengths = self._ask((LOGITS,), feed, stop), wanted
        else:
            logits, out_lengths = self._ask((LOGITS, OUT_LENGTHS), feed, stop)
        shape = (len(batch), int(wanted.max()), self.vocabulary_size)
        if logits.shape != shape or not np.array_equal(out_lengths, wanted):
            raise InferenceFailed(
                f"the engine answered {(wanted - QUERY_FRAMES).tolist()} frames of sound with logits of "
                f"shape {logits.shape} and lengths {out_lengths.tolist()}; {shape} and {wanted.tolist()} "
                "are right"
            )
        return [row[:length] for row, length in zip(logits, wanted.tolist(), strict=True)]

    def _frames(self, features: FloatArray, language: str, *, use_itn: bool, stop: Stop | None) -> Frames:
        feed = self._feed([features], [language], [use_itn])
        ids, best, places, sums, first = self._ask(FRAME_OUTPUTS, feed, stop)
        wanted = len(features) + QUERY_FRAMES
        if ids.shape != (wanted,) or best.shape != ids.shape or sums.shape != places.shape:
            raise InferenceFailed(
                f"the engine answered {len(features)} frames of sound with ids of shape {ids.shape}; "
                f"({wanted},) is right"
            )
        return Frames.of_sums(ids, best, places, sums, first)

    def _feed(
        self, batch: Sequence[FloatArray], languages: Sequence[str], use_itn: Sequence[bool]
    ) -> dict[str, NDArray[Any]]:
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
        if self._form.one:
            del feed["speech_lengths"]
        return feed

    def _ask(
        self, outputs: Sequence[str], feed: dict[str, NDArray[Any]], stop: Stop | None
    ) -> list[NDArray[Any]]:
        try:
            options = stop.options if stop is not None else None
            answer: list[NDArray[Any]] = self._session.run(outputs, feed, options)
        except Exception as error:  # ONNX Runtime raises classes of its own without a common base
            raise InferenceFailed(f"the engine failed: {first_line(error)}") from error
        return answer


def _check_graph(session: onnxruntime.InferenceSession, path: Path) -> _Form:
    inputs = {node.name: node.type for node in session.get_inputs()}
    one = inputs == _INPUTS_OF_ONE
    if inputs != _INPUTS and not one:
        raise ModelError(f"{path}: has the inputs {inputs}; SenseVoice's are {_INPUTS}")
    (speech,) = (node for node in session.get_inputs() if node.name == "speech")
    if len(speech.shape) != 3 or speech.shape[2] != FEATURE_SIZE:
        raise ModelError(f"{path}: takes features of shape {speech.shape}; [B, T, {FEATURE_SIZE}] is right")
    outputs = {node.name: node for node in session.get_outputs()}
    for name in (LOGITS,) if one else (LOGITS, OUT_LENGTHS):
        if name not in outputs:
            raise ModelError(f"{path}: has the outputs {sorted(outputs)}; {name} is missing")
    logits = outputs[LOGITS]
    if logits.type != "tensor(float)":
        raise ModelError(f"{path}: gives {LOGITS} as {logits.type}; tensor(float) is right")
    if len(logits.shape) != 3 or not isinstance(logits.shape[2], int):
        raise ModelError(f"{path}: gives {LOGITS} of shape {logits.shape}; [B, T, a fixed size] is right")
    return _Form(one, one and outputs.keys() >= set(FRAME_OUTPUTS), logits.shape[2])
