"""What the segments of a recording are together: one text, one language, one emotion."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from asrsvc.speech.text import NO_SPEECH
from asrsvc.speech.types import LanguageProbability, Notice, Segment, Transcript

# Between these languages a text is joined without spaces.
_WITHOUT_SPACES: Final = frozenset({"zh", "yue", "ja"})


def whole(segments: tuple[Segment, ...], seconds: float, warnings: tuple[Notice, ...] = ()) -> Transcript:
    """What the segments of a recording are together.

    Args:
        segments: in order of time.
        seconds: length of the recording.
        warnings: about the recording.
    """
    return Transcript(
        text=join_texts(segments),
        language=_majority(segments, lambda s: s.language, NO_SPEECH),
        emotion=_majority(segments, lambda s: s.emotion, "unknown"),
        events=tuple(dict.fromkeys(event for s in segments for event in s.events)),
        duration=round(seconds, 3),
        segments=segments,
        language_probabilities=_mean_probabilities(segments),
        warnings=warnings,
    )


class Joiner:
    """Joins the texts of segments, with a space between two unless both are written without spaces."""

    def __init__(self) -> None:
        self._before: str | None = None

    def add(self, segment: Segment) -> str:
        """What the segment adds to the text: its own text, with a space in front where one belongs."""
        if not segment.text:
            return ""
        before, self._before = self._before, segment.language
        close = before in _WITHOUT_SPACES and segment.language in _WITHOUT_SPACES
        return segment.text if before is None or close else " " + segment.text


def join_texts(segments: Iterable[Segment]) -> str:
    """The texts of all segments, see `Joiner`."""
    joiner = Joiner()
    return "".join(joiner.add(segment) for segment in segments)


def _majority(segments: tuple[Segment, ...], value: Callable[[Segment], str], default: str) -> str:
    """The value that most of the speaking time has; segments without text count only if all are."""
    seconds: dict[str, float] = {}
    for segment in _spoken(segments):
        seconds[value(segment)] = seconds.get(value(segment), 0.0) + segment.end - segment.start
    return max(seconds, key=lambda name: seconds[name], default=default)


def _spoken(segments: tuple[Segment, ...]) -> list[Segment]:
    """Those with text, or all if none has any."""
    return [s for s in segments if s.text] or list(segments)


def _mean_probabilities(segments: tuple[Segment, ...]) -> tuple[LanguageProbability, ...]:
    """The mean over the speaking time."""
    total = 0.0
    sums: dict[str, float] = {}
    for segment in _spoken(segments):
        seconds = segment.end - segment.start
        total += seconds if segment.language_probabilities else 0.0
        for one in segment.language_probabilities:
            sums[one.language] = sums.get(one.language, 0.0) + seconds * one.probability
    if total <= 0:
        return ()
    return tuple(LanguageProbability(name, round(found / total, 4)) for name, found in sums.items())
