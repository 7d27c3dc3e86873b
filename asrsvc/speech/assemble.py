"""Decoded frames with their time stamps → mono blocks of about ten seconds, and silences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from asrsvc.speech.decoded import Block, FileLimits, Refused, Samples, Silence
from asrsvc.speech.downmix import DownMix
from asrsvc.speech.timeline import Timeline
from asrsvc.speech.types import MAX_PEAK

BLOCK_SECONDS: Final = 10
MAX_RATE_CHANGES: Final = 10_000
"""changes of the sample rate inside a file, at most: each costs a resampler"""

_MIX_SECONDS: Final = 1
_PLANES_SAFE: Final = 7  # less than AV_NUM_DATA_POINTERS of libavutil/frame.h
_MOST_MIXED: Final = 64  # SWR_CH_MAX of libswresample
_SCALE: Final = {
    np.dtype(np.uint8): 2.0**7,
    np.dtype(np.int16): 2.0**15,
    np.dtype(np.int32): 2.0**31,
    np.dtype(np.int64): 2.0**63,
}


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Samples of all channels, and when they were recorded."""

    rate: int
    """Hz"""
    samples: Samples
    """shape (channels, n), float32"""
    time: float | None = None
    """seconds on the clock of the file; None: right behind what came before"""


class Assembler:
    """Puts the pieces of a file together."""

    def __init__(self, limits: FileLimits) -> None:
        """Begin with nothing."""
        self.timeline = Timeline(limits.max_seconds)
        self._limits = limits
        self._rate = self._channels = 0
        self._changes = 0
        self._values = 0
        self._mix = DownMix(1, 1)
        self._unmixed: list[Samples] = []  # each of shape (n, channels)
        self._unmixed_count = 0
        self._parts: list[Samples] = []  # each of shape (n,)
        self._waiting = 0  # samples in the parts

    def take(self, piece: Piece) -> Iterator[Block | Silence]:
        """Add a piece; the blocks and silences that are ready.

        Raises:
            Refused: sample rate, channels, samples or length are beyond the limits.
        """
        channels, count = piece.samples.shape
        if (piece.rate, channels) != (self._rate, self._channels):
            yield from self.rest()
            self._change_format(piece.rate, channels)
        self._values += channels * count
        if self._values > self._limits.max_values:
            raise Refused(
                f"it has over {self._limits.max_values:.0f} samples in its channels, which is the limit",
                "audio_too_much",
            )
        if piece.time is not None:
            hole = round(self.timeline.silence_before(piece.time) * self._rate)
            if hole:
                yield from self.rest()
                yield from self._silence(hole)
        self._unmixed.append(np.clip(piece.samples.T, -1, 1))
        self._unmixed_count += count
        self.timeline.advance(count, self._rate)
        enough = self._rate * BLOCK_SECONDS
        if self._unmixed_count >= self._rate * _MIX_SECONDS or self._waiting + self._unmixed_count >= enough:
            self._mix_down()
        if self._waiting >= enough:
            yield self._block()

    def rest(self) -> Iterator[Block]:
        """All that has come as yet and was not given out."""
        self._mix_down()
        self._keep(self._mix.finish())
        if self._waiting:
            yield self._block()

    def _mix_down(self) -> None:
        if self._unmixed:
            self._keep(self._mix.push(np.concatenate(self._unmixed)))
        self._unmixed, self._unmixed_count = [], 0

    def _keep(self, mono: Samples) -> None:
        self._parts.append(mono)
        self._waiting += len(mono)

    def _block(self) -> Block:
        block = Block(self._rate, np.concatenate(self._parts))
        self._parts, self._waiting = [], 0
        return block

    def _change_format(self, rate: int, channels: int) -> None:
        if not 0 < rate <= self._limits.max_rate:
            limit = self._limits.max_rate
            raise Refused(f"its sample rate is {rate} Hz; the limit is {limit} Hz", "sample_rate_unsupported")
        if channels > self._limits.max_channels:
            limit = self._limits.max_channels
            raise Refused(f"it has {channels} channels; the limit is {limit}", "channels_unsupported")
        self._changes += self._rate not in {0, rate}
        if self._changes > MAX_RATE_CHANGES:
            raise Refused(f"its sample rate changes over {MAX_RATE_CHANGES} times, which is the limit")
        self._rate, self._channels = rate, channels
        self._mix = DownMix(rate, channels)

    def _silence(self, samples: int) -> Iterator[Silence]:
        while samples > 0:
            step = min(samples, self._rate * BLOCK_SECONDS)
            self.timeline.advance(step, self._rate)
            yield Silence(self._rate, step)
            samples -= step


def samples_of(frame: av.AudioFrame) -> Samples:
    """The samples of a frame: shape (channels, n), float32, full scale at 1.

    Raises:
        Refused: a sample is far beyond full scale or not finite, or there are over 64 channels.
    """
    if frame.format.is_planar and frame.layout.nb_channels > _PLANES_SAFE:
        frame = _packed(frame)
    data: NDArray[Any] = frame.to_ndarray()
    planes = data if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels).T
    if data.dtype.kind == "f":
        peak = np.abs(data).max(initial=0)
        if not peak <= MAX_PEAK:
            raise Refused(
                f"its samples reach {peak:g}; between -1 and 1 is right"
                if np.isfinite(peak)
                else "it holds samples that are not finite (NaN or infinity)"
            )
    scale = _SCALE.get(data.dtype, 1.0)
    centred = planes.astype(np.float32) - (np.float32(scale) if data.dtype == np.uint8 else 0)
    scaled: Samples = centred / np.float32(scale)
    return scaled


def _packed(frame: av.AudioFrame) -> av.AudioFrame:
    """The same samples, channel by channel in one plane.

    PyAV looks for the end of a list of planes that has none where there are eight or more: it reads on behind
    the list, and what it finds there ends the process.
    """
    channels = frame.layout.nb_channels
    if channels > _MOST_MIXED:
        raise Refused(f"it has {channels} channels; the limit is {_MOST_MIXED}", "channels_unsupported")
    to_packed = av.AudioResampler(frame.format.packed.name, frame.layout, frame.sample_rate)
    (packed,) = to_packed.resample(frame)
    return packed
