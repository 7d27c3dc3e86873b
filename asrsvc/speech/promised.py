"""How long a file should be by what it says of itself: in seconds, and in bytes.

A header is a claim of a program that may have died since; a claim that nobody could know when it was
written is none. FFmpeg's own `duration` is often an estimate, so the claims are read here, in as few
bytes as will do:

- MP4, QuickTime: boxes that the file does not hold whole (ISO/IEC 14496-12, section 4.2);
- Matroska, WebM: the sizes of the segment and of its clusters, and the duration of a file that has
  nothing but sound (RFC 9559). What is recorded live has no sizes, and is whole;
- AVI: the size of its first chunk (RIFF: Multimedia Programming Interface and Data Specifications 1.0);
- ASF: the size of the data object (Advanced Systems Format Specification, section 5);
- FLV: `filesize`, or `duration`, of onMetaData (Video File Format Specification 10.1, annex E.5);
- MP3: the frames of the first Xing, Info or VBRI header. A file joined of several holds more.

ADTS, AMR, AC-3, MPEG-TS and MPEG-PS claim nothing; WAV, its kind and FLAC are looked at before
they come here (`asrsvc.speech.headers`).
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from asrsvc.speech.claims import at_end_of_field
from asrsvc.speech.ebml import CLUSTER, DURATION, INFO, SEGMENT, TIMESTAMP_SCALE, element

_MOST_BOXES: Final = 200_000  # that are looked at in a file


@dataclass(frozen=True, slots=True)
class Promised:
    """What a file says of itself."""

    size: int | None = None
    """bytes that the file should have at least"""
    seconds: float | None = None
    """length of the sound, at least"""


class _Reader:
    """Numbers of a file, by their place."""

    def __init__(self, file: io.RawIOBase) -> None:
        self.file = file
        self.size = file.seek(0, os.SEEK_END)

    def at(self, place: int, count: int) -> bytes:
        """So many bytes, fewer at the end."""
        self.file.seek(place)
        return self.file.read(count) or b""

    def number(self, place: int, count: int, order: str = ">") -> int:
        """An unsigned number; 0 behind the end."""
        return int.from_bytes(self.at(place, count), "big" if order == ">" else "little")


def promised(file: io.RawIOBase, container: str, *, only_sound: bool) -> Promised:
    """Read what a file claims.

    Args:
        file: open for reading and seekable; its position is moved.
        container: name of FFmpeg's demuxer for it.
        only_sound: whether it holds one track of sound and nothing else.
    """
    for name in container.split(","):
        if name in _CLAIMS:
            found = _CLAIMS[name](_Reader(file))
            # The length of a file with pictures may be theirs.
            of_all = name in {"matroska", "flv"} and not only_sound
            return Promised(found.size) if of_all else found
    return Promised()


def lacks_index(file: io.RawIOBase) -> bool:
    """Whether a file is MP4 or QuickTime whose `moov` box is not there whole."""
    reader = _Reader(file)
    found = False
    for mark, end in _boxes(reader):
        found |= mark in {b"ftyp", b"mdat", b"wide"}
        if mark == b"moov":
            return end > reader.size
    return found


def has_tracks(file: io.RawIOBase, count: int) -> bool:
    """Whether a file holds the mark of so many tracks of MP4 or more."""
    file.seek(0)
    found, end = 0, b""
    while chunk := file.read(2**20):
        found += (end + chunk).count(b"trak")
        end = chunk[-3:]
        if found >= count:
            return True
    return False


def _boxes(reader: _Reader) -> Iterator[tuple[bytes, int]]:
    """The outermost boxes: the type of each and where it ends."""
    place = 0
    for _ in range(_MOST_BOXES):
        size, mark = reader.number(place, 4), reader.at(place + 4, 4)
        if size == 1:
            size = reader.number(place + 8, 8)
        if size == 0 and mark == b"mdat":  # to the end of the file
            yield mark, reader.size
        if size < 8:
            break
        place += size
        yield mark, place
        if place >= reader.size:
            break


def _mp4(reader: _Reader) -> Promised:
    end = max((end for _mark, end in _boxes(reader)), default=0)
    return Promised(end if end > reader.size else None)


def _matroska(reader: _Reader) -> Promised:
    _mark, place, size = element(reader.file, 0)
    mark, place, segment = element(reader.file, place + (size or 0))
    if mark != SEGMENT:
        return Promised()
    seconds = None
    end = None if segment is None else place + segment
    for _ in range(_MOST_BOXES):
        if place >= reader.size:
            break
        mark, place, size = element(reader.file, place)
        if mark == INFO and size is not None:
            seconds = _duration(reader, place, place + size)
        if size is None or (mark == CLUSTER and end is not None):
            break
        place += size
    if end is None and place > reader.size:
        end = place
    return Promised(end, seconds)


def _duration(reader: _Reader, place: int, end: int) -> float | None:
    """Seconds by the segment's information."""
    scale, ticks = 1_000_000, 0.0
    for _ in range(100):
        if place >= end:
            break
        mark, place, size = element(reader.file, place)
        if mark == TIMESTAMP_SCALE:
            scale = reader.number(place, size or 0)
        elif mark == DURATION and size in {4, 8}:
            content = reader.at(place, size)
            if len(content) == size:
                (ticks,) = struct.unpack(">f" if size == 4 else ">d", content)
        place += size or 0
    seconds = ticks * scale / 1e9
    return seconds if 0 < seconds < 1e9 else None


def _avi(reader: _Reader) -> Promised:
    size = reader.number(4, 4, "<")
    return Promised(8 + size if size and not at_end_of_field(size, 32) else None)


_ASF_DATA: Final = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def _asf(reader: _Reader) -> Promised:
    place = reader.number(16, 8, "<")
    mark, size = reader.at(place, 16), reader.number(place + 16, 8, "<")
    # Sent live, the data object is of 0 packets and as long as its own head.
    return Promised(place + size if mark == _ASF_DATA and 50 < size < 2**62 else None)


def _flv(reader: _Reader) -> Promised:
    head = reader.at(0, 2**16)

    def number(name: bytes) -> float | None:
        at = head.find(struct.pack(">H", len(name)) + name + b"\0")
        field = head[at + len(name) + 3 : at + len(name) + 11]
        if at < 0 or len(field) < 8:
            return None
        (value,) = struct.unpack(">d", field)
        return value if 0 < value < 1e15 else None

    size, seconds = number(b"filesize"), number(b"duration")
    return Promised(seconds=seconds) if size is None else Promised(int(size))


_MP3_RATES: Final = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def _mp3(reader: _Reader) -> Promised:
    place = 0
    head = reader.at(0, 10)
    if head[:3] == b"ID3":  # ID3v2: the length is in four bytes of seven bits (id3.org, 2.4, section 3.1)
        place = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False))
    frame = reader.at(place, 4096)
    start = next((at for at in range(len(frame) - 4) if frame[at] == 0xFF and frame[at + 1] >= 0xE2), -1)
    if start < 0:
        return Promised()
    version, rate = frame[start + 1] >> 3 & 3, frame[start + 2] >> 2 & 3
    if version not in _MP3_RATES or rate == 3:
        return Promised()
    samples = 1152 if version == 3 else 576
    frames = _vbr_frames(frame[start : start + 200])
    return Promised(seconds=None if frames is None else frames * samples / _MP3_RATES[version][rate])


def _vbr_frames(frame: bytes) -> int | None:
    """Frames by a Xing, Info or VBRI header."""
    for mark in (b"Xing", b"Info", b"VBRI"):
        at = frame.find(mark)
        if at < 0:
            continue
        if mark == b"VBRI":
            return int.from_bytes(frame[at + 14 : at + 18], "big") or None
        if frame[at + 7] & 1 if len(frame) > at + 12 else False:
            return int.from_bytes(frame[at + 8 : at + 12], "big") or None
    return None


_CLAIMS: Final[dict[str, Callable[[_Reader], Promised]]] = {
    "mov": _mp4,
    "matroska": _matroska,
    "avi": _avi,
    "asf": _asf,
    "flv": _flv,
    "mp3": _mp3,
}
