"""A request as one file: what is put behind a recording comes out again, and the recording is as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.serving.accept import parse_head
from asrsvc.serving.parcel import Parcel, head_of, pack, unpack

TEXT = st.text(max_size=40)


def parcel(size: int = 0, **changed: Any) -> Parcel:
    known: dict[str, Any] = {
        "head": b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
        "fields": {"language": "zh"},
        "lists": {},
        "size": size,
        "has_file": True,
        "begun": 1.5,
        "started": 1.25,
        "request_id": "r-1",
        "note": {"url_host": "example.com"},
    }
    return Parcel(**{**known, **changed})


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "recording", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, bytes(range(256)) * 1000)
    yield descriptor
    os.close(descriptor)


@given(
    fields=st.dictionaries(TEXT, TEXT, max_size=5),
    lists=st.dictionaries(TEXT, st.lists(TEXT, max_size=4), max_size=3),
    head=st.binary(max_size=300),
    note=st.dictionaries(
        TEXT, st.one_of(TEXT, st.floats(allow_nan=False), st.integers(0, 2**40)), max_size=4
    ),
)
def test_what_goes_in_comes_out(
    fields: dict[str, str], lists: dict[str, list[str]], head: bytes, note: dict[str, Any]
) -> None:
    sent = parcel(fields=fields, lists=lists, head=head, note=note, has_file=False)
    descriptor = pack(sent, None)
    try:
        assert unpack(descriptor) == sent
        assert os.fstat(descriptor).st_size == 0
    finally:
        os.close(descriptor)


def test_the_recording_in_front_is_as_it_was(recording: int) -> None:
    size = os.fstat(recording).st_size
    sent = parcel(size)
    for _ in range(3):  # it may wait again
        assert pack(sent, recording) == recording
        assert os.fstat(recording).st_size > size
        assert unpack(recording) == sent
        assert os.fstat(recording).st_size == size
    assert os.pread(recording, 1000, size - 1000) == (bytes(range(256)) * 4)[-1000:]


@pytest.mark.parametrize("cut", [0, 1, 10, 23, 24, 100])
def test_a_file_that_holds_no_request_is_told(recording: int, cut: int) -> None:
    pack(parcel(os.fstat(recording).st_size), recording)
    length = os.fstat(recording).st_size
    os.ftruncate(recording, cut if cut < 24 else length - cut)
    with pytest.raises((ValueError, OSError)):
        unpack(recording)


def test_a_head_is_that_of_a_request_without_a_body() -> None:
    raw = (
        b"POST /v1/audio/transcriptions?a=%20b HTTP/1.1\r\nHost: test\r\nX-Thing: one\r\nX-Thing: two\r\n"
        b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\nUpgrade: h2c\r\n\r\n"
    )
    collected = parse_head(raw)
    assert collected is not None
    again = head_of(
        {
            "method": "POST",
            "raw_path": b"/v1/audio/transcriptions",
            "query_string": b"a=%20b",
            "http_version": "1.1",
            "headers": list(collected.headers),
        }
    )
    read = parse_head(again)
    assert read is not None
    assert read.headers == (
        (b"host", b"test"),
        (b"x-thing", b"one"),
        (b"x-thing", b"two"),
        (b"content-length", b"0"),
    )
    assert again.startswith(b"POST /v1/audio/transcriptions?a=%20b HTTP/1.1\r\n")

    class Whole:
        ended = False

        def on_message_complete(self) -> None:
            self.ended = True

    whole = Whole()
    httptools.HttpRequestParser(whole).feed_data(again)
    assert whole.ended
