"""The process in which funasr-onnx, the reference engine, reads the same files.

It is kept out of workers: its imports bring librosa with them (220 MB).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from asrsvc.errors import TrialImpossible
from asrsvc.release.answering import Answer, main

_CLIPS: Final = Path(__file__).resolve().parents[2] / "clips"


class _KeepIds:
    """In the tokenizer's place: the model's own greedy search then answers ids instead of text."""

    def decode(self, ids: list[int]) -> list[int]:
        return ids


class _Reference:
    """funasr-onnx's model of one version."""

    def __init__(self) -> None:
        self._model: Any = None

    def answers(self) -> Mapping[str, Answer]:
        return {"load": self._load, "ids": self._ids}

    def _load(self, question: Mapping[str, Any]) -> dict[str, Any]:
        try:
            # First: ONNX Runtime, which funasr-onnx brings, is to report nothing.
            from funasr_onnx import SenseVoiceSmall  # noqa: PLC0415 - it may not be there

            import asrsvc.speech.runtime  # noqa: F401, PLC0415

            name = f"funasr-onnx {version('funasr-onnx')}"
        except (ImportError, PackageNotFoundError) as error:
            raise TrialImpossible(f"funasr-onnx is not installed ({error})") from None
        model = SenseVoiceSmall(str(question["folder"]), quantize=True, intra_op_num_threads=1)
        # Noise of its own in every answer, by default.
        model.frontend.opts.frame_opts.dither = 0.0
        model.tokenizer = _KeepIds()
        self._model = model
        return {"name": name}

    def _ids(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Token ids of a clip that comes with asrsvc, tags included, and the features behind them.

        `use_itn` is an argument that it ignores; `textnorm` is what it reads.
        """
        import soundfile  # noqa: PLC0415 - numpy comes with the model

        samples, _rate = soundfile.read(_CLIPS / question["file"], dtype="float32")
        textnorm = "withitn" if question["use_itn"] else "woitn"
        (ids,) = self._model(samples, language=["auto"], textnorm=[textnorm])
        frontend = self._model.frontend
        features = frontend.lfr_cmvn(frontend.fbank(samples)[0])[0].astype("float32")
        return {"ids": [int(i) for i in ids], "features": base64.b64encode(features.tobytes()).decode()}


if __name__ == "__main__":
    main(_Reference().answers())
