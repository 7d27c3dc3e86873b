"""Any audio file to blocks of 16 kHz mono float32, inside limits, by content and never by name.

Libraries that decode run in helper processes (`asrsvc.speech.ffmpeg`). Nothing here depends on the
length of the recording: blocks of about ten seconds pass through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from asrsvc.errors import BadAudio, TooLarge
from asrsvc.speech.ffmpeg import HelperPool
from asrsvc.speech.resample import Resampling
from asrsvc.speech.types import SAMPLE_RATE, FloatArray, Notice

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

# CPU seconds that decoding may take for a file: FFmpeg decodes audio a hundred times faster than it plays.
_CPU_SECONDS_BASE: Final = 30.0
_CPU_SECONDS_PER_SECOND: Final = 0.05


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
            helpers: decode it.
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
            BadAudio: no known format, nothing of it can be decoded, incomplete where that is refused, not
                finite, too short, or a sample rate or channel count beyond the limits.
            TooLarge: longer than the limit, or of more samples in its channels.
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

    def _mono_blocks(self) -> Iterator[tuple[int, FloatArray]]:
        """Mono blocks at the file's own sample rate, each with that rate in Hz."""
        for rate, block in self._helpers.decode(
            self._descriptor,
            min_rate=MIN_RATE,
            max_rate=MAX_RATE,
            max_channels=MAX_CHANNELS,
            cpu_seconds=_CPU_SECONDS_BASE + _CPU_SECONDS_PER_SECOND * self._limits.max_seconds,
            max_seconds=self._limits.max_seconds,
            max_values=max(LEAST_VALUES, round(VALUES_PER_SECOND * self._limits.max_seconds)),
            declared=self._note_declared,
            refuse_incomplete=self._refuse_incomplete,
            warn=self._warn,
        ):
            if rate < MIN_RATE:
                raise BadAudio(
                    f"file has a sample rate of {rate} Hz; {MIN_RATE} to {MAX_RATE} Hz can be decoded",
                    param="file",
                    code="sample_rate_unsupported",
                )
            yield rate, block

    def _warn(self, notice: Notice) -> None:
        """Note what a client should know; the first notice of each code."""
        if all(known.code != notice.code for known in self.warnings):
            self.warnings.append(notice)

    def _note_declared(self, seconds: float) -> None:
        if seconds <= self._limits.max_seconds:  # else it is invented, or the file is refused before its end
            self.declared_seconds = seconds
