"""Turn shards into log-mel feature sets, augmenting the waveforms of training sets once.

Resampling (pitch and formants together) and half of the reverberation are done here on waveforms; the
rest of the augmentation is done anew at every use, on features. A set whose name begins with "train" is
augmented, others are not; the name seeds the augmentation.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from recipes.nano import workfolder
from recipes.nano.features import FeatureSetWriter, log_mel
from recipes.nano.shards import SAMPLE_RATE, Shard


@dataclass(frozen=True)
class Source:
    """A shard and how often it is taken."""

    shard: str
    times: int = 1


def source(text: str) -> Source:
    """NAME, or xTIMES:NAME."""
    times, colon, name = text.rpartition(":")
    if not colon:
        return Source(name)
    if not (times.startswith("x") and times[1:].isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r}: should be NAME or x3:NAME")
    return Source(name, int(times[1:]))


def room_response(rng: Generator) -> NDArray[np.float64]:
    """A synthetic impulse response: direct sound, a pause, a decaying tail."""
    tail_length = int(SAMPLE_RATE * rng.uniform(0.12, 0.7))
    decay = np.exp(-6.9 * np.arange(tail_length) / tail_length)
    tail = rng.standard_normal(tail_length) * decay
    pause = int(rng.uniform(0, 0.012) * SAMPLE_RATE)
    tail = tail * rng.uniform(0.03, 0.25) / np.sqrt((tail**2).sum()) * 3
    response = np.concatenate([np.zeros(pause + 1), tail])
    response[0] = 1
    return response


def augment(waveform: NDArray[np.float32], rng: Generator) -> NDArray[np.float32]:
    """Sometimes resample, sometimes reverberate. Shape (n,), 16 kHz, in and out."""
    if rng.random() < 0.45:
        waveform = soxr.resample(waveform, SAMPLE_RATE, SAMPLE_RATE * rng.uniform(0.88, 1.14), quality="LQ")
    if rng.random() < 0.25:
        reverberant = fftconvolve(waveform, room_response(rng))
        waveform = (reverberant / np.abs(reverberant).max() * 0.5).astype(np.float32)
    return waveform


def main(argv: list[str] | None = None) -> int:
    """Write one feature set."""
    parser = workfolder.parser(__doc__)
    parser.add_argument("--set", required=True, dest="name", metavar="NAME", help="feature set to write")
    parser.add_argument(
        "shards",
        nargs="+",
        type=source,
        metavar="SHARD",
        help="x3:NAME takes the shard three times, each time augmented anew",
    )
    args = parser.parse_args(argv)
    rng = np.random.default_rng(zlib.crc32(args.name.encode()))
    with FeatureSetWriter(args.root.data, args.name) as writer:
        for taken in args.shards:
            shard = Shard(args.root.data, taken.shard)
            for _ in range(taken.times):
                for utterance in shard.utterances:
                    waveform = shard.waveform(utterance)
                    if args.name.startswith("train"):
                        waveform = augment(waveform, rng)
                    entry = {key: utterance[key] for key in ("lang", "woitn", "withitn", "voice")}
                    writer.add(log_mel(waveform), entry)
        print(f"{args.name}: {len(writer)} utterances, {writer.frames / 360_000:.3f} h")
    return 0


if __name__ == "__main__":
    sys.exit(main())
