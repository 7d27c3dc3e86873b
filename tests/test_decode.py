"""Any audio file to 16 kHz mono blocks: formats, lengths, limits, and what is refused."""

from __future__ import annotations

import io
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from formats import FORMATS, SECONDS, ByFFmpeg, Format, clip, make
from waiting import PATIENCE

from asrsvc.errors import AsrError, BadAudio, TooLarge
from asrsvc.speech.decode import Limits, Recording
from asrsvc.speech.ffmpeg import HelperPool

RATE = 16_000


@pytest.fixture(scope="module")
def helpers() -> Iterator[HelperPool]:
    pool = HelperPool(memory_bytes=2**30, block_timeout=PATIENCE)
    yield pool
    pool.close()


class Decoder:
    """Decodes bytes as the service does: from a file without a name."""

    def __init__(self, helpers: HelperPool) -> None:
        self.helpers = helpers

    def blocks(self, content: bytes, max_seconds: float = 1000.0) -> list[np.ndarray]:
        descriptor = os.memfd_create("upload")
        try:
            os.write(descriptor, content)
            recording = Recording(descriptor, Limits(max_seconds), self.helpers)
            found = list(recording.blocks())
            self.seconds = recording.seconds
            return found
        finally:
            os.close(descriptor)

    def __call__(self, content: bytes, max_seconds: float = 1000.0) -> np.ndarray:
        return np.concatenate(self.blocks(content, max_seconds))

    def error(self, content: bytes, max_seconds: float = 1000.0) -> AsrError:
        with pytest.raises(AsrError) as caught:
            self.blocks(content, max_seconds)
        return caught.value


@pytest.fixture
def decode(helpers: HelperPool) -> Decoder:
    return Decoder(helpers)


def wav(samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16", kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Of two sounds, by the energy in each 10 ms; a codec may shift the sound by up to 0.15 s."""

    def loudness(samples: np.ndarray) -> np.ndarray:
        return np.log10(np.square(samples[: len(samples) // 160 * 160].reshape(-1, 160)).mean(axis=1) + 1e-5)

    a, b = loudness(one), loudness(other)
    found = []
    for shift in range(-15, 16):
        left, right = a[max(0, shift) :], b[max(0, -shift) :]
        size = min(len(left), len(right))
        found.append(np.corrcoef(left[:size], right[:size])[0, 1])
    return float(max(found))


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_format_gives_the_same_sound(decode: Decoder, tmp_path: Path, form: Format) -> None:
    samples = decode(make(form.name, tmp_path))
    assert samples.dtype == np.float32
    assert np.abs(samples).max() <= 1
    assert decode.seconds == pytest.approx(len(samples) / RATE, abs=0.001)
    assert decode.seconds == pytest.approx(SECONDS, abs=form.padding + 0.001)
    assert similarity(samples, clip()[:, 0]) > 0.9


def test_channels_are_averaged(decode: Decoder) -> None:
    left = clip()[:, 0]
    both = decode(wav(np.stack([left, np.zeros_like(left)], axis=1), subtype="FLOAT"))
    assert both == pytest.approx(left / 2, abs=1e-6)


def test_sound_over_full_scale_is_clipped(decode: Decoder) -> None:
    loud = decode(wav(np.full(RATE, 1.5, np.float32), subtype="FLOAT"))
    assert loud.max() == 1


def test_a_long_recording_comes_in_blocks_of_about_ten_seconds(decode: Decoder) -> None:
    minute = np.tile(clip()[:, 0], 22)[: 60 * RATE]
    for content in (wav(minute), wav(np.repeat(minute[:, None], 6, axis=1)), wav(minute, kind="FLAC")):
        blocks = decode.blocks(content)
        assert sum(map(len, blocks)) == len(minute)
        assert max(map(len, blocks)) <= 10 * RATE
    blocks = decode.blocks(_remuxed(minute))
    assert sum(map(len, blocks)) == len(minute)
    assert max(map(len, blocks)) < 10.1 * RATE


def _remuxed(samples: np.ndarray) -> bytes:
    """In Matroska, which goes to the helper."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for start in range(0, len(samples), 1024):
            piece = np.round(samples[start : start + 1024] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(piece[None], "s16", "mono")
            frame.sample_rate, frame.pts = RATE, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("late", [0.5, 3.0, 45.0])
@pytest.mark.parametrize("container", ["matroska", "mpegts"])
def test_holes_in_the_time_stamps_become_silence(
    decode: Decoder, tmp_path: Path, container: str, late: float
) -> None:
    codec, rate = ("pcm_s16le", RATE) if container == "matroska" else ("aac", 48_000)
    path = tmp_path / "hole"
    ByFFmpeg(container, codec, rate, hole=(1.0, late))(path)
    samples = decode(path.read_bytes())
    assert len(samples) / RATE == pytest.approx(SECONDS + late, abs=0.25)
    silence = samples[round(1.2 * RATE) : round((0.8 + late) * RATE)]
    assert not len(silence) or np.abs(silence).max() < 1e-3
    start = round((1.0 + late) * RATE)
    assert similarity(samples[start:], clip()[RATE:, 0]) > 0.9


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wav_written_to_a_pipe_is_read_to_its_end(decode: Decoder, length: int) -> None:
    content = bytearray(wav(clip()))
    at = content.index(b"data") + 4
    content[4:8] = content[at : at + 4] = struct.pack("<I", length)
    assert len(decode(bytes(content))) / RATE == pytest.approx(SECONDS, abs=0.001)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("name", ["m4a-moov-last", "m4a-alac", "mp4-video", "3gp-amr"])
def test_a_file_whose_index_was_cut_off_is_refused(
    decode: Decoder, tmp_path: Path, name: str, share: float
) -> None:
    whole = make(name, tmp_path)
    error = decode.error(whole[: int(len(whole) * share)])
    assert isinstance(error, BadAudio)
    assert error.param == "file"


@pytest.mark.parametrize(
    ("rate", "code"), [(1, "sample_rate_unsupported"), (768_000, "sample_rate_unsupported"), (1999, None)]
)
def test_sample_rates_that_no_recorder_writes_are_refused(
    decode: Decoder, rate: int, code: str | None
) -> None:
    error = decode.error(wav(np.zeros(8000, np.float32), rate))
    assert error.code == (code or "sample_rate_unsupported")
    assert f"{rate} Hz" in error.message
    assert "2000 to 384000 Hz" in error.message


@pytest.mark.parametrize("rate", [2_000, 7_999, 22_050, 44_056, 192_000, 383_999])
def test_odd_sample_rates_keep_the_length(decode: Decoder, rate: int) -> None:
    tone = np.sin(np.arange(rate * 2) * (2 * np.pi * 440 / rate)).astype(np.float32)
    assert len(decode(wav(tone, rate))) == pytest.approx(2 * RATE, abs=2)


def test_many_channels_are_refused(decode: Decoder) -> None:
    error = decode.error(wav(np.zeros((RATE, 64), np.float32)))
    assert error.code == "channels_unsupported"
    assert error.message == "file has 64 channels; the limit is 16"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["wav", "mkv"])
def test_samples_that_are_not_finite_are_refused(
    decode: Decoder, kind: str, value: float, tmp_path: Path
) -> None:
    if kind == "wav":
        samples = clip()[:, 0].copy()
        samples[20_000] = value
        content = wav(samples, subtype="FLOAT")
    else:
        content = make("mkv-float", tmp_path)
        at = len(content) // 2 // 4 * 4
        content = content[:at] + struct.pack("<f", value) * 64 + content[at + 256 :]
    error = decode.error(content)
    assert isinstance(error, BadAudio)
    assert "not finite" in error.message


@pytest.mark.parametrize("count", [3, 399])
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF"])
def test_too_few_samples_are_refused(decode: Decoder, kind: str, count: int) -> None:
    error = decode.error(wav(np.zeros(count, np.float32), kind=kind))
    assert error.code == "audio_too_short"
    assert f"{count} samples" in error.message


@pytest.mark.parametrize(
    ("kind", "code"), [("WAV", "audio_empty"), ("AIFF", "audio_empty"), ("FLAC", "audio_undecodable")]
)
def test_no_samples_are_refused(decode: Decoder, kind: str, code: str) -> None:
    assert decode.error(wav(np.zeros(0, np.float32), kind=kind)).code == code


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_far_beyond_full_scale_are_refused(decode: Decoder, subtype: str) -> None:
    error = decode.error(wav(clip() * 1e30, subtype=subtype))
    assert "between -1 and 1" in error.message


def test_one_window_of_sound_is_enough(decode: Decoder) -> None:
    assert len(decode(wav(np.zeros(400, np.float32)))) == 400


@pytest.mark.parametrize("name", ["wav-s16", "flac", "mp3-no-xing-cbr", "m4a-moov-last", "webm-opus"])
def test_a_recording_over_the_limit_is_refused(decode: Decoder, tmp_path: Path, name: str) -> None:
    error = decode.error(make(name, tmp_path), max_seconds=2)
    assert isinstance(error, TooLarge)
    assert error.code == "audio_too_long"
    assert "the limit is 2 s" in error.message


BAIT = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}/a.ts\n#EXT-X-ENDLIST\n",
    "hls of a file": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "m3u": "#EXTM3U\n{url}/a.mp3\n",
    "concat": "ffconcat version 1.0\nfile {url}/a.mp3\nfile /etc/passwd\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 {host}\nt=0 0\nm=audio {port} RTP/AVP 0\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"'
    ' mediaPresentationDuration="PT10S" minBufferTime="PT1S"><Period><AdaptationSet mimeType="audio/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>{url}/a.mp4</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
    "pls": "[playlist]\nFile1={url}/a.mp3\nNumberOfEntries=1\n",
    "asx": '<asx version="3.0"><entry><ref href="{url}/a.wma"/></entry></asx>',
    "rtsp": "RTSPtext\nrtsp://{host}:{port}/x\n",
    "subtitles by name": "{{\nDEMUXER:lavfi\namovie={url}/a.mp3\n",
}


@pytest.mark.parametrize("name", BAIT)
@pytest.mark.parametrize("padding", [0, 100_000])
def test_a_playlist_is_refused_and_nothing_that_it_names_is_opened(
    decode: Decoder, name: str, padding: int
) -> None:
    host = "127.84.79.77"  # of this machine, and no other program connects to it by mistake
    with socket.create_server((host, 0)) as listener:
        port = listener.getsockname()[1]
        text = BAIT[name].format(url=f"http://{host}:{port}", host=host, port=port)
        error = decode.error(text.encode() + b"\n" * padding)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert isinstance(error, BadAudio)
    assert "root:" not in error.message
    assert error.code == "audio_undecodable"


def test_sound_in_an_unknown_codec_is_refused(decode: Decoder, tmp_path: Path) -> None:
    content = make("mkv-float", tmp_path).replace(b"A_PCM/FLOAT/IEEE", b"A_NEVER/HEARD/OF")
    assert "no decoder" in decode.error(content).message
