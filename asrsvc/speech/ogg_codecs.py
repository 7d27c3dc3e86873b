"""Codecs in Ogg: the header packets of a logical stream → its decoder."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import av
from av.codec.context import Flags2

_OPUS_RATE: Final = 48_000


@dataclass(frozen=True, slots=True)
class Mapping:
    """What a logical stream holds, by its first packet."""

    name: str
    """of FFmpeg's decoder"""
    rate: int
    """granules in a second"""
    headers: int
    """packets before the first one of sound"""
    skipped: int
    """samples at the beginning that are no sound"""
    extradata: Callable[[list[bytes]], bytes]
    """what the decoder is told: made of the header packets"""

    def decoder(self, headers: list[bytes]) -> av.AudioCodecContext:
        """A decoder for the packets behind the headers."""
        context = av.CodecContext.create(self.name, "r")
        assert isinstance(context, av.AudioCodecContext)
        context.extradata = self.extradata(headers)
        context.thread_count = 1
        if self.skipped:
            context.flags2 |= Flags2.skip_manual  # else the decoder does so, too
        return context


def mapping(packet: bytes) -> Mapping | None:
    """Read the first packet of a logical stream; None: no sound, or a codec that is not known here."""
    try:
        for mark, read in _READERS.items():
            if packet.startswith(mark):
                found = read(packet)
                return found if found.rate > 0 else None
    except (struct.error, IndexError):
        pass
    return None


def _opus(packet: bytes) -> Mapping:
    """RFC 7845: OpusHead, OpusTags."""
    (skipped,) = struct.unpack_from("<H", packet, 10)
    return Mapping("opus", _OPUS_RATE, 2, skipped, lambda headers: headers[0])


def _vorbis(packet: bytes) -> Mapping:
    """Vorbis I, section 4.2: three headers, which FFmpeg wants joined as Xiph's lacing does."""
    (rate,) = struct.unpack_from("<I", packet, 12)

    def joined(headers: list[bytes]) -> bytes:
        lengths = b"".join(b"\xff" * (len(one) // 255) + bytes([len(one) % 255]) for one in headers[:2])
        return b"\2" + lengths + b"".join(headers)

    return Mapping("vorbis", rate, 3, 0, joined)


def _flac(packet: bytes) -> Mapping:
    """xiph.org/flac/ogg_mapping.html: a head of 13 bytes, STREAMINFO; other blocks in packets."""
    rate = int.from_bytes(packet[27:30], "big") >> 4
    (further,) = struct.unpack_from(">H", packet, 7)
    return Mapping("flac", rate, 1 + further, 0, lambda headers: headers[0][17:51])


def _speex(packet: bytes) -> Mapping:
    """speex_header.h of libspeex: a head of 80 bytes, comments, further headers."""
    (rate,) = struct.unpack_from("<I", packet, 36)
    (further,) = struct.unpack_from("<I", packet, 68)
    return Mapping("speex", rate, 2 + min(further, 100), 0, lambda headers: headers[0])


_READERS: Final = {
    b"OpusHead": _opus,
    b"\x01vorbis": _vorbis,
    b"\x7fFLAC": _flac,
    b"Speex   ": _speex,
}
