"""Where the sound lies in files made of chunks, and how much of it their headers claim.

WAV (also RF64, BW64 and the big-endian RIFX), Wave64, AIFF, CAF and AU store samples as they are behind a
length that may be wrong. `look` finds the sound and compares; where the length is wrong, `Sound.pieces`
is the file with its lengths put right, for libsndfile, which takes some of them at their word.

Sources: Multimedia Programming Interface and Data Specifications 1.0 (RIFF); EBU Tech 3306 (RF64); ITU-R
BS.2088 (BW64); Sony Wave64; EA IFF 85 and AIFF-C 9.26.91; Apple Core Audio Format 1.0; au(4) of SunOS.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from typing import Final

from asrsvc.speech.claims import ABSURD, Claim
from asrsvc.speech.pieces import Piece, Pieces, size_of

_MAX_CHUNKS: Final = 30_000
_W64: Final = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_IN_DS64: Final = 0xFFFFFFFF  # RF64 and BW64: the length stands in the chunk ds64
_JOINED: Final = (b"RIFF", b"RIFX", b"RF64")
_AU_HEADER: Final = 24


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the chunks of a container are written."""

    size: str
    """format of the field with a chunk's size, for struct; it follows the chunk's name"""
    sound: bytes
    """first four bytes of the name of the chunk that holds the sound"""
    first: int
    """position of the first chunk"""
    name: int = 4
    """bytes of a chunk's name"""
    counts_head: bool = False
    """whether a chunk's size counts its name and its size"""
    multiple: int = 2
    """chunks begin at multiples of so many bytes"""
    lead: int = 0
    """bytes at the start of the sound's chunk that are no sound"""
    total: int | None = 4
    """position of the size of the whole file, in a field like a chunk's; None: there is none"""
    total_without: int = 8
    """bytes of the file that it does not count"""

    @property
    def head(self) -> int:
        """Bytes of a chunk's name and size."""
        return self.name + struct.calcsize(self.size)


def _layout(head: bytes) -> _Layout | None:
    """The layout of a file that begins with these bytes; None: another kind of file."""
    order = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">", b"FORM": ">"}.get(head[:4])
    if order and head[8:12] == b"WAVE":
        return _Layout(order + "I", b"data", 12)
    if order and head[8:12] in (b"AIFF", b"AIFC"):
        return _Layout(order + "I", b"SSND", 12, lead=8)
    if head[:16] == _W64:
        return _Layout("<Q", b"data", 40, 16, counts_head=True, multiple=8, total=16, total_without=0)
    if head[:4] == b"caff":
        return _Layout(">q", b"data", 8, multiple=1, lead=4, total=None)
    return None


@dataclass(slots=True)
class Sound:
    """The sound of a file: where it is and how much was claimed."""

    claim: Claim
    """bytes"""
    pieces: list[Piece] | None = None
    """the file with its lengths put right; None: they are right as they are"""

    def repaired(self, descriptor: int) -> Pieces | None:
        """The file as libsndfile should read it, where it should not read it as it is."""
        return Pieces(descriptor, self.pieces) if self.pieces else None


def look(descriptor: int) -> Sound | None:
    """Find the sound of a file.

    Args:
        descriptor: of the file, open for reading; its position is neither used nor moved.

    Returns:
        where it is; None: the file is of another kind, or no sound was found in it.
    """
    head = os.pread(descriptor, 40, 0)
    if head[:4] in (b".snd", b"dns."):
        return _au(descriptor, head)
    layout = _layout(head)
    return _Walk(descriptor, layout).result() if layout else None


def _au(descriptor: int, head: bytes) -> Sound | None:
    if len(head) < _AU_HEADER:
        return None
    order = ">" if head[:1] == b"." else "<"
    start, declared = struct.unpack(order + "II", head[4:12])
    held = size_of(descriptor) - start
    if start < _AU_HEADER or held <= 0:
        return None
    # Such a file ends with its sound, and players read to its end whatever its length says.
    size = struct.pack(order + "I", min(held, 0xFFFFFFFF))
    return Sound(
        Claim(declared, held),
        None if declared == held else [range(8), size, range(12, start + held)],
    )


@dataclass(slots=True)
class _Walk:
    """One pass over the chunks of a file."""

    descriptor: int
    layout: _Layout
    end: int = 0
    declared: int = 0
    bits: int = 32
    sounds: list[range] = field(default_factory=list)
    """bodies of the chunks of sound"""
    format: bytes = b""
    """body of the first chunk that describes the samples of a WAV file"""
    size_at: int = 0
    """position of the size of the first of them"""
    ds64: int | None = None
    """position of the body of the chunk ds64"""
    unpadded: list[int] = field(default_factory=list)
    """positions at which a byte of padding is missing"""
    wrong: bool = False
    """whether the header must be put right"""

    def result(self) -> Sound | None:
        """The sound, if there is one."""
        self.end = size_of(self.descriptor)
        self.bits = 8 * struct.calcsize(self.layout.size)
        self._chunks()
        held = sum(len(sound) - self.layout.lead for sound in self.sounds)
        if held <= 0:
            return None
        claim = Claim(self.declared, held, self.bits)
        wrong = self.wrong or self.unpadded or len(self.sounds) > 1
        return Sound(claim, self._pieces() if wrong else None)

    def _chunks(self) -> None:
        layout, position = self.layout, self.layout.first
        for _ in range(_MAX_CHUNKS):
            found = self._chunk(position)
            if found is None:
                return
            name, size = found
            start = position + layout.head
            if name in _JOINED and layout.sound == b"data":  # another whole file, joined to the first
                position += 12
                self.wrong = True
                continue
            if name == b"ds64" and not self.sounds:
                self.ds64 = start
            if name == b"fmt " and not self._same_format(start, size):
                return
            if name == layout.sound and self._sound(position + layout.name, start, size):
                return
            position = self._next(start, size)

    def _same_format(self, start: int, size: int) -> bool:
        """Whether the samples behind this are as those before it."""
        body = os.pread(self.descriptor, min(max(0, size), 64), start)
        self.format = self.format or body
        return self.format == body

    def _chunk(self, position: int) -> tuple[bytes, int] | None:
        """First four bytes of the name and size of the body of the chunk at a position."""
        layout = self.layout
        if position >= self.end:
            return None
        head = os.pread(self.descriptor, layout.head, position)
        if len(head) < layout.head or not _is_name(head[:4]):
            return None
        (size,) = struct.unpack(layout.size, head[layout.name :])
        return head[:4], size - layout.head if layout.counts_head else size

    def _next(self, start: int, size: int) -> int:
        """Position of the chunk behind this one."""
        end = start + max(0, size)
        padded = end + -end % self.layout.multiple
        if padded == end + 1 and not self._orderly(padded) and self._orderly(end):
            self.unpadded.append(end)
            return end
        return padded

    def _orderly(self, position: int) -> bool:
        """Whether a chunk begins here that ends inside the file, or the file ends here."""
        found = self._chunk(position)
        if found is None:
            return position >= self.end
        return (
            found[0] in (*_JOINED, self.layout.sound)
            or 0 <= found[1] <= self.end - position - self.layout.head
        )

    def _sound(self, size_at: int, start: int, size: int) -> bool:
        """Note a chunk of sound; whether it is the last one."""
        if size == _IN_DS64 and self.ds64 is not None:
            (size,) = struct.unpack("<Q", os.pread(self.descriptor, 24, self.ds64)[8:16].ljust(8, b"\xff"))
            self.bits = 64
        lead, there = self.layout.lead, self.end - start
        declared = max(0, size - lead)
        orderly = 0 <= size <= there and self._orderly(self._next(start, size))
        # What is claimed is there, or so little of it that the rest can be nothing but sound.
        taken = size
        if not 0 <= size <= there or (not orderly and declared * ABSURD < there):
            taken = there - there % self._block()  # half a block of ADPCM would be noise
        if not self.sounds:
            self.size_at = size_at
        self.sounds.append(range(start, start + max(lead, taken)))
        self.declared += declared if taken == size or size > there else 0
        self.wrong |= taken != size
        return taken != size or not orderly

    def _block(self) -> int:
        """Bytes that belong together, by a description of the samples as WAV has it."""
        return int.from_bytes(self.format[12:14], "little" if self.layout.size[0] == "<" else "big") or 1

    def _pieces(self) -> list[Piece]:
        """The file with one chunk of sound, of the right size, and with all padding."""
        layout, first = self.layout, self.sounds[0]
        taken = sum(map(len, self.sounds)) - layout.lead * (len(self.sounds) - 1)
        inserted = [at for at in self.unpadded if at < first.start]
        total = first.start + len(inserted) + taken - layout.total_without
        changes = {self.size_at: self._size(taken + (layout.head if layout.counts_head else 0))}
        if layout.total is not None:
            changes[layout.total] = self._size(total)
        if self.ds64 is not None:
            changes[self.ds64] = struct.pack("<QQ", total, taken)
            changes[self.size_at] = changes[4] = self._size(_IN_DS64)
        pieces: list[Piece] = []
        position = 0
        for at, new in sorted([*changes.items(), *((at, b"") for at in inserted)]):
            pieces += [range(position, at), new or b"\0"]
            position = at + len(new)
        pieces += [range(position, first.stop)]
        pieces += [range(sound.start + layout.lead, sound.stop) for sound in self.sounds[1:]]
        return pieces

    def _size(self, value: int) -> bytes:
        """A field with a size, or the most that it can hold."""
        size = struct.calcsize(self.layout.size)
        return struct.pack(self.layout.size, min(value, 2 ** (8 * size) - 1 if size == 4 else 2**63 - 1))


def _is_name(name: bytes) -> bool:
    """Whether these are printable characters, as names of chunks are."""
    return all(0x20 <= byte < 0x7F for byte in name)
