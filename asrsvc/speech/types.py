"""What passes between the steps of a request: frozen dataclasses.

Times are seconds on the time axis of the uploaded recording, as float, unless a field says
samples; samples are counted at 16 kHz from the start of the recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE: Final = 16_000
"""Hz; what SenseVoice was trained on."""

MAX_PEAK: Final = 100.0
"""magnitude of a sample in a file, at most, where full scale is 1: what is 40 dB over it is no sound"""

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]

Language: TypeAlias = Literal["auto", "zh", "en", "yue", "ja", "ko"]
LANGUAGES: Final[tuple[Language, ...]] = ("auto", "zh", "en", "yue", "ja", "ko")


@dataclass(frozen=True, slots=True, eq=False)
class Waveform:
    """A stretch of 16 kHz mono sound."""

    samples: FloatArray
    """shape (n,), float32, finite, nominally in [-1, 1]"""
    offset: int = 0
    """where the stretch begins in the recording, in samples"""

    @property
    def end(self) -> int:
        """Where the stretch ends in the recording, in samples (exclusive)."""
        return self.offset + len(self.samples)


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """A stretch of speech, with a margin of sound around it for the recogniser."""

    waveform: Waveform
    """what the recogniser hears: the speech and its margins"""
    start: int
    """first sample of speech, in the recording; waveform.offset <= start"""
    end: int
    """the sample behind the last one of speech, in the recording; end <= waveform.end"""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text with its place in the sound and in the text."""

    id: int
    start: float
    """seconds from the start of the span"""
    end: float
    """seconds from the start of the span: the end of the frames that emit it"""
    confidence: float
    """0 to 1: the highest posterior probability among the frames that emit it"""
    begin: int
    """index of its first character in the text"""
    stop: int
    """index behind its last character in the text"""


@dataclass(frozen=True, slots=True)
class Word:
    """One word (a character, where a language is written without spaces and has no dictionary)."""

    word: str
    start: float
    """seconds"""
    end: float
    """seconds"""
    confidence: float
    """0 to 1: the mean posterior probability of its tokens"""


@dataclass(frozen=True, slots=True)
class LanguageProbability:
    """How probable it is that a language is spoken, given that any of the five is."""

    language: str
    """zh, en, yue, ja, ko"""
    probability: float
    """0 to 1; those of the five languages add up to 1"""


def probability_of(language: str, probabilities: tuple[LanguageProbability, ...]) -> float | None:
    """The probability of one language; None where it is none of them, as `nospeech`."""
    return next((one.probability for one in probabilities if one.language == language), None)


@dataclass(frozen=True, slots=True)
class Segment:
    """What was said in one span."""

    start: float
    """seconds"""
    end: float
    """seconds"""
    text: str
    language: str
    """zh, en, yue, ja, ko; nospeech where nothing was said"""
    emotion: str
    """happy, sad, angry, neutral, fearful, disgusted, surprised, unknown"""
    events: tuple[str, ...]
    """of bgm, applause, laughter, cry, sneeze, breath, cough; plain speech is no event"""
    confidence: float
    """0 to 1: the mean posterior probability of the text's tokens; 0 where there are none"""
    words: tuple[Word, ...]
    tokens: tuple[Token, ...] = ()
    """of the text, where they were asked for"""
    no_speech: float = 0.0
    """0 to 1: the posterior probability that nothing was said"""
    language_probabilities: tuple[LanguageProbability, ...] = ()
    """of the five languages, from the first output frame; empty: not known"""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a client should know of a recording that was transcribed all the same."""

    code: str
    message: str
    """one sentence, for people; made of numbers and of our own words, never of a file's"""
    param: str = "file"
    """the field that it is about"""


AUDIO_INCOMPLETE: Final = "audio_incomplete"
"""code of a notice: the recording ends before it should, or parts of it could not be decoded"""


@dataclass(frozen=True, slots=True)
class Transcript:
    """The answer to one request."""

    text: str
    language: str
    """the language that most of the speaking time is in"""
    emotion: str
    """the emotion of most of the speaking time"""
    events: tuple[str, ...]
    """every event of any segment, in order of first appearance"""
    duration: float
    """seconds of the whole recording"""
    segments: tuple[Segment, ...]
    language_probabilities: tuple[LanguageProbability, ...] = ()
    """of the five languages, the mean over the speaking time; empty: nothing was heard"""
    warnings: tuple[Notice, ...] = ()
    """what its client should know; each code at most once"""
