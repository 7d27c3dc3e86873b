"""What the network says of each frame of one span: all that text, words and confidence are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from asrsvc.speech.types import FloatArray

BLANK: Final = 0
"""token of a frame in which CTC emits nothing"""


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """The best token of each frame of one span, the answers to the queries first; T frames in all."""

    ids: NDArray[np.int32]
    """shape (T,), int32: the most probable token"""
    best: FloatArray
    """shape (T,), float32: its logit"""
    probabilities: FloatArray
    """shape (T,), float32: its posterior probability; 0 where it is the blank, whose one nobody needs"""
    first: FloatArray
    """shape (V,), float32: all logits of the first frame, which says what language is spoken"""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def finite(self) -> bool:
        """Whether all numbers are."""
        return bool(np.isfinite(self.best).all() and np.isfinite(self.probabilities).all())

    @classmethod
    def of_logits(cls, logits: FloatArray) -> Frames:
        """From all logits, shape (T, V), float32; T >= 1, V >= 1."""
        ids = logits.argmax(axis=-1)
        places = np.flatnonzero(ids != BLANK)
        rows = logits[places]
        best = logits[np.arange(len(ids)), ids]
        with np.errstate(invalid="ignore"):  # what is not finite is found by who asks for it
            sums = np.exp(rows - best[places, None]).sum(axis=-1)
        # A copy: a view would keep all of them.
        return cls.of_sums(ids.astype(np.int32), best, places, sums, logits[0].copy())

    @classmethod
    def of_sums(
        cls,
        ids: NDArray[np.int32],
        best: FloatArray,
        places: NDArray[np.int64],
        sums: FloatArray,
        first: FloatArray,
    ) -> Frames:
        """From what a transformed graph gives.

        Args:
            ids: shape (T,).
            best: logits of the ids, shape (T,).
            places: the N frames whose id is not the blank, in order.
            sums: sum of exp(logit - best) over the vocabulary in those, shape (N,): so a posterior
                probability is its inverse.
            first: all logits of the first frame, shape (V,).
        """
        probabilities = np.zeros(len(ids), dtype=np.float32)
        probabilities[places] = 1.0 / sums
        return cls(ids, best, probabilities, first)
