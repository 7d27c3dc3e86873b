"""What changes while a stage of training runs: learning rate, augmentation, flat start."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """What changes with time: times are seconds since the start of the stage."""

    total: float
    peak_rate: float
    warm_steps: int
    ramp: float
    """until augmentation has its full strength; 0: from the start"""
    flat: float
    """until the flat start has faded out; 0: none"""
    greatest_strength: float

    def learning_rate(self, step: int, progress: float) -> float:
        """Warm-up by steps, constant for 15 % of the time, then a cosine down to 2 %."""
        rate = self.peak_rate * min(1, (step + 1) / self.warm_steps)
        if progress < 0.15:
            return rate
        cosine = 0.5 * (1 + math.cos(math.pi * min(1, (progress - 0.15) / 0.85)))
        return rate * (cosine * 0.98 + 0.02)

    def strength(self, elapsed: float) -> float:
        """Of the augmentation."""
        if not self.ramp:
            return self.greatest_strength
        return min(self.greatest_strength, 0.2 + 0.8 * elapsed / self.ramp)

    def flat_weight(self, elapsed: float) -> float:
        """Of the cross-entropy against evenly spread tokens."""
        return max(0.0, 1 - elapsed / self.flat) if self.flat else 0.0
