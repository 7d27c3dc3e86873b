"""What the decoder process gives of a file, and why it may give nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FileLimits:
    """What a file may be at most."""

    max_rate: int
    """Hz"""
    max_channels: int
    max_seconds: float
    """length of the recording, with its silences"""
    max_values: float = math.inf
    """samples of all channels"""
    min_rate: int = 1
    """Hz, at least"""
    refuse_incomplete: bool = False
    """whether a file of which parts are missing is refused"""


@dataclass(frozen=True, slots=True)
class Declared:
    """The length in seconds that the file declares or FFmpeg estimates."""

    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The next stretch of sound."""

    rate: int
    """Hz"""
    samples: Samples
    """shape (n,), float32, mono, in [-1, 1]"""


@dataclass(frozen=True, slots=True)
class Silence:
    """The next stretch, in which nothing was recorded."""

    rate: int
    """Hz"""
    samples: int


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Parts of the recording are missing."""

    message: str
    """behind the words "file is"; made of numbers and our own words"""

    @property
    def sentence(self) -> str:
        """What the client is told."""
        return f"file is {self.message}"


TOO_LARGE: Final = {"audio_too_long": "file is too long", "audio_too_much": "file is too much to decode"}
"""codes of what is beyond a limit of size, each with the beginning of its sentence"""

Item: TypeAlias = Declared | Block | Silence | Incomplete


class Refused(Exception):
    """The file cannot be decoded.

    Args:
        message: what is behind the words "file cannot be decoded:" ("file is too long:").
        code: of the answer, if it has its own.
        whole: whether the message is the whole sentence.
    """

    def __init__(self, message: str, code: str | None = None, *, whole: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self._whole = whole

    @property
    def sentence(self) -> str:
        """What the client is told."""
        if self._whole:
            return str(self)
        return f"{TOO_LARGE.get(self.code or '', 'file cannot be decoded')}: {self}"


class NoSound(Refused):
    """A file, or a part of it, holds no sound that can be decoded."""
