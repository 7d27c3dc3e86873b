"""Recordings that end before they should, as tests cut them."""

from __future__ import annotations

import io
import subprocess

import numpy as np
import soundfile
from streams import joined
from waiting import PATIENCE

CODE = "audio_incomplete"
_FFMPEG = ("ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error")


def wav(clips: int, form: str = "WAV") -> bytes:
    """A recording of so many clips, in a format of libsndfile."""
    samples, rate = soundfile.read(io.BytesIO(joined(clips)), dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype="PCM_16")
    return file.getvalue()


def cut(content: bytes, share: float = 0.5) -> bytes:
    """The first part of a file, as a program leaves it that dies while it writes or sends."""
    return content[: round(len(content) * share) // 2 * 2]


def part_of_wav(content: bytes) -> bytes:
    """What is there of a WAV file that has been cut, as a whole WAV file."""
    at = content.index(b"data") + 8
    file = io.BytesIO()
    soundfile.write(file, np.frombuffer(content[at:], np.int16), 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def by_ffmpeg(content: bytes, *arguments: str) -> bytes:
    """A recording as FFmpeg writes it, straight into a file of this kind."""
    done = subprocess.run(
        [*_FFMPEG, "-i", "-", *arguments, "-"],
        input=content,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout
