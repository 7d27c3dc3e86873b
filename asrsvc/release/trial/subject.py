"""One version in its process: what it is asked in a trial, and what is known of it by then."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from asrsvc.release.error_rate import compare
from asrsvc.release.golden import MOST_CLIP_SECONDS, Clip
from asrsvc.release.process import Child, ChildBroke, Limits
from asrsvc.release.trial.types import ClipResult, Embedded, Measured, TrialOptions
from asrsvc.release.versions import Version

_MODULE: Final = "asrsvc.release.trial.child"
_START_SECONDS: Final = 60.0
_TIMES_LENGTH: Final = 10.0
"""seconds for a second of sound, at most: niced, on a busy machine"""
_MOST_ANSWER_CHARACTERS: Final = 100_000
"""of texts that its record keeps"""
_MOST_CHARACTERS: Final = 1000
_MOST_CHARACTERS_A_SECOND: Final = 200
"""of sound, beside the former: nobody speaks so fast, and to compare texts takes time outside of the child"""


class Subject:
    """A version that is tried, or compared with."""

    def __init__(self, version: Version, options: TrialOptions, limits: Limits) -> None:
        self.version = version
        self.baked: Path | None = None
        """folder of its twin, which is loaded in the place of the published file"""
        self.found = Measured(version.id)
        self._options = options
        self._child = Child(_MODULE, limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End its process."""
        self._child.end()

    def ask(self, question: Mapping[str, Any], *, doing: str, seconds: float) -> dict[str, Any]:
        """As `Child.ask`; memory is noted."""
        try:
            return self._child.ask(question, doing=doing, seconds=seconds)
        finally:
            self.found.memory_bytes = self._child.peak_bytes

    def hello(self) -> None:
        """Wait until its process can be asked."""
        self.ask({"do": "hello"}, doing="before it was asked anything", seconds=_START_SECONDS)

    def check(self) -> None:
        """Have the digests of its files compared with its manifest."""
        doing = "while its files were checked"
        answer = self.ask(self._question("check"), doing=doing, seconds=self._options.load_timeout)
        self.found.files = _texts(answer, "files")
        self.found.engine = _texts(answer, "engine")

    def load(self) -> None:
        """Have it loaded, as a worker does it."""
        question = {
            **self._question("load"),
            "baked": str(self.baked) if self.baked is not None else None,
            "max_seconds": MOST_CLIP_SECONDS,
        }
        answer = self.ask(question, doing="while it loaded", seconds=self._options.load_timeout)
        self.found.load_seconds = _number(answer, "seconds")

    def hear(self) -> None:
        """Have it hear the embedded clips, as the warm-up of a worker does it."""
        doing = "while it heard the clips that come with asrsvc"
        answer = self.ask({"do": "hear"}, doing=doing, seconds=self._options.load_timeout)
        self.found.embedded = Embedded(
            _texts(answer, "texts"), _number(answer, "likeness"), _number(answer, "cost")
        )
        if answer.get("garbage"):
            self.found.garbage = str(answer["garbage"])

    def transcribe(self, clip: Clip, seconds: float, *, counts: bool, timed: bool) -> None:
        """Make one request.

        Args:
            clip: what is to be heard.
            seconds: its length.
            counts: whether its text counts for the error rate.
            timed: whether its CPU time counts.
        """
        self.found.requests += 1
        answer = self.ask(
            {"do": "transcribe", "path": str(clip.path)},
            doing=f"at request {self.found.requests} ({clip.name})",
            seconds=self._options.clip_timeout + _TIMES_LENGTH * seconds,
        )
        said, cpu_seconds = str(answer.get("text", "")), _number(answer, "cpu_seconds")
        most = _MOST_CHARACTERS + round(_MOST_CHARACTERS_A_SECOND * seconds)
        if len(said) > most:
            raise ChildBroke(f"it says {len(said)} characters of {seconds:g} s of sound; {most} is the limit")
        if timed:
            known = self.found.cpu_seconds.get(clip.name, cpu_seconds)
            self.found.cpu_seconds[clip.name] = min(known, cpu_seconds)
        if counts:
            errors = compare(said, clip.text)
            self.found.clips.append(ClipResult(clip.name, clip.language, seconds, said, clip.text, errors))

    def _question(self, do: str) -> dict[str, Any]:
        return {
            "do": do,
            "folder": str(self.version.path),
            "version": self.version.id,
            "threads": self._options.threads,
            "device": self._options.device,
        }


def _texts(answer: Mapping[str, Any], name: str) -> dict[str, str]:
    found = answer.get(name)
    if not isinstance(found, dict):
        raise ChildBroke(f"its answer lacks {name}")
    texts = {str(key): str(text) for key, text in found.items()}
    if sum(map(len, texts.values())) > _MOST_ANSWER_CHARACTERS:
        raise ChildBroke(f"its {name} have more than {_MOST_ANSWER_CHARACTERS} characters")
    return texts


def _number(answer: Mapping[str, Any], name: str) -> float:
    found = answer.get(name)
    if not isinstance(found, int | float):
        raise ChildBroke(f"its answer lacks {name}")
    return float(found)
