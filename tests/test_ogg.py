"""Which Ogg files libsndfile reads whole, by their pages alone."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from formats import ByFFmpeg, make
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.speech.ogg import unusual

PAGE = 27
"""bytes of a page before its lacing values"""


def encoded(name: str) -> bytes:
    with TemporaryDirectory() as folder:
        return make(name, Path(folder))


OPUS, VORBIS, FLAC = encoded("opus-48k-stereo"), encoded("vorbis"), encoded("flac-in-ogg")


def is_unusual(content: bytes) -> bool:
    descriptor = os.memfd_create("file")
    try:
        os.write(descriptor, content)
        return unusual(descriptor)
    finally:
        os.close(descriptor)


def pages(content: bytes) -> list[bytes]:
    found = []
    while content:
        lacing = content[PAGE : PAGE + content[26]]
        size = PAGE + len(lacing) + sum(lacing)
        found.append(content[:size])
        content = content[size:]
    return found


def checksum(page: bytes) -> int:
    """Of a page whose field for it is 0, bit by bit as RFC 3533 has it."""
    found = 0
    for byte in page:
        found ^= byte << 24
        for _ in range(8):
            found = (found << 1 ^ (0x04C11DB7 if found >> 31 else 0)) & 0xFFFFFFFF
    return found


def later(page: bytes, samples: int) -> bytes:
    """A page with a later time stamp."""
    (granule,) = struct.unpack_from("<q", page, 6)
    blank = page[:6] + struct.pack("<q", granule + samples) + page[14:22] + bytes(4) + page[26:]
    return blank[:22] + struct.pack("<I", checksum(blank)) + blank[26:]


@pytest.mark.parametrize("name", ["opus", "opus-48k-stereo", "vorbis"])
def test_one_whole_stream_of_opus_or_vorbis_is_usual(name: str) -> None:
    content = encoded(name)
    assert not is_unusual(content)
    assert not is_unusual(b"".join(later(page, 0) for page in pages(content)))


@pytest.mark.parametrize("milliseconds", [20, 1000])
@pytest.mark.parametrize("frame", ["2.5", "20", "60", "120"])
def test_packets_and_pages_of_any_length_are_usual(tmp_path: Path, frame: str, milliseconds: int) -> None:
    options = {"page_duration": str(1000 * milliseconds)}
    recipe = ByFFmpeg(
        "ogg", "libopus", 48_000, codec_options={"frame_duration": frame}, container_options=options
    )
    recipe(tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    assert not is_unusual(content)
    *others, last = pages(content)
    assert is_unusual(b"".join([*others[:2], *(later(page, 48_000) for page in others[2:]), last]))


def test_other_files_are_not_its_business() -> None:
    assert not is_unusual(b"")
    assert not is_unusual(encoded("wav-s16"))


@pytest.mark.parametrize("content", [OPUS, VORBIS], ids=["opus", "vorbis"])
def test_unusual_are(content: bytes) -> None:
    parts = pages(content)
    whole = b"".join
    cases = {
        "chained": content * 2,
        "chained with the other codec": content + (VORBIS if content is OPUS else OPUS),
        "another codec": FLAC,
        "cut off": content[: len(content) * 6 // 10],
        "cut in its first page": content[:20],
        "cut in a page's lacing values": content[: len(parts[0]) + 30],
        "a page is missing": whole([*parts[:-2], parts[-1]]),
        "the beginning is missing": whole(parts[1:]),
        "something between the pages": whole([*parts[:-1], b"\0" * 100, parts[-1]]),
        "something behind the pages": content + b"\0" * 100,
        "a bit is wrong": content[:-500] + bytes([content[-500] ^ 1]) + content[-499:],
        "a hole": whole([*parts[:-1], later(parts[-1], 480_000)]),
    }
    assert [name for name, case in cases.items() if not is_unusual(case)] == []


def test_a_hole_of_many_small_jumps_is_a_hole(tmp_path: Path) -> None:
    recipe = ByFFmpeg("ogg", "libopus", 48_000, container_options={"page_duration": "20000"})
    recipe(tmp_path / "file")
    parts = pages((tmp_path / "file").read_bytes())
    sound = [later(page, 480 * number) for number, page in enumerate(parts[2:])]
    assert is_unusual(b"".join([*parts[:2], *sound]))


@given(st.lists(st.tuples(st.integers(0, 500), st.binary(min_size=1, max_size=9)), max_size=4))
def test_no_page_brings_it_down(changes: list[tuple[int, bytes]]) -> None:
    for content in (OPUS[:2000], VORBIS[:2000]):
        for at, new in changes:
            content = content[:at] + new + content[at + len(new) :]  # noqa: PLW2901 - changed bit by bit
        is_unusual(content)
