"""Where the sound lies in WAV, RF64, Wave64, AIFF, CAF and AU, and what their headers claim of it."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import soundfile
from formats import clip
from hypothesis import given, settings
from hypothesis import strategies as st

from asrsvc.speech.claims import Claim
from asrsvc.speech.headers import Sound, look

SOUND = clip()[:, 0]
BYTES = 2 * len(SOUND)
"""of the clip as 16-bit samples"""


@cache
def made(kind: str, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, SOUND, 16_000, format=kind, subtype=subtype)
    return file.getvalue()


def looked(content: bytes) -> tuple[Sound | None, np.ndarray | None]:
    """What the headers say, and the samples that libsndfile reads of the file put right."""
    descriptor = os.memfd_create("file")
    try:
        os.write(descriptor, content)
        sound = look(descriptor)
        file = (sound.repaired(descriptor) if sound else None) or io.BytesIO(content)
        try:
            return sound, soundfile.read(file, dtype="float32")[0]
        except soundfile.LibsndfileError:
            return sound, None
    finally:
        os.close(descriptor)


def claim_of(content: bytes) -> Claim:
    sound, _samples = looked(content)
    assert sound is not None
    return sound.claim


def samples_of(content: bytes) -> np.ndarray:
    _sound, samples = looked(content)
    assert samples is not None
    return samples


def put(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


@cache
def plain() -> tuple[bytes, bytes, bytes]:
    """A WAV file: what stands before its chunk of data, the head of that, and the sound."""
    content = made("WAV")
    at = content.index(b"data")
    return content[:at], content[at : at + 8], content[at + 8 :]


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body


def wav(size: int, after: bytes = b"") -> bytes:
    before, _, sound = plain()
    return before + chunk(b"data", sound, size) + after


def sized(kind: str) -> Callable[[int], bytes]:
    """Makes a file of this kind that declares so many bytes of sound, modulo what its field holds."""
    content = made(kind)

    def build(size: int) -> bytes:
        if kind == "WAV":
            return wav(size % 2**32)
        if kind == "AIFF":
            return put(content, content.index(b"SSND") + 4, struct.pack(">I", (size + 8) % 2**32))
        if kind == "AU":
            return put(content, 8, struct.pack(">I", size % 2**32))
        if kind == "CAF":
            return put(content, content.index(b"data") + 4, struct.pack(">Q", (size + 4) % 2**64))
        if kind == "RF64":
            return put(content, content.index(b"ds64") + 16, struct.pack("<Q", size % 2**64))
        return put(content, content.index(b"data") + 16, struct.pack("<Q", (size + 24) % 2**64))

    return build


KINDS = ["WAV", "AIFF", "AU", "CAF", "RF64", "W64"]
SHORT = {"WAV", "AIFF", "AU"}
"""with fields of 32 bits"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_length_is_believed_and_the_file_read_as_it_is(kind: str) -> None:
    sound, samples = looked(made(kind))
    assert sound is not None
    assert sound.pieces is None
    assert (sound.claim.declared, sound.claim.held) == (BYTES, BYTES)
    assert samples is not None
    assert sized(kind)(BYTES) == made(kind), "the table above puts the length where it stands"


@pytest.mark.parametrize(
    "size", [0, -1, -101, -9000, BYTES + 44, 2 * BYTES, 10**9, 2**31, 2**31 - 9, 2**32 - 9]
)
@pytest.mark.parametrize("kind", KINDS)
def test_all_sound_is_read_whatever_length_the_header_invents(kind: str, size: int) -> None:
    sound, samples = looked(sized(kind)(size))
    assert sound is not None
    assert sound.claim.held == BYTES
    assert samples is not None
    assert (samples == samples_of(made(kind))).all()
    missing = sound.claim.missing(len(SOUND) / 16_000)
    assert missing == (pytest.approx(len(SOUND) / 16_000) if size == 2 * BYTES else 0)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", [*KINDS, "WAVEX"])
def test_of_a_file_that_was_cut_off_the_part_that_is_there_is_read(kind: str, share: float) -> None:
    content = made(kind)
    sound, samples = looked(content[: int(len(content) * share)])
    assert sound is not None
    assert samples is not None
    assert sound.claim.declared == BYTES
    assert 0 <= sound.claim.held - 2 * len(samples) <= 1
    assert (samples == samples_of(content)[: len(samples)]).all()
    whole = len(samples) / 16_000 + sound.claim.missing(len(samples) / 16_000)
    assert whole == pytest.approx(len(SOUND) / 16_000, abs=0.001)


def test_half_a_block_of_adpcm_at_the_end_is_no_sound() -> None:
    content = made("WAV", "IMA_ADPCM")
    whole = samples_of(content)
    for size in range(len(content) * 6 // 10, len(content) * 6 // 10 + 300, 37):
        samples = samples_of(content[:size])
        assert len(samples) > 0.55 * len(whole)
        assert (samples == whole[: len(samples)]).all()


def test_a_pipe_that_says_nothing_in_any_length() -> None:
    content = made("RF64")
    at = content.index(b"ds64") + 8
    for filler in (b"\0", b"\xff"):
        claim = claim_of(put(content, at, filler * 24))
        assert claim.placeholder
        assert (samples_of(put(content, at, filler * 24)) == samples_of(content)).all()
    before, _, sound = plain()
    died = put(before, 4, bytes(4)) + chunk(b"data", sound, 0)
    assert (samples_of(died) == samples_of(made("WAV"))).all()


@pytest.mark.parametrize("size", [16, 44, 100, 900])
def test_a_length_that_was_never_updated_is_a_placeholder(size: int) -> None:
    """The recorder wrote it at the start and died."""
    sound, samples = looked(wav(size))
    assert sound is not None
    assert sound.claim.placeholder
    assert samples is not None
    assert len(samples) == len(SOUND)


@pytest.mark.parametrize(
    "after",
    [
        b"",
        b"\0" * 5000,
        chunk(b"LIST", b"INFO" + b"x" * 40),
        chunk(b"LIST", b"INFO", 4000),
        b"TAG" + b"\0" * 125,
    ],
    ids=["nothing", "zeros", "a chunk", "a chunk cut off", "an ID3 tag"],
)
def test_what_stands_behind_the_sound_is_not_sound(after: bytes) -> None:
    sound, samples = looked(wav(BYTES, after))
    assert sound is not None
    assert (sound.claim.declared, sound.claim.held) == (BYTES, BYTES)
    assert samples is not None
    assert len(samples) == len(SOUND)


def test_a_file_without_sound_holds_none_though_a_chunk_follows() -> None:
    before, _, _ = plain()
    sound, samples = looked(before + chunk(b"data", b"") + chunk(b"LIST", b"INFO" + b"x" * 4000))
    assert sound is None
    assert samples is not None
    assert len(samples) == 0


@pytest.mark.parametrize("padding", [b"", b"\0"], ids=["without padding", "with padding"])
def test_a_chunk_of_odd_length_before_the_sound(padding: bytes) -> None:
    before, head, sound = plain()
    odd = chunk(b"LIST", b"INFOabcdefghi") + padding
    assert (samples_of(before + odd + head + sound) == samples_of(made("WAV"))).all()


def test_chunks_of_sound_are_joined() -> None:
    before, head, sound = plain()
    half = len(sound) // 4 * 2
    first, second = chunk(b"data", sound[:half]), chunk(b"data", sound[half:])
    wanted = samples_of(made("WAV"))
    assert (samples_of(before + first + second) == wanted).all()
    assert (samples_of(before + first + chunk(b"LIST", b"INFO") + second) == wanted).all()
    assert (samples_of(before + chunk(b"data", b"") + head + sound) == wanted).all()
    claim = claim_of((before + first + second)[:-10_000])
    assert (claim.declared, claim.held) == (BYTES, BYTES - 10_000)


def test_files_that_were_joined_are_read_one_behind_the_other() -> None:
    content = made("WAV")
    wanted = samples_of(content)
    assert (samples_of(content * 3) == np.tile(wanted, 3)).all()
    claim = claim_of((content * 2)[:-10_000])
    assert (claim.declared, claim.held) == (2 * BYTES, 2 * BYTES - 10_000)
    assert (samples_of(content + made("WAV", "PCM_24")) == wanted).all(), (
        "other samples are not taken for these"
    )


def test_a_length_that_is_no_multiple_of_a_sample() -> None:
    for size in (BYTES - 1, BYTES + 1):
        assert abs(len(samples_of(wav(size))) - len(SOUND)) <= 1


@pytest.mark.parametrize("frames", [0, 999, 10**9, 2**32 - 1])
def test_the_number_of_samples_in_aiff_is_not_believed(frames: int) -> None:
    content = made("AIFF")
    changed = put(content, content.index(b"COMM") + 10, struct.pack(">I", frames))
    assert claim_of(changed) == Claim(BYTES, BYTES)
    assert (samples_of(changed) == samples_of(content)).all()


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"RIFF\0\0\0\0WAVE", b".snd\0\0", b"fLaC" * 20, b"\0" * 99]
)
def test_other_files_have_no_such_sound(content: bytes) -> None:
    assert looked(content)[0] is None


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 120), st.binary(min_size=1, max_size=9)), max_size=4),
    st.integers(0, 2000),
)
def test_no_header_brings_it_down(kind: str, changes: list[tuple[int, bytes]], size: int) -> None:
    content = made(kind)[:4096]
    for at, new in changes:
        content = put(content, at, new)
    descriptor = os.memfd_create("file")
    try:
        os.write(descriptor, content[: len(content) - size])
        sound = look(descriptor)
        if sound:
            assert 0 < sound.claim.held <= len(content)
            file = sound.repaired(descriptor)
            assert file is None or len(file.read()) <= 2 * len(content)
    finally:
        os.close(descriptor)


def test_ten_thousand_small_chunks_do_not_hide_the_sound() -> None:
    before, head, sound = plain()
    many = before + chunk(b"JUNK", b"") * 10_000 + head + sound
    assert claim_of(many) == Claim(BYTES, BYTES)
