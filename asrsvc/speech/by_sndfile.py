"""One file that libsndfile decodes, in the decoder process: its blocks, and what is missing of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import soundfile

from asrsvc.speech import claims, sndfile
from asrsvc.speech.decoded import (
    TOO_LARGE,
    Block,
    Declared,
    FileLimits,
    Incomplete,
    Item,
    Refused,
    Samples,
    Silence,
)
from asrsvc.speech.downmix import DownMix
from asrsvc.speech.pieces import size_of
from asrsvc.speech.types import MAX_PEAK

BLOCK_SECONDS: Final = 10
_BLOCK_VALUES: Final = 2**20  # float32 values of a block over all channels: 4 MiB
# FLAC packs 65,535 samples of silence into 12 bytes, which no other format here comes near.
_MOST_SAMPLES_PER_BYTE: Final = 8192


def decode(
    descriptor: int,
    file: soundfile.SoundFile,
    limits: FileLimits,
    missing: Callable[[float], float],
    rest: Callable[[], Iterator[Item]],
) -> Iterator[Item]:
    """Decode a file: its length, its sound, and that parts of it are missing.

    Args:
        descriptor: of the file.
        file: see `sndfile.opened`.
        limits: what the file may be.
        missing: seconds that its headers claim beyond so many that are there.
        rest: the file decoded by FFmpeg, which passes over what is damaged in FLAC, and reads on behind the
            end of a first stream.

    Raises:
        Refused: nothing of it can be decoded, or it is beyond the limits.
    """
    rate, declared = file.samplerate, file.frames
    _check_format(rate, file.channels, limits)
    if declared <= size_of(descriptor) * _MOST_SAMPLES_PER_BYTE:  # else that cannot be true
        _check_length(declared / rate, limits)
        _check_values(declared, rate, file.channels, limits)
        yield Declared(declared / rate)
    yield from _cut_off(declared / rate, missing(declared / rate))
    sound = _Sound(file, limits)
    yield from sound.blocks()
    held = sound.decoded
    goes_on = sound.failure is not None or sndfile.flac_goes_on(descriptor)
    if file.format == "FLAC" and goes_on:
        for item in _behind(sound.decoded, rest(), sound.given / rate, limits):
            held += _samples(item)
            yield item
    if sound.failure is not None and not held:
        raise Refused(f"file is damaged: nothing of it can be decoded ({sound.failure})", whole=True)
    claim = claims.Claim(declared, held, sndfile.FLAC_BITS)
    yield from _cut_off(held / rate, claim.missing(held / rate))
    if sound.failure is not None and (held >= declared or file.format != "FLAC"):
        yield claims.damaged(sound.decoded / rate)


@dataclass(slots=True)
class _Sound:
    """What libsndfile gives of a file."""

    file: soundfile.SoundFile
    limits: FileLimits
    decoded: int = 0
    """samples of each channel"""
    given: int = 0
    """samples of the blocks"""
    failure: str | None = None
    """why it has ended before its end, in libsndfile's words"""

    def blocks(self) -> Iterator[Block]:
        """All that can be decoded."""
        rate, channels = self.file.samplerate, self.file.channels
        size = max(1, min(rate * BLOCK_SECONDS, _BLOCK_VALUES // channels))
        mix = DownMix(rate, channels)
        while len(frames := self._read(size)):
            self.decoded += len(frames)
            _check_values(self.decoded, rate, channels, self.limits)
            _check_peak(frames)
            yield self._block(mix.push(np.clip(frames, -1, 1)))
        yield self._block(mix.finish())

    def _read(self, size: int) -> Samples:
        try:
            frames: Samples = self.file.read(size, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            self.failure = error.error_string
            return np.zeros((0, 1), np.float32)
        return frames

    def _block(self, samples: Samples) -> Block:
        self.given += len(samples)
        return Block(self.file.samplerate, samples)


def _samples(item: Item) -> int:
    match item:
        case Block(_, samples):
            return len(samples)
        case Silence(_, samples):
            return samples
    return 0


def _cut_off(held: float, missing: float) -> Iterator[Incomplete]:
    """Say that so many seconds are missing, if any are, where so many are there."""
    if missing > 0:
        yield claims.cut_off(held + missing, held)


def _behind(given: int, rest: Iterator[Item], seconds: float, limits: FileLimits) -> Iterator[Item]:
    """What follows the first samples that were given already; nothing where FFmpeg cannot read on."""
    try:
        for item in rest:
            skipped = min(given, _samples(item))
            given -= skipped
            match item:
                case Block(rate, samples):
                    seconds += (len(samples) - skipped) / rate
                    yield Block(rate, samples[skipped:])
                case Silence(rate, count):
                    seconds += (count - skipped) / rate
                    yield Silence(rate, count - skipped)
                case _:
                    yield item
    except Refused as refusal:
        if refusal.code in TOO_LARGE or not seconds or limits.refuse_incomplete:
            raise
        yield claims.damaged(seconds)


def _check_length(seconds: float, limits: FileLimits) -> None:
    """Refuse what is too long.

    Raises:
        Refused: it is.
    """
    if seconds > limits.max_seconds:
        raise Refused(
            f"over {min(seconds, 1e9):.0f} s of audio; the limit is {limits.max_seconds:g} s",
            "audio_too_long",
        )


def _check_values(frames: int, rate: int, channels: int, limits: FileLimits) -> None:
    """Refuse what would cost too much to decode.

    Raises:
        Refused: it would.
    """
    if frames * channels > limits.max_values:
        raise Refused(
            f"{frames / rate:.0f} s at {rate} Hz with {channels} channels are {frames * channels} samples;"
            f" the limit is {limits.max_values:.0f}",
            "audio_too_much",
        )


def _check_format(rate: int, channels: int, limits: FileLimits) -> None:
    """Refuse a sample rate or a number of channels beyond the limits.

    Raises:
        Refused: it is.
    """
    if not limits.min_rate <= rate <= limits.max_rate:
        raise Refused(
            f"file has a sample rate of {rate} Hz; {limits.min_rate} to {limits.max_rate} Hz can be decoded",
            "sample_rate_unsupported",
            whole=True,
        )
    if channels > limits.max_channels:
        raise Refused(
            f"file has {channels} channels; the limit is {limits.max_channels}",
            "channels_unsupported",
            whole=True,
        )


def _check_peak(frames: Samples) -> None:
    peak = max(float(frames.max()), -float(frames.min()))  # NaN if one is in them
    if peak <= MAX_PEAK:
        return
    if math.isfinite(peak):
        raise Refused(f"file holds samples up to {peak:g}; between -1 and 1 is right", whole=True)
    raise Refused("file holds samples that are not finite (NaN or infinity)", whole=True)
