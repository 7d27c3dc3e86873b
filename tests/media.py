"""Recordings as people have them, made by FFmpeg's libraries: holes, several tracks, changing formats."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import soundfile
import soxr
from av.stream import Disposition

CLIPS = Path(__file__).resolve().parent / "data" / "clips"
FIRST = "Book a table at 1:25 a.m."
SECOND = "My bill is $268."
RATE = 16_000


def clip(name: str, rate: int = RATE) -> np.ndarray:
    """Shape (n,), float32."""
    samples, own = soundfile.read(CLIPS / f"{name}.flac", dtype="float32")
    return np.clip(samples if rate == own else soxr.resample(samples, own, rate), -1, 1)


def quiet(seconds: float, rate: int = RATE) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1e-4, round(seconds * rate)).astype(np.float32)


@dataclass
class Sound:
    """What one track holds."""

    samples: np.ndarray
    """shape (n,), float32, at the track's rate"""
    codec: str = "aac"
    rate: int = 44_100
    layout: str = "mono"
    flags: Disposition | None = None
    holes: dict[float, float] = field(default_factory=dict)
    """seconds of the sound → by how many seconds all that follows is later"""
    start: float = 0.0
    """seconds that the first time stamp shows"""

    def frames(self, stream: Any) -> Any:
        channels = av.AudioLayout(self.layout).nb_channels
        data = np.round(self.samples * 32767).astype(np.int16)
        resampler = av.AudioResampler(stream.format, self.layout, self.rate)
        size = stream.codec_context.frame_size or 1024
        for start in range(0, len(data), size):
            piece = np.repeat(data[None, start : start + size], channels, axis=0).T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), "s16", self.layout)
            frame.sample_rate, frame.time_base = self.rate, Fraction(1, self.rate)
            late = sum(by for at, by in self.holes.items() if start >= at * self.rate)
            frame.pts = start + round((late + self.start) * self.rate)
            for ready in resampler.resample(frame):
                ready.pts, ready.time_base = frame.pts, frame.time_base
                yield ready


def container(
    form: str,
    *tracks: Sound,
    options: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
    live: bool = False,
) -> bytes:
    """A file of these tracks; `live`: written to where nothing can be put right afterwards."""
    with TemporaryDirectory() as folder:  # some writers open their file a second time
        path = Path(folder) / "file"
        file = _Pipe() if live else str(path)
        _write(file, form, tracks, options or {}, tags or {})
        return file.content if isinstance(file, _Pipe) else path.read_bytes()


def _write(
    file: Any, form: str, tracks: tuple[Sound, ...], options: dict[str, str], tags: dict[str, str]
) -> None:
    with av.open(file, "w", format=form, options={"fflags": "+bitexact", **options}) as out:
        out.metadata.update(tags)
        streams = []
        for track in tracks:
            stream = out.add_stream(track.codec, rate=track.rate, layout=track.layout)
            if track.flags is not None:
                stream.disposition = track.flags
            if track.codec.startswith("wma"):
                stream.bit_rate = 128_000
            streams.append(stream)
        out.start_encoding()
        for stream, track in zip(streams, tracks, strict=True):
            for frame in track.frames(stream):
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))


class _Pipe:
    """Takes bytes, and cannot go back."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, content: bytes) -> int:
        self.content += content
        return len(content)


def element(mark: str, content: bytes) -> bytes:
    return bytes.fromhex(mark) + struct.pack(">Q", len(content) | 1 << 56) + content


def matroska_of_tracks(count: int) -> bytes:
    track = (
        element("d7", b"\1") + element("73c5", b"\1") + element("83", b"\2") + element("86", b"A_PCM/INT/LIT")
    )
    content = element("1654ae6b", element("ae", track) * count) + element("1f43b675", element("e7", b"\0"))
    return element("1a45dfa3", element("4282", b"matroska")) + element("18538067", content)


def mp4_of_tracks(count: int) -> bytes:
    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(content), kind) + content

    track = box(b"trak", box(b"mdia", box(b"hdlr", bytes(8) + b"soun" + bytes(12))))
    return box(b"ftyp", b"isom\0\0\0\0isom") + box(b"moov", track * count) + box(b"mdat", bytes(100))
