"""Frames to text, against SentencePiece's own decoder and a plain definition of CTC."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.errors import InferenceFailed, ModelError
from asrsvc.speech.frames import Frames
from asrsvc.speech.text import Vocabulary, collapse, read

MODEL = Path(__file__).resolve().parents[1] / "asrsvc" / "models" / "sensevoice-nano"
BPE = next(MODEL.glob("*.bpe.model"))
PROCESSOR = sentencepiece.SentencePieceProcessor(model_file=str(BPE))
SIZE = PROCESSOR.get_piece_size()
VOCABULARY = Vocabulary(BPE)

ZH, EN, NOSPEECH, UNKNOWN, SPEECH, BGM, WITHITN = (
    PROCESSOR.piece_to_id(f"<|{name}|>")
    for name in ("zh", "en", "nospeech", "EMO_UNKNOWN", "Speech", "BGM", "withitn")
)


def logits(path: list[int], value: float = 20.0) -> np.ndarray:
    """Logits whose best path is this one."""
    rows = np.zeros((len(path), SIZE), np.float32)
    rows[np.arange(len(path)), path] = value
    return rows


def heard(path: list[int]) -> Frames:
    return Frames.of_logits(logits(path))


def ids(text: str) -> list[int]:
    return list(PROCESSOR.encode(text))


@given(st.lists(st.integers(28, SIZE - 1), max_size=40))
def test_text_is_what_sentencepiece_decodes(tokens: list[int]) -> None:
    text, places = VOCABULARY.text(tokens)
    assert text == PROCESSOR.decode(tokens).strip()
    assert len(places) == len(tokens)
    assert all(0 <= begin <= stop <= len(text) for begin, stop in places)
    assert "".join(text[begin:stop] for begin, stop in places) == text


@given(st.lists(st.integers(0, 4), max_size=60))
def test_collapse_is_ctc(path: list[int]) -> None:
    found, starts, stops = collapse(np.array(path, np.int64))
    groups = [(k, list(g)) for k, g in itertools.groupby(enumerate(path), key=lambda p: p[1])]
    assert found.tolist() == [token for token, _ in groups if token != 0]
    assert starts.tolist() == [g[0][0] for token, g in groups if token != 0]
    assert stops.tolist() == [g[-1][0] + 1 for token, g in groups if token != 0]


def test_the_first_four_frames_are_tags() -> None:
    reading = read(heard([EN, UNKNOWN, BGM, WITHITN, 0, 0, *ids("table"), 0]), VOCABULARY)
    assert (reading.text, reading.language, reading.emotion) == ("table", "en", "unknown")
    assert reading.events == ("bgm",)
    assert reading.tokens[0].start == pytest.approx(2 * 0.06 - 0.03)
    assert 0.9 < reading.confidence <= 1


@pytest.mark.parametrize(
    ("tags", "text"),
    [([NOSPEECH, UNKNOWN, SPEECH, WITHITN], "table"), ([EN, UNKNOWN, SPEECH, WITHITN], "...,")],
    ids=["nospeech", "only punctuation"],
)
def test_nothing_said_gives_no_text(tags: list[int], text: str) -> None:
    reading = read(heard([*tags, *ids(text)]), VOCABULARY)
    assert (reading.text, reading.tokens, reading.confidence) == ("", (), 0.0)


def test_confidence_is_the_posterior_of_the_best_frame() -> None:
    rows = logits([EN, UNKNOWN, SPEECH, WITHITN, *ids("table")[-1:] * 2], 8.0)
    rows[5] *= 2
    (token,) = read(Frames.of_logits(rows), VOCABULARY).tokens
    expected = np.exp(16.0) / (np.exp(16.0) + SIZE - 1)
    assert token.confidence == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_an_error(value: float) -> None:
    rows = logits([EN, UNKNOWN, SPEECH, WITHITN, 0, 0])
    rows[4, 100] = value
    with pytest.raises(InferenceFailed, match="not finite"):
        read(Frames.of_logits(rows), VOCABULARY)


def test_a_vocabulary_of_another_size_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"bpe\.model: has 1307 pieces; the network has 25055"):
        Vocabulary(BPE).check_size(25055)


def test_a_file_that_is_no_vocabulary_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.bpe.model"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match=r"x\.bpe\.model: cannot be read"):
        Vocabulary(path)
    with pytest.raises(ModelError, match="cannot be read"):
        Vocabulary(tmp_path / "none")
