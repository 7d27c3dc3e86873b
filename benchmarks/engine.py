"""funasr-onnx and asrsvc side by side: features, inference, and file to text, on the full-size graph.

    python benchmarks/engine.py [--threads 1] [--rounds 15] [--seconds 10] [--json FILE]

Each contender is loaded in a process of its own and they run by turns, so that neither has the other's
memory, threads or a quieter minute; the ratio is taken within each round. Both read the same WAV file (clips
of tests/data, joined), run the same model_quant.onnx (benchmarks/full_size.py), with the same number of
threads and dither 0. What is timed:

- features: waveform (float32, 16 kHz) to CMVN-normalised LFR frames (T, 560);
- inference: those frames to CTC logits;
- end to end: WAV file to text: `SenseVoiceSmall.__call__` of the one, `Transcriber.transcribe` of the other,
  which also gives times and a confidence.

The graph holds random weights: the text is meaningless, the cost is that of the published model.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Final, Protocol, TypeAlias

import numpy as np
import soundfile
from numpy.typing import NDArray

ROOT: Final = Path(__file__).resolve().parents[1]
# Started by its path, Python looks for modules beside this file only.
sys.path.insert(0, str(ROOT))

from asrsvc import __version__  # noqa: E402
from asrsvc.speech.engine import Engine  # noqa: E402

CLIPS: Final = ROOT / "tests" / "data" / "clips"
SAMPLE_RATE: Final = 16_000
FloatArray: TypeAlias = NDArray[np.float32]
BLANK_ID: Final = 0
ENGLISH_TAG_ID: Final = 24_885
HIGH_LOGIT: Final = 50.0
"""far above any that random weights give"""
STAGES: Final = {"features": 5, "inference": 1, "end to end": 1}
"""what is timed → how many runs make one timing: features are short beside the clock's noise"""
PACKAGES: Final = (
    "onnxruntime",
    "numpy",
    "funasr-onnx",
    "kaldi-native-fbank",
    "librosa",
    "asrfront",
    "soundfile",
)
VNNI_FLAGS: Final = ("avx512_vnni", "avx_vnni", "asimddp", "i8mm")
"""CPU flags of 8-bit dot products: x86 VNNI, and what does the same on Arm"""


class Contender(Protocol):
    """One implementation, loaded."""

    def features(self) -> object:
        """Computes the features of the waveform; they are kept for `inference`."""

    def inference(self) -> FloatArray:
        """Runs the network on the features: logits, (T + 4, V)."""

    def end_to_end(self) -> str:
        """Reads the WAV file and recognises it; the text."""


class FunasrOnnx:
    """funasr-onnx as its users call it, but for the number of threads (4 by default) and dither (1.0)."""

    def __init__(self, folder: Path, wav: Path, threads: int) -> None:
        # Here, for no process shall have more in its memory than what it runs.
        from funasr_onnx import SenseVoiceSmall

        model: Any = SenseVoiceSmall(str(folder), quantize=True, intra_op_num_threads=threads)
        model.frontend.opts.frame_opts.dither = 0.0
        self._infer = model.infer
        model.infer = self._infer_as_if_spoken
        self._model = model
        self._wav = str(wav)
        (self._waveform,) = model.load_data(self._wav, SAMPLE_RATE)
        self._features = model.extract_feat([self._waveform])

    def features(self) -> object:
        """See Contender."""
        self._features = self._model.extract_feat([self._waveform])
        return self._features

    def inference(self) -> FloatArray:
        """See Contender."""
        language, textnorm = self._model.read_tags(["auto"], ["withitn"])
        queries = (np.array(language, dtype=np.int32), np.array(textnorm, dtype=np.int32))
        logits: FloatArray = self._infer(*self._features, *queries)[0][0]
        return logits

    def end_to_end(self) -> str:
        """See Contender."""
        (text,) = self._model(self._wav, language=["auto"], textnorm=["withitn"])
        return str(text)

    def _infer_as_if_spoken(self, *feed: object) -> tuple[FloatArray, object]:
        logits, lengths = self._infer(*feed)
        return as_if_spoken(logits), lengths


class Asrsvc:
    """The service's own way of a request, without HTTP and without other requests."""

    def __init__(self, folder: Path, wav: Path, threads: int) -> None:
        from asrsvc.speech import batch, decode, ffmpeg, model, segment, transcribe

        self._model = model.Model.load(folder, version="full-size", threads=threads)
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

    def inference(self) -> FloatArray:
        """See Contender."""
        return self._model.engine.run([self._features], ["auto"], [True])[0]

    def end_to_end(self) -> str:
        """See Contender."""
        with self._wav.open("rb") as file:
            return self._transcriber.transcribe(file.fileno(), self._options).text


class _SpeakingEngine(Engine):
    """The engine, its answers made such that there is something to read in them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(
        self, batch: Sequence[FloatArray], languages: Sequence[str], use_itn: Sequence[bool]
    ) -> list[FloatArray]:
        logits = self._engine.run(batch, languages, use_itn)
        return [as_if_spoken(row[np.newaxis])[0] for row in logits]


def as_if_spoken(logits: FloatArray) -> FloatArray:
    """Makes English of logits (B, T, V), in place: the language tag, and blanks in two frames of three.

    Random weights say that nothing was spoken, or a token in every frame; both would make reading the
    logits cost other than it does (0.9 ms or 18 ms for asrsvc, 5 ms like this).
    """
    logits[:, 0, ENGLISH_TAG_ID] = HIGH_LOGIT
    logits[:, 4::3, BLANK_ID] = HIGH_LOGIT
    logits[:, 5::3, BLANK_ID] = HIGH_LOGIT
    return logits


CONTENDERS: Final[dict[str, Callable[[Path, Path, int], Contender]]] = {
    "funasr-onnx": FunasrOnnx,
    "asrsvc": Asrsvc,
}


def serve(name: str, folder: Path, wav: Path, threads: int) -> None:
    """The contender's process: loads it, then answers a line of JSON to each stage named on stdin."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    contender = CONTENDERS[name](folder, wav, threads)
    contender.features()
    path = contender.inference().argmax(axis=-1).tolist()
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
        [sys.executable, __file__, *arguments],
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


def write_wav(path: Path, seconds: float) -> None:
    """Joins the speech clips, over and over, to a 16-bit WAV file of that length."""
    clips = [clip for clip in json.loads((CLIPS / "manifest.json").read_text("utf-8")) if clip["spoken"]]
    speech = np.concatenate([soundfile.read(CLIPS / clip["file"], dtype="int16")[0] for clip in clips])
    soundfile.write(path, np.resize(speech, round(seconds * SAMPLE_RATE)), SAMPLE_RATE, subtype="PCM_16")


def run_by_turns(
    children: dict[str, Child], rounds: int, deadline: float
) -> dict[str, dict[str, list[float]]]:
    """Stage → contender → milliseconds of each round; the one that begins changes from round to round."""
    timings: dict[str, dict[str, list[float]]] = {stage: {name: [] for name in children} for stage in STAGES}
    names = list(children)
    for index in range(rounds):
        if index > 0 and time.monotonic() > deadline:
            break
        for stage in STAGES:
            for name in names:
                timings[stage][name].append(children[name].milliseconds(stage))
        names.reverse()
    return timings


def summarise(values: list[float]) -> dict[str, float]:
    """Smallest, median and largest."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def machine() -> dict[str, object]:
    """What the figures depend on beside the code."""
    cpu = dict.fromkeys(("model name", "flags", "Features"), "")
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in cpu:
            cpu[key.strip()] = value.strip()
    flags = {*cpu["flags"].split(), *cpu["Features"].split()}
    return {
        "cpu": cpu["model name"] or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "vnni": [flag for flag in VNNI_FLAGS if flag in flags],
        "avx512": "avx512f" in flags,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_average": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def package_versions() -> dict[str, str]:
    """Of what takes part, as installed."""
    return {"asrsvc": __version__, **{name: metadata.version(name) for name in PACKAGES}}


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text("ascii").splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/smaps_rollup has no line 'Anonymous:'")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the whole benchmark; what `--json` writes."""
    from benchmarks.full_size import make_full_size

    deadline = time.monotonic() + options.limit
    folder = make_full_size()
    before = machine()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        wav = Path(scratch) / "speech.wav"
        write_wav(wav, options.seconds)
        children = {
            name: stack.enter_context(started(name, folder, wav, options.threads)) for name in CONTENDERS
        }
        timings = run_by_turns(children, options.rounds, deadline)
        loaded = {name: child.loaded for name, child in children.items()}
    theirs, ours = CONTENDERS
    return {
        "machine": before,
        "packages": package_versions(),
        "threads": options.threads,
        "seconds": options.seconds,
        "rounds": len(timings["inference"][ours]),
        "milliseconds": {
            stage: {name: summarise(values) for name, values in by_name.items()}
            for stage, by_name in timings.items()
        },
        "ratio": {
            stage: summarise([a / b for a, b in zip(by_name[theirs], by_name[ours], strict=True)])
            for stage, by_name in timings.items()
        },
        "anonymous_mb": {name: entry["anonymous_mb"] for name, entry in loaded.items()},
        "frames": len(loaded[ours]["path"]),
        "frames_with_the_same_token": sum(
            a == b for a, b in zip(loaded[theirs]["path"], loaded[ours]["path"], strict=True)
        ),
    }


def report(result: dict[str, Any]) -> str:
    """The result as a table and sentences."""
    names = list(CONTENDERS)
    host = result["machine"]
    what = (
        f"{result['seconds']:g} s of audio, {result['threads']} thread(s), {result['rounds']} rounds by turns"
    )
    lines = [
        f"{what}; milliseconds: min / median / max",
        "",
        f"{'':<12}" + "".join(f"{name:>26}" for name in names) + f"{'ratio within a round':>26}",
    ]
    for stage, by_name in result["milliseconds"].items():
        cells = [_three(by_name[name], 1) for name in names] + [_three(result["ratio"][stage], 2)]
        lines.append(f"{stage:<12}" + "".join(f"{cell:>26}" for cell in cells))
    memory = "".join(f"{result['anonymous_mb'][name]:>26.0f}" for name in names)
    lines.append(f"{'memory, MB':<12}{memory}")
    facts = {
        "ratio": f"{names[0]} / {names[1]}: above 1, {names[1]} is the faster one",
        "memory": "anonymous, after the first run of each stage",
        "agreement": f"{result['frames_with_the_same_token']} of {result['frames']} frames have the same "
        "token; each has its own features, and random weights leave many tokens almost equally likely",
        "machine": f"{host['cpu']}, {host['cores']} cores, VNNI: {', '.join(host['vnni']) or 'no'}, "
        f"AVX-512: {'yes' if host['avx512'] else 'no'}, {host['memory_gb']} GB, "
        f"load average at the start {host['load_average']:.2f}, "
        f"Linux {host['kernel']}, Python {host['python']}",
        "packages": ", ".join(f"{name} {version}" for name, version in result["packages"].items()),
    }
    lines += ["", *(f"{label}: {fact}" for label, fact in facts.items())]
    return "\n".join(lines)


def _three(summary: dict[str, float], digits: int) -> str:
    return " / ".join(f"{summary[key]:.{digits}f}" for key in ("min", "median", "max"))


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def check(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return check


def main(arguments: list[str] | None = None) -> int:
    """Command line: the report on stdout, or a contender's process."""
    parser = argparse.ArgumentParser(
        description="funasr-onnx and asrsvc side by side on the full-size graph."
    )
    parser.add_argument("--threads", type=_positive(int), default=1, help="of each session (%(default)s)")
    parser.add_argument("--rounds", type=_positive(int), default=15, help="at most (%(default)s)")
    parser.add_argument(
        "--seconds", type=_positive(float), default=10.0, help="length of the recording (%(default)s)"
    )
    parser.add_argument(
        "--limit",
        type=_positive(float),
        default=90.0,
        help="begin no round after so many seconds (%(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--wav", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contender:
        serve(options.contender, options.folder, options.wav, options.threads)
        return 0
    if importlib.util.find_spec("funasr_onnx") is None:
        parser.error(
            "funasr-onnx is not installed (it needs Python < 3.13): there is nothing to compare with"
        )
    result = measure(options)
    print(report(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
