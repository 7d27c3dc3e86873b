"""One file in the decoder process, from its first byte to what is missing of it."""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Iterator
from typing import Final

import av

from asrsvc.speech import ogg_sound
from asrsvc.speech.assemble import Assembler, Piece
from asrsvc.speech.claims import not_a_slip
from asrsvc.speech.decoded import Declared, FileLimits, Incomplete, Item, NoSound
from asrsvc.speech.demux import Kind, Track, tracks
from asrsvc.speech.ogg_sound import OggSound
from asrsvc.speech.parts import parts, rest_of
from asrsvc.speech.promised import Promised, promised

# A few damaged packets are lived with, as players do.
_BAD_PACKETS_ALLOWED: Final = 3
_BAD_PACKETS_SHARE: Final = 0.01
_BESIDE_SECONDS: Final = 1.0  # by which tracks that are recorded together end at different places of a file
_MOST_STREAMS: Final = 100  # of MPEG-TS that the sound of a file goes on in, one behind the other


def decode(file: io.RawIOBase, limits: FileLimits) -> Iterator[Item]:
    """Decode a file: its length where one is declared or estimated, then its sound in order of time.

    What is missing of it comes last, once.

    Raises:
        Refused: no known container, no sound in it that can be decoded, or beyond the limits.
    """
    yield from _ogg(file, limits) if ogg_sound.begins(file) else _by_libavformat(file, limits)


def _ogg(file: io.RawIOBase, limits: FileLimits) -> Iterator[Item]:
    sound = OggSound(file)
    seconds = sound.declared_seconds()
    if seconds:
        yield Declared(seconds)
    assembler = Assembler(limits)
    for piece in sound.pieces():
        if piece is None:
            assembler.timeline.set_clock()
        else:
            yield from assembler.take(piece)
    yield from assembler.rest()
    held = assembler.timeline.seconds
    if not held:
        raise NoSound("it is damaged: no sound in it can be decoded")
    if sound.pages.cut and sound.lacking is None:
        yield Incomplete(f"cut off: {held:.2f} s of sound are there, and the last page of it is not whole")
    elif sound.lacking is not None and not_a_slip(sound.lacking, held):
        whole = held + sound.lacking
        yield Incomplete(f"cut off: it declares {whole:.2f} s of sound and {held:.2f} s are there")
    elif sound.pages.damaged:
        yield Incomplete(f"damaged: {sound.pages.damaged} of its pages cannot be read")
    elif sound.headless:
        yield Incomplete("damaged: it begins in the middle of a stream")
    elif sound.silent_links:
        yield Incomplete(f"damaged: {sound.silent_links} of {sound.links} parts of it cannot be decoded")
    else:
        yield from _bad_packets(sound.bad, sound.packets)


def _by_libavformat(file: io.RawIOBase, limits: FileLimits) -> Iterator[Item]:
    assembler = Assembler(limits)
    count = silent = 0
    no_sound: NoSound | None = None
    incomplete: Incomplete | None = None
    for part in parts(file):
        count += 1
        assembler.timeline.set_clock()
        try:
            for item in _part(part, assembler):
                if isinstance(item, Incomplete):
                    incomplete = incomplete or item
                elif not isinstance(item, Declared) or part is file:
                    yield item
        except NoSound as error:
            silent += 1
            no_sound = no_sound or error
    if no_sound is not None and not assembler.timeline.seconds:
        raise no_sound
    if incomplete is not None:
        yield incomplete
    elif silent:
        yield Incomplete(f"damaged: {silent} of {count} parts of it cannot be decoded")


def _part(file: io.RawIOBase, assembler: Assembler) -> Iterator[Item]:
    """One file, or one of those that a file was joined of."""
    before = assembler.timeline.seconds
    last: Track | None = None
    for track in tracks(file):
        start, duration = track.container.start_time, track.container.duration
        if last is None and duration is not None and duration > 0:
            yield Declared(duration / av.time_base)
        if start is not None:
            assembler.timeline.set_clock(start / av.time_base)
        for piece in track.pieces():
            yield from assembler.take(piece)
        yield from assembler.rest()
        if assembler.timeline.seconds > before:
            yield from _goes_on(file, track, assembler)
            yield from _missing(file, track, assembler.timeline.seconds - before)
            return
        last = track
    if last is not None and last.bad:
        raise NoSound(f"it is damaged: {last.bad} of {last.packets} packets cannot be decoded")
    if last is not None and last.given_up:
        raise NoSound("it is damaged: its packets cannot be read")


def _goes_on(file: io.RawIOBase, track: Track, assembler: Assembler) -> Iterator[Item]:
    """What follows in other streams of MPEG-TS, MPEG-PS or FLV: another programme, or files that were joined.

    What is behind the last sound is opened as a file of its own. A stream that ran beside it has been passed
    over on purpose: it is another language, or a comment.
    """
    known, last, rest = track.beside, track, file
    for _ in range(_MOST_STREAMS):
        behind = rest_of(rest, last.container.format.name, last.end)
        found = None if behind is None else (yield from _another(behind, known, assembler))
        if behind is None or found is None:
            return
        track.bad -= last.bad_at_end  # which were of the other stream
        known, last, rest = known | found.beside, found, behind


def _another(
    file: io.RawIOBase, known: set[Kind], assembler: Assembler
) -> Generator[Item, None, Track | None]:
    """Decode a track that is not among the known ones; which it was."""
    before = assembler.timeline.seconds
    try:
        for track in tracks(file, known):
            for piece in _if_long(track.pieces()):
                yield from assembler.take(piece)
            yield from assembler.rest()
            if assembler.timeline.seconds > before:
                return track
    except NoSound:
        pass
    return None


def _if_long(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Pieces, if they are more than the end of a track that ran beside the one that was played."""
    held: list[Piece] = []
    seconds = 0.0
    for piece in pieces:
        held.append(piece)
        seconds += piece.samples.shape[1] / max(1, piece.rate)
        if seconds >= _BESIDE_SECONDS:
            break
    else:
        return
    yield from held
    yield from pieces


def _missing(file: io.RawIOBase, track: Track, held: float) -> Iterator[Incomplete]:
    """Compare what a file promises, held seconds of sound, and how the decoding went."""
    size = file.seek(0, os.SEEK_END)
    promise = promised(file, track.container.format.name, only_sound=len(track.container.streams) == 1)
    seconds = _declared_seconds(promise, track, size)
    if seconds is not None:
        if not_a_slip(seconds - held, held):
            yield Incomplete(f"cut off: it declares {seconds:.2f} s of sound and {held:.2f} s are there")
            return
    elif promise.size is not None and promise.size > size:
        whole = held * promise.size / size
        if not_a_slip(whole - held, held):
            yield Incomplete(f"cut off: it declares {promise.size} bytes and {size} are there")
            return
    if track.given_up:
        yield Incomplete(f"damaged: what is behind the first {held:.2f} s cannot be read")
    else:
        yield from _bad_packets(track.bad, track.packets)


def _declared_seconds(promise: Promised, track: Track, size: int) -> float | None:
    """The length of the sound by the header, if it is to be believed.

    The index of MP4 may count a pause behind the last sound, so it is asked only where bytes are missing.
    """
    name, stream, start = track.container.format.name, track.stream, track.container.start_time
    if "matroska" in name and promise.seconds is not None and start is not None:
        return promise.seconds - max(0, start) / av.time_base  # which is where it ends, counted from 0
    if "mov" not in name or promise.size is None or promise.size <= size:
        return promise.seconds
    if stream.duration is None or stream.time_base is None:
        return None
    return float(stream.duration * stream.time_base)


def _bad_packets(bad: int, packets: int) -> Iterator[Incomplete]:
    if bad > max(_BAD_PACKETS_ALLOWED, packets * _BAD_PACKETS_SHARE):
        yield Incomplete(f"damaged: {bad} of {packets} packets of it cannot be decoded")
