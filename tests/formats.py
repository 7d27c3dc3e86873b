"""One clip in every format that people record in, made by libsndfile and FFmpeg's libraries.

No encoder is loaded from anywhere else: the wheels of soundfile and PyAV hold them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr

CLIP = Path(__file__).parent / "data" / "clips" / "en_1.flac"
TEXT = "Book a table at 1:25 a.m."
SECONDS = 45_336 / 16_000


@dataclass(frozen=True)
class Format:
    """How to make one file; `padding` is what a codec may add or take, in seconds."""

    name: str
    suffix: str
    write: Callable[[Path], None]
    padding: float = 0.0


def clip(rate: int = 16_000, channels: int = 1) -> np.ndarray[Any, Any]:
    """The clip at another rate: shape (n, channels), float32; the mean over channels is the clip."""
    samples, own = soundfile.read(CLIP, dtype="float32")
    if rate != own:
        samples = soxr.resample(samples, own, rate)
    return np.repeat(np.clip(samples, -1, 1)[:, None], channels, axis=1)


def by_sndfile(kind: str, subtype: str, rate: int = 16_000, channels: int = 1) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        soundfile.write(path, clip(rate, channels), rate, format=kind, subtype=subtype)

    return write


@dataclass(frozen=True)
class ByFFmpeg:
    """Encode with FFmpeg's libraries."""

    container: str
    codec: str
    rate: int = 16_000
    layout: str = "mono"
    sample_format: str = "s16"
    bit_rate: int | None = None
    codec_options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    video: str | None = None
    """codec of a stream of pictures beside the sound"""
    hole: tuple[float, float] | None = None
    """seconds: from here on, time stamps are later by so much"""

    def __call__(self, path: Path) -> None:
        # The same bytes every time: no random identifiers, no dates, no threads that take turns. (What
        # libsndfile writes differs in the time of a PEAK chunk and the serial number of an Ogg stream.)
        options = {"fflags": "+bitexact", **self.container_options}
        with av.open(str(path), "w", format=self.container, options=options) as out:
            pictures = None
            if self.video:
                pictures = out.add_stream(self.video, rate=5, options={"threads": "1"})
                pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
            stream = out.add_stream(
                self.codec, rate=self.rate, layout=self.layout, options=self.codec_options
            )
            if self.bit_rate:
                stream.bit_rate = self.bit_rate
            if pictures is not None:
                for number in range(int(SECONDS * 5)):
                    grey = np.full((96, 64), 128, np.uint8)  # three planes, below each other
                    picture = av.VideoFrame.from_ndarray(grey, "yuv420p")
                    picture.pts = number
                    out.mux(pictures.encode(picture))
                out.mux(pictures.encode(None))
            for frame in self._frames(stream):
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))

    def _frames(self, stream: Any) -> Any:
        channels = av.AudioLayout(self.layout).nb_channels
        samples = np.round(clip(self.rate, channels) * 32767).astype(np.int16)
        resampler = av.AudioResampler(stream.format, self.layout, self.rate)
        size = stream.codec_context.frame_size or 1024
        for start in range(0, len(samples), size):
            piece = samples[start : start + size]
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece.reshape(1, -1)), "s16", self.layout)
            frame.sample_rate = self.rate
            frame.time_base = Fraction(1, self.rate)
            late = self.hole[1] if self.hole and start >= self.hole[0] * self.rate else 0.0
            frame.pts = start + round(late * self.rate)
            (ready,) = resampler.resample(frame)
            ready.pts, ready.time_base = frame.pts, frame.time_base
            yield ready


FORMATS = [
    Format("wav-u8", "wav", by_sndfile("WAV", "PCM_U8")),
    Format("wav-s16", "wav", by_sndfile("WAV", "PCM_16")),
    Format("wav-s24", "wav", by_sndfile("WAV", "PCM_24")),
    Format("wav-s32", "wav", by_sndfile("WAV", "PCM_32")),
    Format("wav-float", "wav", by_sndfile("WAV", "FLOAT")),
    Format("wav-double", "wav", by_sndfile("WAV", "DOUBLE")),
    Format("wav-alaw", "wav", by_sndfile("WAV", "ALAW")),
    Format("wav-mulaw", "wav", by_sndfile("WAV", "ULAW")),
    Format("wav-ima-adpcm", "wav", by_sndfile("WAV", "IMA_ADPCM"), padding=0.1),
    Format("wav-ms-adpcm", "wav", by_sndfile("WAV", "MS_ADPCM"), padding=0.1),
    Format("wav-extensible", "wav", by_sndfile("WAVEX", "PCM_16")),
    Format("rf64", "wav", by_sndfile("RF64", "PCM_16")),
    Format("w64", "w64", by_sndfile("W64", "PCM_16")),
    Format("au", "au", by_sndfile("AU", "PCM_16")),
    Format("caf", "caf", by_sndfile("CAF", "PCM_16")),
    Format("caf-alac", "caf", by_sndfile("CAF", "ALAC_16"), padding=0.3),
    Format("aiff", "aiff", by_sndfile("AIFF", "PCM_16")),
    Format("aifc-float", "aiff", by_sndfile("AIFF", "FLOAT")),
    Format("flac", "flac", by_sndfile("FLAC", "PCM_16")),
    Format("flac-s24", "flac", by_sndfile("FLAC", "PCM_24")),
    Format("flac-in-ogg", "oga", ByFFmpeg("ogg", "flac")),
    Format("vorbis", "ogg", by_sndfile("OGG", "VORBIS")),
    Format("opus", "opus", by_sndfile("OGG", "OPUS")),
    Format("opus-48k-stereo", "opus", ByFFmpeg("ogg", "libopus", 48_000, "stereo"), padding=0.05),
    Format("mp3-xing-cbr", "mp3", ByFFmpeg("mp3", "libmp3lame", bit_rate=64_000), padding=0.15),
    Format(
        "mp3-no-xing-cbr",
        "mp3",
        ByFFmpeg("mp3", "libmp3lame", bit_rate=64_000, container_options={"write_xing": "0"}),
        padding=0.15,
    ),
    Format(
        "mp3-xing-vbr",
        "mp3",
        ByFFmpeg("mp3", "libmp3lame", codec_options={"flags": "+qscale", "global_quality": "236"}),
        padding=0.15,
    ),
    Format(
        "mp3-no-xing-vbr",
        "mp3",
        ByFFmpeg(
            "mp3",
            "libmp3lame",
            codec_options={"flags": "+qscale", "global_quality": "236"},
            container_options={"write_xing": "0"},
        ),
        padding=0.15,
    ),
    Format("m4a-moov-last", "m4a", ByFFmpeg("ipod", "aac", bit_rate=96_000), padding=0.15),
    Format(
        "m4a-moov-first",
        "m4a",
        ByFFmpeg("ipod", "aac", bit_rate=96_000, container_options={"movflags": "+faststart"}),
        padding=0.15,
    ),
    Format(
        "m4a-fragments",
        "m4a",
        ByFFmpeg("mp4", "aac", bit_rate=96_000, container_options={"movflags": "frag_keyframe+empty_moov"}),
        padding=0.15,
    ),
    Format("m4a-alac", "m4a", ByFFmpeg("ipod", "alac"), padding=0.3),
    Format("mp4-video", "mp4", ByFFmpeg("mp4", "aac", 44_100, bit_rate=96_000, video="mpeg4"), padding=0.15),
    Format("mov-video", "mov", ByFFmpeg("mov", "pcm_s16le", 44_100, "stereo", video="mpeg4"), padding=0.05),
    Format("aac-adts", "aac", ByFFmpeg("adts", "aac", bit_rate=96_000), padding=0.15),
    Format("webm-opus", "webm", ByFFmpeg("webm", "libopus", 48_000), padding=0.05),
    Format("webm-video", "webm", ByFFmpeg("webm", "libopus", 48_000, video="libvpx"), padding=0.05),
    Format("mkv-video", "mkv", ByFFmpeg("matroska", "ac3", 48_000, "stereo", video="libx264"), padding=0.15),
    Format("mkv-float", "mkv", ByFFmpeg("matroska", "pcm_f32le"), padding=0.05),
    Format("amr-nb", "amr", ByFFmpeg("amr", "libopencore_amrnb", 8_000, bit_rate=12_200), padding=0.05),
    Format("3gp-amr", "3gp", ByFFmpeg("3gp", "libopencore_amrnb", 8_000, bit_rate=12_200), padding=0.05),
    Format("3gp-aac", "3gp", ByFFmpeg("3gp", "aac", bit_rate=96_000), padding=0.15),
    Format("wma-v2", "wma", ByFFmpeg("asf", "wmav2", 44_100, "stereo", bit_rate=128_000), padding=0.25),
    Format("wma-v1", "wma", ByFFmpeg("asf", "wmav1", 44_100, bit_rate=96_000), padding=0.25),
    Format("avi-mp3", "avi", ByFFmpeg("avi", "libmp3lame", 44_100, video="mpeg4"), padding=0.15),
    Format("ts-aac", "ts", ByFFmpeg("mpegts", "aac", 48_000, bit_rate=96_000, video="libx264"), padding=0.25),
    Format("mpeg-ps", "mpg", ByFFmpeg("mpeg", "mp2", 44_100, "stereo", bit_rate=192_000), padding=0.15),
    Format("flv-aac", "flv", ByFFmpeg("flv", "aac", 44_100, bit_rate=96_000), padding=0.15),
    Format("ac3", "ac3", ByFFmpeg("ac3", "ac3", 48_000, "5.1"), padding=0.15),
    Format("eac3", "eac3", ByFFmpeg("eac3", "eac3", 48_000, "stereo"), padding=0.15),
    Format("wav-8k", "wav", by_sndfile("WAV", "PCM_16", rate=8_000)),
    Format("wav-44k1-stereo", "wav", by_sndfile("WAV", "PCM_16", rate=44_100, channels=2)),
    Format("flac-48k", "flac", by_sndfile("FLAC", "PCM_16", rate=48_000)),
    Format("wav-96k-5.1", "wav", by_sndfile("WAVEX", "PCM_24", rate=96_000, channels=6)),
    Format("wav-384k", "wav", by_sndfile("WAV", "PCM_16", rate=384_000)),
    Format("wav-11025", "wav", by_sndfile("WAV", "PCM_16", rate=11_025)),
]

BY_NAME = {form.name: form for form in FORMATS}


def make(name: str, folder: Path) -> bytes:
    """The clip in the format of this name."""
    form = BY_NAME[name]
    path = folder / f"{name}.{form.suffix}"
    form.write(path)
    return path.read_bytes()
