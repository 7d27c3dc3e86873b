"""Any audio file to blocks of 16 kHz mono float32, inside limits, by content and never by name.

libsndfile decodes the formats that it knows in this process; everything else goes to FFmpeg in a
helper process (`asrsvc.speech.ffmpeg`). Nothing here depends on the length of the recording: blocks
of about ten seconds pass through.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import soundfile

from asrsvc.errors import BadAudio, TooLarge
from asrsvc.speech import claims, headers, sndfile
from asrsvc.speech.downmix import DownMix
from asrsvc.speech.ffmpeg import HelperPool
from asrsvc.speech.resample import Resampling
from asrsvc.speech.types import MAX_PEAK, SAMPLE_RATE, FloatArray, Notice

MIN_RATE: Final = 2_000
MAX_RATE: Final = 384_000
"""Hz; the rates that recorders write lie between them"""
MAX_CHANNELS: Final = 16
MIN_SAMPLES: Final = 400
"""samples at 16 kHz that a recording must have: one 25 ms analysis window"""

VALUES_PER_SECOND: Final = 2 * 48_000
"""samples, of all channels, that a recording may have for each second of the longest one: decoding costs so
much for each. The longest recording may have two channels at 48 kHz, shorter ones more."""
LEAST_VALUES: Final = 500_000_000
"""samples, of all channels, that a recording may have in any case: some seconds of work"""

_BLOCK_SECONDS: Final = 10
_BLOCK_VALUES: Final = 2**20  # float32 values of a block over all channels: 4 MiB
# CPU seconds that FFmpeg may take for a file: it decodes audio a hundred times faster than it plays.
_CPU_SECONDS_BASE: Final = 30.0
_CPU_SECONDS_PER_SECOND: Final = 0.05
# FLAC packs 65,535 samples of silence into 12 bytes, which no other format here comes near.
_MOST_SAMPLES_PER_BYTE: Final = 8192


@dataclass(frozen=True, slots=True)
class Limits:
    """What a recording may be at most."""

    max_seconds: float
    """length of the recording, seconds"""


class Recording:
    """A file that is being decoded: iterate over its blocks once; `seconds` is known after that."""

    def __init__(
        self, descriptor: int, limits: Limits, helpers: HelperPool, *, refuse_incomplete: bool = False
    ) -> None:
        """Prepare to decode; nothing is read yet.

        Args:
            descriptor: of the file, open for reading and seekable; it stays the caller's.
            limits: what it may be at most.
            helpers: where files go that libsndfile does not know.
            refuse_incomplete: whether a recording of which parts are missing is an error, not a warning.
        """
        self._descriptor = descriptor
        self._limits = limits
        self._helpers = helpers
        self._refuse_incomplete = refuse_incomplete
        self._most_values = max(LEAST_VALUES, round(VALUES_PER_SECOND * limits.max_seconds))
        self.warnings: list[Notice] = []
        """about the recording; complete once all blocks have been given"""
        self.seconds = 0.0
        """seconds of sound decoded so far, on the file's own clock"""
        self.declared_seconds: float | None = None
        """length by the file's own header, which may be wrong; None before the first block, or unknown"""

    def blocks(self) -> Iterator[FloatArray]:
        """Give the recording as consecutive blocks, shape (n,), float32, 16 kHz mono, in [-1, 1].

        Raises:
            BadAudio: no known format, nothing of it can be decoded, incomplete where that is refused, not
                finite, too short, or a sample rate or channel count beyond the limits.
            TooLarge: longer than the limit.
        """
        frames = samples = rate = 0
        resampling = Resampling()
        for rate, block in self._mono_blocks():
            frames += len(block)
            ready = resampling.push(rate, block)
            self.seconds = resampling.seconds
            self._check_length(self.seconds)
            for out in ready:
                samples += len(out)
                yield out
        tail = resampling.finish()
        samples += len(tail)
        if len(tail):
            yield tail
        if frames == 0:
            raise BadAudio("file holds no sound: 0 samples", param="file", code="audio_empty")
        if samples < MIN_SAMPLES:
            raise BadAudio(
                f"file is too short: {frames} samples at {rate} Hz; "
                f"{MIN_SAMPLES / SAMPLE_RATE * 1000:g} ms is the least",
                param="file",
                code="audio_too_short",
            )

    def _check_length(self, seconds: float) -> None:
        limit = self._limits.max_seconds
        if seconds > limit:
            raise TooLarge(
                f"file is too long: over {min(seconds, 1e9):.0f} s of audio; the limit is {limit:g} s",
                param="file",
                code="audio_too_long",
            )

    def _check_values(self, frames: int, rate: int, channels: int) -> None:
        """Refuse what would cost too much to decode."""
        if frames * channels > self._most_values:
            raise TooLarge(
                f"file is too much to decode: {frames / rate:.0f} s at {rate} Hz with {channels} channels are"
                f" {frames * channels} samples; the limit is {self._most_values}",
                param="file",
                code="audio_too_much",
            )

    def _mono_blocks(self) -> Iterator[tuple[int, FloatArray]]:
        """Mono blocks at the file's own sample rate, each with that rate in Hz."""
        sound = headers.look(self._descriptor)
        missing = sound.claim.missing if sound else _nothing
        file = sndfile.opened(self._descriptor, sound)
        if file is None:
            yield from self._by_ffmpeg()
            self._check_whole(self.seconds, missing(self.seconds))
            return
        with file:
            self._note_length(file)
            held = file.frames / file.samplerate
            self._check_whole(held, missing(held))
            yield from self._by_sndfile(file)

    def _check_whole(self, held: float, missing: float) -> None:
        """Say or refuse that seconds of sound are missing."""
        if missing > 0:
            self._note_incomplete(claims.cut_off(held + missing, held))

    def _note_incomplete(self, notice: Notice) -> None:
        if self._refuse_incomplete:
            raise BadAudio(notice.message, param="file", code="audio_truncated")
        self._warn(notice)

    def _warn(self, notice: Notice) -> None:
        """Note what a client should know; the first notice of each code."""
        if all(known.code != notice.code for known in self.warnings):
            self.warnings.append(notice)

    def _by_ffmpeg(self) -> Iterator[tuple[int, FloatArray]]:
        cpu = _CPU_SECONDS_BASE + _CPU_SECONDS_PER_SECOND * self._limits.max_seconds
        for rate, block in self._helpers.decode(
            self._descriptor,
            max_rate=MAX_RATE,
            max_channels=MAX_CHANNELS,
            cpu_seconds=cpu,
            max_seconds=self._limits.max_seconds,
            max_values=self._most_values,
            declared=self._note_declared,
            refuse_incomplete=self._refuse_incomplete,
            warn=self._warn,
        ):
            _check_format(rate, 1)
            yield rate, block

    def _note_declared(self, seconds: float) -> None:
        if seconds <= self._limits.max_seconds:  # else it is invented, or the file is refused before its end
            self.declared_seconds = seconds

    def _note_length(self, file: soundfile.SoundFile) -> None:
        """Refuse what is too long by its header, if that can be true."""
        _check_format(file.samplerate, file.channels)
        if file.frames <= os.fstat(self._descriptor).st_size * _MOST_SAMPLES_PER_BYTE:
            self.declared_seconds = file.frames / file.samplerate
            self._check_length(self.declared_seconds)
            self._check_values(file.frames, file.samplerate, file.channels)

    def _by_sndfile(self, file: soundfile.SoundFile) -> Iterator[tuple[int, FloatArray]]:
        rate, channels, declared = file.samplerate, file.channels, file.frames
        size = max(1, min(rate * _BLOCK_SECONDS, _BLOCK_VALUES // channels))
        mix = DownMix(rate, channels)
        decoded = 0
        failure: str | None = None
        while True:
            try:
                frames = file.read(size, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                failure = error.error_string
                break
            if not len(frames):
                break
            decoded += len(frames)
            self._check_values(decoded, rate, channels)
            _check_peak(frames)
            yield rate, mix.push(np.clip(frames, -1, 1))
        yield rate, mix.finish()
        held = decoded
        if file.format == "FLAC" and (failure is not None or sndfile.flac_goes_on(self._descriptor)):
            # FFmpeg passes over what is damaged, and reads on behind the end of a first stream.
            for rest_rate, block in self._rest_by_ffmpeg(decoded):
                held += len(block)
                yield rest_rate, block
        if failure is not None and not held:
            raise BadAudio(f"file is damaged: nothing of it can be decoded ({failure})", param="file")
        self._check_whole(held / rate, claims.Claim(declared, held, sndfile.FLAC_BITS).missing(held / rate))
        if failure is not None and (held >= declared or file.format != "FLAC"):
            self._note_incomplete(claims.damaged(decoded / rate))

    def _rest_by_ffmpeg(self, given: int) -> Iterator[tuple[int, FloatArray]]:
        """What follows the first samples that were given already; nothing where FFmpeg cannot read on."""
        try:
            for rate, block in self._by_ffmpeg():
                skipped = min(given, len(block))
                given -= skipped
                yield rate, block[skipped:]
        except BadAudio:
            if not self.seconds or self._refuse_incomplete:
                raise
            self._warn(claims.damaged(self.seconds))


def _nothing(_seconds: float) -> float:
    """What is missing of a file that claims nothing."""
    return 0.0


def _check_format(rate: int, channels: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise BadAudio(
            f"file has a sample rate of {rate} Hz; {MIN_RATE} to {MAX_RATE} Hz can be decoded",
            param="file",
            code="sample_rate_unsupported",
        )
    if channels > MAX_CHANNELS:
        raise BadAudio(
            f"file has {channels} channels; the limit is {MAX_CHANNELS}",
            param="file",
            code="channels_unsupported",
        )


def _check_peak(frames: FloatArray) -> None:
    peak = max(float(frames.max()), -float(frames.min()))  # NaN if one is in them
    if peak <= MAX_PEAK:
        return
    if math.isfinite(peak):
        raise BadAudio(f"file holds samples up to {peak:g}; between -1 and 1 is right", param="file")
    raise BadAudio("file holds samples that are not finite (NaN or infinity)", param="file")
