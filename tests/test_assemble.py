"""Pieces of sound become blocks, silences and mono."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from asrsvc.speech.assemble import MAX_RATE_CHANGES, Assembler, Piece
from asrsvc.speech.decoded import Block, FileLimits, Refused, Silence

LIMITS = FileLimits(max_rate=384_000, max_channels=16, max_seconds=1000)


def piece(rate: int, samples: int, channels: int = 1, time: float | None = None, value: float = 0.5) -> Piece:
    return Piece(rate, np.full((channels, samples), value, np.float32), time)


def assembled(pieces: Iterable[Piece]) -> list[Block | Silence]:
    assembler = Assembler(LIMITS)
    return [item for one in pieces for item in assembler.take(one)] + [*assembler.rest()]


def lengths(items: list[Block | Silence]) -> list[tuple[str, int, int]]:
    return [
        ("silence", item.rate, item.samples)
        if isinstance(item, Silence)
        else ("sound", item.rate, len(item.samples))
        for item in items
    ]


def test_small_pieces_become_blocks_of_ten_seconds() -> None:
    items = assembled(piece(16_000, 1000, 2) for _ in range(400))
    assert sum(length for _kind, _rate, length in lengths(items)) == 400_000
    assert max(length for _kind, _rate, length in lengths(items)) < 10.1 * 16_000


def test_a_new_rate_begins_a_new_block() -> None:
    items = assembled([piece(44_100, 500), piece(44_100, 500), piece(22_050, 300)])
    assert lengths(items) == [("sound", 44_100, 1000), ("sound", 22_050, 300)]


def test_other_channels_lose_no_sample() -> None:
    items = assembled([piece(16_000, 500, 1), piece(16_000, 300, 2), piece(16_000, 200, 6)])
    assert sum(length for _kind, _rate, length in lengths(items)) == 1000
    assert all(np.allclose(item.samples, 0.5) for item in items if isinstance(item, Block))


def test_channels_that_cancel_are_heard() -> None:
    left = np.sin(np.arange(16_000) / 5).astype(np.float32)
    items = assembled([Piece(16_000, np.stack([left, -left]))])
    samples = np.concatenate([item.samples for item in items if isinstance(item, Block)])
    assert np.abs(samples) == pytest.approx(np.abs(left), abs=1e-6)


def test_a_hole_lies_between_two_blocks() -> None:
    items = assembled([piece(8_000, 8_000, time=5.0), piece(8_000, 8_000, time=30.0)])
    assert lengths(items) == [
        ("sound", 8_000, 8_000),
        ("silence", 8_000, 80_000),
        ("silence", 8_000, 80_000),
        ("silence", 8_000, 32_000),
        ("sound", 8_000, 8_000),
    ]


def test_too_many_changes_of_the_rate_are_refused() -> None:
    def alternating(changes: int) -> Iterable[Piece]:
        return (piece(8_000 if number % 2 else 16_000, 10) for number in range(changes + 1))

    assert len(assembled(alternating(MAX_RATE_CHANGES))) == MAX_RATE_CHANGES + 1
    with pytest.raises(Refused, match="over 10000 times, which is the limit"):
        assembled(alternating(MAX_RATE_CHANGES + 1))


@pytest.mark.parametrize(
    ("rate", "channels", "code"),
    [
        (400_000, 1, "sample_rate_unsupported"),
        (0, 1, "sample_rate_unsupported"),
        (8_000, 17, "channels_unsupported"),
    ],
)
def test_formats_beyond_the_limits_are_refused(rate: int, channels: int, code: str) -> None:
    with pytest.raises(Refused) as caught:
        assembled([piece(16_000, 10), piece(rate, 10, channels)])
    assert caught.value.code == code
