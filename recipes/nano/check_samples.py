"""Check that a model says of the sample clips what their manifest says, through funasr_onnx alone.

Needs only funasr-onnx, soundfile and numpy: meant for a clean environment. Asks with dither 0, as an
array and as a file, language auto and given, in a batch, and five times with the default dither.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMS = ("withitn", "woitn")


def load(model: Path, batch: int = 1) -> Any:
    """funasr_onnx's SenseVoiceSmall, int8."""
    from funasr_onnx import SenseVoiceSmall

    return SenseVoiceSmall(str(model), quantize=True, batch_size=batch)


def check_clip(model: Any, entry: dict[str, Any], waveform: NDArray[np.float32], wav: Path) -> list[str]:
    """Sentences about what differs from the manifest with dither 0; the waveform has shape (n,), 16 kHz."""
    model.frontend.opts.frame_opts.dither = 0.0
    problems = []
    for form in FORMS:
        wanted = entry[f"raw_{form}"]
        answers = {
            "array": model(waveform, language="auto", textnorm=form)[0],
            "file": model(str(wav), language="auto", textnorm=form)[0],
            f"language {entry['language']}": model(waveform, language=entry["language"], textnorm=form)[0],
        }
        problems += [
            f"{entry['file']} {form} {how}: {answer} instead of {wanted}"
            for how, answer in answers.items()
            if answer != wanted
        ]
        if wanted.split("|>")[-1] != entry[f"expected_{form}"]:
            problems.append(f"{entry['file']} {form}: the manifest itself expects another text")
    return problems


def same_with_dither(model: Any, entry: dict[str, Any], waveform: NDArray[np.float32], times: int) -> int:
    """How many of 2 * times answers are as the manifest says with the default dither."""
    model.frontend.opts.frame_opts.dither = 1.0
    return sum(
        model(waveform, language="auto", textnorm=form)[0] == entry[f"raw_{form}"]
        for form in FORMS
        for _ in range(times)
    )


def main(argv: list[str] | None = None) -> int:
    """Print what differs; 1 if anything does with dither 0 and single clips."""
    import soundfile

    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR")
    parser.add_argument("--samples", type=Path, required=True, metavar="DIR", help="with manifest.json")
    args = parser.parse_args(argv)
    manifest = json.loads((args.samples / "manifest.json").read_text(encoding="utf-8"))
    model = load(args.model)
    problems: list[str] = []
    equal = 0
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for entry in manifest:
            waveform, sample_rate = soundfile.read(args.samples / entry["file"], dtype="float32")
            path = Path(folder, entry["file"]).with_suffix(".wav")
            soundfile.write(path, waveform, sample_rate, subtype="PCM_16")
            paths.append(str(path))
            problems += check_clip(model, entry, waveform, path)
            equal += same_with_dither(model, entry, waveform, 5)
        batched = load(args.model, 4)
        batched.frontend.opts.frame_opts.dither = 0.0
        count = len(paths)
        answers = batched(paths, language=["auto"] * count, textnorm=["withitn"] * count)
    differing = [
        entry["file"]
        for entry, answer in zip(manifest, answers, strict=True)
        if answer != entry["raw_withitn"]
    ]
    for problem in problems:
        print(problem)
    print(f"{count} clips, {len(problems)} differences; default dither: {equal} of {10 * count} the same")
    print(f"in a batch of four differ: {' '.join(differing) or 'none'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
