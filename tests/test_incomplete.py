"""Recordings with wrong headers or missing parts: what is there is transcribed, what is missing is said."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import soundfile
from broken_models import NANO
from formats import TEXT, ByFFmpeg, clip, make
from waiting import PATIENCE

from asrsvc.errors import BadAudio
from asrsvc.speech.batch import Batcher
from asrsvc.speech.decode import Limits, Recording
from asrsvc.speech.ffmpeg import HelperPool
from asrsvc.speech.model import Model
from asrsvc.speech.segment import Segmenter
from asrsvc.speech.transcribe import Options, Transcriber
from asrsvc.speech.types import AUDIO_INCOMPLETE, Notice, Transcript

RATE = 16_000
FOLDER = Path(__file__).resolve().parent / "data" / "recordings"
CLIPS = FOLDER.parent / "clips"
OTHER_TEXT = "My bill is $268."
SOUND = clip()[:, 0]
SECONDS = len(SOUND) / RATE
QUIET = np.random.default_rng(1).normal(0, 1e-4, 4 * RATE).astype(np.float32)
LATER = np.concatenate([QUIET, soundfile.read(CLIPS / "en_2.flac", dtype="float32")[0]])
"""another clip behind a pause"""
LIMITS = Limits(max_seconds=600)
DEADLINE = PATIENCE


@pytest.fixture(scope="module")
def helpers() -> Iterator[HelperPool]:
    pool = HelperPool(memory_bytes=2**30, block_timeout=DEADLINE)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def transcriber(helpers: HelperPool) -> Iterator[Transcriber]:
    model = Model.load(NANO, version="nano", threads=1)
    batcher = Batcher(model.engine, batch_size=1, queue_limit=8)
    yield Transcriber(
        model,
        segmenter=Segmenter(),
        helpers=helpers,
        limits=LIMITS,
        batcher=batcher,
        queue_timeout=DEADLINE,
    )
    batcher.close(DEADLINE)


def transcribe(transcriber: Transcriber, content: bytes, *, refuse: bool = False) -> Transcript:
    descriptor = os.memfd_create("upload")
    try:
        os.write(descriptor, content)
        return transcriber.transcribe(descriptor, Options(refuse_incomplete=refuse))
    finally:
        os.close(descriptor)


@dataclass
class Decoded:
    samples: np.ndarray
    seconds: float
    warnings: list[Notice]


@pytest.fixture
def decode(helpers: HelperPool) -> Decoder:
    return Decoder(helpers)


class Decoder:
    """Decodes bytes as the service does."""

    def __init__(self, helpers: HelperPool) -> None:
        self.helpers = helpers

    def __call__(self, content: bytes, *, refuse: bool = False) -> Decoded:
        descriptor = os.memfd_create("upload")
        try:
            os.write(descriptor, content)
            recording = Recording(descriptor, LIMITS, self.helpers, refuse_incomplete=refuse)
            samples = np.concatenate([*recording.blocks()])
            return Decoded(samples, recording.seconds, recording.warnings)
        finally:
            os.close(descriptor)

    def refused(self, content: bytes) -> BadAudio:
        with pytest.raises(BadAudio) as caught:
            self(content, refuse=True)
        assert (caught.value.code, caught.value.param) == ("audio_truncated", "file")
        return caught.value


def recording(name: str) -> bytes:
    (path,) = FOLDER.glob(f"{name}_*")
    return path.read_bytes()


def encoded(name: str) -> bytes:
    with TemporaryDirectory() as folder:
        return make(name, Path(folder))


def by_sndfile(samples: np.ndarray, kind: str = "FLAC", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=kind, subtype=subtype)
    return file.getvalue()


def length_of_flac(content: bytes, samples: int) -> bytes:
    """A FLAC file with another number of samples in its header: 36 bits."""
    return (
        content[:21]
        + bytes([content[21] & 0xF0 | samples >> 32])
        + struct.pack(">I", samples % 2**32)
        + content[26:]
    )


# Recordings as people have them.


@pytest.mark.parametrize("name", ["01a", "04a", "04b", "05a", "05c", "05d", "10"])
def test_a_recording_whose_header_is_wrong_gives_its_text(name: str, transcriber: Transcriber) -> None:
    for refuse in (False, True):
        said = transcribe(transcriber, recording(name), refuse=refuse)
        assert (said.text, said.warnings) == (TEXT, ())
        assert said.duration == pytest.approx(SECONDS, abs=0.001)


def test_twice_the_length_gives_the_text_and_a_warning(transcriber: Transcriber) -> None:
    said = transcribe(transcriber, recording("04c"))
    assert said.text == TEXT
    (notice,) = said.warnings
    assert (notice.code, notice.param) == (AUDIO_INCOMPLETE, "file")
    assert "5.67 s" in notice.message
    assert "2.83 s" in notice.message
    with pytest.raises(BadAudio, match=r"5\.67 s .* 2\.83 s") as caught:
        transcribe(transcriber, recording("04c"), refuse=True)
    assert caught.value.code == "audio_truncated"


@pytest.mark.parametrize("name", ["17a", "17c", "17d"])
def test_of_a_recording_that_was_cut_off_the_part_that_is_there(
    name: str, transcriber: Transcriber, decode: Decoder
) -> None:
    heard = decode(recording(name))
    assert heard.seconds == pytest.approx(0.6 * SECONDS, abs=0.06)
    assert (heard.samples == SOUND[: len(heard.samples)]).all()
    said = transcribe(transcriber, recording(name))
    assert said.text
    assert TEXT.startswith(said.text[:6])
    (notice,) = said.warnings
    assert notice.code == AUDIO_INCOMPLETE
    assert f"declares {SECONDS:.2f} s" in notice.message
    assert f"{heard.seconds:.2f} s are there" in notice.message
    assert decode.refused(recording(name)).message == notice.message


# Formats of libsndfile, cut off.

CUT = ["wav-s16", "wav-s24", "wav-float", "wav-mulaw", "wav-ima-adpcm", "wav-extensible", "rf64", "w64", "au"]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("name", [*CUT, "caf", "caf-alac", "aiff", "aifc-float", "flac", "flac-s24"])
def test_every_format_that_was_cut_off_gives_a_part_and_a_warning(
    name: str, share: float, decode: Decoder
) -> None:
    content = encoded(name)
    whole = decode(content)
    assert whole.warnings == []
    cut = content[: int(len(content) * share)]
    part = decode(cut)
    assert share * SECONDS - 0.45 < part.seconds < share * SECONDS + 0.45
    size = len(part.samples) - 200  # a codec may end differently
    assert np.corrcoef(part.samples[:size], whole.samples[:size])[0, 1] > 0.99
    (notice,) = part.warnings
    assert notice.code == AUDIO_INCOMPLETE
    assert notice.message.startswith("file is cut off")
    assert f"{part.seconds:.2f} s are there" in notice.message
    assert decode.refused(cut).message == notice.message


@pytest.mark.parametrize("name", ["wav-s16", "aiff", "au", "caf", "rf64", "w64", "flac"])
def test_a_fifth_of_a_second_less_is_a_slip(name: str, decode: Decoder) -> None:
    """Of FLAC, up to a frame more is lost."""
    cut = encoded(name)[: -(20 if name == "flac" else 6400)]
    for refuse in (False, True):
        heard = decode(cut, refuse=refuse)
        assert heard.warnings == []
        assert SECONDS - 0.3 < heard.seconds <= SECONDS


@pytest.mark.parametrize("name", ["wav-s16", "aiff", "caf", "flac"])
def test_too_little_to_hear_is_an_error(name: str, decode: Decoder) -> None:
    content = encoded(name)
    where = {"wav-s16": b"data", "aiff": b"SSND", "caf": b"data", "flac": b"fLaC"}[name]
    with pytest.raises(BadAudio) as caught:
        decode(content[: content.index(where) + 40])
    assert caught.value.code in {"audio_too_short", "audio_empty", "audio_undecodable"}


# FLAC.


@pytest.mark.parametrize("samples", [0, 2**36 - 1, 2**36 - 9, 2**32 - 1])
def test_flac_with_no_length_or_an_invented_one_is_read_to_its_end(samples: int, decode: Decoder) -> None:
    heard = decode(length_of_flac(encoded("flac"), samples), refuse=True)
    assert (heard.samples == SOUND).all()
    assert heard.warnings == []


def test_flac_with_another_length(decode: Decoder) -> None:
    content = encoded("flac")
    less = decode(length_of_flac(content, len(SOUND) // 2), refuse=True)
    assert (less.samples == SOUND).all()
    assert less.warnings == []
    more = decode(length_of_flac(content, len(SOUND) * 2))
    assert (more.samples == SOUND).all()
    (notice,) = more.warnings
    assert "declares 5.67 s of sound and 2.83 s are there" in notice.message


@pytest.mark.parametrize("kind", ["FLAC", "WAV"])
def test_files_that_were_joined_are_read_one_behind_the_other(kind: str, transcriber: Transcriber) -> None:
    joined = by_sndfile(SOUND, kind) + by_sndfile(LATER, kind)
    said = transcribe(transcriber, joined, refuse=True)
    assert said.text == f"{TEXT} {OTHER_TEXT}"
    assert said.warnings == ()
    assert said.duration == pytest.approx((len(SOUND) + len(LATER)) / RATE, abs=0.001)


@pytest.mark.parametrize("what", ["a bit", "zeros", "a hole"])
def test_flac_that_is_damaged_in_the_middle_gives_what_can_be_decoded(what: str, decode: Decoder) -> None:
    sound = np.concatenate([SOUND] * 5)
    content = by_sndfile(sound)
    at = len(content) // 2
    damaged = {
        "a bit": content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :],
        "zeros": content[:at] + bytes(3000) + content[at + 3000 :],
        "a hole": content[:at] + content[at + 3000 :],
    }[what]
    heard = decode(damaged)
    (notice,) = heard.warnings
    assert notice.code == AUDIO_INCOMPLETE
    third = len(sound) // 3
    assert (heard.samples[:third] == sound[:third]).all()
    assert (heard.samples[-third:] == sound[-third:]).all(), "what follows the damage"
    assert heard.seconds == pytest.approx(5 * SECONDS, abs=0.001), "at its time"
    decode.refused(damaged)


def test_flac_of_which_nothing_can_be_decoded_is_an_error(decode: Decoder) -> None:
    with pytest.raises(BadAudio, match="it is damaged: .* packets cannot be decoded") as caught:
        decode(encoded("flac")[:200] + bytes(50_000))
    assert caught.value.code == "audio_undecodable"


def test_flac_with_tags_around_it_is_whole(decode: Decoder) -> None:
    tag = b"ID3\4\0\0\0\0\1\0" + bytes(128)
    heard = decode(tag + encoded("flac") + b"TAG" + bytes(125), refuse=True)
    assert (heard.samples == SOUND).all()
    cut = decode(tag + encoded("flac")[:30_000])
    assert "declares 2.83 s" in cut.warnings[0].message


# Others.


def test_ogg_streams_that_were_chained_are_read_one_behind_the_other(
    transcriber: Transcriber, decode: Decoder
) -> None:
    assert decode(recording("02a"), refuse=True).seconds == pytest.approx(6.87, abs=0.1)
    chained = by_sndfile(SOUND, "OGG", "VORBIS") + by_sndfile(LATER, "OGG", "VORBIS")
    said = transcribe(transcriber, chained, refuse=True)
    assert said.text == f"{TEXT} {OTHER_TEXT}"
    assert said.warnings == ()


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_FFFF, 0])
def test_mp3_in_wav_goes_to_ffmpeg_whatever_its_length_says(
    size: int, decode: Decoder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ByFFmpeg("wav", "libmp3lame", bit_rate=64_000)(tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    at = content.index(b"data") + 4
    for changed in (content, content[:at] + struct.pack("<I", size) + content[at + 4 :]):
        heard = decode(changed, refuse=True)
        assert heard.seconds == pytest.approx(SECONDS, abs=0.15)
    cut = decode(content[: len(content) // 2])
    assert [notice.code for notice in cut.warnings] == [AUDIO_INCOMPLETE]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("gain", [-1.0, -0.7])
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "RF64"])
def test_channels_that_cancel_give_the_text(kind: str, gain: float, transcriber: Transcriber) -> None:
    both = np.stack([SOUND, np.float32(gain) * SOUND], axis=1)
    assert transcribe(transcriber, by_sndfile(both, kind)).text == TEXT
