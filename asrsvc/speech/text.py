"""Frames to text: tags, and tokens with times and confidence.

SenseVoice answers its four queries in the first four output frames (language, emotion, event,
ITN); every later frame stands for 60 ms of sound, and token 0 is the blank (FunASR,
`SenseVoiceSmall.inference`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from asrsvc.errors import InferenceFailed, ModelError
from asrsvc.speech.engine import QUERY_FRAMES
from asrsvc.speech.features import FRAME_SECONDS
from asrsvc.speech.frames import BLANK, Frames
from asrsvc.speech.types import LANGUAGES, FloatArray, IntArray, LanguageProbability, Token
from asrsvc.system.documents import check_file

NO_SPEECH: Final = "nospeech"

_SPACE: Final = "\u2581"  # SentencePiece's mark for a space before a piece
_MOST_BYTES: Final = 2**23
"""of a SentencePiece model; the published one has 377 KB"""
_MOST_PIECE_CHARACTERS: Final = 100
"""SentencePiece makes pieces of 16 at most, and tags are longer"""
_TAG: Final = re.compile(r"<\|(.+)\|>")
_BYTE: Final = re.compile("<0x([0-9A-F]{2})>")  # one byte of a character that has no piece of its own
_EMOTIONS: Final = {
    "HAPPY": "happy",
    "SAD": "sad",
    "ANGRY": "angry",
    "NEUTRAL": "neutral",
    "FEARFUL": "fearful",
    "DISGUSTED": "disgusted",
    "SURPRISED": "surprised",
}
_EVENTS: Final = {
    "BGM": "bgm",
    "Applause": "applause",
    "Laughter": "laughter",
    "Cry": "cry",
    "Sneeze": "sneeze",
    "Breath": "breath",
    "Cough": "cough",
}
_SPOKEN: Final = LANGUAGES[1:]
_LANGUAGES: Final = frozenset({*_SPOKEN, NO_SPEECH})

EMOTIONS: Final = (*_EMOTIONS.values(), "unknown")
"""that a segment may have"""
EVENTS: Final = tuple(_EVENTS.values())
"""that a segment may have"""

# A frame stacks the seven 25 ms windows around its place, so what it hears begins 30 ms before.
_FRAME_LEAD: Final = FRAME_SECONDS / 2


@dataclass(frozen=True, slots=True)
class Reading:
    """What the network says of one span."""

    text: str
    language: str
    """zh, en, yue, ja, ko or nospeech"""
    emotion: str
    events: tuple[str, ...]
    tokens: tuple[Token, ...]
    no_speech: float = 0.0
    """0 to 1: the posterior probability of the tag nospeech"""
    language_probabilities: tuple[LanguageProbability, ...] = ()
    """of the five languages"""

    @property
    def confidence(self) -> float:
        """Mean confidence of the tokens, 0 where there are none."""
        return sum(t.confidence for t in self.tokens) / len(self.tokens) if self.tokens else 0.0


@dataclass(frozen=True, slots=True)
class _Piece:
    """What a token stands for."""

    tag: str
    """the name inside `<|...|>`, or the empty string for another token"""
    surface: bytes
    """UTF-8, or a part of a character's"""


class Vocabulary:
    """The pieces of one version, and how ids become text."""

    def __init__(self, path: Path) -> None:
        """Read a SentencePiece model.

        Args:
            path: the version's `*.bpe.model`.

        Raises:
            ModelError: the file is missing, or is no SentencePiece model of SenseVoice's.
        """
        processor = sentencepiece.SentencePieceProcessor()
        try:
            check_file(path, _MOST_BYTES)
            processor.load(str(path))
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{path}: cannot be read as a SentencePiece model: {error}") from error
        self._path = path
        self._processor = processor
        # Filled as ids come: to ask for all 25,055 pieces would take 25 ms of each load.
        self._known: dict[int, _Piece] = {}
        ids = {name: processor.piece_to_id(f"<|{name}|>") for name in _LANGUAGES}
        # What is no piece has an id too, that of <unk>.
        if any(self.tag(token_id) != name for name, token_id in ids.items()):
            raise ModelError(f"{path}: has no language tags such as <|zh|>: not SenseVoice's vocabulary")
        self.no_speech = ids[NO_SPEECH]
        """id of the tag that says that nothing was said"""
        self.languages: dict[str, int] = {name: ids[name] for name in _SPOKEN}
        """language → id of its tag"""

    def check_size(self, outputs: int) -> None:
        """Whether the network tells as many tokens apart as there are pieces.

        Args:
            outputs: of the network.

        Raises:
            ModelError: another number.
        """
        pieces = self._processor.get_piece_size()
        if pieces != outputs:
            raise ModelError(f"{self._path}: has {pieces} pieces; the network has {outputs} outputs")

    def check_pieces(self) -> None:
        """Whether no piece makes more of a text than a piece does: it takes a while, once for a version.

        Raises:
            ModelError: one does.
        """
        for token_id in range(self._processor.get_piece_size()):
            size = len(self._processor.id_to_piece(token_id))
            if size > _MOST_PIECE_CHARACTERS:
                raise ModelError(
                    f"{self._path}: piece {token_id} has {size} characters;"
                    f" {_MOST_PIECE_CHARACTERS} is the limit"
                )

    def tag(self, token_id: int) -> str:
        """The name inside `<|...|>`, or the empty string for another token."""
        return self._piece(token_id).tag

    def text(self, ids: Iterable[int]) -> tuple[str, list[tuple[int, int]]]:
        """Join tokens to text, as SentencePiece's own decoder does.

        Returns:
            the text without surrounding spaces, and for each id the range of characters that it
            covers in it (pieces that share the bytes of one character share the character).
        """
        raw = bytearray()
        ends = [0]
        for token_id in ids:
            raw += self._piece(token_id).surface
            ends.append(len(raw))
        text = raw.decode("utf-8", errors="replace")
        stripped = text.strip()
        offset = len(text) - len(text.lstrip())
        places = _characters_at(raw, ends)
        limit = len(stripped)
        spans = [
            (min(max(begin - offset, 0), limit), min(max(stop - offset, 0), limit))
            for begin, stop in itertools.pairwise(places)
        ]
        return stripped, spans

    def _piece(self, token_id: int) -> _Piece:
        known = self._known.get(token_id)
        if known is None:
            piece = self._processor.id_to_piece(token_id)
            tag = _TAG.fullmatch(piece)
            known = _Piece(tag[1] if tag else "", self._surface(token_id, piece))
            self._known[token_id] = known
        return known

    def _surface(self, token_id: int, piece: str) -> bytes:
        if self._processor.is_control(token_id):
            return b""
        if self._processor.is_byte(token_id) and (byte := _BYTE.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        return piece.replace(_SPACE, " ").encode()


def _characters_at(raw: bytearray, ends: list[int]) -> list[int]:
    """How many whole characters the text has before each byte position."""
    return [len(raw[:end].decode("utf-8", errors="ignore")) for end in ends]


def collapse(path: NDArray[np.integer[Any]]) -> tuple[NDArray[np.integer[Any]], IntArray, IntArray]:
    """Merge repeats and drop blanks, as CTC defines it (Graves et al., 2006).

    Args:
        path: shape (T,), the best token of each frame.

    Returns:
        ids, first frame and the frame behind the last one of each token, all of shape (N,); the ids are
        of the type given, the others int64.
    """
    if not len(path):
        none = np.empty(0, dtype=np.int64)
        return path, none, none
    starts = np.flatnonzero(np.concatenate(([True], np.diff(path) != 0)))
    stops = np.append(starts[1:], len(path))
    ids = path[starts]
    kept = ids != BLANK
    return ids[kept], starts[kept], stops[kept]


def read(frames: Frames, vocabulary: Vocabulary) -> Reading:
    """Read one span's frames.

    Args:
        frames: 4 + T of them.
        vocabulary: of the same version.

    Raises:
        InferenceFailed: their numbers are not finite.
    """
    path = frames.ids
    if not frames.finite:
        raise InferenceFailed("the engine gave numbers that are not finite")
    language, emotion, event, _itn = (vocabulary.tag(int(i)) for i in path[:QUERY_FRAMES])
    language = language if language in _LANGUAGES else NO_SPEECH
    ids, starts, stops = collapse(path[QUERY_FRAMES:])
    spoken = [i for i, token_id in enumerate(ids.tolist()) if not vocabulary.tag(token_id)]
    text, places = vocabulary.text(ids[spoken].tolist())
    tokens: tuple[Token, ...] = ()
    if language == NO_SPEECH or not any(c.isalnum() for c in text):
        text = ""
    else:
        probabilities = frames.probabilities[QUERY_FRAMES:]
        tokens = tuple(
            Token(
                id=int(ids[i]),
                start=max(0.0, starts[i] * FRAME_SECONDS - _FRAME_LEAD),
                end=stops[i] * FRAME_SECONDS - _FRAME_LEAD,
                confidence=float(probabilities[starts[i] : stops[i]].max()),
                begin=begin,
                stop=stop,
            )
            for i, (begin, stop) in zip(spoken, places, strict=True)
        )
    return Reading(
        text=text,
        language=language,
        emotion=_EMOTIONS.get(emotion, "unknown"),
        events=(_EVENTS[event],) if event in _EVENTS else (),
        tokens=tokens,
        no_speech=_posterior(frames.first, vocabulary.no_speech),
        language_probabilities=_of_languages(frames.first, vocabulary.languages),
    )


def _posterior(logits: FloatArray, token_id: int) -> float:
    """Posterior probability of one token in one frame, whose logits have the shape (V,)."""
    odds = np.exp(logits - logits.max())
    return float(odds[token_id] / odds.sum())


def _of_languages(logits: FloatArray, ids: Mapping[str, int]) -> tuple[LanguageProbability, ...]:
    """The softmax over the tags of the languages alone, as Whisper's `detect_language` has it.

    Args:
        logits: of the first frame, shape (V,).
        ids: language → id of its tag.
    """
    chosen = logits[list(ids.values())]
    odds = np.exp(chosen - chosen.max())
    shares = (odds / odds.sum()).tolist()
    return tuple(LanguageProbability(name, share) for name, share in zip(ids, shares, strict=True))
