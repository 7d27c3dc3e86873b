"""Which utterances make a training batch: engines by weight, lengths alike, few distinct shapes."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.random import Generator

from recipes.nano.features import FeatureSets

ENGINE_WEIGHTS: Final = {"kokoro": 3.0, "flite": 1.3, "festival": 1.0, "openjtalk": 1.6, "espeak": 1.0}
"""How often an utterance is drawn: neural and recorded voices count more than formants."""
NONSPEECH: Final = 2
"""Clips without speech in every batch."""


class Sampler:
    """Draws batches of utterances of about the same length."""

    def __init__(
        self, sets: FeatureSets, engine_weights: dict[str, float], languages: list[str], rng: Generator
    ) -> None:
        engines = [entry["voice"].split(":")[0] for entry in sets.entries]
        kept = [not languages or entry["lang"] in languages for entry in sets.entries]
        weights = np.array([engine_weights[engine] for engine in engines]) * np.array(kept, float)
        self._shares = weights / weights.sum()
        self._frames = np.array([entry["t"] for entry in sets.entries])
        self._rng = rng
        self.shares: dict[str, float] = {}
        """of language:engine"""
        for entry, engine, share in zip(sets.entries, engines, self._shares, strict=True):
            key = f"{entry['lang']}:{engine}"
            self.shares[key] = self.shares.get(key, 0.0) + float(share)

    def draw_pool(self, stacked_frames: float) -> list[list[int]]:
        """3000 utterances as batches of at most so many stacked frames.

        Sizes differ in steps of four, so that few distinct shapes occur: oneDNN caches its kernels by shape.
        """
        rng = self._rng
        pool = rng.choice(len(self._shares), 3000, p=self._shares)
        pool = pool[np.argsort(self._frames[pool] + rng.uniform(0, 10, 3000))]
        batches: list[list[int]] = []
        current: list[int] = []
        longest = 0
        for index in pool:
            frames = self._frames[index] + 20
            longest_then = max(longest, frames)
            full = longest_then / 6 * (len(current) + 4) > stacked_frames
            if current and (len(current) + NONSPEECH) % 4 == 0 and full:
                batches.append(current)
                current = []
                longest_then = frames
            current.append(int(index))
            longest = longest_then
        rng.shuffle(batches)
        return batches
