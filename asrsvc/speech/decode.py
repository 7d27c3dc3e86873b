"""Any audio file to blocks of 16 kHz mono float32, inside limits, by content and never by name.

libsndfile decodes the formats that it knows in this process; everything else goes to FFmpeg in a
helper process (`asrsvc.speech.ffmpeg`). Nothing here depends on the length of the recording: blocks
of about ten seconds pass through.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import soundfile
import soxr

from asrsvc.errors import BadAudio, TooLarge
from asrsvc.speech.ffmpeg import HelperPool
from asrsvc.speech.types import MAX_PEAK, SAMPLE_RATE, FloatArray, Notice

MIN_RATE: Final = 2_000
MAX_RATE: Final = 384_000
"""Hz; the rates that recorders write lie between them"""
MAX_CHANNELS: Final = 16
MIN_SAMPLES: Final = 400
"""samples at 16 kHz that a recording must have: one 25 ms analysis window"""

_BLOCK_SECONDS: Final = 10
_BLOCK_VALUES: Final = 2**20  # float32 values of a block over all channels: 4 MiB
# CPU seconds that FFmpeg may take for a file: it decodes audio a hundred times faster than it plays.
_CPU_SECONDS_BASE: Final = 30.0
_CPU_SECONDS_PER_SECOND: Final = 0.05
_SNDFILE_FORMATS: Final = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "FLAC", "OGG", "CAF", "AU"})
# A length in the header that is missed by so much says that the file was cut off.
_MISSING_SECONDS_ALLOWED: Final = 0.25
_MISSING_SHARE_ALLOWED: Final = 0.01
# What programs that write to a pipe put where the length of the sound should stand
# (ffmpeg: all ones; sox and others: just below 2 GiB).
_STREAMED_LENGTHS: Final = frozenset({0, 0xFFFFFFFF})
_STREAMED_LENGTH_FROM: Final = 0x7FFFF000
_STREAMED_LENGTH_TO: Final = 0x7FFFFFFF


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
        self.warnings: list[Notice] = []
        """about the recording; complete once all blocks have been given"""
        self.seconds = 0.0
        """seconds of sound decoded so far, on the file's own clock"""
        self.declared_seconds: float | None = None
        """length by the file's own header, which may be wrong; None before the first block, or unknown"""

    def blocks(self) -> Iterator[FloatArray]:
        """Give the recording as consecutive blocks, shape (n,), float32, 16 kHz mono, in [-1, 1].

        Raises:
            BadAudio: no known format, damaged, cut off, not finite, too short, or a sample rate or
                channel count beyond the limits.
            TooLarge: longer than the limit.
        """
        frames = samples = rate = 0
        resampler: soxr.ResampleStream | None = None
        for rate, block in self._mono_blocks():
            if frames == 0 and rate != SAMPLE_RATE:
                resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
            frames += len(block)
            self.seconds = frames / rate
            self._check_length(self.seconds)
            out = resampler.resample_chunk(block) if resampler else block
            samples += len(out)
            if len(out):
                yield out
        if resampler:
            tail = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
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

    def _mono_blocks(self) -> Iterator[tuple[int, FloatArray]]:
        """Mono blocks at the file's own sample rate, each with that rate in Hz."""
        if _is_mp3(self._descriptor):
            yield from self._by_ffmpeg()
            return
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        try:
            file = soundfile.SoundFile(self._descriptor, closefd=False)
        except soundfile.LibsndfileError:
            yield from self._by_ffmpeg()
            return
        with file:
            # With no samples by its header, it may have been written to a pipe: FFmpeg looks further.
            if file.format in _SNDFILE_FORMATS and file.frames > 0:
                yield from self._by_sndfile(file)
                return
        yield from self._by_ffmpeg()

    def _by_ffmpeg(self) -> Iterator[tuple[int, FloatArray]]:
        cpu = _CPU_SECONDS_BASE + _CPU_SECONDS_PER_SECOND * self._limits.max_seconds
        for rate, block in self._helpers.decode(
            self._descriptor,
            max_rate=MAX_RATE,
            max_channels=MAX_CHANNELS,
            cpu_seconds=cpu,
            declared=self._note_declared,
        ):
            _check_format(rate, 1)
            yield rate, block

    def _note_declared(self, seconds: float) -> None:
        self.declared_seconds = seconds

    def _by_sndfile(self, file: soundfile.SoundFile) -> Iterator[tuple[int, FloatArray]]:
        rate, channels, declared = file.samplerate, file.channels, file.frames
        _check_format(rate, channels)
        # 2**63 - 1 stands for a length that the file does not say.
        known_length = declared < 2**62
        if known_length:
            self.declared_seconds = declared / rate
            self._check_length(declared / rate)
        _check_chunks(self._descriptor)
        size = max(1, min(rate * _BLOCK_SECONDS, _BLOCK_VALUES // channels))
        decoded = 0
        try:
            while len(frames := file.read(size, dtype="float32", always_2d=True)):
                decoded += len(frames)
                _check_peak(frames)
                block: FloatArray = np.clip(frames, -1, 1).mean(axis=1, dtype=np.float32)
                yield rate, block
        except soundfile.LibsndfileError as error:
            raise BadAudio(
                f"file is damaged or cut off, {decoded / rate:.0f} s or more from its start"
                f" ({error.error_string})",
                param="file",
            ) from None
        missing = (declared - decoded) / rate if known_length else 0.0
        if missing > max(_MISSING_SECONDS_ALLOWED, _MISSING_SHARE_ALLOWED * declared / rate):
            raise _cut_off(f"{declared / rate:.2f} s", f"{decoded / rate:.2f} s")


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


def _cut_off(declared: str, held: str) -> BadAudio:
    return BadAudio(
        f"file is cut off: its header declares {declared} and {held} are there",
        param="file",
        code="audio_truncated",
    )


def _check_chunks(descriptor: int) -> None:
    """Compare the length of the sound that a WAV or AIFF header declares with the file's own.

    libsndfile takes what is there without a word (RIFF: Multimedia Programming Interface and Data
    Specifications 1.0; AIFF: EA IFF 85).

    Raises:
        BadAudio: bytes are missing at the end.
    """
    size = os.fstat(descriptor).st_size
    head = os.pread(descriptor, 12, 0)
    order = {b"RIFF": "<", b"FORM": ">"}.get(head[:4])
    wanted = {b"WAVE": b"data", b"AIFF": b"SSND", b"AIFC": b"SSND"}.get(head[8:12])
    if order is None or wanted is None:
        return
    position = 12
    for _ in range(1000):
        header = os.pread(descriptor, 8, position)
        if len(header) < 8:
            return
        (length,) = struct.unpack(order + "I", header[4:])
        if header[:4] == wanted:
            streamed = length in _STREAMED_LENGTHS or _STREAMED_LENGTH_FROM <= length <= _STREAMED_LENGTH_TO
            held = size - position - 8
            if not streamed and length > held:
                raise _cut_off(f"{length} bytes of sound", f"{held}")
            return
        position += 8 + length + length % 2


def _is_mp3(descriptor: int) -> bool:
    """Whether a file begins as MP3 does: with an ID3 tag or the 11 bits that begin a frame.

    libsndfile's MP3 decoder writes to standard error what it thinks of a damaged file, and loses the
    end of one with a variable bit rate and without a Xing header.
    """
    head = os.pread(descriptor, 3, 0)
    return head == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")
