"""Long recordings, and streams of events as they come."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import httpx
import numpy as np
import soundfile
from service import CLIPS, Service, manifest

RATE = 16_000


def spoken() -> list[dict[str, Any]]:
    return manifest(speech_only=True)


@cache
def joined(clips: int, pause: float = 1.5) -> bytes:
    """A FLAC file of so many clips, one after the other, with near silence between two."""
    file = io.BytesIO()
    soundfile.write(file, _samples(clips, pause), RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def poisoned(clips: int) -> bytes:
    """A WAV file of so many clips that cannot be decoded from three quarters of its length on."""
    samples = _samples(clips, 1.5)
    samples[len(samples) * 3 // 4] = np.nan
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def _samples(clips: int, pause: float) -> np.ndarray:
    quiet = np.random.default_rng(1).normal(0, 1e-4, round(pause * RATE)).astype(np.float32)
    parts = []
    for clip in itertools.islice(itertools.cycle(spoken()), clips):
        parts += [soundfile.read(CLIPS / clip["file"], dtype="float32")[0], quiet]
    return np.concatenate(parts)


def texts(clips: int) -> list[str]:
    return [clip["withitn"] for clip in itertools.islice(itertools.cycle(spoken()), clips)]


def events(lines: Iterator[str]) -> Iterator[dict[str, Any] | str]:
    """The events of a stream, and `[DONE]` as it stands there."""
    for line in lines:
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            yield data if data == "[DONE]" else json.loads(data)
        else:
            assert not line or line.startswith(":"), line


@contextmanager
def streaming(
    service: Service, content: bytes, path: str = "/api/transcribe", *, port: int | None = None, **fields: str
) -> Iterator[tuple[httpx.Response, Iterator[dict[str, Any] | str]]]:
    """A stream that has begun: its head, and its events as they come; through another port, if wished."""
    url = f"http://127.0.0.1:{port or service.port}{path}"
    asked = {"files": {"file": ("a.flac", content)}, "data": fields | {"stream": "true"}}
    with service.client() as client, client.stream("POST", url, **asked) as answer:
        yield answer, events(answer.iter_lines())
