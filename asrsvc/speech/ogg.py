"""What the pages of an Ogg file say, read without decoding it.

libsndfile decodes one stream of Opus or Vorbis several times faster than FFmpeg, but it stops where a second
one follows (chained streams: radio, voice notes that were joined) and knows nothing of time stamps that
jump (a recorder that gets nothing while the speaker is muted). So the pages are looked at first.

Sources: RFC 3533 (Ogg), RFC 7845 (Opus in Ogg), RFC 6716 §3.1 (length of an Opus packet), Vorbis I §4.2.2.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Final

_PAGE: Final = struct.Struct(
    "<4sBBqII4xB"
)  # mark, version, flags, granule, serial, sequence, checksum, lines
_CONTINUED: Final = 1
_FIRST: Final = 2
_OPUS_RATE: Final = 48_000
_OPUS_MOST: Final = 5760  # samples of a packet: 120 ms
# Samples at 48 kHz of one frame, by the configuration in the first five bits of a packet.
_OPUS_FRAMES: Final = (*(480, 960, 1920, 2880) * 3, *(480, 960) * 2, *(120, 240, 480, 960) * 4)
_SLACK: Final = 0.1
"""seconds that a time stamp may be later than the sound before it without being a jump"""


@dataclass(frozen=True, slots=True)
class Pages:
    """What was found."""

    plain: bool
    """whether it is one stream of Opus or Vorbis, with every page in its place and no jump in time"""
    missing: float = 0.0
    """seconds of sound that the last page declares and that are not there, since it has been cut off"""


@dataclass(slots=True)
class _Stream:
    """The stream of the pages so far."""

    serial: int
    rate: int
    longest: int | None
    """samples that a packet has at most; None: its first bytes say it (Opus)"""
    known: bool = True
    """whether it is Opus or Vorbis"""
    sequence: int = 0
    granule: int = 0

    def missing(self, serial: int, granule: int) -> float:
        """Seconds from the last whole page to the end of the one that has been cut off."""
        return max(0, granule - self.granule) / self.rate if serial == self.serial else 0.0

    def samples(self, body: bytes, lines: bytes) -> int:
        """Samples of the packets that end on a page, at most."""
        ends = sum(line < 255 for line in lines)
        if self.longest is not None:
            return ends * self.longest
        total, start, size = 0, 0, 0
        for line in lines:
            size += line
            if line < 255:
                total += _opus_samples(body[start : start + 2])
                start, size = start + size, 0
        return total


def look(descriptor: int) -> Pages | None:
    """Read all pages.

    Args:
        descriptor: of the file, open for reading; its position is neither used nor moved.

    Returns:
        what they say; None: the file does not begin as Ogg does.
    """
    end = os.fstat(descriptor).st_size
    stream: _Stream | None = None
    plain, position, headers = True, 0, 0
    while position < end:
        head = os.pread(descriptor, _PAGE.size + 255, position)
        if len(head) < _PAGE.size or head[:4] != b"OggS":
            return Pages(plain=False) if position else None
        _, _, flags, granule, serial, sequence, count = _PAGE.unpack_from(head)
        lines = head[_PAGE.size : _PAGE.size + count]
        start = position + _PAGE.size + count
        position = start + sum(lines)
        if position > end or len(lines) < count:
            return Pages(plain, stream.missing(serial, granule) if stream else 0.0)
        body = os.pread(descriptor, sum(lines), start)
        if stream is None or flags & _FIRST:
            first = stream is None and sequence == 0
            stream, headers = _begin(body, serial), 0
            if stream is None:
                return Pages(plain=False)
            plain &= first and stream.known
            continue
        if serial != stream.serial:
            return Pages(plain=False)
        plain &= sequence == stream.sequence + 1
        stream.sequence = sequence
        if granule == 0 and headers < 2:  # pages of comments and code books
            headers += 1
        elif granule >= 0:
            allowed = stream.samples(body, lines) + (_OPUS_MOST if flags & _CONTINUED else 0)
            plain &= granule - stream.granule <= allowed + _SLACK * stream.rate
            stream.granule = granule
    return Pages(plain and stream is not None)


def _begin(body: bytes, serial: int) -> _Stream | None:
    """The stream that begins with this page; None: its codec is not known here."""
    if body[:8] == b"OpusHead":
        return _Stream(serial, _OPUS_RATE, None)
    if body[:7] == b"\x01vorbis" and len(body) >= 30:
        (rate,) = struct.unpack_from("<I", body, 12)
        return _Stream(serial, max(1, rate), 2 ** (body[28] >> 4) // 2)
    if body[:5] == b"\x7fFLAC" and len(body) >= 31:
        rate = int.from_bytes(body[27:30]) >> 4
        return _Stream(serial, max(1, rate), 2**16, known=False)
    if body[:8] == b"Speex   " and len(body) >= 40:
        (rate,) = struct.unpack_from("<I", body, 36)
        return _Stream(serial, max(1, rate), 2**16, known=False)
    return None


def _opus_samples(packet: bytes) -> int:
    """Samples at 48 kHz of the Opus packet that begins so."""
    if not packet:
        return 0
    frames = (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[packet[0] & 3]
    return frames * _OPUS_FRAMES[packet[0] >> 3]
