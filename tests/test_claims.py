"""A length in a header against what is there: a placeholder, a slip, or incomplete."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asrsvc.speech.claims import SLIP_SECONDS, SLIP_SHARE, Claim, cut_off, damaged

CLIP = 90_672
"""bytes of 2.8335 s of 16-bit mono sound at 16 kHz"""
RATE = 32_000
HOUR = 3600 * RATE
MI = 2**20

PLACEHOLDERS = [
    *(0, 2**32 - 1, 2**32 - 101, 2**32 - 36, 2**32 - 44, 2**32 - 256, 2**32 - 4096, 0xFFFF_0000, 0xFFFF_F000),
    *(2**31, 2**31 - 1, 2**31 - 36, 2**31 + 36, 0x7FFF_F000, 0x7FFF_0000, 0x7F00_0000, 0x7F00_0008),
]
"""of programs that write to a pipe: sox, ffmpeg, mpg123, arecord, MPlayer, espeak, Java, Python and others"""
INVENTED = [10**9, 2**30, 2**30 - 1, 1_500_000_000, 3 * 10**9, 0xF000_0000, 0x6000_0000, 100_000_000]


@pytest.mark.parametrize("held", [400, CLIP, HOUR, 300 * MI])
@pytest.mark.parametrize("declared", PLACEHOLDERS)
def test_what_programs_write_that_cannot_know_is_a_placeholder(declared: int, held: int) -> None:
    claim = Claim(declared, held)
    assert claim.placeholder
    assert claim.missing(held / RATE) == 0


@pytest.mark.parametrize("declared", INVENTED)
def test_an_absurd_claim_is_a_placeholder(declared: int) -> None:
    assert Claim(declared, CLIP).placeholder


@pytest.mark.parametrize("declared", [2**64 - 1, 2**63 - 1, 2**63, 2**64 - 24, 2**32 - 1, 0x7FFF_F000, 2**40])
def test_a_field_of_64_bits_has_placeholders_of_its_own_and_those_of_32(declared: int) -> None:
    assert Claim(declared, HOUR, 64).placeholder


@pytest.mark.parametrize(
    ("declared", "held"),
    [
        (CLIP, CLIP * 6 // 10),
        (2 * CLIP, CLIP),
        (10_000_000, CLIP),
        (HOUR, HOUR * 9 // 10),
        (HOUR, HOUR // 100),
        (2 * HOUR, MI),
        (12 * HOUR, HOUR // 2),
        (2_000_000_000, 200_000_000),
        (4_000_000_000, 2_400_000_000),
    ],
)
def test_a_recording_of_which_a_part_is_missing_is_incomplete(declared: int, held: int) -> None:
    claim = Claim(declared, held)
    assert not claim.placeholder
    assert claim.missing(held / RATE) == pytest.approx((declared - held) / RATE)


@pytest.mark.parametrize(
    ("declared", "held"),
    [
        (CLIP + 16, CLIP),
        (CLIP + 44, CLIP),
        (CLIP + 8000, CLIP),
        (HOUR, HOUR - HOUR // 101),
        (CLIP, CLIP),
        (CLIP // 2, CLIP),
    ],
    ids=[
        "16 bytes",
        "44 bytes",
        "a quarter of a second",
        "a hundredth of an hour",
        "whole",
        "more than claimed",
    ],
)
def test_slips_and_whole_files_miss_nothing(declared: int, held: int) -> None:
    assert Claim(declared, held).missing(held / RATE) == 0


@given(st.integers(1, 2**40), st.floats(0.0101, 0.989), st.sampled_from([1, 2, 32_000, 192_000]))
def test_what_is_cut_off_by_more_than_a_slip_is_said(declared: int, share: float, rate: int) -> None:
    held = int(declared * share)
    seconds = held / rate
    assume(held > 0 and (declared - held) / rate > SLIP_SECONDS)
    assume((declared - held) / declared > SLIP_SHARE)
    claim = Claim(declared, held, 64)
    assume(not claim.placeholder)
    assert claim.missing(seconds) == pytest.approx((declared - held) / rate)


@given(st.integers(-(2**63), 2**64), st.integers(0, 2**50), st.sampled_from([32, 36, 64]))
def test_nothing_is_missing_of_a_placeholder_and_never_less_than_a_slip(
    declared: int, held: int, bits: int
) -> None:
    claim = Claim(declared, held, bits)
    missing = claim.missing(held / RATE)
    assert missing == 0 or (missing > SLIP_SECONDS and not claim.placeholder and held < declared)


@given(st.integers(1, 2**24), st.floats(0.002, 1.0))
def test_no_claim_of_up_to_16_mi_is_absurd_where_a_five_hundredth_is_there(
    declared: int, share: float
) -> None:
    assert not Claim(declared, max(1, int(declared * share))).placeholder


@given(st.integers(1, 2**60), st.integers(1, 2**50), st.integers(1, 2**50))
def test_more_sound_never_makes_more_missing(declared: int, one: int, other: int) -> None:
    less, more = sorted((one, other))
    assume(not Claim(declared, less, 64).placeholder)
    # in seconds of one byte each
    assert (
        Claim(declared, more, 64).missing(float(more)) <= Claim(declared, less, 64).missing(float(less)) + 1
    )


def test_the_sentences_hold_numbers_and_our_own_words() -> None:
    said = cut_off(5.667, 2.8335).sentence
    assert said == "file is cut off: it declares 5.67 s of sound and 2.83 s are there"
    assert damaged(70.2).sentence == (
        "file is damaged: some of it could not be decoded, 70 s or more from its start"
    )
