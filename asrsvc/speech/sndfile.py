"""Which files libsndfile decodes well, and how it is given them; all others are for FFmpeg."""

from __future__ import annotations

import io
import os
from typing import Final

import soundfile

from asrsvc.speech import claims, headers, ogg
from asrsvc.speech.pieces import size_of
from asrsvc.speech.virtual_io import VirtualFile

FLAC_BITS: Final = 36
"""of the number of samples in the header of a FLAC file (STREAMINFO)"""

_FORMATS: Final = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "FLAC", "OGG", "CAF", "AU"})
_LONGEST_FLAC: Final = 2**FLAC_BITS  # libsndfile says 2**63 - 1 where a file says nothing
_READ_AHEAD: Final = 2**16  # bytes that libFLAC may read beyond what it gives
_TAGS: Final = 1024  # bytes of tags that may follow the sound; more is worth a look by FFmpeg


def opened(descriptor: int, sound: headers.Sound | None) -> soundfile.SoundFile | None:
    """Open a file if libsndfile is to read it.

    Args:
        descriptor: of the file, open for reading and seekable; its position is moved.
        sound: what its headers say.

    Returns:
        the file, with at least one sample by its header; None: FFmpeg reads it, or reads it better.
    """
    if _is_mp3(descriptor) or ogg.unusual(descriptor):
        return None
    repaired = sound.repaired(descriptor) if sound else None
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        if repaired:  # libsndfile reads a few thousand bytes at a time
            file = VirtualFile(io.BufferedReader(repaired, _READ_AHEAD))
        else:
            file = soundfile.SoundFile(descriptor, closefd=False)
    except soundfile.LibsndfileError:
        return None
    # A FLAC file may not say how long it is; the packets of ALAC and MP3 are not counted in bytes.
    unknown = file.format == "FLAC" and (
        file.frames > _LONGEST_FLAC or claims.at_end_of_field(file.frames, FLAC_BITS)
    )
    packets = file.subtype.startswith("MPEG") or (repaired and file.subtype.startswith("ALAC"))
    if file.format not in _FORMATS or file.frames <= 0 or unknown or packets:
        file.close()
        return None
    return file


def flac_goes_on(descriptor: int) -> bool:
    """Whether a FLAC file goes on behind the sound that libsndfile has read."""
    position, size = os.lseek(descriptor, 0, os.SEEK_CUR), size_of(descriptor)
    if size - position > _TAGS:
        return True
    start = max(_tag_length(descriptor) + 4, position - _READ_AHEAD)
    return b"fLaC" in os.pread(descriptor, max(0, size - start), start)


def _is_mp3(descriptor: int) -> bool:
    """Whether a file begins as MP3 does: with an ID3 tag or the 11 bits that begin a frame.

    libsndfile's MP3 decoder writes to standard error what it thinks of a damaged file, and loses the
    end of one with a variable bit rate and without a Xing header.
    """
    tag = _tag_length(descriptor)
    head = os.pread(descriptor, 4, tag)
    return (tag > 0 and head != b"fLaC") or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")


def _tag_length(descriptor: int) -> int:
    """Bytes of the ID3 tag at the start of a file: 0 without one (id3.org, ID3v2.4 §3.1)."""
    head = os.pread(descriptor, 10, 0)
    if head[:3] != b"ID3":
        return 0
    return 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False))
