"""Ogg files, written byte by byte: chains, jumps of the granule, damage."""

from __future__ import annotations

import io
from functools import cache

import av
import numpy as np
import pytest
import soundfile
from media import Sound, clip, container
from ogg_files import Page, ogg, opus_file, opus_packets, page_bytes

from asrsvc.speech.decode_file import decode
from asrsvc.speech.decoded import Block, Declared, FileLimits, Incomplete, Refused, Silence

LIMITS = FileLimits(max_rate=384_000, max_channels=16, max_seconds=1000)
SOUND = clip("en_1", 48_000)[: 48_000 * 2]


class Decoded:
    """All that is said of a file."""

    def __init__(self, content: bytes, limits: FileLimits = LIMITS) -> None:
        self.items = list(decode(io.BytesIO(content), limits))  # type: ignore[arg-type]
        self.warnings = [item.message for item in self.items if isinstance(item, Incomplete)]
        self.declared = [item.seconds for item in self.items if isinstance(item, Declared)]
        sound = [item for item in self.items if isinstance(item, Block | Silence)]
        self.lengths = [
            (item.rate, item.samples if isinstance(item, Silence) else len(item.samples)) for item in sound
        ]
        self.seconds = sum(count / rate for rate, count in self.lengths)
        self.silence = sum(item.samples / item.rate for item in sound if isinstance(item, Silence))
        blocks = [item.samples for item in sound if isinstance(item, Block)]
        self.samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


@cache
def plain(**options: int) -> bytes:
    return opus_file(SOUND, **options)


def pages(content: bytes) -> list[bytes]:
    return [b"OggS" + page for page in content.split(b"OggS")[1:]]


def test_a_plain_file_is_its_sound() -> None:
    found = Decoded(plain())
    assert found.seconds == pytest.approx(2, abs=0.03)
    assert not found.warnings
    assert not found.silence
    assert found.declared == [pytest.approx(found.seconds, abs=0.001)]


@pytest.mark.parametrize("per_page", [1, 10, 50])
@pytest.mark.parametrize("jump", [0.5, 30.0, 700.0])
def test_a_jump_of_the_granule_is_silence_in_front_of_its_page(per_page: int, jump: float) -> None:
    found = Decoded(opus_file(SOUND, per_page=per_page, jumps={50 // per_page: jump}))
    whole = Decoded(plain())
    assert found.silence == pytest.approx(jump, abs=0.001)
    first = next(n for n, item in enumerate(found.items) if isinstance(item, Silence))
    before = sum(len(item.samples) for item in found.items[:first] if isinstance(item, Block))
    assert before == 50 * 960 - 312, "312 samples are skipped at the start"
    assert np.array_equal(found.samples, whole.samples)


def test_a_jump_of_many_hours_is_given_out_in_pieces() -> None:
    limits = FileLimits(max_rate=384_000, max_channels=16, max_seconds=100_000)
    found = Decoded(opus_file(SOUND, jumps={1: 36_000.0}), limits)
    assert found.silence == pytest.approx(36_000, abs=0.001)
    assert max(count for _rate, count in found.lengths) <= 10 * 48_000


@pytest.mark.parametrize("start", [10**6, 10**14])
def test_a_start_that_is_not_zero_is_no_silence(start: int) -> None:
    found = Decoded(opus_file(SOUND, start=start))
    assert found.seconds == pytest.approx(Decoded(plain()).seconds, abs=0.01)


@pytest.mark.parametrize("jump", [-1.5, -1e5, 1e5, 1e12])
def test_a_wrong_clock_is_no_silence(jump: float) -> None:
    found = Decoded(opus_file(SOUND, jumps={1: jump}))
    assert found.seconds == pytest.approx(2, abs=0.03)


def test_a_jump_over_the_limit_is_refused() -> None:
    with pytest.raises(Refused, match="the limit is 1000 s") as caught:
        Decoded(opus_file(SOUND, jumps={1: 1500.0}))
    assert caught.value.code == "audio_too_long"


def link(codec: str, rate: int, layout: str = "mono") -> bytes:
    if codec == "flac":
        return container("ogg", Sound(clip("en_1", rate), codec, rate, layout))
    file = io.BytesIO()
    samples = np.repeat(clip("en_1", rate)[:, None], 1 + (layout == "stereo"), axis=1)
    soundfile.write(file, samples, rate, format="OGG", subtype="VORBIS")
    return file.getvalue()


CHAINS = {
    "opus, opus": (plain(), plain()),
    "opus, vorbis": (plain(), link("vorbis", 22_050, "stereo")),
    "flac 16 kHz, flac 44.1 kHz stereo": (link("flac", 16_000), link("flac", 44_100, "stereo")),
    "flac, opus, vorbis": (link("flac", 8_000), plain(), link("vorbis", 48_000, "stereo")),
}


@pytest.mark.parametrize("links", CHAINS.values(), ids=CHAINS)
def test_links_come_one_behind_the_other(links: tuple[bytes, ...]) -> None:
    alone = [Decoded(one) for one in links]
    found = Decoded(b"".join(links))
    assert np.array_equal(found.samples, np.concatenate([one.samples for one in alone]))
    assert found.seconds == pytest.approx(sum(one.seconds for one in alone))
    assert not found.silence
    assert not found.warnings


def test_each_link_has_its_own_holes() -> None:
    one = opus_file(SOUND, jumps={1: 20.0})
    found = Decoded(one + plain() + one)
    assert found.silence == pytest.approx(40, abs=0.001)
    assert found.seconds == pytest.approx(46, abs=0.1)


def test_a_link_that_begins_before_the_other_has_ended_is_read() -> None:
    """Its page with the mark of the end was lost, as where a radio stream was cut."""
    found = Decoded(b"".join(pages(plain())[:-2]) + plain())
    assert found.seconds == pytest.approx(1 + 2, abs=0.05)
    assert not found.warnings


def test_a_file_without_the_mark_of_its_end_is_whole() -> None:
    found = Decoded(b"".join(pages(plain())[:-2]))
    assert found.seconds == pytest.approx(1, abs=0.05)
    assert not found.warnings


@pytest.mark.parametrize("share", [0.4, 0.7])
def test_of_a_page_that_is_cut_the_whole_packets_are_there(share: float) -> None:
    content = plain()
    found = Decoded(content[: int(len(content) * share)])
    assert found.seconds == pytest.approx(2 * share, abs=0.3)
    (warning,) = found.warnings
    assert "cut off" in warning


def test_a_few_packets_less_at_the_very_end_are_a_slip() -> None:
    content = plain(per_page=200)
    found = Decoded(content[: int(len(content) * 0.95)])
    assert found.seconds == pytest.approx(1.9, abs=0.07)
    assert not found.warnings


def test_a_damaged_page_is_a_hole_and_a_warning() -> None:
    content = bytearray(opus_file(SOUND, per_page=20))
    content[len(content) // 2] ^= 1
    found = Decoded(bytes(content))
    assert found.silence == pytest.approx(0.4, abs=0.01)
    assert found.seconds == pytest.approx(2, abs=0.03)
    assert found.warnings == ["damaged: 1 of its pages cannot be read"]


def test_what_begins_in_the_middle_says_so() -> None:
    found = Decoded(pages(plain())[2] + plain())
    assert found.seconds == pytest.approx(2, abs=0.03)
    assert found.warnings == ["damaged: it begins in the middle of a stream"]


def test_junk_between_pages_is_passed_over() -> None:
    content = b"".join(page + b"OggOgg\0junk" for page in pages(opus_file(SOUND, per_page=7)))
    found = Decoded(content)
    assert found.seconds == pytest.approx(2, abs=0.03)
    assert not found.warnings


def test_packets_may_go_over_pages() -> None:
    """FFmpeg's own writer, with comments of 200 kB."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as out:
        out.metadata["comment"] = "x" * 200_000
        sound = Sound(SOUND, "libopus", 48_000)
        stream = out.add_stream(sound.codec, rate=48_000, layout="mono")
        for frame in sound.frames(stream):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert Decoded(file.getvalue()).seconds == pytest.approx(2, abs=0.03)


def test_a_part_without_sound_is_a_warning() -> None:
    nothing = page_bytes(Page((b"\x01vorbis" + bytes(23),), 0, first=True), 9, 0)
    found = Decoded(plain() + nothing)
    assert found.warnings == ["damaged: 1 of 2 parts of it cannot be decoded"]


def test_headers_without_sound_are_refused() -> None:
    head, _packets = opus_packets(SOUND[:960])
    with pytest.raises(Refused, match="no sound in it"):
        Decoded(ogg([Page((head,), 0, first=True), Page((b"OpusTags" + bytes(8),), 0, last=True)]))


def test_a_thousand_links_are_read() -> None:
    one = opus_file(SOUND[: 960 * 3])
    found = Decoded(one * 1000)
    assert found.seconds == pytest.approx(1000 * Decoded(one).seconds)
    assert not found.warnings


@pytest.mark.parametrize("seed", range(50))
def test_damage_anywhere_is_survived(seed: int) -> None:
    chance = np.random.default_rng(seed)
    content = bytearray(plain() + link("flac", 16_000))
    for at in chance.integers(0, len(content), 5):
        content[at] = chance.integers(0, 256)
    try:
        assert Decoded(bytes(content)).seconds < 1000
    except Refused:
        pass
