"""Recordings that FFmpeg decodes, as they really are: text, true times, and what is missing is said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pytest
from av.stream import Disposition
from broken_models import NANO
from formats import SECONDS, make
from media import FIRST, RATE, SECOND, Sound, clip, container, matroska_of_tracks, mp4_of_tracks, quiet
from ogg_files import opus_file
from waiting import PATIENCE

from asrsvc.errors import AsrError, BadAudio, TooLarge
from asrsvc.speech.batch import Batcher
from asrsvc.speech.decode import Limits, Recording
from asrsvc.speech.ffmpeg import HelperPool
from asrsvc.speech.model import Model
from asrsvc.speech.segment import Segmenter
from asrsvc.speech.transcribe import Options, Progress, Transcriber
from asrsvc.speech.types import AUDIO_INCOMPLETE, Notice, Transcript

FOLDER = Path(__file__).resolve().parent / "data" / "recordings"
DEADLINE = PATIENCE
LIMIT = 1000.0
BOTH = [FIRST, SECOND]


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
        limits=Limits(LIMIT),
        batcher=batcher,
        queue_timeout=DEADLINE,
    )
    batcher.close(DEADLINE)


class Decoder:
    """Decodes bytes as the service does."""

    def __init__(self, helpers: HelperPool) -> None:
        self.helpers = helpers
        self.seconds = 0.0
        self.warnings: list[Notice] = []

    def blocks(self, content: bytes, *, refuse: bool = False, limit: float = LIMIT) -> list[np.ndarray]:
        descriptor = os.memfd_create("upload")
        try:
            os.write(descriptor, content)
            recording = Recording(descriptor, Limits(limit), self.helpers, refuse_incomplete=refuse)
            found = list(recording.blocks())
            self.seconds, self.warnings = recording.seconds, recording.warnings
            return found
        finally:
            os.close(descriptor)

    def __call__(self, content: bytes) -> np.ndarray:
        return np.concatenate(self.blocks(content))

    def error(self, content: bytes, *, refuse: bool = False, limit: float = LIMIT) -> AsrError:
        with pytest.raises(AsrError) as caught:
            self.blocks(content, refuse=refuse, limit=limit)
        return caught.value


@pytest.fixture
def decode(helpers: HelperPool) -> Decoder:
    return Decoder(helpers)


@cache
def recording(name: str) -> bytes:
    (path,) = FOLDER.glob(f"{name}_*")
    return path.read_bytes()


@cache
def encoded(name: str) -> bytes:
    """A format of `formats`."""
    with TemporaryDirectory() as folder:
        return make(name, Path(folder))


def transcribe(transcriber: Transcriber, content: bytes) -> Transcript:
    descriptor = os.memfd_create("upload")
    try:
        os.write(descriptor, content)
        return transcriber.transcribe(descriptor, Options())
    finally:
        os.close(descriptor)


def with_pause(rate: int) -> np.ndarray:
    """Two sentences, so far apart that each is a span of its own: the second begins at 13 s."""
    gap = quiet(13 - len(clip("en_1")) / RATE, rate)
    return np.concatenate([clip("en_1", rate), gap, clip("en_2", rate), quiet(0.3, rate)])


# Recordings out of bug reports.


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("02a", 6.87), ("06a", 4.78), ("06b", 6.92), ("07a", 6.94), ("09a", 2.83), ("09b", 2.86)],
)
def test_recordings_that_players_play_give_their_text(
    transcriber: Transcriber, name: str, seconds: float
) -> None:
    """Of two sentences that were joined, the model hears the numbers wrong: they are one span."""
    said = transcribe(transcriber, recording(name))
    assert said.duration == pytest.approx(seconds, abs=0.02)
    assert said.text.startswith("Book a table")
    assert ("bill" in said.text) == (name in {"02a", "06b", "07a"})
    assert said.warnings == ()


@pytest.mark.parametrize(("name", "later"), [("08a", 700.0), ("08c", 300.0)])
def test_what_is_said_behind_a_hole_has_its_true_time(
    transcriber: Transcriber, name: str, later: float
) -> None:
    said = transcribe(transcriber, recording(name))
    assert [segment.text for segment in said.segments] == BOTH
    assert said.segments[1].start == pytest.approx(later + 0.15, abs=0.1)
    assert said.duration == pytest.approx(later + 2.82, abs=0.02)
    assert said.warnings == ()


# Holes.

HOLED = {
    "matroska": ("matroska", "pcm_s16le", 16_000),
    "matroska aac": ("matroska", "aac", 44_100),
    "webm": ("webm", "libopus", 48_000),
    "mp4": ("mp4", "aac", 44_100),
    "mp4 index first": ("ipod", "aac", 44_100),
    "mp4 fragments": ("mp4", "aac", 44_100),
    "3gp": ("3gp", "libopencore_amrnb", 8_000),
    "mpegts": ("mpegts", "aac", 48_000),
    "mpeg": ("mpeg", "mp2", 44_100),
    "flv": ("flv", "aac", 44_100),
    "asf": ("asf", "wmav2", 44_100),
    "ogg opus": ("ogg", "libopus", 48_000),
    "ogg flac": ("ogg", "flac", 44_100),
}
FLAGS = {
    "mp4 index first": {"movflags": "+faststart"},
    "mp4 fragments": {"movflags": "frag_keyframe+empty_moov", "frag_duration": "1000000"},
}


@cache
def holed(name: str, late: float = 700.0) -> bytes:
    """Two sentences with nothing between them: the second begins `late` seconds after the first has ended."""
    form, codec, rate = HOLED[name]
    first = clip("en_1", rate)
    samples = np.concatenate([first, clip("en_2", rate), quiet(0.2, rate)])
    sound = Sound(samples, codec, rate, holes={len(first) / rate: late})
    return container(form, sound, options=FLAGS.get(name))


@pytest.mark.parametrize("name", HOLED)
def test_a_hole_of_700_s_is_silence_in_every_container(transcriber: Transcriber, name: str) -> None:
    said = transcribe(transcriber, holed(name))
    first, *_, last = said.segments
    assert first.text.startswith("Book a table")
    # What AMR and WMA leave of the numbers, the model does not hear right.
    assert last.text.startswith("My bill") if name in {"3gp", "asf"} else last.text == SECOND
    assert said.segments[-1].start == pytest.approx(SECONDS + 700.15, abs=0.2)
    assert said.duration == pytest.approx(SECONDS + 703.0, abs=0.4)
    assert said.warnings == ()


@pytest.mark.parametrize("name", ["matroska", "mp4", "mpegts", "ogg opus"])
def test_a_hole_over_the_limit_is_refused_and_named(decode: Decoder, name: str) -> None:
    error = decode.error(holed(name), limit=600)
    assert isinstance(error, TooLarge)
    assert (error.code, error.param) == ("audio_too_long", "file")
    assert "gap of 700 s" in error.message
    assert "the limit is 600 s" in error.message


@pytest.mark.parametrize("name", ["matroska", "ogg opus"])
def test_silence_comes_in_blocks_and_costs_no_memory(decode: Decoder, name: str) -> None:
    content = holed(name, 10_000.0)
    decode.blocks(holed(name))  # all that is loaded once is loaded
    before = psutil.Process().memory_info().rss
    descriptor = os.memfd_create("upload")
    os.write(descriptor, content)
    longest = samples = 0
    for block in Recording(descriptor, Limits(20_000), decode.helpers).blocks():
        longest, samples = max(longest, len(block)), samples + len(block)
    os.close(descriptor)
    assert samples / RATE == pytest.approx(10_000 + 6, abs=1)
    assert longest <= 10.3 * RATE
    assert psutil.Process().memory_info().rss - before < 100 * 2**20


@pytest.mark.parametrize("start", [0.5, 5_000.0, 90_000.0])
@pytest.mark.parametrize("name", ["matroska", "mpegts", "mp4"])
def test_a_start_that_is_not_zero_is_no_silence(decode: Decoder, name: str, start: float) -> None:
    form, codec, rate = HOLED[name]
    decode(container(form, Sound(clip("en_1", rate), codec, rate, start=start)))
    assert decode.seconds == pytest.approx(SECONDS, abs=0.3 + (start if start < 1 else 0))
    assert decode.warnings == []


def test_time_stamps_that_begin_again_are_no_silence(decode: Decoder) -> None:
    """The clocks of two MPEG-TS files that were joined."""
    early, late = (
        container("mpegts", Sound(clip("en_1", 48_000), "aac", 48_000, start=at)) for at in (0.0, 700.0)
    )
    decode(late + early)
    assert decode.seconds == pytest.approx(2 * SECONDS, abs=0.3)


def test_the_clock_of_mpeg_ts_may_run_over(decode: Decoder) -> None:
    """Its 33 bits begin again after 26.5 hours."""
    decode(container("mpegts", Sound(clip("en_1", 48_000), "aac", 48_000, start=2**33 / 90_000 - 3)))
    assert decode.seconds == pytest.approx(SECONDS, abs=0.2)


@pytest.mark.parametrize("resume_at", [20, 701])
def test_a_job_that_goes_on_behind_a_hole_says_the_same(transcriber: Transcriber, resume_at: float) -> None:
    descriptor = os.memfd_create("upload")
    os.write(descriptor, recording("08a"))
    progress = Progress()
    heard = transcriber.hear(descriptor, Options(), progress, resume_at=round(resume_at * RATE))
    rest = [segment for segment in heard if segment is not None]
    os.close(descriptor)
    assert rest[-1].text == SECOND if resume_at == 20 else rest
    assert all(segment.start >= resume_at - 0.01 for segment in rest)


# Formats that change, and files that were joined.


def adts(samples: np.ndarray, rate: int, layout: str = "mono") -> bytes:
    return container("adts", Sound(samples, "aac", rate, layout))


def joined(form: str, codec: str, rates: tuple[int, int], layouts: tuple[str, str], *, live: bool) -> bytes:
    """The first sentence with a pause, and the second, as two files in one."""
    first = np.concatenate([clip("en_1", rates[0]), quiet(13 - SECONDS, rates[0])])
    one = container(form, Sound(first, codec, rates[0], layouts[0]), live=live)
    two = container(form, Sound(clip("en_2", rates[1]), codec, rates[1], layouts[1]), live=live)
    return one + two


JOINED = {
    "adts": ("adts", "aac", (44_100, 22_050), ("mono", "mono")),
    "adts channels": ("adts", "aac", (44_100, 44_100), ("mono", "stereo")),
    "mp3": ("mp3", "libmp3lame", (48_000, 16_000), ("stereo", "mono")),
    "ac3": ("ac3", "ac3", (48_000, 32_000), ("mono", "stereo")),
    "mpegts": ("mpegts", "aac", (48_000, 32_000), ("mono", "stereo")),
    "wav in matroska": ("matroska", "pcm_s16le", (16_000, 44_100), ("mono", "stereo")),
    "aac in matroska": ("matroska", "aac", (44_100, 22_050), ("mono", "mono")),
    "webm": ("webm", "libopus", (48_000, 48_000), ("mono", "stereo")),
    "flv": ("flv", "aac", (44_100, 22_050), ("mono", "stereo")),
    "ogg opus": ("ogg", "libopus", (48_000, 48_000), ("mono", "stereo")),
    "ogg flac": ("ogg", "flac", (16_000, 44_100), ("mono", "stereo")),
}


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("name", JOINED)
def test_files_that_were_joined_are_read_to_the_end(transcriber: Transcriber, name: str, live: bool) -> None:
    form, codec, rates, layouts = JOINED[name]
    said = transcribe(transcriber, joined(form, codec, rates, layouts, live=live))
    assert [segment.text for segment in said.segments] == BOTH
    assert said.segments[1].start == pytest.approx(13.15, abs=0.2)
    assert said.duration == pytest.approx(13 + 2.82, abs=0.35)
    assert said.warnings == ()


def test_a_second_file_that_was_cut_off_is_a_warning(decode: Decoder) -> None:
    one = container("webm", Sound(clip("en_1", 48_000), "libopus", 48_000))
    decode(one + one[: len(one) // 2])
    assert SECONDS < decode.seconds < 2 * SECONDS - 0.5
    assert [notice.code for notice in decode.warnings] == [AUDIO_INCOMPLETE]


def frames_of_adts(content: bytes) -> list[bytes]:
    """By the length in their heads: 13 bits from bit 30 on (ISO/IEC 13818-7, section 6.2)."""
    found, place = [], 0
    while place < len(content):
        length = (content[place + 3] & 3) << 11 | content[place + 4] << 3 | content[place + 5] >> 5
        found.append(content[place : place + length])
        place += length
    return found


@cache
def changing_in_every_frame() -> bytes:
    one, two = (frames_of_adts(adts(clip("en_1", rate), rate)) for rate in (44_100, 48_000))
    return b"".join(frame for pair in zip(one, two, strict=False) for frame in pair)


def test_a_rate_that_changes_in_every_packet_is_sound(decode: Decoder) -> None:
    samples = decode(changing_in_every_frame())
    assert decode.seconds == pytest.approx(2 * SECONDS, rel=0.05)
    assert len(samples) / RATE == pytest.approx(decode.seconds, abs=0.001)


# Tracks.

DEFAULT = Disposition.default


def spoken(**options: object) -> Sound:
    return Sound(clip("en_1", 44_100), **options)  # type: ignore[arg-type]


def other(**options: object) -> Sound:
    return Sound(clip("zh_1", 44_100), **options)  # type: ignore[arg-type]


TRACKS = {
    "no flags": (spoken(), other()),
    "the second is the default": (other(), spoken(flags=DEFAULT)),
    "both are the default": (spoken(flags=DEFAULT), other(flags=DEFAULT)),
    "a comment first": (other(flags=Disposition.comment), spoken()),
    "a description of pictures first": (other(flags=Disposition.visual_impaired), spoken()),
    "nothing but a comment": (spoken(flags=Disposition.comment),),
    "the default is empty": (spoken(), Sound(quiet(0, 44_100), flags=DEFAULT)),
    "other rates and channels": (
        other(),
        Sound(clip("en_1", 48_000), rate=48_000, layout="stereo", flags=DEFAULT),
    ),
}


@pytest.mark.parametrize("name", TRACKS)
def test_the_track_is_the_one_that_a_player_plays(transcriber: Transcriber, name: str) -> None:
    said = transcribe(transcriber, container("matroska", *TRACKS[name]))
    assert said.text == FIRST
    assert said.warnings == ()


def test_a_default_track_that_nobody_can_decode_is_passed_over(transcriber: Transcriber) -> None:
    pcm = Sound(clip("zh_1", 44_100), "pcm_f32le", flags=DEFAULT)
    content = container("matroska", pcm, spoken())
    said = transcribe(transcriber, content.replace(b"A_PCM/FLOAT/IEEE", b"A_NEVER/HEARD/OF"))
    assert said.text == FIRST


def test_a_default_track_of_which_no_packet_can_be_decoded_is_passed_over(transcriber: Transcriber) -> None:
    """Its configuration is no longer AAC's, as where a track is encrypted."""
    content = container("mp4", Sound(clip("zh_1", 44_100), "alac", flags=DEFAULT), spoken())
    at = content.index(b"alac", content.index(b"alac", content.index(b"moov")) + 4) + 4
    broken = content[:at] + bytes(28) + content[at + 28 :]
    assert transcribe(transcriber, broken).text == FIRST


@pytest.mark.parametrize("count", [1_000, 2_000_000])
@pytest.mark.parametrize("make_file", [matroska_of_tracks, mp4_of_tracks])
def test_too_many_tracks_are_refused_and_named(decode: Decoder, make_file: object, count: int) -> None:
    assert callable(make_file)
    error = decode.error(make_file(count))
    assert isinstance(error, BadAudio)
    assert "1000 tracks or more, which is the limit" in error.message


# What is incomplete.

SAYS_ITS_LENGTH = [
    *(
        "m4a-moov-first",
        "m4a-fragments",
        "webm-opus",
        "webm-video",
        "mkv-video",
        "mkv-float",
        "wma-v1",
        "wma-v2",
    ),
    *(
        "avi-mp3",
        "flv-aac",
        "mp3-xing-cbr",
        "mp3-xing-vbr",
        "opus",
        "opus-48k-stereo",
        "vorbis",
        "flac-in-ogg",
    ),
]
SAYS_NOTHING = [
    "aac-adts",
    "amr-nb",
    "ac3",
    "eac3",
    "mp3-no-xing-cbr",
    "mp3-no-xing-vbr",
    "ts-aac",
    "mpeg-ps",
]
INDEX_LAST = ["m4a-moov-last", "m4a-alac", "mp4-video", "mov-video", "3gp-amr", "3gp-aac"]


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
@pytest.mark.parametrize("name", SAYS_ITS_LENGTH)
def test_what_is_cut_off_gives_its_part_and_a_warning(decode: Decoder, name: str, share: float) -> None:
    content = encoded(name)[: int(len(encoded(name)) * share)]
    samples = decode(content)
    assert 0.1 < len(samples) / RATE < share * SECONDS + 0.35
    (warning,) = decode.warnings
    assert (warning.code, warning.param) == (AUDIO_INCOMPLETE, "file")
    assert warning.message.startswith("file is cut off: ")
    error = decode.error(content, refuse=True)
    assert (type(error), error.code, error.param) == (BadAudio, "audio_truncated", "file")
    assert error.message == warning.message


@pytest.mark.parametrize("name", SAYS_ITS_LENGTH + SAYS_NOTHING)
def test_a_whole_file_is_no_warning_and_passes_where_incomplete_ones_are_refused(
    decode: Decoder, name: str
) -> None:
    decode.blocks(encoded(name), refuse=True)
    assert decode.warnings == []


@pytest.mark.parametrize("name", SAYS_NOTHING)
def test_a_file_that_says_nothing_of_its_length_is_never_cut_off(decode: Decoder, name: str) -> None:
    content = encoded(name)[: int(len(encoded(name)) * 0.6)]
    decode.blocks(content, refuse=True)
    assert decode.seconds == pytest.approx(0.6 * SECONDS, abs=0.25)
    assert decode.warnings == []


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
@pytest.mark.parametrize("name", INDEX_LAST)
def test_without_its_index_a_file_is_refused_with_a_word_about_it(
    decode: Decoder, name: str, share: float
) -> None:
    error = decode.error(encoded(name)[: int(len(encoded(name)) * share)])
    assert error.code == "audio_undecodable"
    assert "its index (the moov box" in error.message


@pytest.mark.parametrize(
    ("form", "codec", "rate"),
    [("webm", "libopus", 48_000), ("matroska", "pcm_s16le", 16_000), ("flv", "aac", 44_100)],
)
def test_what_was_recorded_live_is_whole(decode: Decoder, form: str, codec: str, rate: int) -> None:
    """As browsers do it: no sizes, no length."""
    decode.blocks(container(form, Sound(clip("en_1", rate), codec, rate), live=True), refuse=True)
    assert decode.seconds == pytest.approx(SECONDS, abs=0.1)


def test_pictures_that_go_on_behind_the_sound_are_no_missing_sound(decode: Decoder) -> None:
    short = Sound(clip("en_1", 44_100))
    long = Sound(quiet(10, 44_100), flags=Disposition.comment)
    for form in ("matroska", "mp4", "asf", "mpegts"):
        decode.blocks(container(form, short, long), refuse=True)
        assert decode.seconds == pytest.approx(SECONDS, abs=0.3)


@pytest.mark.parametrize("name", ["m4a-moov-first", "m4a-alac", "mp4-video", "3gp-aac", "m4a-fragments"])
def test_damaged_packets_are_a_warning(decode: Decoder, name: str) -> None:
    content = bytearray(encoded(name))
    start, end = int(len(content) * 0.3), int(len(content) * 0.7)
    content[start:end] = b"\xa5" * (end - start)
    decode(bytes(content))
    assert decode.seconds == pytest.approx(SECONDS, abs=0.4)
    (warning,) = decode.warnings
    assert warning.message.startswith("file is damaged: ")
    assert decode.error(bytes(content), refuse=True).code == "audio_truncated"


def test_damaged_clusters_are_a_warning(decode: Decoder) -> None:
    content = bytearray(encoded("mkv-float"))
    start, end = int(len(content) * 0.4), int(len(content) * 0.6)
    content[start:end] = bytes(end - start)
    decode(bytes(content))
    assert [notice.code for notice in decode.warnings] == [AUDIO_INCOMPLETE]


HOSTILE = "\x1b[31m\r\nX-Injected: 1\r\n\0<script>alert(1)</script>" * 100


@pytest.mark.parametrize("form", ["matroska", "ipod", "asf"])
def test_no_warning_holds_a_word_of_the_file(decode: Decoder, form: str) -> None:
    sound = Sound(clip("en_1", 44_100), {"asf": "wmav2"}.get(form, "aac"))
    options = {"movflags": "+faststart"} if form == "ipod" else {}
    content = container(form, sound, options=options, tags={"title": HOSTILE, "artist": HOSTILE})
    decode(content[: int(len(content) * 0.6)])
    (warning,) = decode.warnings
    assert warning.message.isascii()
    assert warning.message.isprintable()
    assert not any(word in warning.message for word in ("script", "Injected", "<", "31m"))


def test_ten_thousand_links_do_no_harm(decode: Decoder) -> None:
    one = opus_file(clip("en_1", 48_000)[: 960 * 3])
    memory = psutil.Process().memory_info().rss
    decode.blocks(one * 10_000)
    alone = decode.seconds / 10_000
    decode.blocks(one)
    assert decode.seconds == pytest.approx(alone)
    assert psutil.Process().memory_info().rss - memory < 100 * 2**20


def many_channels(count: int) -> bytes:
    """A tone in so many channels of Opus, one plane of samples each."""
    tone = (0.1 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)).astype(np.float32)
    command = [
        *("ffmpeg", "-loglevel", "error", "-f", "f32le", "-ar", "48000", "-ac", str(count), "-i", "pipe:0"),
        *("-c:a", "libopus", "-mapping_family", "255", "-fflags", "+bitexact", "-f", "matroska", "pipe:1"),
    ]
    samples = np.repeat(tone[:, None], count, axis=1).tobytes()
    return subprocess.run(command, input=samples, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("count", [7, 8, 9, 10, 12, 15, 16])
def test_many_channels_of_a_plane_each_are_mixed(decode: Decoder, count: int) -> None:
    """PyAV reads on behind the list of planes where there are eight or more."""
    one, many = decode(many_channels(1)), decode(many_channels(count))
    assert len(many) == len(one)
    assert np.abs(many - one)[1600:-1600].mean() < 0.1 * np.abs(one).mean()


@pytest.mark.parametrize("count", [17, 34, 200])
def test_too_many_channels_of_a_plane_each_are_refused(decode: Decoder, count: int) -> None:
    error = decode.error(many_channels(count))
    assert (error.code, error.param) == ("channels_unsupported", "file")
