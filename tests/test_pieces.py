"""A file put together from stretches of another one."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.speech.pieces import Piece, Pieces

CONTENT = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def descriptor() -> int:
    made = os.memfd_create("content")
    os.write(made, CONTENT)
    return made


places = st.integers(0, len(CONTENT))
pieces_of_it = st.lists(
    st.one_of(st.binary(max_size=9), st.tuples(places, places).map(lambda ends: range(*sorted(ends)))),
    max_size=6,
)


@given(pieces_of_it, st.lists(st.tuples(st.integers(-9, 2000), st.integers(0, 2), st.integers(0, 999))))
def test_it_reads_as_the_joined_bytes_do(
    descriptor: int, pieces: list[Piece], moves: list[tuple[int, int, int]]
) -> None:
    joined = b"".join(
        CONTENT[piece.start : piece.stop] if isinstance(piece, range) else piece for piece in pieces
    )
    os.lseek(descriptor, 5, os.SEEK_SET)
    file, like = Pieces(descriptor, pieces), io.BytesIO(joined)
    assert file.read() == like.read()
    for offset, whence, count in moves:
        if whence == os.SEEK_SET and offset < 0:
            continue
        assert file.seek(offset, whence) == like.seek(offset, whence)
        assert (file.read(count), file.tell()) == (like.read(count), like.tell())
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == 5, "the other file's position stays"


def test_it_ends_where_the_other_file_has_become_shorter(descriptor: int) -> None:
    assert Pieces(descriptor, [b"ab", range(1000, 5000), b"cd"]).read() == b"ab" + CONTENT[1000:]
