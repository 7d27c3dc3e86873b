"""Compare candidates for the final weights on the development sets, which share nothing with the tests.

Candidates: the last weights, their running mean, and means of the last checkpoints.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recipes.nano import workfolder
from recipes.nano.features import FeatureSets
from recipes.nano.model import Architecture, build
from recipes.nano.scoring import Cmvn, DevBatch, dev_batches, score

Weights = dict[str, torch.Tensor]


def mean_weights(several: list[Weights]) -> Weights:
    """The mean of several checkpoints' weights."""
    return {name: sum(weights[name].float() for weights in several) / len(several) for name in several[0]}


def candidates(run: Path) -> dict[str, Weights]:
    """Weights by name."""
    paths = [*sorted(run.glob("ck_*.pt")), run / "last.pt"][-6:]
    stored: list[dict[str, Any]] = [torch.load(path) for path in paths]
    models = [checkpoint["model"] for checkpoint in stored]
    result = {"last": models[-1], "ema": stored[-1]["ema"]}
    for count in (2, 4, 6):
        if len(models) >= count:
            result[f"avg{count}"] = mean_weights(models[-count:])
    return result


def load_dev(data: Path) -> list[DevBatch]:
    """Both development sets, short utterances first."""
    batches: list[DevBatch] = []
    for name in ("dev_seen", "dev_held"):
        sets = FeatureSets(data, [name])
        order = sorted(range(len(sets)), key=lambda index: sets.entries[index]["t"])
        batches += dev_batches(sets, name.removeprefix("dev_"), order, 16, 15, -2.0)
    return batches


def main(argv: list[str] | None = None) -> int:
    """Print a line a candidate: mean CER, then CER/language accuracy of every set:language."""
    import sentencepiece

    parser = workfolder.parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="below the work folder")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    run = args.root.root / args.run
    vocabulary = sentencepiece.SentencePieceProcessor(str(args.root.sentencepiece_model))
    net = build(vocabulary.get_piece_size(), Architecture.load(run / "conf.json")).eval()
    cmvn = Cmvn.load(args.root.cmvn)
    dev = load_dev(args.root.data)
    for name, weights in candidates(run).items():
        net.load_state_dict(weights)
        scores = score(net, cmvn, vocabulary, dev, ["withitn", "woitn"])
        mean = np.mean([counts.cer for counts in scores.values()])
        parts = [
            f"{':'.join(key)} {counts.cer:.1f}/{counts.language_accuracy:.0f}"
            for key, counts in sorted(scores.items())
        ]
        print(f"{name}: {mean:.2f}  {', '.join(parts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
