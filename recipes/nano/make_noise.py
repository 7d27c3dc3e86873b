"""Store non-speech as log-mel banks: one to augment with, one with other seeds to test with."""

from __future__ import annotations

import sys
from typing import Final

import numpy as np

from recipes.nano import workfolder
from recipes.nano.features import log_mel
from recipes.nano.nonspeech import applause, babble, music, noise
from recipes.nano.shards import SAMPLE_RATE, Shard
from recipes.nano.workfolder import WorkFolder

CLIP_SECONDS: Final = 10
CLIP_FRAMES: Final = 994
COUNTS: Final = {
    "train": {"noise": 90, "music": 90, "applause": 50, "babble": 25},
    "test": {"noise": 20, "music": 20, "applause": 20, "babble": 4},
}
SEEDS: Final = {"train": 1, "test": 2}


def make_bank(folder: WorkFolder, tag: str, shard: Shard, scale: float) -> str:
    """Write a bank of clips, each float16 (994, 80); of the test bank the waveforms too."""
    rng = np.random.default_rng(SEEDS[tag])
    count = CLIP_SECONDS * SAMPLE_RATE
    makers = {
        "noise": lambda: noise(rng, count),
        "music": lambda: music(rng, count),
        "applause": lambda: applause(rng, count),
        "babble": lambda: babble(rng, shard, count),
    }
    bank = {}
    for kind, make in makers.items():
        clips = [make() * 0.5 for _ in range(max(2, round(COUNTS[tag][kind] * scale)))]
        features = [log_mel(clip.astype(np.float32))[:CLIP_FRAMES] for clip in clips]
        bank[kind] = np.stack(features).astype(np.float16)
        if tag == "test":
            np.save(folder.nonspeech_clips(kind), np.stack(clips).astype(np.float32))
    np.savez(folder.noise_bank(tag), **bank)
    return ", ".join(f"{len(clips)} {kind}" for kind, clips in bank.items())


def main(argv: list[str] | None = None) -> int:
    """Write both banks."""
    parser = workfolder.parser(__doc__)
    parser.add_argument("--babble-shard", default="espeakA", help="whose voices babble (default espeakA)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual number of clips")
    args = parser.parse_args(argv)
    shard = Shard(args.root.data, args.babble_shard)
    for tag in COUNTS:
        print(f"{tag}: {make_bank(args.root, tag, shard, args.scale)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
