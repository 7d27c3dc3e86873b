"""Multipart bodies as senders write them, cut wherever the network cuts them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asrsvc.web.multipart import (
    HEAD_BYTES,
    HEADS_BYTES,
    PREAMBLE_BYTES,
    MalformedError,
    MultipartParser,
    PartHeaders,
)

DISPOSITION = b"content-disposition"
WHOLE = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
SOUND = bytes(range(256)) * 3 + b"\r\n--\r\n--A\r\n\r\n--\n--B\r--B \r\r\n-"
"""content that nearly has a boundary in it"""


class Parts:
    """What a parser tells."""

    def __init__(self) -> None:
        self.parts: list[tuple[PartHeaders, bytes]] = []
        self.open = False

    def on_part(self, headers: PartHeaders) -> None:
        assert not self.open
        self.open = True
        self.parts.append((headers, b""))

    def on_data(self, data: bytes, start: int, end: int) -> None:
        assert self.open
        assert 0 <= start < end <= len(data)
        headers, content = self.parts.pop()
        self.parts.append((headers, content + data[start:end]))

    def on_part_end(self) -> None:
        assert self.open
        self.open = False


def parse(
    body: bytes, size: int = 2**20, boundary: bytes = b"B"
) -> tuple[list[tuple[PartHeaders, bytes]], bool]:
    """The parts of a body that comes in pieces of this size, and whether it came to its end."""
    parts = Parts()
    parser = MultipartParser(boundary, parts)
    for at in range(0, len(body), size):
        parser.write(body[at : at + size])
    parser.finish()
    return parts.parts, parser.ended


def contents(body: bytes, size: int = 2**20) -> list[bytes]:
    found, ended = parse(body, size)
    assert ended
    return [content for _, content in found]


ODD = {
    "an ordinary one": (WHOLE + SOUND + b"\r\n--B--\r\n", [SOUND]),
    "nothing": (WHOLE + b"\r\n--B--\r\n", [b""]),
    "nothing, and one line end for both": (WHOLE + b"--B--\r\n", [b""]),
    "nothing, then another": (WHOLE + WHOLE + b"x\r\n--B--", [b"", b"x"]),
    "no line end behind the last": (WHOLE + b"x\r\n--B--", [b"x"]),
    "blanks behind boundaries": (
        (WHOLE + b"x\r\n" + WHOLE + b"y\r\n--B-- \t\r\n").replace(b"--B\r\n", b"--B \t \r\n"),
        [b"x", b"y"],
    ),
    "a preamble": (b"This is a message\r\nin parts. --B\r\n --B\r\n\r\n" + WHOLE + b"x\r\n--B--", [b"x"]),
    "line ends in front": (b"\r\n\r\n" + WHOLE + b"x\r\n--B--", [b"x"]),
    "an epilogue": (WHOLE + b"x\r\n--B--\r\nThe end.\r\n--B\r\nX: y\r\n\r\nz\r\n--B--", [b"x"]),
    "LF alone": (
        (WHOLE + b"x\ry\r\r\n" + WHOLE + b"z\r\n--B--\r\n").replace(b"\r\n", b"\n"),
        [b"x\ry\r", b"z"],
    ),
    "no header": (b"--B\r\n\r\nx\r\n--B--", [b"x"]),
    "no header and nothing": (b"--B\r\n\r\n\r\n--B\r\n\r\n--B--", [b"", b""]),
    "a longer boundary inside": (
        WHOLE + b"--Bx\r\n\r\n--BB--\r\n--B--",
        [b"--Bx\r\n\r\n--BB--"],
    ),
    "no part": (b"--B--\r\n", []),
}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 2**20])
@pytest.mark.parametrize("name", ODD)
def test_what_rfc_2046_allows_is_read(name: str, size: int) -> None:
    body, found = ODD[name]
    assert contents(body, size) == found


HEADS = {
    b'Content-Disposition: form-data; name="file"': b'form-data; name="file"',
    b'content-disposition:form-data; name="file"': b'form-data; name="file"',
    b'CONTENT-DISPOSITION: \t form-data; name="file" \t': b'form-data; name="file"',
    b'Content-Disposition: form-data; name="file";\r\n filename="a b.wav"': (
        b'form-data; name="file"; filename="a b.wav"'
    ),
    b'Content-Disposition:\r\n\tform-data;\r\n    name="file";\r\n\t filename="a.wav"': (
        b'form-data; name="file"; filename="a.wav"'
    ),
    b"X-Before: 1\r\n 2\r\nContent-Disposition: form-data\r\nX-Behind: 3\r\n  4": b"form-data",
}


@pytest.mark.parametrize("size", [1, 3, 2**20])
@pytest.mark.parametrize("head", HEADS)
def test_a_header_is_read_in_every_dress(head: bytes, size: int) -> None:
    for newline in (b"\r\n", b"\n"):
        body = b"--B\r\n" + head + b"\r\n\r\nx\r\n--B--"
        ((headers, content),), ended = parse(body.replace(b"\r\n", newline), size)
        assert (headers[DISPOSITION], content, ended) == (HEADS[head], b"x", True)


@pytest.mark.parametrize("size", [1, 100, 2**20])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"hello", "the boundary of its Content-Type is not in it"),
        (b"hello\r\n" * 10_000, f"is not in its first {PREAMBLE_BYTES} bytes"),
        (b"\n" * 100_000, f"is not in its first {PREAMBLE_BYTES} bytes"),
        (b"\r\n--" * 10_000, f"is not in its first {PREAMBLE_BYTES} bytes"),
        (b"x\r\n--B--\r\n", "begins no part"),
        (b"--B\r\n folded: x\r\n\r\n", "has the line ' folded: x'"),
        (b"--B\r\nno colon\r\n\r\n", "has the line 'no colon'"),
        (b"--B\r\nContent Type: x\r\n\r\n", "has the line 'Content Type: x'"),
        (b"--B\r\n: x\r\n\r\n", "has the line ': x'"),
        (b"--B\r\nA: x\rB: y\r\n\r\n", "has the line"),
        (b"--B\r\nA: " + b"x" * 9000, f"the header size of a part is over {HEAD_BYTES} bytes"),
        (b"--B\r\nA: x" + b"\r\n y" * 9000, f"the header size of a part is over {HEAD_BYTES} bytes"),
        (b"--B\r\n" + b"A: x\r\n" * 17 + b"\r\n", "the header count of a part is over 16"),
        (
            (b"--B\r\nA: " + b"x" * 8000 + b"\r\n\r\nx\r\n") * 40,
            f"the headers of its parts are over {HEADS_BYTES} bytes together",
        ),
    ],
)
def test_what_is_no_form_is_told_why(body: bytes, said: str, size: int) -> None:
    with pytest.raises(MalformedError) as caught:
        parse(body, size)
    assert said in str(caught.value)


@pytest.mark.parametrize("end", range(1, len(WHOLE) + 8))
def test_a_body_that_stops_early_has_not_ended(end: int) -> None:
    body = (WHOLE + b"x\r\n--B--")[:end]
    with suppress(MalformedError):
        assert parse(body)[1] == (end == len(WHOLE) + 8)


@given(
    pieces=st.lists(
        st.binary(max_size=40) | st.sampled_from([b"\r\n--B", b"\r\n", b"--B", b"-", SOUND]), max_size=8
    ),
    newline=st.sampled_from([b"\r\n", b"\n"]),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
)
@example(pieces=[b"\r\n--"], newline=b"\r\n", sizes=[1])
def test_however_it_is_cut_it_is_the_same(pieces: list[bytes], newline: bytes, sizes: list[int]) -> None:
    body = b"--B\r\nA: b\r\n\r\n".replace(b"\r\n", newline) + b"".join(pieces) + newline + b"--B--"

    def told(cuts: list[int]) -> tuple[object, ...]:
        parts = Parts()
        parser = MultipartParser(b"B", parts)
        rest = body
        try:
            while rest:
                size = cuts[len(rest) % len(cuts)]
                parser.write(rest[:size])
                rest = rest[size:]
            parser.finish()
        except MalformedError as error:
            return (str(error),)
        return (parts.parts, parser.ended)

    assert told(sizes) == told([len(body)])


def test_nothing_is_kept_of_content() -> None:
    """Only what may be the beginning of a boundary waits for more."""
    parser = MultipartParser(b"B", Parts())
    parser.write(WHOLE)
    for chunk in (
        bytes(100_000),
        b"\r\n--B" + b" " * 100,
        b" " * 100_000,
        b"\r\n" * 50_000,
    ):
        parser.write(chunk)
        assert len(parser._rest) < 600
