"""The sound of an Ogg file: its links one behind the other, each at the times that its pages say.

A file may be a chain of links (RFC 3533, section 4): whole Ogg files, joined. libavformat reads the
first link, or all with the codec of the first, as it happens; and it gives the time of a page's end to
what comes behind it, which is a page too late for the sound behind a hole. So pages are read here.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import av
import av.error
import numpy as np

from asrsvc.speech.assemble import Piece, samples_of
from asrsvc.speech.ogg_codecs import Mapping, mapping
from asrsvc.speech.ogg_pages import CAPTURE, Packets, Page, Pages, last_granule
from asrsvc.speech.page_holes import packet_behind_hole
from asrsvc.speech.timeline import LATE_SECONDS

_MAX_STREAMS: Final = 1000  # logical streams that begin in one link; the rest is not looked at


@dataclass(slots=True)
class _Link:
    """The logical streams that began together, and the one of them that is played."""

    serial: int = -1
    mapping: Mapping | None = None
    packets: Packets = field(default_factory=Packets)
    headers: list[bytes] = field(default_factory=list)
    decoder: av.AudioCodecContext | None = None
    begun: bool = False
    """whether sound has come"""
    at: int = 0
    """granule behind what has come"""
    energy: float = 0.0
    """mean square of the last packet"""
    to_skip: int = 0
    """samples at its beginning that are no sound"""
    streams: int = 0


@dataclass(slots=True)
class OggSound:
    """Decodes a file; the counts tell how, once all pieces have been given."""

    file: io.RawIOBase
    packets: int = 0
    """of sound"""
    bad: int = 0
    """packets that could not be decoded"""
    links: int = 0
    silent_links: int = 0
    """links without any sound that can be decoded"""
    lacking: float | None = None
    """seconds missing where the file ends inside its last page; None: it does not, or nobody knows"""
    headless: bool = False
    """whether the file begins in the middle of a link"""
    pages: Pages = field(init=False)

    def __post_init__(self) -> None:
        """Prepare to read pages."""
        self.pages = Pages(self.file)

    def pieces(self) -> Iterator[Piece | None]:
        """The pieces of all links, in order; None where a link, with a clock of its own, begins.

        Raises:
            Refused: see `samples_of`.
        """
        link: _Link | None = None
        heads = False
        for page in self.pages:
            if page.first:
                if not heads:
                    if link is not None:
                        self.silent_links += not link.begun
                    link = _Link()
                    self.links += 1
                    yield None
                assert link is not None
                self._choose(link, page)
            elif link is None:
                self.headless = True
            heads = page.first
            if link is not None and link.mapping is not None and page.serial == link.serial:
                yield from self._sound(link, page)
        if link is not None:
            self.silent_links += not link.begun

    def declared_seconds(self) -> float | None:
        """The length by the last page, if it is of the first link."""
        page = next(iter(self.pages), None)
        found = mapping(page.pieces[0]) if page is not None and page.pieces else None
        if page is None or found is None:
            return None
        last = last_granule(self.file, page.serial)
        return None if last is None else max(0, last - found.skipped) / found.rate

    @staticmethod
    def _choose(link: _Link, page: Page) -> None:
        """Look at the first page of a stream; the first stream of sound is played."""
        link.streams += 1
        if link.mapping is None and page.pieces and link.streams <= _MAX_STREAMS:
            link.mapping = mapping(page.pieces[0])
            link.serial = page.serial
            link.to_skip = link.mapping.skipped if link.mapping is not None else 0

    def _sound(self, link: _Link, page: Page) -> Iterator[Piece]:
        """What is decoded of a page."""
        assert link.mapping is not None
        pieces: list[Piece] = []
        for packet in link.packets.of(page):
            if link.decoder is None:
                if not self._is_sound(link, packet):
                    link.headers.append(packet)
                    continue
                link.decoder = link.mapping.decoder(link.headers)
            self.packets += 1
            pieces += self._decoded(link.decoder, packet)
        yield from self._placed(link, page, pieces)

    @staticmethod
    def _is_sound(link: _Link, packet: bytes) -> bool:
        """Whether a packet comes behind the headers."""
        assert link.mapping is not None
        if link.mapping.name == "flac" and link.headers:
            return packet[:1] == b"\xff"  # the number of headers may be 0 for unknown
        return len(link.headers) >= link.mapping.headers

    def _decoded(self, decoder: av.AudioCodecContext, packet: bytes) -> list[Piece]:
        try:
            frames = decoder.decode(av.Packet(packet))
        except MemoryError:
            raise
        except av.error.FFmpegError:
            self.bad += 1
            return []
        return [Piece(frame.sample_rate, samples_of(frame)) for frame in frames]

    def _placed(self, link: _Link, page: Page, pieces: list[Piece]) -> Iterator[Piece]:
        """The pieces of a page, with times where they are known, without what is no sound."""
        assert link.mapping is not None
        count = _samples(pieces)
        if page.last and not page.whole and page.granule is not None:
            self.lacking = max(0, page.granule - link.at - count) / link.mapping.rate
        if not count:
            return
        times = _times(link, page, pieces)
        if page.last and page.granule is not None and page.whole and 0 in times:
            pieces = _without_end(pieces, times[0] + count - page.granule)
        link.energy = _energy(pieces[-1])
        link.at = page.granule if page.granule is not None and page.whole else link.at + count
        link.begun = True
        for number, piece in enumerate(pieces):
            cut = min(link.to_skip, piece.samples.shape[1])
            link.to_skip -= cut
            time = (times[number] + cut) / link.mapping.rate if number in times else None
            if cut < piece.samples.shape[1]:
                yield Piece(piece.rate, piece.samples[:, cut:], time)


def _times(link: _Link, page: Page, pieces: list[Piece]) -> dict[int, int]:
    """What the clock of the link shows, in samples, at the start of some pieces of a page."""
    assert link.mapping is not None
    if page.granule is None or not page.whole:
        return {}
    count = _samples(pieces)
    start = page.granule - count
    # What is too much at the end of a stream is cut off there. A stream of one page begins at 0, whatever
    # its end says: RFC 7845, section 4.5.
    if page.last and (link.begun or start < 0) and -count < start - link.at < 0:
        return {0: link.at}
    if link.begun and start - link.at > LATE_SECONDS * link.mapping.rate:
        behind = packet_behind_hole(link.energy, [_energy(piece) for piece in pieces])
        if behind:
            return {0: link.at, behind: start + _samples(pieces[:behind])}
    return {0: start}


def begins(file: io.RawIOBase) -> bool:
    """Whether a file is Ogg with sound in a codec that is decoded here."""
    file.seek(0)
    if file.read(len(CAPTURE)) != CAPTURE:
        return False
    begun = False
    for page in Pages(file):
        if page.first and page.pieces and mapping(page.pieces[0]) is not None:
            return True
        if begun and not page.first:
            return False
        begun |= page.first
    return False


def _samples(pieces: list[Piece]) -> int:
    return sum(piece.samples.shape[1] for piece in pieces)


def _energy(piece: Piece) -> float:
    """Mean square."""
    return float(np.square(piece.samples).mean())


def _without_end(pieces: list[Piece], samples: int) -> list[Piece]:
    """Without so many samples at the end, none if negative."""
    kept = list(pieces)
    while samples > 0 and kept:
        last = kept.pop()
        left = last.samples.shape[1] - samples
        samples = -left
        if left > 0:
            kept.append(Piece(last.rate, last.samples[:, :left]))
    return kept
