"""Make training batches: utterances and non-speech, augmented anew, with their labels."""

# ruff: noqa: SIM905 (long lists of words read best as one string)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from recipes.nano.augment import Augmenter, NoiseBank
from recipes.nano.features import FLOOR, MEL_BINS, FeatureSets, stack_frames
from recipes.nano.model import LANGUAGE_QUERIES, TEXTNORM_QUERIES

_RICH_TOKENS: Final = (
    "zh en yue ja ko nospeech EMO_UNKNOWN Speech BGM Applause Event_UNK withitn woitn".split()
)


@dataclass(frozen=True)
class Batch:
    """One batch; B utterances and clips, T6 stacked frames of 60 ms."""

    features: torch.Tensor
    """(B, T6, 560) float32, stacked log-mels before CMVN"""
    lengths: torch.Tensor
    """(B,) stacked frames that count"""
    language: torch.Tensor
    """(B,) language query: true or auto"""
    textnorm: torch.Tensor
    """(B,) textnorm query"""
    rich: torch.Tensor
    """(B, 4) tokens wanted from the first frames: language, emotion, event, textnorm"""
    tokens: torch.Tensor
    """(sum of token_lengths,) CTC targets, joined"""
    token_lengths: torch.Tensor
    """(B,)"""
    alignment: torch.Tensor
    """(B, T6) tokens spread evenly over the speech, 0 elsewhere; for the flat start"""


class BatchMaker:
    """Collates utterances of feature sets into augmented batches."""

    def __init__(
        self, sets: FeatureSets, vocabulary: Any, bank: NoiseBank, seed: int, strength: float = 1.0
    ) -> None:
        """Prepare.

        Args:
            sets: where the utterances are.
            vocabulary: a SentencePieceProcessor.
            bank: non-speech.
            seed: of augmentation and labels.
            strength: of the augmentation, 0 to 1; may be changed between batches.
        """
        self.strength = strength
        self._sets = sets
        self._vocabulary = vocabulary
        self._rng = np.random.default_rng(seed)
        self._augmenter = Augmenter(bank, self._rng)
        self.token_of = {name: vocabulary.piece_to_id(f"<|{name}|>") for name in _RICH_TOKENS}
        self._encoded: dict[str, list[int]] = {}

    def make(self, indices: Sequence[int], nonspeech: int = 0) -> Batch:
        """A batch of these utterances and `nonspeech` clips without speech."""
        augmenter, strength = self._augmenter, self.strength
        stretched = [augmenter.stretch(self._sets.features(index), strength) for index in indices]
        utterances = [item.frames for item in stretched]
        lengths = torch.tensor([len(frames) for frames in utterances])
        padded = np.full((len(utterances), int(lengths.max()), MEL_BINS), FLOOR, np.float32)
        for row, frames in enumerate(utterances):
            padded[row, : len(frames)] = frames

        frames = augmenter.warp(torch.from_numpy(padded), strength)
        frames = augmenter.reverberate(frames, strength)
        frames = augmenter.equalise(frames, strength)
        noise, events = augmenter.noise_for(frames, lengths, strength)
        if nonspeech:
            frames, noise, clip_lengths, clip_events = augmenter.add_clips(frames, noise, nonspeech)
            lengths = torch.cat([lengths, clip_lengths])
            events += clip_events
        frames = torch.logaddexp(frames, torch.from_numpy(noise))
        frames = augmenter.limit_band(frames, strength)
        frames = augmenter.dither(frames)
        frames = augmenter.mask(frames, lengths, strength)
        features, stacked_lengths = stack_frames(frames, lengths)

        spans = [item.span for item in stretched]
        return self._label(features, stacked_lengths, indices, events, spans)

    def _label(
        self,
        features: torch.Tensor,
        lengths: torch.Tensor,
        indices: Sequence[int],
        events: Sequence[str],
        spans: Sequence[tuple[int, int]],
    ) -> Batch:
        language, textnorm, rich, texts = [], [], [], []
        rng, token_of = self._rng, self.token_of
        for row, event in enumerate(events):
            form = "withitn" if rng.random() < 0.55 else "woitn"
            textnorm.append(TEXTNORM_QUERIES[form])
            if row < len(indices):
                entry = self._sets.entries[indices[row]]
                heard = entry["lang"]
                language.append(LANGUAGE_QUERIES[heard] if rng.random() < 0.4 else LANGUAGE_QUERIES["auto"])
                texts.append(self._encode(entry[form]))
            else:
                heard = "nospeech"
                language.append(self._query_for_nonspeech())
                texts.append([])
            rich.append([token_of[heard], token_of["EMO_UNKNOWN"], token_of[event], token_of[form]])
        return Batch(
            features=features,
            lengths=lengths,
            language=torch.tensor(language),
            textnorm=torch.tensor(textnorm),
            rich=torch.tensor(rich),
            tokens=torch.tensor([token for text in texts for token in text], dtype=torch.long),
            token_lengths=torch.tensor([len(text) for text in texts]),
            alignment=torch.from_numpy(spread_evenly(texts, spans, features.size(0), features.size(1))),
        )

    def _query_for_nonspeech(self) -> int:
        """Auto for half of the clips, nospeech for a fifth, a language for the others."""
        share = self._rng.random()
        if share < 0.5:
            return LANGUAGE_QUERIES["auto"]
        if share < 0.7:
            return LANGUAGE_QUERIES["nospeech"]
        return int(self._rng.choice([LANGUAGE_QUERIES[name] for name in ("zh", "en", "yue", "ja", "ko")]))

    def _encode(self, text: str) -> list[int]:
        if text not in self._encoded:
            self._encoded[text] = self._vocabulary.encode(text)
        return self._encoded[text]


def spread_evenly(
    texts: Sequence[Sequence[int]], spans: Sequence[tuple[int, int]], rows: int, stacked: int
) -> NDArray[np.int64]:
    """Tokens at even distances over the speech.

    Args:
        texts: tokens of every row.
        spans: first and last frame of the speech of the rows that have any, in frames of 10 ms.
        rows: B.
        stacked: T6.

    Returns:
        Shape (B, T6): a token or 0.
    """
    alignment = np.zeros((rows, stacked), np.int64)
    for row, (first, last) in enumerate(spans):
        for number, token in enumerate(texts[row]):
            at = first + 4 + (number + 0.5) * (last - first - 8) / len(texts[row])
            frame = min(int(at / 6), stacked - 1)
            if alignment[row, frame] and frame + 1 < stacked:
                frame += 1
            alignment[row, frame] = token
    return alignment
