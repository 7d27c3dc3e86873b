"""funasr-onnx, sherpa-onnx and asrsvc side by side: features, inference, and file to text, full-size graph.

    python benchmarks/engine.py [--threads 1] [--rounds 15] [--seconds 10] [--quick] [--only NAME ...]
                                [--json FILE] [--chart FILE.png]

Needs what the benchmarks' extra names (pip install .[benchmarks]); who is not installed is left out. Each
contender is loaded in a process of its own and they run by turns, so that none has another's memory,
threads or a quieter minute; ratios are taken within each round. What is timed:

- features: waveform (float32, 16 kHz) to CMVN-normalised LFR frames (T, 560); of sherpa-onnx, to fbank;
- inference: those to CTC logits (funasr-onnx), to token ids and confidences (asrsvc), to text (sherpa-onnx);
- features + inference: the sum within each round, which is what may be compared;
- end to end: WAV file to text: `SenseVoiceSmall.__call__`, `decode_stream`, `Transcriber.transcribe`, which
  also gives times and a confidence.

The graph holds random weights (benchmarks/weights.py): the text is meaningless, the cost is that of the
published model. They are small, though: on a processor without VNNI int8 is exact for them and would not be
for the published ones. There, `asrsvc uint8` is what to look at.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile

ROOT: Final = Path(__file__).resolve().parents[1]
# Started by its path, Python looks for modules beside this file only.
sys.path.insert(0, str(ROOT))

from asrsvc import __version__  # noqa: E402
from benchmarks.contenders import CONTENDERS, SAMPLE_RATE, STAGES, Child, serve, started  # noqa: E402
from benchmarks.weights import spoken_version  # noqa: E402

CLIPS: Final = ROOT / "tests" / "data" / "clips"
SUM: Final = "features + inference"
PACKAGES: Final = (
    "onnxruntime",
    "numpy",
    "funasr-onnx",
    "sherpa-onnx",
    "kaldi-native-fbank",
    "librosa",
    "asrfront",
    "soundfile",
)
VNNI_FLAGS: Final = ("avx512_vnni", "avx_vnni", "asimddp", "i8mm")
"""CPU flags of 8-bit dot products: x86 VNNI, and what does the same on Arm"""


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
    pairs = {
        name: zip(timings["features"][name], timings["inference"][name], strict=True) for name in children
    }
    sums = {name: [a + b for a, b in values] for name, values in pairs.items()}
    return {"features": timings["features"], "inference": timings["inference"], SUM: sums, **timings}


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
    found = {"asrsvc": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "sherpa-onnx" in found:
        import sherpa_onnx

        found["onnxruntime in sherpa-onnx"] = str(sherpa_onnx.onnxruntime_version)
    return found


def measure(options: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """Runs the whole benchmark; what `--json` writes."""
    before = machine()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        wav = Path(scratch) / "speech.wav"
        write_wav(wav, options.seconds)
        folder = spoken_version(soundfile.read(wav, dtype="float32")[0], f"{options.seconds:g}s")
        children = {name: stack.enter_context(started(name, folder, wav, options.threads)) for name in names}
        # Files and twins may have had to be made: the limit is for the rounds.
        timings = run_by_turns(children, options.rounds, time.monotonic() + options.limit)
        loaded = {name: child.loaded for name, child in children.items()}
    theirs = [name for name in names if not name.startswith("asrsvc")]
    paths = {name: entry["path"] for name, entry in loaded.items() if entry["path"]}
    first = next(iter(paths), "")
    return {
        "machine": before,
        "packages": package_versions(),
        "threads": options.threads,
        "seconds": options.seconds,
        "rounds": len(timings["inference"][names[0]]),
        "milliseconds": {
            stage: {name: summarise(values) for name, values in by_name.items()}
            for stage, by_name in timings.items()
        },
        "ratio": {
            stage: {
                f"{other} / {name}": summarise(
                    [a / b for a, b in zip(by_name[other], by_name[name], strict=True)]
                )
                for other in theirs
                for name in names
                if name not in theirs
            }
            for stage, by_name in timings.items()
        },
        "anonymous_mb": {name: entry["anonymous_mb"] for name, entry in loaded.items()},
        "frames": len(paths[first]) if first else 0,
        "frames_with_the_same_token": {
            name: sum(a == b for a, b in zip(path, paths[first], strict=True)) for name, path in paths.items()
        },
    }


def report(result: dict[str, Any]) -> str:
    """The result as tables and sentences."""
    host = result["machine"]
    by_stage = result["milliseconds"]
    lines = [
        f"{result['seconds']:g} s of audio, {result['threads']} thread(s), {result['rounds']} rounds",
        "min / median / max, milliseconds",
        "",
        f"{'':<14}" + "".join(f"{stage:>24}" for stage in by_stage) + f"{'memory, MB':>12}",
    ]
    for name, memory in result["anonymous_mb"].items():
        cells = "".join(f"{_three(by_name[name], 1):>24}" for by_name in by_stage.values())
        lines.append(f"{name:<14}{cells}{memory:>12.0f}")
    lines += ["", "ratio within a round (above 1: the second is the faster one)"]
    for pair in result["ratio"][SUM]:
        cells = "".join(f"{_three(by_pair[pair], 2):>24}" for by_pair in result["ratio"].values())
        lines.append(f"{pair:<28}{cells}")
    agreement = result["frames_with_the_same_token"]
    facts = {
        "memory": "anonymous, after the first run of each stage",
        "tokens": f"of {result['frames']} frames the same as {next(iter(agreement), 'nobody')}: "
        + ", ".join(f"{name} {count}" for name, count in agreement.items())
        + "; each has its own features, and random weights leave many tokens almost equally likely",
        "machine": f"{host['cpu']}, {host['cores']} cores, VNNI: {', '.join(host['vnni']) or 'no'}, "
        f"AVX-512: {'yes' if host['avx512'] else 'no'}, {host['memory_gb']} GB, "
        f"load average before {host['load_average']:.1f}",
        "software": ", ".join(f"{name} {version}" for name, version in result["packages"].items())
        + f", Python {host['python']}, Linux {host['kernel']}",
    }
    return "\n".join([*lines, "", *(f"{name:<10}{fact}" for name, fact in facts.items())])


def draw(result: dict[str, Any], path: Path) -> None:
    """A bar for each contender: features and inference, stacked."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    names = list(result["anonymous_mb"])[::-1]
    figure, axes = plt.subplots(figsize=(8, 0.6 * len(names) + 1.4), layout="constrained")
    left = [0.0] * len(names)
    for stage in ("features", "inference"):
        widths = [result["milliseconds"][stage][name]["median"] for name in names]
        axes.barh(names, widths, left=left, label=stage)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for index, total in enumerate(left):
        axes.annotate(f"{total:.0f} ms", (total, index), xytext=(4, -3), textcoords="offset points")
    axes.set_xlim(0, 1.12 * max(left))
    axes.set_xlabel(
        f"milliseconds for {result['seconds']:g} s of audio, {result['threads']} thread(s), median"
    )
    axes.set_title(
        f"{result['machine']['cpu']}, VNNI: {', '.join(result['machine']['vnni']) or 'no'}", fontsize=9
    )
    axes.legend()
    figure.savefig(path, dpi=150)


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
        description="funasr-onnx, sherpa-onnx and asrsvc side by side on the full-size graph."
    )
    parser.add_argument("--threads", type=_positive(int), default=1, help="of each session (%(default)s)")
    parser.add_argument("--rounds", type=_positive(int), default=15, help="at most (%(default)s)")
    parser.add_argument(
        "--seconds", type=_positive(float), default=10.0, help="length of the recording (%(default)s)"
    )
    parser.add_argument(
        "--limit",
        type=_positive(float),
        default=200.0,
        help="begin no round after so many seconds of rounds (%(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, metavar="NAME", help="of the contenders")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw it there, too (PNG)")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--wav", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contender:
        serve(options.contender, options.folder, options.wav, options.threads)
        return 0
    if options.quick:
        options.rounds = min(options.rounds, 3)
    names = []
    for name in options.only or CONTENDERS:
        if importlib.util.find_spec(CONTENDERS[name][0]) is None:
            print(f"{name} is not installed: left out", file=sys.stderr)
        else:
            names.append(name)
    if not names:
        parser.error("none of the contenders is installed")
    result = measure(options, names)
    print(report(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    if options.chart:
        draw(result, options.chart)
    return 0


if __name__ == "__main__":
    sys.exit(main())
