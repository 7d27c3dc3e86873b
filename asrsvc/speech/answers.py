"""What a decoder process says of one file, taken for what it must be and for nothing else.

A file may have made the process its own: what it says is checked as what a stranger says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from asrsvc.errors import AsrError, BadAudio, TooLarge
from asrsvc.speech.decoded import TOO_LARGE
from asrsvc.speech.types import AUDIO_INCOMPLETE, FloatArray, Notice

_BEYOND_FULL_SCALE: Final = 1e-3  # of a sample, by rounding
_MOST_SAMPLES: Final = 16 * 2**20  # of a block, or of a silence
_LONGEST_SENTENCE: Final = 500  # characters
_MOST_MESSAGES: Final = 1_000_000  # about one file: three for each second of silence that is cut by sound


class Nonsense(Exception):
    """A message that no helper of ours sends."""


class Refused(Exception):
    """The last message: the file cannot be decoded."""

    def __init__(self, error: AsrError) -> None:
        super().__init__(error.message)
        self.error = error
        """what the client is told"""


class Answer:
    """The messages about one file, one after the other."""

    def __init__(
        self, max_rate: int, declared: Callable[[float], None], warn: Callable[[Notice], None]
    ) -> None:
        """Begin.

        Args:
            max_rate: Hz, of the blocks.
            declared: told the length in seconds that the file declares or FFmpeg estimates, if there is one.
            warn: told that parts of the recording are missing.
        """
        self._max_rate = max_rate
        self._declared = declared
        self._warn = warn
        self._messages = 0
        self.rate = 0
        """Hz, of the blocks"""

    def read(self, kind: bytes, payload: bytes | memoryview) -> FloatArray | None:
        """Take a message: the block that it is, if it is one.

        Raises:
            Refused: the file cannot be decoded, or is too long.
            Nonsense: this is no message.
        """
        self._messages += 1
        if self._messages > _MOST_MESSAGES:
            raise Nonsense(f"over {_MOST_MESSAGES} messages")
        if kind == b"B":
            return self._block(payload)
        try:
            content = json.loads(bytes(payload))
        except (ValueError, RecursionError):
            raise Nonsense(f"{kind!r} is no JSON") from None
        match kind, content:
            case b"S", int(count) if self.rate and 0 < count <= _MOST_SAMPLES:
                return np.zeros(count, np.float32)
            case b"R", int(rate) if 0 < rate <= self._max_rate:
                self.rate = rate
            case b"D", int(seconds) | float(seconds) if 0 <= seconds < float("inf"):
                self._declared(float(seconds))
            case b"W", str(sentence) if _plain(sentence):
                self._warn(Notice(AUDIO_INCOMPLETE, sentence))
            case b"X", [str(sentence), str(code) | (None as code)] if _plain(sentence):
                raise Refused(_error(sentence, code))
            case b"E", None:
                pass
            case _:
                raise Nonsense(f"{kind!r} with {_shown(content)}")
        return None

    def _block(self, payload: bytes | memoryview) -> FloatArray:
        if not self.rate or len(payload) % 4:
            raise Nonsense(f"a block of {len(payload)} bytes at {self.rate} Hz")
        samples = np.frombuffer(payload, dtype=np.float32)
        most = 1 + _BEYOND_FULL_SCALE
        if len(samples) and not (samples.max() <= most and samples.min() >= -most):  # NaN is neither
            raise Nonsense("samples beyond full scale")
        return samples


def _plain(sentence: str) -> bool:
    return len(sentence) <= _LONGEST_SENTENCE and sentence.isprintable()


def _shown(content: Any) -> str:
    return repr(content)[:80]


def _error(sentence: str, code: str | None) -> AsrError:
    kind = TooLarge if code in TOO_LARGE else BadAudio
    return kind(sentence, param="file", code=code)
