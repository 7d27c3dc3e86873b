"""Sound out of every container but Ogg, by libavformat: the track that a player plays, and its frames."""

from __future__ import annotations

import io
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast

import av
import av.error
from av.stream import Disposition

from asrsvc.speech.assemble import Piece, samples_of
from asrsvc.speech.decoded import NoSound
from asrsvc.speech.promised import has_tracks, lacks_index

# Demuxers of files that people record. Playlists and other demuxers that open further files or
# addresses by name (concat, hls, dash, …) are not among them.
DEMUXERS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,amr,amrnb,amrwb,asf,avi,flv,mpeg,mpegts,ogg,mp3,wav,w64,"
    "aiff,caf,flac,au,ac3,eac3"
)
# Those whose time stamps are in the file; elsewhere FFmpeg counts what came before.
_WITH_CLOCK: Final = frozenset({"mov", "matroska", "asf", "avi", "flv", "mpeg", "mpegts", "ogg", "flac"})
# Tracks that are beside the main one, and are played where nothing else is.
_BESIDE: Final = (
    Disposition.comment
    | Disposition.visual_impaired
    | Disposition.hearing_impaired
    | Disposition.descriptions
    | Disposition.dependent
)
_NO_INDEX: Final = (
    "its index (the moov box, often at the end) is missing or damaged: it is cut off, or its recorder was"
    " stopped before it was written"
)
_MOST_TRACKS: Final = 1000
_TOO_MANY_TRACKS: Final = f"it has {_MOST_TRACKS} tracks or more, which is the limit"
_MOST_TRIED: Final = 8  # tracks of a file, until one gives sound
_MOST_ERRORS: Final = 20  # of the demuxer, one behind the other, until the rest is given up
# Containers without a list of their streams at the start: one may appear, or become another, anywhere.
_WITHOUT_LIST: Final = frozenset({"mpegts", "mpeg", "flv"})
_DEEP_BYTES: Final = 2**26  # in which a first stream of sound is looked for, where there is none at the start
_DEEP_MICROSECONDS: Final = 3600 * 10**6


Kind: TypeAlias = tuple[int, str]
"""number of a stream in its container, and name of its codec: a stream with another one is another"""


def _kind(stream: av.AudioStream) -> Kind:
    return stream.id, stream.codec_context.name if stream.codec_context is not None else ""


@dataclass(slots=True)
class Track:
    """One try at one track of a file; the counts tell how it went, once all pieces have been given."""

    container: av.container.InputContainer
    stream: av.AudioStream
    beside: set[Kind] = field(default_factory=set)
    """streams of sound up to the last packet that could be decoded, this one too"""
    packets: int = 0
    bad: int = 0
    """packets that could not be decoded"""
    bad_at_end: int = 0
    """of these, those behind the last one that could"""
    end: int = 0
    """position in the file of the last packet that could be decoded"""
    given_up: bool = False
    """whether the demuxer lost its way for good"""
    _others: set[Kind] = field(default_factory=set)
    """streams of sound that had a packet so far"""

    def pieces(self) -> Iterator[Piece]:
        """Decode the track.

        Raises:
            Refused: see `samples_of`.
        """
        clocked = not _WITH_CLOCK.isdisjoint(self.container.format.name.split(","))
        for packet in self._packets():
            self.packets += packet.size > 0  # the last one is empty, and asks the decoder for its rest
            try:
                frames = packet.decode()
            except MemoryError:
                raise
            except av.error.FFmpegError:
                self.bad += 1
                self.bad_at_end += 1
                continue
            if frames and packet.pos is not None:
                self.end, self.bad_at_end = max(self.end, packet.pos), 0
                self.beside |= self._others | {_kind(self.stream)}
            for frame in frames:
                yield Piece(frame.sample_rate, samples_of(frame), frame.time if clocked else None)

    def _packets(self) -> Iterator[av.Packet[av.AudioStream]]:
        """Packets to the end of the file; the demuxer may find its way again behind what it cannot read."""
        errors = 0
        while errors < _MOST_ERRORS:
            try:
                demuxed = self.container.demux(*self.container.streams.audio)
                for packet in cast("Iterator[av.Packet[av.AudioStream]]", demuxed):
                    errors = 0
                    if packet.stream is self.stream:
                        yield packet
                    elif packet.size:
                        self._others.add(_kind(packet.stream))
            except MemoryError:
                raise
            except av.error.FFmpegError:
                errors += 1
            except IndexError:
                # A stream has appeared since the file was opened, of which PyAV has nothing: it looks for it
                # when all is read, behind the last packet of the stream that is asked for.
                return
            else:
                return
        self.given_up = True


def tracks(file: io.RawIOBase, without: AbstractSet[Kind] = frozenset()) -> Iterator[Track]:
    """The tracks with sound, each in a container opened anew: the one first that a player plays.

    That is one with a decoder and the default flag, then one that is the main thing, then the first.

    Args:
        file: seekable.
        without: streams that are no concern.

    Raises:
        NoSound: no known container, or no sound in it that can be decoded.
    """
    order: list[int] | None = None
    deep = False
    while order is None or order:
        with _opened(file, deep=deep) as container:
            streams = container.streams.audio
            if order is None:
                if len(container.streams) >= _MOST_TRACKS:
                    raise NoSound(_TOO_MANY_TRACKS)
                if not streams and lacks_index(file):
                    raise NoSound(_NO_INDEX)
                if not streams and not deep and container.format.name in _WITHOUT_LIST:
                    deep = True
                    continue
                order = _order(streams, without)
            stream = streams[order.pop(0)]
            stream.codec_context.thread_count = 1
            yield Track(container, stream)


def _order(streams: tuple[av.AudioStream, ...], without: AbstractSet[Kind]) -> list[int]:
    """Indices of the streams that are tried, best first."""
    if not streams:
        raise NoSound("it holds no audio stream")
    # PyAV's types do not say that a stream has no context if there is no decoder for it.
    known = [
        number
        for number, stream in enumerate(streams)
        if stream.codec_context is not None and _kind(stream) not in without
    ]
    if not known:
        raise NoSound("no decoder for its sound is known here")

    def rank(number: int) -> tuple[bool, bool, int]:
        flags = streams[number].disposition
        return not flags & Disposition.default, bool(flags & _BESIDE), number

    return sorted(known, key=rank)[:_MOST_TRIED]


def _opened(file: io.RawIOBase, *, deep: bool = False) -> av.container.InputContainer:
    file.seek(0)
    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "", "max_streams": str(_MOST_TRACKS)}
    if deep:
        options |= {"probesize": str(_DEEP_BYTES), "analyzeduration": str(_DEEP_MICROSECONDS)}
    try:
        return av.open(file, mode="r", options=options, metadata_errors="ignore")
    except MemoryError:  # which FFmpeg says of too many tracks, too
        if has_tracks(file, _MOST_TRACKS):
            raise NoSound(_TOO_MANY_TRACKS) from None
        raise
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        if lacks_index(file):
            raise NoSound(_NO_INDEX) from error
        raise NoSound("it is in no audio or video format that is known here, or it is cut off") from error
