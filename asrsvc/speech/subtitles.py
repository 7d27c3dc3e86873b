"""Segments to subtitles, SubRip and WebVTT, with times from the words.

A cue has two lines at most, of 42 Latin or 16 full-width characters (Chinese, Japanese, Korean), and
lasts 7 seconds at most (Netflix, Timed Text Style Guides). It ends where the speaker pauses or a
sentence ends, if it can. Lines are broken where the language allows it: between words, where there
are any; never in front of a mark that belongs to what stands before it (kinsoku, JIS X 4051).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from asrsvc.speech.types import Segment

LINE_WIDTH: Final = 42.0
"""of a line, at most, in widths of a Latin character"""
LINES: Final = 2
"""of a cue, at most"""
LONGEST_SECONDS: Final = 7.0
"""that a cue stays, at most; only a single word may be longer"""

_FULL_WIDTH: Final = LINE_WIDTH / 16
_SHORTEST_SECONDS: Final = 5 / 6  # so long a cue stays at least, where the next one lets it
_PAUSE_SECONDS: Final = 1.0  # silence that ends a cue
_BREATH_SECONDS: Final = 0.25  # silence at which a cue that must end somewhere is cut
_ENOUGH: Final = 0.5  # of a line; a sentence that fills less is shown together with the next
_ENDS_SENTENCE: Final = frozenset("。．！？!?…")
_ENDS_CLAUSE: Final = frozenset("，、；：,;:")
_CLOSING: Final = frozenset("\"'”’」』）)】〕〉》]}")
_ABBREVIATION: Final = re.compile(r"(?:^|\W)(?:[A-Za-z]\.)+$|(?:^|\W)(?:Mr|Mrs|Ms|Dr|St|vs|No)\.$")
# No line begins with these: small kana, the marks that prolong or repeat, and closing punctuation.
_NOT_FIRST: Final = frozenset("ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶー々〻゛゜ゝゞヽヾ%％℃°") | (
    _ENDS_SENTENCE | _ENDS_CLAUSE | _CLOSING
)
_SPACES: Final = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Cue:
    """What is shown at one time."""

    start: float
    """seconds"""
    end: float
    """seconds; end > start"""
    lines: tuple[str, ...]
    """one or two; plain text without markup"""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A word with its time: what no cue or line cuts."""

    text: str
    """with the space behind it, if it has one"""
    start: float
    end: float

    @property
    def width(self) -> float:
        return _width(self.text)


def to_srt(segments: Iterable[Segment]) -> str:
    """The text of a SubRip file; empty if nothing was said."""
    blocks = [
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n"
        # The arrow would be read as a line of times.
        + "\n".join(line.replace("-->", "→") for line in cue.lines)
        for number, cue in enumerate(cues(segments), 1)
    ]
    return "\n\n".join(blocks) + "\n" if blocks else ""


def to_vtt(segments: Iterable[Segment]) -> str:
    """The text of a WebVTT file (W3C, WebVTT §4); text is escaped, never markup."""
    blocks = [
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n" + "\n".join(map(_escaped, cue.lines))
        for cue in cues(segments)
    ]
    return "\n\n".join(["WEBVTT", *blocks]) + "\n"


def cues(segments: Iterable[Segment]) -> list[Cue]:
    """Cut segments to cues, in order of time, without overlap.

    Args:
        segments: in order of time. A segment whose text has no words (nobody asked for them) is cut
            like the others, and its time is shared out over its characters.
    """
    rough = [cue for segment in segments for cue in _cues(segment)]
    result: list[Cue] = []
    for index, cue in enumerate(rough):
        start = max(cue.start, result[-1].end) if result else cue.start
        end = max(cue.end, start + 0.001)
        if index + 1 < len(rough):
            # Longer on the screen than it sounds, if it is too short to be read; never into the next.
            follower = max(rough[index + 1].start, start + 0.001)
            end = min(max(end, start + _SHORTEST_SECONDS), follower)
        result.append(replace(cue, start=round(start, 3), end=round(end, 3)))
    return result


def _cues(segment: Segment) -> list[Cue]:
    pieces = _pieces(segment)
    found = []
    while pieces:
        count = _length_of_cue(pieces)
        shown, pieces = pieces[:count], pieces[count:]
        found.append(Cue(shown[0].start, shown[-1].end, _lines(shown)))
    return found


def _pieces(segment: Segment) -> list[_Piece]:
    """The segment's text in pieces that are not cut."""
    text = _SPACES.sub(" ", segment.text).strip()
    pieces: list[_Piece] = []
    begin = 0
    words = [(word, _SPACES.sub(" ", word.word)) for word in segment.words]
    for index, (word, written) in enumerate(words):
        at = text.find(written, begin)
        if at < 0:
            continue  # its characters stay with the word before it
        follower = words[index + 1][1] if index + 1 < len(words) else None
        stop = text.find(follower, at + len(written)) if follower is not None else len(text)
        stop = stop if stop >= 0 else at + len(written)
        pieces += _cut(_Piece(text[begin:stop], word.start, word.end))
        begin = stop
    if not pieces:
        return _cut(_Piece(text, segment.start, segment.end)) if text else []
    if begin < len(text):
        pieces[-1] = replace(pieces[-1], text=pieces[-1].text + text[begin:])
    return pieces


def _cut(piece: _Piece) -> list[_Piece]:
    """A word that is longer than a line, in parts that share its time by their width; others as they are."""
    if _width(piece.text.strip()) <= LINE_WIDTH:
        return [piece]
    parts = re.findall(r"\S+\s*", piece.text) if " " in piece.text.strip() else list(piece.text)
    total = piece.width
    seconds = (piece.end - piece.start) / total
    result: list[_Piece] = []
    done = 0.0
    for part in parts:
        start = piece.start + done * seconds
        done += _width(part)
        cut = _Piece(part, start, piece.start + done * seconds)
        result += _cut(cut) if len(parts) > 1 else [cut]
    return result


def _length_of_cue(pieces: Sequence[_Piece]) -> int:
    """How many of the pieces the first cue takes."""
    most = 1
    while most < len(pieces):
        gap = pieces[most].start - pieces[most - 1].end
        if gap >= _PAUSE_SECONDS:
            return most
        if _sentence_ends(pieces[most - 1].text) and _filled(pieces[:most]):
            return most
        if not _fits(pieces[: most + 1]):
            break
        most += 1
    if most == len(pieces):
        return most
    # It is cut somewhere inside a sentence: at a comma or a breath in its later half, if there is one.
    best, best_score = most, -1.0
    for count in range(max(1, most // 2), most + 1):
        if not _may_break(pieces, count):
            continue
        gap = pieces[count].start - pieces[count - 1].end
        ending = pieces[count - 1].text.rstrip()[-1:]
        score = count / most + (2.0 if ending in _ENDS_CLAUSE else 0.0) + (gap >= _BREATH_SECONDS)
        score += 3.0 * _sentence_ends(pieces[count - 1].text)
        if score > best_score:
            best, best_score = count, score
    return best


def _filled(pieces: Sequence[_Piece]) -> bool:
    return (
        sum(piece.width for piece in pieces) >= _ENOUGH * LINE_WIDTH
        or pieces[-1].end - pieces[0].start >= _PAUSE_SECONDS
    )


def _fits(pieces: Sequence[_Piece]) -> bool:
    if pieces[-1].end - pieces[0].start > LONGEST_SECONDS:
        return False
    return _width(_text(pieces)) <= LINE_WIDTH or _break(pieces) is not None


def _lines(pieces: Sequence[_Piece]) -> tuple[str, ...]:
    if _width(_text(pieces)) <= LINE_WIDTH:
        return (_text(pieces),)
    at = _break(pieces)
    return (_text(pieces),) if at is None else (_text(pieces[:at]), _text(pieces[at:]))


def _break(pieces: Sequence[_Piece]) -> int | None:
    """Where two lines part best: after punctuation, else where they are of about one length."""
    best: tuple[float, int] | None = None
    for at in range(1, len(pieces)):
        first, second = _width(_text(pieces[:at])), _width(_text(pieces[at:]))
        if max(first, second) > LINE_WIDTH or not _may_break(pieces, at):
            continue
        ending = pieces[at - 1].text.rstrip()[-1:]
        marked = ending in _ENDS_SENTENCE or ending in _ENDS_CLAUSE
        cost = abs(first - second) - (LINE_WIDTH / 2 if marked else 0.0)
        if best is None or cost < best[0]:
            best = cost, at
    return best[1] if best else None


def _may_break(pieces: Sequence[_Piece], at: int) -> bool:
    return pieces[at].text[:1] not in _NOT_FIRST


def _sentence_ends(text: str) -> bool:
    text = text.rstrip()
    bare = text.rstrip("".join(_CLOSING))
    if bare.endswith("."):
        return not _ABBREVIATION.search(bare)
    return bare[-1:] in _ENDS_SENTENCE


def _text(pieces: Sequence[_Piece]) -> str:
    return "".join(piece.text for piece in pieces).strip()


def _width(text: str) -> float:
    """In widths of a Latin character (Unicode Standard Annex 11)."""
    width = 0.0
    for character in text:
        if unicodedata.east_asian_width(character) in "WF":
            width += _FULL_WIDTH
        elif not unicodedata.combining(character):
            width += 1.0
    return width


def _escaped(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, point: str) -> str:
    milliseconds = max(0, round(seconds * 1000))
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"
