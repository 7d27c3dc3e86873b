"""Greedy decoding and error rates on the development sets, for training to watch and weights to be chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recipes.nano.augment import white_floor
from recipes.nano.features import FLOOR, MEL_BINS, STACKED, FeatureSets, stack_frames
from recipes.nano.model import LANGUAGE_QUERIES, QUERIES, TEXTNORM_QUERIES, forward


@dataclass(frozen=True)
class Cmvn:
    """Mean and inverse standard deviation of stacked features, each of shape (560,)."""

    mean: torch.Tensor
    inverse_std: torch.Tensor

    @classmethod
    def load(cls, path: Path) -> Cmvn:
        """Read the arrays `mean` and `std`."""
        stored = np.load(path)
        return cls(torch.from_numpy(stored["mean"]), torch.from_numpy(1 / stored["std"]))

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise, shape (..., 560) in and out."""
        return (features - self.mean) * self.inverse_std


@dataclass(frozen=True)
class DevBatch:
    """Utterances of one development set, ready for the network."""

    name: str
    """seen or held"""
    entries: list[dict[str, Any]]
    features: torch.Tensor
    """(B, T6, 560), before CMVN"""
    lengths: torch.Tensor
    """(B,)"""


@dataclass
class Score:
    """Counts of one language of one set."""

    edits: int = 0
    characters: int = 0
    right_languages: int = 0
    texts: int = 0

    @property
    def cer(self) -> float:
        """Character error rate, percent."""
        return 100 * self.edits / max(1, self.characters)

    @property
    def language_accuracy(self) -> float:
        """Percent."""
        return 100 * self.right_languages / max(1, self.texts)


def dev_batches(
    sets: FeatureSets, name: str, order: Sequence[int], size: int, silence: int, floor_shift: float
) -> Iterator[DevBatch]:
    """Batches of a development set, not augmented but for the dither's floor.

    Args:
        sets: the set.
        name: seen or held.
        order: utterances to take.
        size: of a batch.
        silence: frames of silence put before and behind.
        floor_shift: added to the floor's log-mels.
    """
    white = white_floor()
    rng = np.random.default_rng(0)
    around = np.full((silence, MEL_BINS), FLOOR, np.float32)
    for first in range(0, len(order), size):
        indices = order[first : first + size]
        stacked = []
        for index in indices:
            frames = np.concatenate([around, sets.features(index), around])
            stacked.append(_stack(frames, white, rng, floor_shift))
        lengths = torch.tensor([len(item) for item in stacked])
        features = torch.zeros(len(stacked), int(lengths.max()), STACKED)
        for row, item in enumerate(stacked):
            features[row, : len(item)] = item
        yield DevBatch(name, [sets.entries[index] for index in indices], features, lengths)


def _stack(
    frames: NDArray[np.float32], white: NDArray[np.float32], rng: np.random.Generator, shift: float
) -> torch.Tensor:
    """One utterance over the dither's floor, stacked: (T6, 560)."""
    start = rng.integers(0, len(white) - len(frames))
    floor = torch.from_numpy(white[start : start + len(frames)]) + shift
    audible = torch.logaddexp(torch.from_numpy(frames), floor)
    features, lengths = stack_frames(audible[None], torch.tensor([len(frames)]))
    return features[0, : int(lengths[0])]


def greedy_tokens(best: torch.Tensor) -> list[int]:
    """CTC's greedy path, shape (frames,), without repeats and blanks."""
    return [token for token in torch.unique_consecutive(best).tolist() if token]


@torch.no_grad()
def score(
    net: torch.nn.Module,
    cmvn: Cmvn,
    vocabulary: Any,
    batches: Sequence[DevBatch],
    forms: Sequence[str],
    group: Callable[[dict[str, Any]], str] = lambda entry: entry["lang"],
) -> dict[tuple[str, str], Score]:
    """Scores by (set, group), language query auto.

    Args:
        net: in evaluation mode.
        cmvn: of the features.
        vocabulary: a SentencePieceProcessor.
        batches: what to decode.
        forms: withitn, woitn or both, counted together.
        group: of an utterance, its language unless told.
    """
    import rapidfuzz.distance.Levenshtein as levenshtein

    scores: dict[tuple[str, str], Score] = {}
    for batch in batches:
        size = len(batch.entries)
        auto = torch.full((size,), LANGUAGE_QUERIES["auto"])
        for form in forms:
            textnorm = torch.full((size,), TEXTNORM_QUERIES[form])
            logits, lengths = forward(net, cmvn(batch.features), batch.lengths, auto, textnorm)
            best = logits.argmax(-1)
            for row, entry in enumerate(batch.entries):
                heard = vocabulary.decode(greedy_tokens(best[row, QUERIES : lengths[row]]))
                language = vocabulary.piece_to_id(f"<|{entry['lang']}|>")
                counts = scores.setdefault((batch.name, group(entry)), Score())
                counts.edits += levenshtein.distance(heard, entry[form])
                counts.characters += len(entry[form])
                counts.right_languages += int(best[row, 0]) == language
                counts.texts += 1
    return scores
