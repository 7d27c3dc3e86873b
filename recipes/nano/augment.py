"""Augmentation of log-mel features: so some 50 hours of stored speech serve every epoch anew.

Frames are log-mels, shape (batch, T, 80), 100 a second. Every step draws from one generator in a fixed
order. `strength` (0 to 1) is the curriculum: little augmentation at first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from recipes.nano.features import FLOOR, MEL_BINS, log_mel

_NOTHING: Final = -30.0
"""Log-mel of a noise that is not there."""
_DECIBELS_PER_NEPER: Final = 4.343
"""Log-mels are natural logarithms of power: 10 / ln 10."""
_WARPS: Final = 23
_NEUTRAL_WARP: Final = 10
_MIDDLE_WARP: Final = 11
_REVERB_FRAMES: Final = 40


def _mel(hertz: float | NDArray[np.float64]) -> float | NDArray[np.float64]:
    return 1127 * np.log(1 + hertz / 700)


def _hertz(mel: float | NDArray[np.float64]) -> float | NDArray[np.float64]:
    return 700 * (np.exp(mel / 1127) - 1)


def warp_matrices() -> torch.Tensor:
    """Interpolations that scale the frequency axis by 0.84 to 1.18: shape (23, 80, 80)."""
    low, high = _mel(20), _mel(8000)
    bins = np.arange(MEL_BINS)
    centres = low + (bins + 1) * (high - low) / (MEL_BINS + 1)
    matrices = []
    for factor in np.linspace(0.84, 1.18, _WARPS):
        source = (_mel(_hertz(centres) * factor) - low) / (high - low) * (MEL_BINS + 1) - 1
        source = np.clip(source, 0, MEL_BINS - 1)
        below = np.floor(source).astype(int)
        share = source - below
        matrix = np.zeros((MEL_BINS, MEL_BINS), np.float32)
        for bin_ in bins:
            matrix[below[bin_], bin_] += 1 - share[bin_]
            matrix[min(MEL_BINS - 1, below[bin_] + 1), bin_] += share[bin_]
        matrices.append(matrix)
    return torch.from_numpy(np.stack(matrices))


def white_floor() -> NDArray[np.float32]:
    """Twenty seconds of what a dither of one 16-bit step looks like: shape (T, 80)."""
    samples = np.random.default_rng(5).standard_normal(160_000 * 2) / 32768
    return log_mel(samples.astype(np.float32))


class NoiseBank:
    """Clips of noise, music, applause and babble, as make_noise stored them."""

    def __init__(self, path: Path) -> None:
        stored = np.load(path)
        self._clips = {kind: stored[kind] for kind in stored.files}

    def crop(self, kind: str, frames: int, rng: Generator) -> NDArray[np.float32]:
        """A random stretch of a random clip, repeated if it is too short: shape (frames, 80)."""
        clips = self._clips[kind]
        clip = clips[rng.integers(0, len(clips))]
        if frames > len(clip):
            clip = np.concatenate([clip] * (frames // len(clip) + 1))
        first = rng.integers(0, len(clip) - frames + 1)
        return clip[first : first + frames].astype(np.float32)


def _mean_power(frames: NDArray[np.float32]) -> float:
    """The logarithm of the mean power of log-mels."""
    return np.log(np.exp(frames).mean())


@dataclass(frozen=True)
class Stretched:
    """An utterance with silence around it."""

    frames: NDArray[np.float32]
    """(T, 80)"""
    span: tuple[int, int]
    """first frame of the utterance and the one behind its last"""


class Augmenter:
    """The steps, in the order in which a batch takes them."""

    def __init__(self, bank: NoiseBank, rng: Generator) -> None:
        self._bank = bank
        self._rng = rng
        self._warps = warp_matrices()
        self._white = white_floor()

    def stretch(self, frames: NDArray[np.float32], strength: float) -> Stretched:
        """Change the speed by up to 16 % and put silence before and behind."""
        rng = self._rng
        count = len(frames)
        speed = rng.uniform(1 - 0.16 * strength, 1 + 0.16 * strength) if rng.random() < 0.7 else 1.0
        if speed != 1.0:
            at = np.linspace(0, count - 1, max(8, int(count / speed)))
            before = at.astype(np.int64)
            share = (at - before)[:, None].astype(np.float32)
            after = np.minimum(before + 1, count - 1)
            frames = frames[before] * (1 - share) + frames[after] * share
        lead, trail = self._silence(), self._silence()
        parts = [
            np.full((lead, MEL_BINS), FLOOR, np.float32),
            frames,
            np.full((trail, MEL_BINS), FLOOR, np.float32),
        ]
        return Stretched(np.concatenate(parts), (lead, lead + len(frames)))

    def _silence(self) -> int:
        """Frames of silence: mostly short, at most 120."""
        rng = self._rng
        frames = int(rng.exponential(12)) if rng.random() < 0.8 else int(rng.uniform(0, 80))
        return min(frames, 120)

    def warp(self, frames: torch.Tensor, strength: float) -> torch.Tensor:
        """Scale the frequency axis, as another length of the vocal tract does."""
        rng, batch = self._rng, len(frames)
        wanted = rng.random(batch) < 0.75
        steps = np.clip(np.round(_MIDDLE_WARP + rng.normal(0, 4.5 * strength, batch)), 0, _WARPS - 1)
        chosen = torch.from_numpy(np.where(wanted, steps, _NEUTRAL_WARP).astype(np.int64))
        return torch.bmm(frames, self._warps[chosen])

    def reverberate(self, frames: torch.Tensor, strength: float) -> torch.Tensor:
        """Give a share of the batch a late reverberation: an exponential tail of the power."""
        rng = self._rng
        chosen = np.flatnonzero(rng.random(len(frames)) < 0.3 * strength)
        if len(chosen) == 0:
            return frames
        decay_frames = rng.uniform(15, 70, len(chosen))[:, None]
        level = (10 ** rng.uniform(-2.2, -0.7, len(chosen)))[:, None]
        tail = np.exp(-13.8 * np.arange(1, _REVERB_FRAMES + 1)[None] / decay_frames) * level
        kernel = np.concatenate([np.ones((len(chosen), 1)), tail], 1)[:, ::-1].copy()
        weights = torch.from_numpy(kernel).float()[:, None, None, :]
        power = torch.nn.functional.pad(frames[chosen].exp().transpose(1, 2), (_REVERB_FRAMES, 0))
        wet = torch.nn.functional.conv2d(power[None], weights, groups=len(chosen))[0]
        frames[chosen] = wet.transpose(1, 2).clamp_min(1e-7).log()
        return frames

    def equalise(self, frames: torch.Tensor, strength: float) -> torch.Tensor:
        """Gain, tilt and a smooth equaliser, constant over an utterance."""
        rng, batch = self._rng, len(frames)
        axis = np.linspace(0, 1, MEL_BINS)[None]
        gain = rng.normal(0, 1.3, (batch, 1)) - 0.8
        curve = gain + rng.normal(0, 1.2 * strength, (batch, 1)) * (axis - 0.5)
        for ripples in (1, 2, 3):
            depth = (rng.random((batch, 1)) < 0.6) * rng.normal(0, 0.55 * strength, (batch, 1))
            curve = curve + depth * np.cos(np.pi * ripples * axis + rng.uniform(0, 6.3, (batch, 1)))
        return frames + torch.from_numpy(curve).float()[:, None]

    def noise_for(
        self, frames: torch.Tensor, lengths: torch.Tensor, strength: float
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Noise, babble or music for each utterance, and the event that it makes of it.

        Returns:
            Log-mels to be added in power, shape (batch, T, 80); Speech, or BGM under music.
        """
        rng = self._rng
        batch, count, _ = frames.shape
        power = frames.exp().mean(2)
        noise = np.full((batch, count, MEL_BINS), _NOTHING, np.float32)
        # speech is as loud as its loudest third: pauses must not count
        loudest = [
            power[row, : lengths[row]].topk(max(1, int(lengths[row]) // 3))[0].mean() for row in range(batch)
        ]
        levels = torch.stack(loudest).log()
        events = []
        for row in range(batch):
            kind, snr, event = self._draw_noise()
            if rng.random() > strength:
                kind, event = None, "Speech"
            if kind is not None:
                clip = self._bank.crop(kind, count, rng)
                clip_level = _mean_power(clip)
                noise[row] = clip - clip_level + float(levels[row]) - snr / _DECIBELS_PER_NEPER
            events.append(event)
        return noise, events

    def _draw_noise(self) -> tuple[str | None, float, str]:
        """Kind of noise, its distance in decibels, and the event."""
        rng = self._rng
        share = rng.random()
        if share < 0.72:
            kind = "babble" if rng.random() < 0.12 else "noise"
            snr = min(45, max(3, rng.normal(22, 9)))
            return kind, max(snr, 12) if kind == "babble" else snr, "Speech"
        if share < 0.84:
            return "music", rng.uniform(2, 16), "BGM"
        return None, 0.0, "Speech"

    def add_clips(
        self, frames: torch.Tensor, noise: NDArray[np.float32], clips: int
    ) -> tuple[torch.Tensor, NDArray[np.float32], torch.Tensor, list[str]]:
        """Append clips of music, applause, noise or silence to a batch.

        Returns:
            The frames and the noise with `clips` rows more, the clips
            lengths, and their events.
        """
        rng = self._rng
        count = frames.shape[1]
        lengths = [int(rng.uniform(min(40, count - 1), count)) for _ in range(clips)]
        sounds = np.full((clips, count, MEL_BINS), FLOOR, np.float32)
        nothing = np.full((clips, count, MEL_BINS), _NOTHING, np.float32)
        events = []
        for row in range(clips):
            share = rng.random()
            if share < 0.33:
                kind, event = "music", "BGM"
            elif share < 0.62:
                kind, event = "applause", "Applause"
            else:
                kind, event = "noise", "Event_UNK"
            clip = self._bank.crop(kind, count, rng)
            clip_level = _mean_power(clip)
            level = rng.uniform(9, 19) if kind != "noise" else rng.uniform(-2, 17)
            if kind == "noise" and rng.random() < 0.25:
                level = _NOTHING  # digital silence
            sounds[row] = np.maximum(clip - clip_level + level, FLOOR)
            events.append(event)
        frames = torch.cat([frames, torch.from_numpy(sounds)])
        return frames, np.concatenate([noise, nothing]), torch.tensor(lengths), events

    def limit_band(self, frames: torch.Tensor, strength: float) -> torch.Tensor:
        """Cut the upper and sometimes the lowest bins of a few, as telephones and cheap microphones do."""
        rng = self._rng
        for row in np.flatnonzero(rng.random(len(frames)) < 0.15 * strength):
            cut = int(rng.choice([58, 60, 62, 66, 70, 73]))
            frames[row, :, cut:] -= torch.linspace(0, rng.uniform(4, 12), MEL_BINS - cut)[None]
            if rng.random() < 0.5:
                low = int(rng.integers(4, 9))
                frames[row, :, :low] -= torch.linspace(rng.uniform(2, 8), 0, low)[None]
        return frames

    def dither(self, frames: torch.Tensor) -> torch.Tensor:
        """A white floor: the dither of funasr (one 16-bit step), a quiet microphone's, or none."""
        rng = self._rng
        batch, count, _ = frames.shape
        floor = torch.from_numpy(np.stack([self.white(count) for _ in range(batch)]))
        share = rng.random(batch)
        louder = rng.uniform(0, 4.5, batch)
        level = np.where(share < 0.4, 0.0, np.where(share < 0.7, louder, _NOTHING))
        floor = floor + torch.from_numpy(level).float()[:, None, None]
        return torch.logaddexp(frames, floor).clamp_min(FLOOR)

    def white(self, frames: int) -> NDArray[np.float32]:
        """A random stretch of the dither's floor: shape (frames, 80)."""
        first = self._rng.integers(0, len(self._white) - frames)
        return self._white[first : first + frames]

    def mask(self, frames: torch.Tensor, lengths: torch.Tensor, strength: float) -> torch.Tensor:
        """SpecAugment (Park et al., 2019): stripes of bins and of frames become the mean."""
        rng = self._rng
        means = frames.mean((1, 2))
        for row in range(len(frames)):
            if rng.random() >= 0.7 * strength:
                continue
            for _ in range(rng.integers(1, 3)):
                width = rng.integers(1, 11)
                first = rng.integers(0, MEL_BINS - width)
                frames[row, :, first : first + width] = means[row]
            for _ in range(rng.integers(0, 3)):
                width = rng.integers(1, 11)
                first = rng.integers(0, max(1, int(lengths[row]) - width))
                frames[row, first : first + width] = means[row]
        return frames
