"""One upload in the decoder process: by libsndfile, by FFmpeg, or by one behind the other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager

import av.error

from asrsvc.speech import by_sndfile, claims, decode_file, headers, sndfile
from asrsvc.speech.decoded import Block, FileLimits, Incomplete, Item, Refused, Silence
from asrsvc.speech.pieces import Pieces
from asrsvc.speech.timeline import Timeline


def decode(descriptor: int, limits: FileLimits) -> Generator[Item, None, None]:
    """Decode a file.

    Args:
        descriptor: of the file, open for reading and seekable; its position is moved.
        limits: what it may be.

    Raises:
        Refused: it cannot be decoded, is beyond the limits, or parts of it are missing where that is
            refused.
    """
    with _refusing(), closing(_items(descriptor, limits)) as items:
        for item in items:
            if isinstance(item, Incomplete) and limits.refuse_incomplete:
                raise Refused(item.sentence, "audio_truncated", whole=True)
            yield item


def _items(descriptor: int, limits: FileLimits) -> Generator[Item, None, None]:
    def by_ffmpeg() -> Iterator[Item]:
        with _refusing():
            yield from decode_file.decode(Pieces.whole(descriptor), limits)

    sound = headers.look(descriptor)
    missing = sound.claim.missing if sound else _nothing
    file = sndfile.opened(descriptor, sound)
    if file is None:
        yield from _by_ffmpeg(by_ffmpeg(), limits, missing)
        return
    with file:
        yield from by_sndfile.decode(descriptor, file, limits, missing, by_ffmpeg)


def _by_ffmpeg(
    items: Iterator[Item], limits: FileLimits, missing: Callable[[float], float]
) -> Iterator[Item]:
    given = Timeline(limits.max_seconds)
    for item in items:
        match item:
            case Block(rate, samples):
                given.advance(len(samples), rate)
            case Silence(rate, count):
                given.advance(count, rate)
        yield item
    lacking = missing(given.seconds)
    if lacking:
        yield claims.cut_off(given.seconds + lacking, given.seconds)


def _nothing(_seconds: float) -> float:
    """What is missing of a file that claims nothing."""
    return 0.0


@contextmanager
def _refusing() -> Iterator[None]:
    """What the libraries raise, said in our words."""
    try:
        yield
    except MemoryError:  # FFmpeg's own is one too
        raise Refused("its decoder needs more memory than it may have") from None
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        raise Refused(f"it is damaged ({type(error).__name__})") from None
