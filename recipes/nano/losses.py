"""What training minimises: CTC, the four first frames, and the flat start that gets CTC going."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from recipes.nano.batches import Batch
from recipes.nano.model import QUERIES


@dataclass(frozen=True)
class Losses:
    """Of one batch."""

    total: torch.Tensor
    ctc: float
    """a token"""
    rich: float
    language_accuracy: float
    event_accuracy: float

    def summary(self) -> list[float]:
        """What the log averages."""
        return [self.ctc, self.rich, self.language_accuracy, self.event_accuracy]


def compute_losses(logits: torch.Tensor, batch: Batch, flat_weight: float) -> Losses:
    """CTC on the text, cross-entropy on the four first frames, and in the first minutes the flat start.

    Plain CTC stays on its plateau of blanks for more than a thousand steps; cross-entropy against tokens
    spread evenly over the speech gets it off.

    Args:
        logits: shape (B, 4 + T6, vocabulary), float32.
        batch: what went in.
        flat_weight: 1 at the start, fading to 0.
    """
    vocabulary = logits.size(-1)
    text_logits = logits[:, QUERIES:]
    ctc = functional.ctc_loss(
        functional.log_softmax(text_logits, -1).transpose(0, 1),
        batch.tokens,
        batch.lengths.long(),
        batch.token_lengths,
        blank=0,
        reduction="none",
        zero_infinity=True,
    )
    ctc = ctc.sum() / batch.token_lengths.clamp_min(1).sum()
    rich = functional.cross_entropy(logits[:, :QUERIES].reshape(-1, vocabulary), batch.rich.reshape(-1))
    total = ctc + 0.5 * rich
    if flat_weight > 0:
        wanted = batch.alignment
        inside = torch.arange(wanted.size(1))[None] < batch.lengths[:, None]
        entropy = functional.cross_entropy(
            text_logits.reshape(-1, vocabulary), wanted.reshape(-1), reduction="none"
        ).view(wanted.shape)
        weight = torch.where(wanted > 0, 1.0, 0.15) * inside
        flat = (entropy * weight).sum() / weight.sum()
        total = (1 - 0.8 * flat_weight) * total + flat_weight * 2 * flat
    best = logits[:, :QUERIES].argmax(-1)
    right = (best == batch.rich).float().mean(0)
    return Losses(total, ctc.item(), rich.item(), right[0].item(), right[2].item())
