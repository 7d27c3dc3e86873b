"""The network: funasr's own SenseVoiceSmall class, with small numbers."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import torch

from recipes.nano.features import STACKED

LANGUAGE_QUERIES: Final = {"auto": 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12, "nospeech": 13}
TEXTNORM_QUERIES: Final = {"withitn": 14, "woitn": 15}
EVENT_EMOTION_QUERIES: Final = (1, 2)
"""Rows of the query embedding, as SenseVoiceSmall numbers them."""
QUERIES: Final = 4
"""Frames put before the sound: language, event, emotion, textnorm."""


@dataclass(frozen=True)
class Architecture:
    """What may differ from SenseVoiceSmall; stored beside the checkpoints as conf.json."""

    d: int = 192
    """width of the encoder"""
    ff: int = 768
    """width of the feed-forward layers"""
    blocks: int = 7
    tp: int = 2
    """blocks of the second stack"""
    drop: float = 0.05
    """dropout rate"""
    heads: int = 4

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Architecture:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def encoder_conf(self) -> dict[str, Any]:
        """The encoder_conf of config.yaml."""
        return {
            "output_size": self.d,
            "attention_heads": self.heads,
            "linear_units": self.ff,
            "num_blocks": self.blocks,
            "tp_blocks": self.tp,
            "dropout_rate": self.drop,
            "positional_dropout_rate": self.drop,
            "attention_dropout_rate": self.drop,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "kernel_size": 11,
            "sanm_shfit": 0,  # funasr's spelling
            "selfattention_layer_type": "sanm",
        }


def build(vocabulary: int, architecture: Architecture) -> torch.nn.Module:
    """A network with fresh weights.

    Args:
        vocabulary: pieces, blank included.
        architecture: its numbers.
    """
    warnings.filterwarnings("ignore")  # funasr's imports warn about every optional package
    logging.disable(logging.WARNING)
    from funasr.models.sense_voice import model as sense_voice

    return sense_voice.SenseVoiceSmall(
        encoder="SenseVoiceEncoderSmall",
        encoder_conf=architecture.encoder_conf(),
        ctc_conf={},
        input_size=STACKED,
        vocab_size=vocabulary,
        ignore_id=-1,
        blank_id=0,
        sos=1,
        eos=2,
        length_normalized_loss=True,
    )


def forward(
    net: torch.nn.Module,
    features: torch.Tensor,
    lengths: torch.Tensor,
    language: torch.Tensor,
    textnorm: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the queries and of the sound.

    Args:
        net: from `build`.
        features: stacked, after CMVN, shape (batch, T6, 560).
        lengths: shape (batch,), stacked frames that count.
        language: rows of the query embedding, shape (batch,).
        textnorm: rows of the query embedding, shape (batch,).

    Returns:
        Logits, shape (batch, 4 + T6, vocabulary), and their lengths, shape (batch,).
    """
    batch = features.size(0)
    event_emotion = net.embed(torch.tensor([EVENT_EMOTION_QUERIES])).repeat(batch, 1, 1)
    queries = [net.embed(language)[:, None], event_emotion, net.embed(textnorm)[:, None]]
    encoded, encoded_lengths = net.encoder(torch.cat([*queries, features], 1), lengths + QUERIES)
    return net.ctc.ctc_lo(encoded), encoded_lengths


class FastDropout(torch.nn.Module):
    """Dropout whose masks are slices of one buffer drawn before: bernoulli_ was a third of a step on CPU."""

    _buffers_by_kind: ClassVar[dict[tuple[float, torch.dtype], torch.Tensor]] = {}

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Zero a share `rate` of the values and scale the others up; the same shape."""
        if not self.training or self.rate == 0:
            return values
        key, count = (self.rate, values.dtype), values.numel()
        buffer = self._buffers_by_kind.get(key)
        if buffer is None or buffer.numel() < 2 * count:
            kept = torch.rand(max(4 * count, 1 << 22)) >= self.rate
            buffer = kept.to(values.dtype) / (1 - self.rate)
            self._buffers_by_kind[key] = buffer
        first = int(torch.randint(0, buffer.numel() - count, (1,)))
        return values * buffer[first : first + count].view(values.shape)


def use_fast_dropout(net: torch.nn.Module) -> torch.nn.Module:
    """Replace every dropout; attention weights and the FSMN memory get none."""
    for module in net.modules():
        inside_attention = type(module).__name__ == "MultiHeadedAttentionSANM"
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Dropout):
                setattr(module, name, FastDropout(0.0 if inside_attention else child.p))
    return net
