"""FLAC of digital silence, made byte by byte: hours of it in a few kilobytes (RFC 9639)."""

from __future__ import annotations

import struct

_BLOCK = 65535  # samples of a frame, at most


def silent_flac(seconds: float, rate: int, channels: int) -> bytes:
    """A file of frames with constant subframes, 16 bits.

    Args:
        seconds: its length.
        rate: Hz.
        channels: 1 to 8.
    """
    total = int(seconds * rate)
    info = struct.pack(">HH", _BLOCK, _BLOCK) + bytes(6)
    info += ((rate << 44) | ((channels - 1) << 41) | (15 << 36) | total).to_bytes(8, "big") + bytes(16)
    pieces = [b"fLaC", b"\x80" + len(info).to_bytes(3, "big"), info]
    for number in range(-(-total // _BLOCK)):
        size = min(_BLOCK, total - number * _BLOCK)
        pieces.append(_frame(number, size, channels))
    return b"".join(pieces)


def _frame(number: int, size: int, channels: int) -> bytes:
    head = (
        b"\xff\xf8\x70" + bytes([((channels - 1) << 4) | 0x08]) + _coded(number) + struct.pack(">H", size - 1)
    )
    frame = head + bytes([_crc(head, 0x07, 8)]) + bytes(3 * channels)
    return frame + struct.pack(">H", _crc(frame, 0x8005, 16))


def _coded(number: int) -> bytes:
    """A number as UTF-8 codes a character, up to 31 bits."""
    if number < 0x80:
        return bytes([number])
    rest: list[int] = []
    most = 0x3F
    while number > most:
        rest.insert(0, 0x80 | (number & 0x3F))
        number >>= 6
        most >>= 1
    return bytes([(0xFE << (6 - len(rest))) & 0xFF | number, *rest])


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    top, mask, value = 1 << (bits - 1), (1 << bits) - 1, 0
    for byte in data:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = ((value << 1) ^ polynomial if value & top else value << 1) & mask
    return value
