"""Damaged files: seeded mutations of whole ones."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence

# Numbers that break what was not checked: zero, one, signs, and the largest of each width.
_EVIL = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
_HEAD = 1024  # bytes: most fields that say what follows are in them


def mutations(files: Sequence[bytes], seed: int, count: int) -> Iterator[bytes]:
    """So many damaged files, the same for the same seed; `files` are whole ones of one kind."""
    chance = random.Random(seed)
    for _ in range(count):
        content = bytearray(chance.choice(files))
        for _ in range(chance.choice((1, 1, 2, 3))):
            chance.choice((_flip, _flip, _field, _field, _field, _cut, _splice, _repeat, _zero))(
                content, chance, files
            )
            if not content:
                content = bytearray(b"\0")
        yield bytes(content)


def _place(content: bytearray, chance: random.Random) -> int:
    """Mostly in the head or the tail, where the structure is."""
    end = len(content)
    low, high = chance.choice(
        ((0, min(_HEAD, end)), (0, min(_HEAD, end)), (max(0, end - _HEAD), end), (0, end))
    )
    return chance.randrange(low, high)


def _flip(content: bytearray, chance: random.Random, _files: Sequence[bytes]) -> None:
    for _ in range(chance.choice((1, 1, 4, 16, 200))):
        content[_place(content, chance)] ^= 1 << chance.randrange(8)


def _field(content: bytearray, chance: random.Random, _files: Sequence[bytes]) -> None:
    at = _place(content, chance)
    width, code = chance.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    value = chance.choice((*_EVIL, chance.getrandbits(64))) & (2 ** (8 * width) - 1)
    packed = struct.pack(chance.choice("<>") + code, value)[: len(content) - at]
    content[at : at + len(packed)] = packed


def _cut(content: bytearray, chance: random.Random, _files: Sequence[bytes]) -> None:
    del content[_place(content, chance) :]


def _splice(content: bytearray, chance: random.Random, files: Sequence[bytes]) -> None:
    other = chance.choice(files)
    start, end = sorted((chance.randrange(len(other)), chance.randrange(len(other))))
    at = _place(content, chance)
    if chance.random() < 0.5:
        content[at : at + end - start] = other[start:end]
    else:
        content[at:at] = other[start:end]


def _repeat(content: bytearray, chance: random.Random, _files: Sequence[bytes]) -> None:
    at = _place(content, chance)
    piece = content[at : at + chance.choice((1, 4, 64, 1024))]
    content[at:at] = piece * chance.choice((1, 3, 50))


def _zero(content: bytearray, chance: random.Random, _files: Sequence[bytes]) -> None:
    at = _place(content, chance)
    size = min(chance.choice((4, 64, 1024)), len(content) - at)
    content[at : at + size] = bytes(size)
