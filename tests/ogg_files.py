"""Ogg files written byte by byte: pages with right checksums around packets that FFmpeg's encoders made."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.audio.frame import AudioFrame

_TABLE = []
for _index in range(256):
    _value = _index << 24
    for _bit in range(8):
        _value = (_value << 1) ^ (0x04C11DB7 if _value & 0x80000000 else 0)
    _TABLE.append(_value & 0xFFFFFFFF)


@dataclass(frozen=True)
class Page:
    """What a page holds."""

    packets: tuple[bytes, ...]
    granule: int
    first: bool = False
    last: bool = False


def checksum(content: bytes) -> int:
    """RFC 3533: the polynomial 0x04c11db7, from 0, highest bit first."""
    value = 0
    for byte in content:
        value = (value << 8 & 0xFFFFFFFF) ^ _TABLE[(value >> 24) ^ byte]
    return value


def page_bytes(page: Page, serial: int, number: int) -> bytes:
    lacing = b"".join(b"\xff" * (len(one) // 255) + bytes([len(one) % 255]) for one in page.packets)
    kind = (2 if page.first else 0) | (4 if page.last else 0)
    head = struct.pack("<4sBBqIII", b"OggS", 0, kind, page.granule, serial, number, 0)
    body = bytes([len(lacing)]) + lacing + b"".join(page.packets)
    return head[:22] + struct.pack("<I", checksum(head + body)) + body


def ogg(pages: Sequence[Page], serial: int = 1) -> bytes:
    return b"".join(page_bytes(page, serial, number) for number, page in enumerate(pages))


def opus_packets(samples: np.ndarray) -> tuple[bytes, list[bytes]]:
    """OpusHead and packets of 20 ms; samples of shape (n,), float32, 48 kHz."""
    context = av.CodecContext.create("libopus", "w")
    context.sample_rate, context.layout, context.format = 48_000, "mono", "s16"
    context.open()
    packets = []
    data = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
    for start in range(0, len(data) // 960 * 960, 960):
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(data[None, start : start + 960]), "s16", "mono")
        frame.sample_rate, frame.pts = 48_000, start
        packets += [bytes(packet) for packet in context.encode(frame)]
    packets += [bytes(packet) for packet in context.encode(None)]
    return bytes(context.extradata), packets


def opus_file(
    samples: np.ndarray, *, per_page: int = 50, jumps: dict[int, float] | None = None, start: int = 0
) -> bytes:
    """An Ogg Opus file.

    Args:
        samples: shape (n,), float32, 48 kHz.
        per_page: packets in a page.
        jumps: page of sound → seconds that its granule is ahead of what came before.
        start: granule at the beginning.
    """
    head, packets = opus_packets(samples)
    pages = [Page((head,), 0, first=True), Page((b"OpusTags" + struct.pack("<II", 0, 0),), 0)]
    granule = start
    for number, at in enumerate(range(0, len(packets), per_page)):
        some = tuple(packets[at : at + per_page])
        granule += round((jumps or {}).get(number, 0) * 48_000) + len(some) * 960
        pages.append(Page(some, granule, last=at + per_page >= len(packets)))
    return ogg(pages)
