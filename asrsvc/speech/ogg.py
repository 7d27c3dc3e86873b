"""Whether an Ogg file is one that libsndfile reads whole, by its pages alone.

libsndfile decodes a stream of Opus or Vorbis several times faster than FFmpeg, but it stops where a second
stream follows (radio, voice notes that were joined), knows nothing of time stamps that jump (a recorder that
gets nothing while the speaker is muted), and drops pages that are damaged or cut off without a word. So the
pages are looked at first.

Sources: RFC 3533 (Ogg), RFC 7845 (Opus in Ogg), RFC 6716 §3.1 (length of an Opus packet), Vorbis I §4.2.2.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from asrsvc.speech.ogg_pages import page_checksum
from asrsvc.speech.pieces import size_of

# The mark, version, flags, granule, serial, sequence number, checksum, and number of lacing values.
_HEAD: Final = struct.Struct("<4sBBqIIIB")
_CHECKSUM_AT: Final = 22
_CONTINUED: Final = 1
_FIRST: Final = 2
_OPUS_RATE: Final = 48_000
# Samples at 48 kHz of one frame, by the configuration in the first five bits of a packet.
_OPUS_FRAMES: Final = (*(480, 960, 1920, 2880) * 3, *(480, 960) * 2, *(120, 240, 480, 960) * 4)
_SLACK: Final = 0.1
"""seconds that a time stamp may be later than the sound before it without being a jump"""


@dataclass(frozen=True, slots=True)
class _Page:
    flags: int
    granule: int
    serial: int
    sequence: int
    lacing: bytes
    body: bytes


@dataclass(slots=True)
class _Stream:
    """The stream of the pages so far."""

    serial: int
    rate: int
    longest: int | None
    """samples that a packet has at most; None: its first bytes say how many (Opus)"""
    sequence: int = 0
    headers: int = 0
    """pages of comments and code books"""
    end: int = 0
    """samples of the sound so far, at most"""
    begun: int = 0
    """samples of the packet that goes on in the next page"""

    def goes_on(self, page: _Page) -> bool:
        """Take the next page; False: it is not of this stream, one is missing, or the time jumps."""
        if page.flags & _FIRST or page.serial != self.serial or page.sequence != self.sequence + 1:
            return False
        self.sequence = page.sequence
        if page.granule == 0 and self.headers < 2:
            self.headers += 1
            return True
        self.end += self._samples(page)
        if page.granule > self.end + _SLACK * self.rate:
            return False
        if self.longest is not None and page.granule >= 0:
            self.end = page.granule
        return True

    def _samples(self, page: _Page) -> int:
        """Samples of the packets that end on a page."""
        if self.longest is not None:
            return sum(length < 255 for length in page.lacing) * self.longest
        total = start = end = 0
        length = self.begun if page.flags & _CONTINUED else _opus_samples(page.body[:2])
        for lacing in page.lacing:
            end += lacing
            if lacing < 255:
                total += length
                start = end
                length = _opus_samples(page.body[start : start + 2])
        self.begun = length
        return total


def unusual(descriptor: int) -> bool:
    """Whether a file is Ogg, but not one whole stream of Opus or Vorbis without a jump in its time stamps.

    Args:
        descriptor: of the file, open for reading; its position is neither used nor moved.
    """
    if os.pread(descriptor, 4, 0) != b"OggS":
        return False
    pages = _pages(descriptor)
    first = next(pages)
    stream = _begin(first) if first else None
    return stream is None or not all(page and stream.goes_on(page) for page in pages)


def _pages(descriptor: int) -> Iterator[_Page | None]:
    """The pages of a file, one behind the other; None: what follows is no whole page."""
    end = size_of(descriptor)
    position = 0
    while position < end:
        head = os.pread(descriptor, _HEAD.size + 255, position)
        page = _page(descriptor, head, position) if len(head) >= _HEAD.size else None
        yield page
        if page is None:
            return
        position += _HEAD.size + len(page.lacing) + len(page.body)


def _page(descriptor: int, head: bytes, position: int) -> _Page | None:
    mark, _, flags, granule, serial, sequence, checksum, count = _HEAD.unpack_from(head)
    lacing = head[_HEAD.size : _HEAD.size + count]
    body = os.pread(descriptor, sum(lacing), position + _HEAD.size + count)
    blank = head[:_CHECKSUM_AT] + bytes(4) + head[_CHECKSUM_AT + 4 : _HEAD.size]
    if mark != b"OggS" or len(body) < sum(lacing) or page_checksum(blank + lacing + body) != checksum:
        return None
    return _Page(flags, granule, serial, sequence, lacing, body)


def _begin(page: _Page) -> _Stream | None:
    """The stream that begins with this page; None: neither Opus nor Vorbis, or not its beginning."""
    body = page.body
    if page.sequence != 0:
        return None
    if body[:8] == b"OpusHead":
        return _Stream(page.serial, _OPUS_RATE, None)
    if body[:7] == b"\x01vorbis" and len(body) >= 30:
        (rate,) = struct.unpack_from("<I", body, 12)
        return _Stream(page.serial, max(1, rate), 2 ** (body[28] >> 4) // 2)
    return None


def _opus_samples(packet: bytes) -> int:
    """Samples at 48 kHz of the Opus packet that begins so."""
    if not packet:
        return 0
    frames = (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[packet[0] & 3]
    return frames * _OPUS_FRAMES[packet[0] >> 3]
