"""Streams that appear, vanish or become others in the middle of MPEG-TS, MPEG-PS and FLV."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import av
import numpy as np
import pytest
from media import RATE, Sound, clip, container
from waiting import PATIENCE

from asrsvc.speech.decode import Limits, Recording
from asrsvc.speech.ffmpeg import HelperPool

FLV_HEAD = 13  # bytes
LONG = 20.0
"""seconds: longer than FFmpeg looks for streams before it begins"""


@pytest.fixture(scope="module")
def helpers() -> Iterator[HelperPool]:
    pool = HelperPool(memory_bytes=2**30, block_timeout=PATIENCE)
    pool.warm_up()
    yield pool
    pool.close()


@pytest.fixture(autouse=True)
def nothing_dies(helpers: HelperPool) -> Iterator[None]:
    pids = helpers.pids()
    yield
    assert helpers.pids() == pids


def decode(helpers: HelperPool, content: bytes) -> np.ndarray:
    descriptor = os.memfd_create("upload")
    try:
        os.write(descriptor, content)
        recording = Recording(descriptor, Limits(1000.0), helpers)
        samples = np.concatenate(list(recording.blocks()))
        assert recording.warnings == []
        return samples
    finally:
        os.close(descriptor)


def speech(seconds: float, rate: int) -> np.ndarray:
    return np.resize(clip("en_1", rate), round(seconds * rate))


def tone(seconds: float, rate: int) -> np.ndarray:
    return (0.1 * np.sin(2 * np.pi * 3000 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def track(samples: np.ndarray, codec: str = "aac") -> Sound:
    return Sound(samples, codec=codec, rate=44_100)


def ts(*tracks: Sound, first: int = 0x100) -> bytes:
    """MPEG-TS whose tracks have these packet identifiers, one behind the other."""
    return container("mpegts", *tracks, options={"mpegts_start_pid": str(first)})


def pictures(seconds: float) -> bytes:
    """MPEG-TS without sound; its stream has the identifier 0x200."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts", options={"mpegts_start_pid": "512"}) as out:
        stream = out.add_stream("mpeg2video", rate=25, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(round(seconds * 25)):
            picture = av.VideoFrame.from_ndarray(np.full((96, 64), 128, np.uint8), "yuv420p")
            picture.pts = number
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return file.getvalue()


def seconds(samples: np.ndarray) -> float:
    return len(samples) / RATE


def is_tone(samples: np.ndarray) -> bool:
    """Whether it is a tone of 3 kHz and nothing else."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return abs(float(np.argmax(spectrum)) * RATE / len(samples) - 3000) < 20


def test_a_second_track_that_appears_late_does_no_harm(helpers: HelperPool) -> None:
    alone = ts(track(speech(LONG, 44_100)))
    both = ts(track(speech(5, 44_100)), track(tone(5.3, 44_100)))
    found = decode(helpers, alone + both)
    assert seconds(found) == pytest.approx(LONG + 5, abs=0.3)
    assert not is_tone(found[-RATE:])


def test_many_streams_that_appear_late_do_no_harm(helpers: HelperPool) -> None:
    """PyAV keeps a byte for each stream that it knows when it begins, and reads one for each that comes."""
    alone = ts(track(speech(LONG, 44_100)))
    many = ts(*(track(speech(1.5, 44_100), "mp2") for _ in range(40)))
    for _ in range(5):
        assert seconds(decode(helpers, alone + many)) >= LONG - 0.1


def test_sound_that_goes_on_in_another_stream_is_heard(helpers: HelperPool) -> None:
    """A recorder that changes its programme, or two recordings that were joined."""
    one, other = ts(track(speech(LONG, 44_100))), ts(track(tone(5, 44_100)), first=0x300)
    found = decode(helpers, one + other)
    assert seconds(found) == pytest.approx(LONG + 5, abs=0.3)
    assert is_tone(found[-4 * RATE :])
    thrice = decode(helpers, one + other + ts(track(speech(6, 44_100)), first=0x400))
    assert seconds(thrice) == pytest.approx(LONG + 11, abs=0.5)


def test_sound_that_goes_on_in_another_codec_is_heard(helpers: HelperPool) -> None:
    found = decode(helpers, ts(track(speech(LONG, 44_100))) + ts(track(tone(5, 44_100), "mp2")))
    assert seconds(found) == pytest.approx(LONG + 5, abs=0.4)
    assert is_tone(found[-4 * RATE :])


def test_sound_that_begins_long_after_the_pictures_is_heard(helpers: HelperPool) -> None:
    found = decode(helpers, pictures(LONG) + ts(track(tone(5, 44_100))))
    assert seconds(found) == pytest.approx(5, abs=0.3)
    assert is_tone(found[: 4 * RATE])


def test_a_track_that_vanishes_ends_there(helpers: HelperPool) -> None:
    both = ts(track(speech(LONG, 44_100)), track(tone(LONG, 44_100)))
    found = decode(helpers, both + ts(track(tone(5, 44_100)), first=0x101))
    assert seconds(found) == pytest.approx(LONG, abs=0.3)


def flv(codec: str, samples: np.ndarray) -> bytes:
    return container("flv", Sound(samples, codec=codec, rate=44_100), options={"flvflags": "no_metadata"})


def test_a_codec_that_changes_inside_flv_is_heard(helpers: HelperPool) -> None:
    """A stream in a new codec is a new stream to FFmpeg."""
    one, other = flv("aac", speech(LONG, 44_100)), flv("libmp3lame", tone(5, 44_100))
    found = decode(helpers, one + other[FLV_HEAD:])
    assert seconds(found) == pytest.approx(LONG + 5, abs=0.4)
    assert is_tone(found[-4 * RATE :])


def test_mpeg_ps_with_a_late_track(helpers: HelperPool) -> None:
    alone = container("mpeg", track(speech(LONG, 44_100), "mp2"))
    both = container("mpeg", track(speech(5, 44_100), "mp2"), track(tone(5, 44_100), "mp2"))
    found = decode(helpers, alone + both)
    assert seconds(found) == pytest.approx(LONG + 5, abs=0.4)
