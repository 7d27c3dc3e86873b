"""Log-mel features on disk and the stacking that the encoder expects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

MEL_BINS: Final = 80
STACKED: Final = 560
"""Seven frames side by side."""
FLOOR: Final = -15.9424
"""Log-mel of digital silence (the logarithm of float32's epsilon)."""


def log_mel(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features of a waveform as SenseVoice's frontend computes them, before stacking and CMVN.

    Args:
        waveform: shape (n,), 16 kHz, in [-1, 1].

    Returns:
        Shape (frames, 80), 100 frames a second.
    """
    from asrfront import sensevoice

    samples = np.ascontiguousarray(waveform, np.float32)
    return sensevoice.fbank(samples, lfr_m=1, lfr_n=1).astype(np.float32)


def stack_frames(frames: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack 7 frames every 6 (LFR 7/6), the first frame repeated three times in front.

    Args:
        frames: shape (batch, T, 80).
        lengths: shape (batch,), frames that count.

    Returns:
        Stacked frames, shape (batch, T6, 560), 16.7 a second, T6 a multiple of eight so that few distinct
        shapes occur; and their lengths, shape (batch,).
    """
    batch, count, _ = frames.shape
    stacked_lengths = (lengths + 5) // 6
    stacked = (int(stacked_lengths.max()) + 7) // 8 * 8
    missing = stacked * 6 + 1 - count
    if missing > 0:
        frames = torch.cat([frames, frames[:, -1:].expand(batch, missing, MEL_BINS)], 1)
    frames = torch.cat([frames[:, :1].expand(batch, 3, MEL_BINS), frames], 1)
    windows = frames.unfold(1, 7, 6)[:, :stacked]  # (batch, T6, 80, 7)
    return windows.permute(0, 1, 3, 2).reshape(batch, stacked, STACKED), stacked_lengths


class FeatureSetWriter:
    """Writes NAME.f16 (float16, frames x 80, joined) and NAME.json (an entry an utterance)."""

    def __init__(self, folder: Path, name: str) -> None:
        self.frames = 0
        self._index: list[dict[str, Any]] = []
        self._json = folder / f"{name}.json"
        self._file = (folder / f"{name}.f16").open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None:
            self._json.write_text(json.dumps(self._index, ensure_ascii=False), encoding="utf-8")

    def __len__(self) -> int:
        return len(self._index)

    def add(self, features: NDArray[np.float32], entry: dict[str, Any]) -> None:
        """Append one utterance; `off` and `t` of the entry become its first frame and its frames."""
        stored = features.astype(np.float16)
        self._file.write(stored.tobytes())
        self._index.append({**entry, "off": self.frames, "t": len(stored)})
        self.frames += len(stored)


class FeatureSets:
    """One or several feature sets, read as one."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.entries: list[dict[str, Any]] = []
        """lang, woitn, withitn, voice, off (first frame), t (frames)"""
        self._frames: list[NDArray[np.float16]] = []
        self._set_of_entry: list[int] = []
        for number, name in enumerate(names):
            stored = np.fromfile(folder / f"{name}.f16", np.float16)
            self._frames.append(stored.reshape(-1, MEL_BINS))
            entries = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            self.entries += entries
            self._set_of_entry += [number] * len(entries)

    def __len__(self) -> int:
        return len(self.entries)

    def features(self, index: int) -> NDArray[np.float32]:
        """Log-mels of one utterance, shape (t, 80)."""
        entry = self.entries[index]
        frames = self._frames[self._set_of_entry[index]]
        return frames[entry["off"] : entry["off"] + entry["t"]].astype(np.float32)
