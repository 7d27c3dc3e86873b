"""The process that runs FFmpeg's libraries on files of strangers; `asrsvc.speech.ffmpeg` starts it.

It takes one file descriptor after the other over a Unix socket and answers with mono blocks at the
file's own rate. Its memory, CPU time and files are limited, so that a file that crashes, hangs or
bloats a decoder ends this process and nothing else. It ignores SIGTERM and SIGINT, which a process
group may get while its worker still finishes requests, and leaves when the socket closes.

Its messages are `D` the length that the file declares in seconds (JSON; not every file does), `R` the
sample rate (JSON), `B` a block of samples (float32), `E` the end and `X` an
error (JSON: sentence and code); `MESSAGE` is the head of each.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from asrsvc.speech.ffmpeg import MESSAGE
from asrsvc.speech.types import MAX_PEAK

# Demuxers of files that people record. Playlists and other demuxers that open further files or
# addresses by name (concat, hls, dash, …) are not among them.
DEMUXERS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,amr,amrnb,amrwb,asf,avi,flv,mpeg,mpegts,ogg,mp3,wav,w64,"
    "aiff,caf,flac,au,ac3,eac3"
)
BLOCK_SECONDS: Final = 10
# A recording may have holes (a call on hold, lost packets): its times stay right if the hole is
# filled with silence. A jump beyond this is a wrong clock rather than a hole.
_MIN_HOLE_SECONDS: Final = 0.1
_MAX_HOLE_SECONDS: Final = 600.0
# A few damaged packets are lived with, as players do.
_BAD_PACKETS_ALLOWED: Final = 3
_BAD_PACKETS_SHARE: Final = 0.01
# What cannot be taken apart is lived with where it is the end of the file, and no more than this.
_TAIL_BYTES: Final = 2**16
# A container that declares its length and holds clearly less has been cut off.
_MISSING_SECONDS_ALLOWED: Final = 0.5
_MISSING_SHARE_ALLOWED: Final = 0.01
_SCALE: Final = {"uint8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31, "int64": 2.0**63}

Samples = NDArray[np.float32]


class _Refused(Exception):
    """The file cannot be decoded; carries the sentence and, if it has its own, the code of the answer."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


def mono(frame: av.AudioFrame) -> Samples:
    """Down-mix one frame by the mean of its channels; shape (n,), float32, in [-1, 1].

    Raises:
        _Refused: a sample is far beyond full scale, or not finite.
    """
    data: NDArray[Any] = frame.to_ndarray()
    channels = frame.layout.nb_channels
    planes = data if frame.format.is_planar else data.reshape(-1, channels).T
    if data.dtype.kind == "f":
        peak = np.abs(data).max(initial=0)
        if not peak <= MAX_PEAK:
            raise _Refused(
                f"its samples reach {peak:g}; between -1 and 1 is right"
                if np.isfinite(peak)
                else "it holds samples that are not finite (NaN or infinity)"
            )
    scale = _SCALE.get(str(data.dtype), 1.0)
    centred = planes.astype(np.float32) - (np.float32(scale) if data.dtype == np.uint8 else 0)
    mixed: Samples = np.clip(centred / np.float32(scale), -1, 1).mean(axis=0, dtype=np.float32)
    return mixed


def decode(file: io.RawIOBase, max_rate: int, max_channels: int) -> Iterator[float | int | Samples]:
    """Decode the first audio stream: its length in seconds as a float where one is declared or estimated,
    the sample rate as an int, then blocks of about ten seconds.

    Raises:
        _Refused: no known container, no audio in it, damaged, or beyond the limits.
    """
    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": ""}
    try:
        container = av.open(file, mode="r", options=options, metadata_errors="ignore")
    except MemoryError:
        raise
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        raise _Refused("it is in no audio or video format that is known here, or it is cut off") from error
    with container:
        stream = _audio_stream(container)
        if container.duration is not None and container.duration > 0:
            yield container.duration / av.time_base
        rate = 0
        position = 0  # samples given out or waiting in `parts`
        parts: list[Samples] = []
        waiting = 0
        for frame in _frames(container, stream, file):
            if not rate:
                rate = frame.sample_rate
                yield rate
            _check_frame(frame, rate, max_rate, max_channels)
            hole = _hole(frame, container.start_time, rate, position)
            for part in (*_silence(hole, rate), mono(frame)):
                parts.append(part)
                waiting += len(part)
                position += len(part)
                if waiting >= rate * BLOCK_SECONDS:
                    yield np.concatenate(parts)
                    parts, waiting = [], 0
        if waiting:
            yield np.concatenate(parts)
        if "mp4" in container.format.name or (container.format.name == "mp3" and _has_xing(file)):
            _check_whole(stream, position / rate if rate else 0.0)


def _audio_stream(container: av.container.InputContainer) -> av.AudioStream:
    if not container.streams.audio:
        raise _Refused("it holds no audio stream")
    stream = container.streams.audio[0]
    if stream.codec_context is None:  # PyAV's types do not say so
        raise _Refused("no decoder for its sound is known here")
    stream.codec_context.thread_count = 1
    return stream


def _check_frame(frame: av.AudioFrame, rate: int, max_rate: int, max_channels: int) -> None:
    if frame.sample_rate != rate:
        raise _Refused(f"its sample rate changes from {rate} to {frame.sample_rate} Hz")
    if not 0 < rate <= max_rate:
        raise _Refused(f"its sample rate is {rate} Hz; the limit is {max_rate} Hz", "sample_rate_unsupported")
    channels = frame.layout.nb_channels
    if channels > max_channels:
        raise _Refused(f"it has {channels} channels; the limit is {max_channels}", "channels_unsupported")


def _frames(
    container: av.container.InputContainer, stream: av.AudioStream, file: io.RawIOBase
) -> Iterator[av.AudioFrame]:
    packets = bad = 0
    demuxer = container.demux(stream)
    while True:
        try:
            packet = next(demuxer, None)
        except MemoryError:
            raise
        except av.error.FFmpegError as error:
            left = -file.tell() + file.seek(0, os.SEEK_END)
            if left > _TAIL_BYTES:
                raise _Refused(f"it is damaged: the last {left} bytes cannot be read") from error
            packet = None
        if packet is None:
            break
        packets += 1
        try:
            yield from packet.decode()
        except MemoryError:
            raise
        except av.error.FFmpegError:
            bad += 1
    if bad > max(_BAD_PACKETS_ALLOWED, packets * _BAD_PACKETS_SHARE):
        raise _Refused(f"it is damaged: {bad} of {packets} packets cannot be decoded")


def _hole(frame: av.AudioFrame, start_time: int | None, rate: int, position: int) -> int:
    """Samples of silence before this frame, by its time stamp."""
    if frame.pts is None or frame.time_base is None:
        return 0
    time = float(frame.pts * frame.time_base) - (start_time or 0) / av.time_base
    missing = time - position / rate
    return round(missing * rate) if _MIN_HOLE_SECONDS < missing <= _MAX_HOLE_SECONDS else 0


def _silence(samples: int, rate: int) -> Iterator[Samples]:
    """So many samples of silence, a second at a time."""
    while samples > 0:
        yield np.zeros(min(samples, rate), np.float32)
        samples -= rate


def _has_xing(file: io.RawIOBase) -> bool:
    """Whether an MP3 file begins with a Xing, Info or VBRI header, which says how long it is."""
    file.seek(0)
    head = file.read(10) or b""
    start = 0
    if head[:3] == b"ID3":  # ID3v2: the length is in four bytes of seven bits (id3.org, 2.4 §3.1)
        start = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False))
    file.seek(start)
    frame = file.read(4096) or b""
    return any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))


def _check_whole(stream: av.AudioStream, decoded_seconds: float) -> None:
    """Compare what a file declares with what was there; elsewhere its length is FFmpeg's estimate."""
    if stream.duration is None or stream.time_base is None:
        return
    declared = float(stream.duration * stream.time_base)
    if declared - decoded_seconds > max(_MISSING_SECONDS_ALLOWED, _MISSING_SHARE_ALLOWED * declared):
        message = f"it is cut off: it declares {declared:.2f} s and {decoded_seconds:.2f} s are there"
        raise _Refused(message, "audio_truncated")


def _address_space() -> int:
    """Bytes of address space this process has now (proc(5), statm, first field)."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _send(connection: socket.socket, kind: bytes, payload: bytes) -> None:
    connection.sendall(MESSAGE.pack(kind, len(payload)))
    connection.sendall(payload)


def _send_error(connection: socket.socket, message: str, code: str | None = None) -> None:
    _send(connection, b"X", json.dumps([message, code]).encode())


def _serve_one(connection: socket.socket, descriptor: int, request: dict[str, Any]) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(used.ru_utime + used.ru_stime) + 1 + int(request["cpu_seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, resource.RLIM_INFINITY))
    try:
        with io.FileIO(descriptor, "rb") as file:
            for item in decode(file, request["max_rate"], request["max_channels"]):
                if isinstance(item, int):
                    _send(connection, b"R", json.dumps(item).encode())
                elif isinstance(item, float):
                    _send(connection, b"D", json.dumps(item).encode())
                else:
                    _send(connection, b"B", item.tobytes())
    except _Refused as refusal:
        _send_error(connection, str(refusal), refusal.code)
    except MemoryError:  # FFmpeg's own is one too
        _send_error(connection, "its decoder needs more memory than it may have")
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        _send_error(connection, f"it is damaged ({type(error).__name__})")
    else:
        _send(connection, b"E", b"")


def main() -> int:
    """Serve files from the socket whose number is the first argument until it closes.

    The second argument is the memory limit in bytes.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    av.logging.set_level(None)
    connection = socket.socket(fileno=int(sys.argv[1]))
    limit = _address_space() + int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(1)  # decoding gives way to the workers' event loops
    while True:
        request, descriptors, _flags, _address = socket.recv_fds(connection, 4096, 1)
        if not request:
            return 0
        try:
            _serve_one(connection, descriptors[0], json.loads(request))
        except (BrokenPipeError, ConnectionResetError):
            return 0


if __name__ == "__main__":
    sys.exit(main())
