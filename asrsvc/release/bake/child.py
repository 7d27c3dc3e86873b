"""The process that makes a twin: published answers → re-encode, transform, optimise → the same answers?

Whatever was done to the graph, a twin is good only if it gives, bit for bit, what the published file
gives on this host: for noise and for the clips that come with asrsvc.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import soundfile

from asrsvc.errors import ModelError
from asrsvc.release.answering import main
from asrsvc.release.bake.int8 import to_int8
from asrsvc.release.bake.twins import measure
from asrsvc.release.exact import PROBABILITY_TOLERANCE, transform
from asrsvc.release.manifest import MODEL_FILE
from asrsvc.release.versions import check_digests
from asrsvc.speech.cpu import has_vnni
from asrsvc.speech.engine import Engine
from asrsvc.speech.features import FEATURE_SIZE, FbankExtractor
from asrsvc.speech.frames import Frames
from asrsvc.speech.sample import CLIPS
from asrsvc.speech.session import BAKED_MODEL_FILE, BAKED_WEIGHTS_FILE, save_optimised
from asrsvc.speech.types import FloatArray

_WHOLE_FILE: Final = "whole.onnx"
_NOISE_FRAMES: Final = (1, 17, 167)


@dataclasses.dataclass(frozen=True, slots=True)
class _Question:
    """One run of the engine."""

    features: FloatArray
    """(T, 560), float32"""
    language: str
    use_itn: bool

    def ask(self, engine: Engine) -> _Answer:
        """All logits, and what a request is answered from."""
        ask = ([self.features], [self.language], [self.use_itn])
        (logits,), (frames,) = engine.logits(*ask), engine.run(*ask)
        return _Answer(logits, frames)


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    logits: FloatArray
    frames: Frames

    def agrees(self, published: _Answer) -> bool:
        """Whether every bit is the published file's, but for probabilities: see `release.exact`."""
        return (
            same(self.logits, published.logits)
            and same(self.frames.ids, published.frames.ids)
            and same(self.frames.best, published.frames.best)
            and same(self.frames.first, published.frames.first)
            and np.allclose(
                self.frames.probabilities,
                published.frames.probabilities,
                rtol=PROBABILITY_TOLERANCE,
                atol=0,
                equal_nan=True,
            )
        )


def _bake(question: Mapping[str, Any]) -> dict[str, Any]:
    folder, staging = Path(question["folder"]), Path(question["staging"])
    source = check_digests(folder)[MODEL_FILE]
    questions = _questions(folder)
    wanted = _answers(Engine.load(folder, threads=1), questions)
    note = ""
    for int8 in (True, False) if question["int8"] else (False,):
        changed, matrices = _write(folder, staging, int8=int8)
        if _answers(Engine.load(folder, threads=1, baked=staging), questions, wanted) is None:
            note = note or "what was tried gave other numbers"
            if int8 and changed:
                note = "int8 gave other numbers"
                continue
            raise ModelError("it does not give, bit for bit, the numbers of the published file")
        files = {name: measure(staging / name) for name in (BAKED_MODEL_FILE, BAKED_WEIGHTS_FILE)}
        return {
            "source": source,
            "files": {name: dataclasses.asdict(digest) for name, digest in files.items()},
            "matrices": matrices,
            "int8": changed,
            "note": note,
        }
    raise AssertionError("the last attempt is made without int8")


def _write(folder: Path, staging: Path, *, int8: bool) -> tuple[int, int]:
    """Write the files of a twin; how many matrices are int8, and of how many."""
    model = onnx.load(folder / MODEL_FILE)
    changed, matrices = 0, sum(node.op_type == "MatMulInteger" for node in model.graph.node)
    if int8:
        changed, matrices = to_int8(model, vnni=has_vnni())
    model = transform(model)
    whole = staging / _WHOLE_FILE
    for name in (BAKED_MODEL_FILE, BAKED_WEIGHTS_FILE):
        (staging / name).unlink(missing_ok=True)
    onnx.save(model, whole)
    del model
    save_optimised(whole, staging)
    whole.unlink()
    (staging / BAKED_WEIGHTS_FILE).touch()  # a graph without large weights has none
    for name in (BAKED_MODEL_FILE, BAKED_WEIGHTS_FILE):
        descriptor = os.open(staging / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o444)  # workers map it: it must never be written again
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return changed, matrices


def _questions(folder: Path) -> list[_Question]:
    random = np.random.RandomState(0)  # the same numbers in every NumPy (NEP 19)
    noise = [random.standard_normal((frames, FEATURE_SIZE)).astype(np.float32) for frames in _NOISE_FRAMES]
    extractor = FbankExtractor(folder / "am.mvn")
    clips = [extractor.features(_samples(path)) for path in sorted(CLIPS.glob("*.flac"))]
    return [
        _Question(features, language, use_itn)
        for features, (language, use_itn) in zip(
            [*noise, *clips],
            [("auto", True), ("zh", False), ("en", True), *[("auto", True), ("auto", False)] * len(clips)],
            strict=False,
        )
    ]


def _samples(path: Path) -> FloatArray:
    samples: FloatArray = soundfile.read(path, dtype="float32")[0]
    return samples


def _answers(
    engine: Engine, questions: Sequence[_Question], wanted: Sequence[_Answer] | None = None
) -> list[_Answer] | None:
    """What an engine answers; None as soon as it is not what is wanted."""
    answers: list[_Answer] = []
    for index, question in enumerate(questions):
        answer = question.ask(engine)
        if wanted is None:
            answers.append(answer)
        elif not answer.agrees(wanted[index]):
            return None
    return answers


def same(one: object, other: object) -> bool:
    """Whether two results are equal to the last bit: arrays, and what holds arrays."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if dataclasses.is_dataclass(one) and dataclasses.is_dataclass(other):
        names = [field.name for field in dataclasses.fields(one)]
        return all(same(getattr(one, name), getattr(other, name)) for name in names)
    return one == other


if __name__ == "__main__":
    main({"bake": _bake})
