"""What the decoder process gives of a file, and why it may give nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

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


Item: TypeAlias = Declared | Block | Silence | Incomplete


class Refused(Exception):
    """The file cannot be decoded; carries the sentence and, if it has its own, the code of the answer."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class NoSound(Refused):
    """A file, or a part of it, holds no sound that can be decoded."""
