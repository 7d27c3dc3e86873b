"""funasr-onnx as the reference: what the tests ask it, through its own code, in a process of its own.

It stays out of the process of the tests: its imports warn, where warnings are errors, and bring librosa
(220 MB) with them. `reference()` gives an executor of one such process; the functions below run in it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Ask = tuple[str, bool]
"""language (auto, zh, en, yue, ja, ko) and use_itn"""

MISSING = (
    None
    if importlib.util.find_spec("funasr_onnx")
    else "funasr-onnx is not installed (it needs Python < 3.13): there is nothing to compare with"
)
"""Why these tests cannot run, or None."""


@contextmanager
def reference() -> Iterator[Executor]:
    """An executor whose one process imports funasr-onnx and keeps the model that it used last."""
    # A forked child would inherit the threads' locks of ONNX Runtime, and our warning filters.
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as executor:
        yield executor


def features(folder: Path, waveforms: Sequence[FloatArray]) -> list[FloatArray]:
    """What its WavFrontend makes of each waveform (16 kHz, (n,)) at dither 0: float32, (T, 560)."""
    frontend = _model(folder).frontend
    return [frontend.lfr_cmvn(frontend.fbank(waveform)[0])[0] for waveform in waveforms]


def ids_of_waveforms(
    folder: Path, waveforms: Sequence[FloatArray], asks: Sequence[Ask]
) -> list[list[list[int]]]:
    """Token ids, tags included, of each waveform (16 kHz, (n,)), asked for in each way, one at a time."""
    return [[_call(_model(folder), waveform, [ask])[0] for ask in asks] for waveform in waveforms]


def ids_of_batches(
    folder: Path, batches: Sequence[Sequence[FloatArray]], asks: Sequence[Sequence[Ask]]
) -> list[list[list[int]]]:
    """Token ids, tags included, of batches of feature matrices (T_i, 560), each padded by its own code."""
    model = _model(folder)

    def pad(matrices: Sequence[FloatArray]) -> tuple[FloatArray, NDArray[np.int32]]:
        lengths = np.array([len(matrix) for matrix in matrices], dtype=np.int32)
        return model.pad_feats(matrices, lengths.max()), lengths

    model.load_data = lambda matrices, _rate: matrices
    model.extract_feat = pad
    try:
        return [_call(model, batch, ask) for batch, ask in zip(batches, asks, strict=True)]
    finally:
        del model.load_data, model.extract_feat


def _call(model: Any, content: object, asks: Sequence[Ask]) -> list[list[int]]:
    model.batch_size = len(asks)
    # Lists, for it looks up whether a plain string is the name of a file.
    ids: list[list[int]] = model(
        content,
        language=[language for language, _ in asks],
        textnorm=["withitn" if use_itn else "woitn" for _, use_itn in asks],
    )
    return ids


class _KeepIds:
    """In the tokenizer's place: the model's own greedy search then answers ids instead of text."""

    def decode(self, ids: list[int]) -> list[int]:
        return ids


@lru_cache(maxsize=1)
def _model(folder: Path) -> Any:
    from funasr_onnx import SenseVoiceSmall

    model = SenseVoiceSmall(str(folder), quantize=True, intra_op_num_threads=1)
    model.frontend.opts.frame_opts.dither = 0.0  # 1.0 by default: random noise in every answer
    model.tokenizer = _KeepIds()
    return model
