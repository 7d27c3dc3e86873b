"""From several channels to one: their mean, except where channels cancel each other.

A channel that was wired the wrong way round holds the sound of its neighbour upside down, and their mean
is silence. So the channels are compared half a second at a time: those that hold the same sound but for
its sign, and that lose nearly all of it when they are added, are turned the right way round first. A
channel stays as it was turned until the opposite is found, and where the pieces begin is counted from
the first sample, so that the result is the same however the sound is cut into blocks.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from asrsvc.speech.types import FloatArray

_PIECE_SECONDS: Final = 0.5
# Channels are compared in the band of speech: over means of so many samples that about 8,000 values a
# second are left, then over differences, so that neither hum nor a constant offset decides.
_BAND_RATE: Final = 8_000
_SAME_CORRELATION: Final = 0.8
"""magnitude of the correlation from which on two channels hold the same sound"""
_CANCELLED: Final = 0.1
"""channels cancel if their sum has less than this share of the energy that it has the right way round"""
# What is 30 dB below the loudest of the last seconds changes nothing: the noise of a pause.
_QUIET: Final = 1e-3
_LOUDEST_KEPT: Final = 0.9  # of the loudest energy, from one piece to the next
_SILENT: Final = 1e-12  # energy of a value: 120 dB below full scale


class DownMix:
    """The down-mix of one stream of sound with a fixed sample rate and number of channels."""

    def __init__(self, rate: int, channels: int) -> None:
        """Begin with all channels as they are.

        Args:
            rate: Hz.
            channels: at least 1.
        """
        self._size = max(1, int(rate * _PIECE_SECONDS))
        self._step = max(1, rate // _BAND_RATE)
        self._signs = np.ones(channels, np.float32)
        self._loudest = 0.0
        self._waiting: FloatArray = np.zeros((0, channels), np.float32)

    def push(self, samples: FloatArray) -> FloatArray:
        """Take the next samples of all channels.

        Args:
            samples: shape (n, channels), float32.

        Returns:
            mono sound, shape (m,), float32: what is ready of this and earlier samples; up to half a
            second waits for the next call or for `finish`. One channel never waits.
        """
        if samples.shape[1] == 1:
            return samples[:, 0]
        together = np.concatenate([self._waiting, samples])
        whole = len(together) // self._size * self._size
        self._waiting = together[whole:].copy()
        pieces = [self._mixed(together[at : at + self._size]) for at in range(0, whole, self._size)]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def finish(self) -> FloatArray:
        """The rest, shape (m,), float32; after that, `push` begins with new samples."""
        rest, self._waiting = self._waiting, self._waiting[:0]
        return self._mixed(rest) if len(rest) else np.zeros(0, np.float32)

    def _mixed(self, piece: FloatArray) -> FloatArray:
        self._compare(piece)
        # Channel by channel: NumPy's mean over a short last axis takes twice as long.
        mixed: FloatArray = piece[:, 0] * self._signs[0]
        for channel in range(1, len(self._signs)):
            mixed += piece[:, channel] * self._signs[channel]
        mixed /= np.float32(len(self._signs))
        return mixed

    def _compare(self, piece: FloatArray) -> None:
        """Turn the channels that would cancel each other in this piece."""
        end = len(piece) // self._step * self._step
        means = sum(piece[at : end : self._step] for at in range(self._step)) / np.float32(self._step)
        band = np.diff(means, axis=0)
        products = np.einsum("ni,nj->ij", band, band, dtype=np.float64)  # each channel with each
        energies = np.diag(products)
        loudest = float(energies.max(initial=0.0))
        self._loudest = max(loudest, self._loudest * _LOUDEST_KEPT)
        if loudest <= max(_QUIET * self._loudest, _SILENT * len(band)):
            return
        scale = np.sqrt(np.maximum(energies, 1e-300))
        correlations = products / np.outer(scale, scale)
        turned = correlations * np.outer(self._signs, self._signs)
        if turned.min() > -_SAME_CORRELATION:
            return
        free = np.ones(len(scale), bool)
        for leader in np.argsort(-energies, kind="stable"):
            group = free & (np.abs(correlations[leader]) >= _SAME_CORRELATION)
            free &= ~group
            right = np.where(correlations[leader] < 0, -1, 1).astype(np.float32)
            if _energy(products, self._signs * group) < _CANCELLED * _energy(products, right * group):
                self._signs = np.where(group, right, self._signs)


def _energy(products: NDArray[np.float64], weights: FloatArray) -> float:
    """Of the sum of the channels with these weights."""
    return float(weights @ products @ weights)
