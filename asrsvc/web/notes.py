"""What the log line of a request says of its transcript; metrics are made of it too."""

from __future__ import annotations

from typing import Any

from asrsvc.speech.types import Transcript


def of_transcript(transcript: Transcript) -> dict[str, Any]:
    """Whether it has text, how sure the model is of it (the mean over the time that was spoken), warnings."""
    spoken = [(segment.end - segment.start, segment.confidence) for segment in transcript.segments]
    seconds = sum(length for length, _ in spoken)
    note: dict[str, Any] = {"empty": not transcript.text}
    if seconds > 0 and transcript.text:
        note["confidence"] = round(sum(length * sure for length, sure in spoken) / seconds, 3)
    if transcript.warnings:
        note["warnings"] = [notice.code for notice in transcript.warnings]
    return note
