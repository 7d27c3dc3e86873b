"""What a decoder process says is checked as what a stranger says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from asrsvc.errors import BadAudio, TooLarge
from asrsvc.speech.answers import Answer, Nonsense, Refused
from asrsvc.speech.types import Notice

NOTICES: list[Notice] = []


def answer(*, rate: int | None = 16_000) -> Answer:
    made = Answer(48_000, lambda _seconds: None, NOTICES.append)
    if rate is not None:
        made.read(b"R", str(rate).encode())
    return made


def test_blocks_and_silences_come_at_the_rate_that_was_said() -> None:
    made = answer()
    samples = np.array([0.5, -1, 1], np.float32)
    block = made.read(b"B", samples.tobytes())
    assert block is not None
    assert (made.rate, block.tolist()) == (16_000, samples.tolist())
    silence = made.read(b"S", b"3")
    assert silence is not None
    assert silence.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (b"B", b"\0\0\0"),
        (b"B", np.array([np.nan], np.float32).tobytes()),
        (b"B", np.array([0, np.inf], np.float32).tobytes()),
        (b"B", np.array([0, -1.5], np.float32).tobytes()),
        (b"S", b"1000000000000"),
        (b"S", b"-1"),
        (b"S", b'"3"'),
        (b"R", b"0"),
        (b"R", b"48001"),
        (b"R", b"16000.5"),
        (b"D", b"NaN"),
        (b"D", b"Infinity"),
        (b"D", b"-1"),
        (b"W", b'"a line\\nand another"'),
        (b"W", b'"' + b"x" * 501 + b'"'),
        (b"W", b"[]"),
        (b"X", b'"a sentence"'),
        (b"X", b'["a sentence", 5]'),
        (b"E", b"1"),
        (b"?", b""),
        (b"D", b"[" * 3000),
        (b"D", b"\xff"),
    ],
)
def test_nonsense_is_told(kind: bytes, payload: bytes) -> None:
    with pytest.raises(Nonsense):
        answer().read(kind, payload)


@pytest.mark.parametrize(("kind", "payload"), [(b"B", bytes(4)), (b"S", b"3")])
def test_sound_without_a_rate_is_nonsense(kind: bytes, payload: bytes) -> None:
    with pytest.raises(Nonsense):
        answer(rate=None).read(kind, payload)


@pytest.mark.parametrize(
    ("code", "kind"), [("audio_too_long", TooLarge), ("audio_truncated", BadAudio), (None, BadAudio)]
)
def test_a_refusal_is_the_answer_to_the_client(code: str | None, kind: type[Exception]) -> None:
    with pytest.raises(Refused) as caught:
        answer().read(b"X", json.dumps(["file is no good", code]).encode())
    assert type(caught.value.error) is kind
    assert caught.value.error.message == "file is no good"
    assert caught.value.error.code == code or code is None
