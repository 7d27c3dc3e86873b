"""The process in which a version is tried: it loads the model and runs clips as a worker would."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile

from asrsvc.errors import InferenceFailed
from asrsvc.release.answering import Answer, main
from asrsvc.release.card import check_card
from asrsvc.release.versions import check_digests
from asrsvc.speech.batch import Batcher
from asrsvc.speech.decode import Limits, Recording
from asrsvc.speech.engine import Engine, Stop
from asrsvc.speech.ffmpeg import HelperPool
from asrsvc.speech.frames import Frames
from asrsvc.speech.model import Model
from asrsvc.speech.sample import CLIPS, engine_key, garbage, hear
from asrsvc.speech.segment import Segmenter
from asrsvc.speech.text import collapse
from asrsvc.speech.transcribe import Options, Transcriber
from asrsvc.speech.types import SAMPLE_RATE, FloatArray

_QUEUE_SECONDS: Final = 3600.0
"""the parent's deadlines are shorter"""
_DECODE_MEMORY: Final = 2**30
_DECODE_SECONDS: Final = 60.0


class _Finite(Engine):
    """An engine whose every number is looked at."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.vocabulary_size = engine.vocabulary_size

    def run(
        self,
        batch: Sequence[FloatArray],
        languages: Sequence[str],
        use_itn: Sequence[bool],
        *,
        stop: Stop | None = None,
    ) -> list[Frames]:
        results = self._engine.run(batch, languages, use_itn, stop=stop)
        if not all(frames.finite for frames in results):
            raise InferenceFailed("the engine gives numbers that are not finite")
        return results


class _Trial:
    """The model of one version, once it is loaded, and what is asked of it."""

    def __init__(self) -> None:
        self._helpers = HelperPool(memory_bytes=_DECODE_MEMORY, block_timeout=_DECODE_SECONDS)
        self._model: Model | None = None
        self._transcriber: Transcriber | None = None

    def answers(self) -> Mapping[str, Answer]:
        return {
            "listen": self._listen,
            "check": self._check,
            "load": self._load,
            "hear": self._hear,
            "transcribe": self._transcribe,
            "ids": self._ids,
            "ids_of_features": self._ids_of_features,
        }

    def _listen(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """How long a recording is, in seconds, decoded to its end; its text is that of all of it."""
        with _opened(question["path"]) as descriptor:
            limits = Limits(max_seconds=float(question["max_seconds"]))
            recording = Recording(descriptor, limits, self._helpers, refuse_incomplete=True)
            samples = sum(len(block) for block in recording.blocks())
        return {"seconds": samples / SAMPLE_RATE}

    def _check(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Digests, and what a worker reads beside the model: it must not be the first to meet it."""
        folder = Path(question["folder"])
        engine = engine_key(threads=int(question["threads"]), device=str(question["device"]))
        files = check_digests(folder)
        check_card(folder)
        return {"files": files, "engine": engine}

    def _load(self, question: Mapping[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        baked = question.get("baked")
        loaded = Model.load(
            Path(question["folder"]),
            version=str(question["version"]),
            threads=int(question["threads"]),
            device=str(question["device"]),
            baked=Path(baked) if baked is not None else None,
        )
        seconds = time.monotonic() - started
        loaded.vocabulary.check_pieces()
        model = self._model = replace(loaded, engine=_Finite(loaded.engine))
        self._transcriber = Transcriber(
            model,
            segmenter=Segmenter(),
            helpers=self._helpers,
            limits=Limits(max_seconds=float(question["max_seconds"])),
            batcher=Batcher(model.engine, batch_size=1, queue_limit=1),
            queue_timeout=_QUEUE_SECONDS,
        )
        return {"seconds": seconds}

    def _hear(self, _: Mapping[str, Any]) -> dict[str, Any]:
        assert self._model is not None
        heard = hear(self._model)
        return {
            "texts": dict(heard.texts),
            "likeness": heard.likeness,
            "cost": heard.cost,
            "garbage": garbage(heard.likeness),
        }

    def _transcribe(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._transcriber is not None
        with _opened(question["path"]) as descriptor:
            started = time.process_time()
            found = self._transcriber.transcribe(descriptor, Options())
            cpu_seconds = time.process_time() - started
        return {"text": found.text, "cpu_seconds": cpu_seconds}

    def _ids(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Token ids of a clip that comes with asrsvc, tags included, and the features behind them."""
        assert self._model is not None
        samples, _rate = soundfile.read(CLIPS / question["file"], dtype="float32")
        features = self._model.extractor.features(samples)
        ids = self._answer(features, use_itn=bool(question["use_itn"]))
        return {"ids": ids, "features": base64.b64encode(features.tobytes()).decode()}

    def _ids_of_features(self, question: Mapping[str, Any]) -> dict[str, Any]:
        raw = np.frombuffer(base64.b64decode(question["features"]), dtype=np.float32)
        return {"ids": self._answer(raw.reshape(-1, 560), use_itn=bool(question["use_itn"]))}

    def _answer(self, features: FloatArray, *, use_itn: bool) -> list[int]:
        assert self._model is not None
        (frames,) = self._model.engine.run([features], ["auto"], [use_itn])
        ids: list[int] = collapse(frames.ids)[0].tolist()
        return ids


@contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main(_Trial().answers())
