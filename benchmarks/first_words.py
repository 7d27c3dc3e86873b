"""How soon a stream has its first words.

    python benchmarks/first_words.py [--minutes 10] [--rounds 5] [--json FILE]

A real service with one worker and the embedded model is sent a long recording (the clips of the tests, 1 s
of silence between two), as FLAC and as WAV, over both APIs. What is printed is the time from the first byte
of the request to the first words, upload included, against the time to the end. Larger models take longer
for the same upload, so that the share falls.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import soundfile
from report import Panel, add_targets, finish
from stage import CLIPS, SAMPLE_RATE, Service, describe, machine, staged

# Beside stage.py's own, the harness of the tests is on the path now.
from bodies import FORM, upload  # isort: skip

PATHS: Final = ("/api/transcribe", "/v1/audio/transcriptions")
FIRST: Final = (b'"type":"segment"', b'"type":"transcript.text.delta"')


def recording(minutes: float) -> np.ndarray:
    """Clips, and silence between two."""
    names = sorted(path.name for path in CLIPS.glob("*_?.flac"))
    quiet = np.zeros(SAMPLE_RATE, np.int16)
    parts = [part for name in names for part in (soundfile.read(CLIPS / name, dtype="int16")[0], quiet)]
    return np.resize(np.concatenate(parts), round(minutes * 60 * SAMPLE_RATE))


def measure(service: Service, path: str, body: bytes) -> tuple[float, float]:
    """Seconds to the first words and to the end of one stream."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=600)
    began = time.monotonic()
    connection.request("POST", path, body=body, headers={"Content-Type": FORM})
    answer = connection.getresponse()
    first = None
    while line := answer.readline():
        if first is None and any(mark in line for mark in FIRST):
            first = time.monotonic() - began
    total = time.monotonic() - began
    connection.close()
    if answer.status != 200 or first is None:
        raise RuntimeError(f"{path}: status {answer.status}, no words in the stream")
    return first, total


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description="How soon a stream has its first words.")
    options.add_argument("--minutes", type=float, default=10, help="of the recording (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    add_targets(options)
    wished = options.parse_args()
    found = machine()
    samples = recording(wished.minutes)
    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        staged(Path(folder), "nano", changes=False, ASR_WORKERS="1") as stage,
    ):
        for kind in ("FLAC", "WAV"):
            file = io.BytesIO()
            soundfile.write(file, samples, SAMPLE_RATE, format=kind)
            body = upload(file.getvalue(), "recording", stream="true")
            for path in PATHS:
                measure(stage.service, path, body)  # the first one warms up
                times = [measure(stage.service, path, body) for _ in range(wished.rounds)]
                rows.append(
                    {
                        "file": kind,
                        "mebibytes": round(len(body) / 2**20, 1),
                        "path": path,
                        "first_ms": round(median(first for first, _ in times) * 1000, 1),
                        "total_ms": round(median(total for _, total in times) * 1000, 1),
                        "share": round(median(first / total for first, total in times), 4),
                    }
                )
    lines = [f"{wished.minutes:g} minutes, medians of {wished.rounds}; {describe(found)}"]
    lines += [json.dumps(row) for row in rows]
    result = {"machine": found, "minutes": wished.minutes, "rows": rows}
    shown = {f"{row['file']} {row['path']}": {"first words": row["first_ms"]} for row in rows}
    finish(result, "\n".join(lines), wished, Panel("first words of a stream", "ms, median", shown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
