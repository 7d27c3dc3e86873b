"""The implementations that benchmarks/engine.py compares, each in a process of its own.

All read the same WAV file, run the same weights with the same number of threads and dither 0, and are given
the whole recording as one span.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final, Protocol, TypeAlias

import numpy as np
import soundfile
from numpy.typing import NDArray

from asrsvc.release.bake import Mode
from asrsvc.speech.engine import Engine, Stop
from asrsvc.speech.frames import Frames
from benchmarks import weights

SAMPLE_RATE: Final = 16_000
FloatArray: TypeAlias = NDArray[np.float32]
ENGLISH_TAG_ID: Final = 24_885
STAGES: Final = {"features": 5, "inference": 1, "end to end": 1}
"""what is timed → how many runs make one timing: features are short beside the clock's noise"""


class Contender(Protocol):
    """One implementation, loaded."""

    def features(self) -> object:
        """Computes the features of the waveform; they are kept for `inference`."""

    def inference(self) -> object:
        """Runs the network on the features."""

    def path(self) -> list[int]:
        """The best token of each frame; empty if it cannot be had."""

    def end_to_end(self) -> str:
        """Reads the WAV file and recognises it; the text."""


class FunasrOnnx:
    """funasr-onnx as its users call it, but for the number of threads (4 by default) and dither (1.0)."""

    def __init__(self, folder: Path, wav: Path, threads: int) -> None:
        # Here, for no process shall have more in its memory than what it runs.
        from funasr_onnx import SenseVoiceSmall

        model: Any = SenseVoiceSmall(str(folder), quantize=True, intra_op_num_threads=threads)
        model.frontend.opts.frame_opts.dither = 0.0
        self._model = model
        self._wav = str(wav)
        (self._waveform,) = model.load_data(self._wav, SAMPLE_RATE)
        self._features = model.extract_feat([self._waveform])

    def features(self) -> object:
        """See Contender."""
        self._features = self._model.extract_feat([self._waveform])
        return self._features

    def path(self) -> list[int]:
        """See Contender."""
        path: list[int] = self.inference().argmax(axis=-1).tolist()
        return path

    def inference(self) -> FloatArray:
        """See Contender."""
        language, textnorm = self._model.read_tags(["auto"], ["withitn"])
        queries = (np.array(language, dtype=np.int32), np.array(textnorm, dtype=np.int32))
        logits: FloatArray = self._model.infer(*self._features, *queries)[0][0]
        return logits

    def end_to_end(self) -> str:
        """See Contender."""
        (text,) = self._model(self._wav, language=["auto"], textnorm=["withitn"])
        return str(text)


class Asrsvc:
    """The service's own way of a request, without HTTP and without other requests: the published file."""

    mode: Mode = "off"

    def __init__(self, folder: Path, wav: Path, threads: int) -> None:
        from asrsvc.speech import batch, decode, ffmpeg, model, segment, transcribe

        baked = weights.twin(folder, self.mode) if self.mode != "off" else None
        self._model = model.Model.load(folder, version="full-size", threads=threads, baked=baked)
        self._options = transcribe.Options(language="auto", use_itn=True)
        self._transcriber = transcribe.Transcriber(
            self._model,
            segmenter=segment.Segmenter(),
            helpers=ffmpeg.HelperPool(memory_bytes=2**30, block_timeout=60.0),
            limits=decode.Limits(max_seconds=3_600.0),
            batcher=batch.Batcher(_SpeakingEngine(self._model.engine), batch_size=1, queue_limit=1),
            queue_timeout=600.0,
        )
        self._wav = wav
        self._waveform: FloatArray = soundfile.read(wav, dtype="float32")[0]
        self._features = self._model.extractor.features(self._waveform)

    def features(self) -> object:
        """See Contender."""
        self._features = self._model.extractor.features(self._waveform)
        return self._features

    def path(self) -> list[int]:
        """See Contender."""
        path: list[int] = self.inference().ids.tolist()
        return path

    def inference(self) -> Frames:
        """See Contender."""
        return self._model.engine.run([self._features], ["auto"], [True])[0]

    def end_to_end(self) -> str:
        """See Contender."""
        with self._wav.open("rb") as file:
            return self._transcriber.transcribe(file.fileno(), self._options).text


class AsrsvcUint8(Asrsvc):
    """The faster twin with the published file's uint8: any processor gets at least this."""

    mode = "uint8"


class AsrsvcBaked(Asrsvc):
    """The faster twin as the service makes it on this host: int8 where that is exact."""

    mode = "auto"


class _SpeakingEngine(Engine):
    """The engine, told that English is spoken: random weights may say that nothing is, and end it there."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(
        self,
        batch: Sequence[FloatArray],
        languages: Sequence[str],
        use_itn: Sequence[bool],
        *,
        stop: Stop | None = None,
    ) -> list[Frames]:
        heard = []
        for frames in self._engine.run(batch, languages, use_itn, stop=stop):
            ids = frames.ids.copy()
            ids[0] = ENGLISH_TAG_ID
            heard.append(replace(frames, ids=ids))
        return heard


class SherpaOnnx:
    """sherpa-onnx, with the ONNX Runtime that it brings. Its `inference` is LFR, CMVN, network and search."""

    def __init__(self, folder: Path, wav: Path, threads: int) -> None:
        import sherpa_onnx

        files = weights.sherpa_files(folder)
        self._recogniser: Any = sherpa_onnx.OfflineRecognizer.from_sense_voice(
            model=str(files / "model.onnx"),
            tokens=str(files / "tokens.txt"),
            num_threads=threads,
            language="auto",
            use_itn=True,
        )
        self._wav = wav
        self._waveform: FloatArray = soundfile.read(wav, dtype="float32")[0]

    def features(self) -> object:
        """See Contender."""
        self._stream = self._recogniser.create_stream()
        self._stream.accept_waveform(SAMPLE_RATE, self._waveform)
        return self._stream

    def inference(self) -> object:
        """See Contender."""
        self._recogniser.decode_stream(self._stream)
        return self._stream.result

    def path(self) -> list[int]:
        """See Contender."""
        self.inference()
        return []

    def end_to_end(self) -> str:
        """See Contender."""
        stream = self._recogniser.create_stream()
        stream.accept_waveform(SAMPLE_RATE, soundfile.read(self._wav, dtype="float32")[0])
        self._recogniser.decode_stream(stream)
        return str(stream.result.text)


CONTENDERS: Final[dict[str, tuple[str, Callable[[Path, Path, int], Contender]]]] = {
    "funasr-onnx": ("funasr_onnx", FunasrOnnx),
    "sherpa-onnx": ("sherpa_onnx", SherpaOnnx),
    "asrsvc": ("asrsvc", Asrsvc),
    "asrsvc uint8": ("asrsvc", AsrsvcUint8),
    "asrsvc baked": ("asrsvc", AsrsvcBaked),
}
"""name → the package that it needs, and how it is loaded"""


def serve(name: str, folder: Path, wav: Path, threads: int) -> None:
    """The contender's process: loads it, then answers a line of JSON to each stage named on stdin."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    contender = CONTENDERS[name][1](folder, wav, threads)
    contender.features()
    path = contender.path()
    text = contender.end_to_end()
    print(json.dumps({"anonymous_mb": _anonymous_bytes() / 1e6, "path": path, "text": text}), file=answers)
    runs: dict[str, Callable[[], object]] = {
        "features": contender.features,
        "inference": contender.inference,
        "end to end": contender.end_to_end,
    }
    for line in sys.stdin:
        stage = line.rstrip("\n")
        began = time.perf_counter()
        for _ in range(STAGES[stage]):
            runs[stage]()
        print(json.dumps((time.perf_counter() - began) * 1e3 / STAGES[stage]), file=answers)


class Child:
    """A contender's process, seen from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.loaded: dict[str, Any] = self._answer()

    def milliseconds(self, stage: str) -> float:
        """Has it run a stage once more; how long that took."""
        assert self._process.stdin is not None
        print(stage, file=self._process.stdin, flush=True)
        return float(self._answer())

    def _answer(self) -> Any:
        output: IO[str] | None = self._process.stdout
        assert output is not None
        line = output.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait(10)}, see above")
        return json.loads(line)


@contextmanager
def started(name: str, folder: Path, wav: Path, threads: int) -> Iterator[Child]:
    """Starts and loads a contender; ends it in the end."""
    arguments = ["--contender", name, "--folder", str(folder), "--wav", str(wav), "--threads", str(threads)]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("engine.py")), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Helper libraries of NumPy and librosa would take all cores beside the session's threads.
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)},
    )
    try:
        yield Child(process)
    finally:
        process.kill()
        process.communicate()


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text("ascii").splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/smaps_rollup has no line 'Anonymous:'")
