"""What no client should send, sent: each gets a 4xx that says why, or its work is dropped.

After each case the same workers answer a good request and nothing is left over.
"""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import soundfile
from bodies import FORM, chunks, connection, exchange, form, head, part, read_reply, request, upload
from formats import TEXT, ByFFmpeg, clip, make
from inspection import GOOD, Inspection, check_error
from media import Sound, container, matroska_of_tracks, mp4_of_tracks
from occupied import ask_for_long, occupied, queue_length
from ogg_files import opus_file
from service import Service, running, wait_for


@pytest.fixture(scope="module")
def inspection(service: Service) -> Inspection:
    return Inspection(service)


@pytest.fixture
def unharmed(inspection: Inspection) -> Iterator[Inspection]:
    yield inspection
    inspection.check()


@cache
def encoded(name: str) -> bytes:
    """The clip in a format of `formats`."""
    with TemporaryDirectory() as folder:
        return make(name, Path(folder))


def wav(samples: np.ndarray, rate: int = 16_000, subtype: str = "PCM_16", kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def changed(content: bytes, after: bytes, new: bytes) -> bytes:
    """The file with the bytes behind a mark replaced."""
    at = content.index(after) + len(after)
    return content[:at] + new + content[at + len(new) :]


def cut(name: str, share: float = 0.6) -> Callable[[], bytes]:
    """The first part of a file."""
    return lambda: encoded(name)[: int(len(encoded(name)) * share)]


def poisoned(value: float) -> Callable[[], bytes]:
    def build() -> bytes:
        samples = clip()[:, 0].copy()
        samples[len(samples) // 2] = value
        return wav(samples, subtype="FLOAT")

    return build


@cache
def silence(hours: float, *, declared: bool = True) -> bytes:
    """A FLAC file of silence, 2 kHz, in the largest blocks; some KB for ten hours."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "silence.flac"
        rate = 2_000
        import av

        with av.open(str(path), "w", format="flac") as out:
            stream = out.add_stream("flac", rate=rate, layout="mono")
            stream.codec_context.options = {"frame_size": "65535"}
            block = np.zeros((1, 65535), np.int16)
            for start in range(0, int(hours * 3600 * rate), 65535):
                frame = av.AudioFrame.from_ndarray(block, "s16", "mono")
                frame.sample_rate, frame.pts = rate, start
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        content = bytearray(path.read_bytes())
    if not declared:  # the length, 36 bits at the end of STREAMINFO's numbers: 0 stands for unknown
        content[21] &= 0xF0
        content[22:26] = b"\0\0\0\0"
    return bytes(content)


def by_ffmpeg(recipe: ByFFmpeg) -> bytes:
    with TemporaryDirectory() as folder:
        recipe(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


def silent_video() -> bytes:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(10):
            frame = av.VideoFrame(64, 64, "yuv420p")
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def hole(hours: float) -> Callable[[], bytes]:
    """A second of sound, nothing for hours, a second of sound."""
    sound = Sound(np.zeros(32_000, np.float32), "pcm_s16le", 16_000, holes={1.0: hours * 3600})
    return lambda: container("matroska", sound)


def noise(seed: int, magic: bytes = b"", size: int = 40_000) -> Callable[[], bytes]:
    return lambda: magic + random.Random(seed).randbytes(size)


MAGIC = {
    "riff": b"RIFF\x40\x9c\0\0WAVEfmt \x10\0\0\0",
    "riff and a plain format": b"RIFF\x40\x9c\x00\x00WAVEfmt \x10\0\0\0"
    + struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16),
    "rf64": b"RF64\xff\xff\xff\xffWAVEds64",
    "w64": b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00",
    "aiff": b"FORM\0\0\x9c\x40AIFFCOMM",
    "aifc": b"FORM\0\0\x9c\x40AIFCFVER",
    "caf": b"caff\0\1\0\0desc",
    "au": b".snd\0\0\0\x18",
    "flac": b"fLaC\0\0\0\x22",
    "ogg": b"OggS\0\2",
    "ogg vorbis": b"OggS\0\2" + bytes(20) + b"\1\x1e\1vorbis",
    "ogg opus": b"OggS\0\2" + bytes(20) + b"\1\x13OpusHead\1",
    "id3": b"ID3\4\0\0\0\0\0\0",
    "mp4": b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42isom\0\0\0\0",
    "mov": b"\0\0\x9c\x40moov\0\0\0\x6cmvhd",
    "3gp": b"\0\0\0\x18ftyp3gp4\0\0\0\0isom3gp4",
    "matroska": b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x23\x42\x86\x81\1\x42\x82\x84webm",
    "asf": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c",
    "avi": b"RIFF\x40\x9c\0\0AVI LIST",
    "amr": b"#!AMR\n",
    "amr-wb": b"#!AMR-WB\n",
    "flv": b"FLV\1\5\0\0\0\x09\0\0\0\0",
    "mpeg-ps": b"\0\0\1\xba",
    "mpeg-ts": b"\x47\x40\0\x10\0\0\xb0\x0d",
    "ac3": b"\x0b\x77",
    "midi": b"MThd\0\0\0\6",
    "zip": b"PK\3\4",
    "gzip": b"\x1f\x8b\x08",
    "elf": b"\x7fELF\2\1\1",
    "png": b"\x89PNG\r\n\x1a\n",
}
"""how files of each kind begin"""
# Frames of these stand alone behind a short mark, so that noise may by chance hold a whole one, and
# noise that is sound gives a transcript.
MAY_BE_SOUND = {"amr", "amr-wb", "id3", "au", "riff and a plain format", "mpeg-ps"}


@dataclass(frozen=True)
class Case:
    """One bad request and what must come back."""

    name: str
    status: int
    code: str
    says: tuple[str, ...]
    """words that the message must hold"""
    param: str | None = None
    body: bytes | Callable[[], bytes] = b""
    file: bytes | Callable[[], bytes] | None = None
    """instead of a body: the content of the field `file` in a right one"""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": FORM})
    method: str = "POST"
    path: str = "/api/transcribe"

    def content(self) -> bytes:
        chosen = self.body if self.file is None else self.file
        made = chosen() if callable(chosen) else chosen
        return made if self.file is None else upload(made)


def fields(**values: str) -> bytes:
    return upload(GOOD, **values)


FORM_CASES = [
    Case("no body", 400, "body_incomplete", ("in the middle of the form",)),
    Case("a form without parts", 400, "missing_field", ("field file is missing",), "file", form()),
    Case(
        "no file field",
        400,
        "missing_field",
        ("field file is missing",),
        "file",
        form(part("language", "en")),
    ),
    Case(
        "two files",
        400,
        "invalid_value",
        ("file", "twice"),
        "file",
        form(part("file", GOOD, "a.flac"), part("file", GOOD, "b.flac")),
    ),
    Case("a file of 0 bytes", 400, "file_empty", ("0 bytes",), "file", file=b""),
    Case(
        "unknown language", 400, "invalid_value", ("'xx'", "auto, zh, en"), "language", fields(language="xx")
    ),
    Case("language of no kind", 400, "invalid_value", ("'EN-'",), "language", fields(language="EN-")),
    Case(
        "use_itn=maybe",
        400,
        "invalid_value",
        ("'maybe'", "true or false"),
        "use_itn",
        fields(use_itn="maybe"),
    ),
    Case("use_itn of a letter", 400, "invalid_value", ("'y'",), "use_itn", fields(use_itn="y")),
    Case(
        "timestamps=maybe",
        400,
        "invalid_value",
        ("'maybe'", "none, segment, word"),
        "timestamps",
        fields(timestamps="maybe"),
    ),
    Case("unknown field", 400, "unknown_field", ("'lang'", "language"), "lang", fields(lang="en")),
    Case(
        "a field without a name",
        400,
        "unknown_field",
        ("''",),
        "",
        form(part(None, "x"), part("file", GOOD, "a")),
    ),
    Case(
        "a field with line ends in its name",
        400,
        "unknown_field",
        (r"'a\x00b\x1b[31m'",),
        "a\0b\x1b[31m",
        form(part("a\0b\x1b[31m", "x"), part("file", GOOD, "a")),
    ),
    Case(
        "a field given twice",
        400,
        "invalid_value",
        ("language", "twice"),
        "language",
        form(part("language", "en"), part("language", "zh"), part("file", GOOD, "a")),
    ),
    Case(
        "a text field over 1 KB",
        400,
        "invalid_value",
        ("language", "1024"),
        "language",
        fields(language="e" * 1025),
    ),
    Case(
        "a text field that is not UTF-8",
        400,
        "invalid_value",
        ("language", "UTF-8"),
        "language",
        form(part("language", b"\xff\xfe"), part("file", GOOD, "a")),
    ),
    Case(
        "10,000 fields",
        400,
        "unknown_field",
        ("'f0'",),
        "f0",
        lambda: form(*(part(f"f{n}", "x") for n in range(10_000))),
    ),
    Case(
        "a known field 10,000 times",
        400,
        "invalid_value",
        ("language", "twice"),
        "language",
        lambda: form(*(part("language", "en") for _ in range(10_000))),
    ),
    Case(
        "a part with a huge header",
        400,
        "body_malformed",
        ("header size",),
        body=lambda: form(part("file", GOOD, "a", headers="X: " + "x" * 100_000 + "\r\n")),
    ),
    Case(
        "a part with a thousand headers",
        400,
        "body_malformed",
        ("header count",),
        body=lambda: form(part("file", GOOD, "a", headers="X: y\r\n" * 1000)),
    ),
    Case(
        "a file with a huge name",
        400,
        "body_malformed",
        ("header size",),
        body=lambda: form(part("file", GOOD, "n" * 100_000)),
    ),
    Case(
        "cut in the file", 400, "body_incomplete", ("middle",), body=form(part("file", GOOD, "a"), end=False)
    ),
    Case("cut in a part's header", 400, "body_incomplete", ("middle",), body=upload(GOOD)[:80]),
    Case("cut in the first boundary", 400, "body_incomplete", ("middle",), body=upload(GOOD)[:10]),
    Case("another boundary", 400, "body_malformed", (), body=upload(GOOD).replace(b"d74496", b"e74496")),
    Case("no form at all", 400, "body_malformed", (), body=b"hello" * 100),
    Case(
        "JSON",
        415,
        "unsupported_media_type",
        ("application/json", "multipart/form-data is right"),
        "Content-Type",
        b"{}",
        headers={"Content-Type": "application/json"},
    ),
    Case(
        "a bare file",
        415,
        "unsupported_media_type",
        ("audio/flac",),
        "Content-Type",
        GOOD,
        headers={"Content-Type": "audio/flac"},
    ),
    Case(
        "a form of another kind",
        415,
        "unsupported_media_type",
        ("x-www-form-urlencoded",),
        "Content-Type",
        b"file=x",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    ),
    Case(
        "no content type",
        415,
        "unsupported_media_type",
        ("'none'",),
        "Content-Type",
        upload(GOOD),
        headers={},
    ),
    Case(
        "no boundary",
        400,
        "invalid_value",
        ("boundary",),
        "Content-Type",
        upload(GOOD),
        headers={"Content-Type": "multipart/form-data"},
    ),
    Case(
        "a huge boundary",
        400,
        "invalid_value",
        ("boundary",),
        "Content-Type",
        upload(GOOD),
        headers={"Content-Type": "multipart/form-data; boundary=" + "b" * 5000},
    ),
    Case("GET", 405, "method_not_allowed", ("GET", "'/api/transcribe'", "POST"), method="GET"),
    Case("PUT", 405, "method_not_allowed", ("PUT", "POST"), method="PUT", body=upload(GOOD)),
    Case("DELETE of health", 405, "method_not_allowed", ("DELETE", "GET"), method="DELETE", path="/health"),
    Case("no such path", 404, "not_found", ("'/nowhere'",), path="/nowhere"),
    Case(
        "a path of escapes",
        404,
        "not_found",
        (),
        path="/%00%0d%0a%ff%ed%a0%80/../../etc/passwd",
        method="GET",
    ),
    Case("a long path", 404, "not_found", (), path="/" + "a" * 8000, method="GET"),
]

FILE_CASES = [
    Case(
        "text", 400, "audio_undecodable", ("no audio or video format",), "file", file=b"Not a sound.\n" * 300
    ),
    Case("one byte", 400, "audio_undecodable", (), "file", file=b"R"),
    *(
        Case(f"truncated {name}", 400, "audio_undecodable", ("cut off", "index"), "file", file=cut(name))
        for name in ("m4a-moov-last", "m4a-alac", "mp4-video", "3gp-aac")
    ),
    Case(
        "flac of which no sound is left",
        400,
        "audio_undecodable",
        ("damaged",),
        "file",
        file=lambda: encoded("flac")[:200] + bytes(50_000),
    ),
    Case("0 samples", 400, "audio_empty", ("0 samples",), "file", file=lambda: wav(np.zeros(0))),
    Case("3 samples", 400, "audio_too_short", ("3 samples", "25 ms"), "file", file=lambda: wav(np.zeros(3))),
    Case("NaN", 400, "audio_undecodable", ("not finite",), "file", file=poisoned(np.nan)),
    Case("infinity", 400, "audio_undecodable", ("not finite",), "file", file=poisoned(np.inf)),
    Case("minus infinity", 400, "audio_undecodable", ("not finite",), "file", file=poisoned(-np.inf)),
    Case("huge samples", 400, "audio_undecodable", ("1e+30", "-1 and 1"), "file", file=poisoned(1e30)),
    Case(
        "1 Hz",
        400,
        "sample_rate_unsupported",
        ("1 Hz", "2000 to 384000 Hz"),
        "file",
        file=lambda: wav(np.zeros(1000), rate=1),
    ),
    Case(
        "768 kHz",
        400,
        "sample_rate_unsupported",
        ("768000 Hz", "2000 to 384000 Hz"),
        "file",
        file=lambda: wav(np.zeros(768_000), rate=768_000),
    ),
    Case(
        "768 kHz in Matroska",
        400,
        "sample_rate_unsupported",
        ("768000 Hz", "384000 Hz"),
        "file",
        file=lambda: by_ffmpeg(ByFFmpeg("matroska", "pcm_s16le", 768_000)),
    ),
    Case(
        "64 channels",
        400,
        "channels_unsupported",
        ("64 channels", "16"),
        "file",
        file=lambda: wav(np.zeros((16_000, 64))),
    ),
    Case(
        "10 hours of silence",
        413,
        "audio_too_long",
        ("36", "14400 s"),
        "file",
        file=lambda: silence(10),
    ),
    *(
        Case(f"a hole of {hours} hours", 413, "audio_too_long", ("gap", "14400 s"), "file", file=hole(hours))
        for hours in (4, 23)
    ),
    *(
        Case(
            f"two million tracks in {name}",
            400,
            "audio_undecodable",
            ("1000 tracks",),
            "file",
            file=partial(tracks, 2_000_000),
        )
        for name, tracks in {"Matroska": matroska_of_tracks, "MP4": mp4_of_tracks}.items()
    ),
    Case(
        "a video without sound",
        400,
        "audio_undecodable",
        ("no audio stream",),
        "file",
        file=silent_video,
    ),
    Case(
        "a playlist",
        400,
        "audio_undecodable",
        (),
        "file",
        file=b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    ),
    Case("noise", 400, "audio_undecodable", (), "file", file=noise(1)),
    *(
        Case(f"noise after the magic number of {kind}", 400, "", (), "file", file=noise(seed, MAGIC[kind]))
        for seed, kind in enumerate(MAGIC)
        if kind not in MAY_BE_SOUND
    ),
    *(
        Case(f"the magic number of {kind} alone", 400, "", (), "file", file=MAGIC[kind])
        for kind in MAGIC
        if kind not in MAY_BE_SOUND
    ),
]


@pytest.mark.parametrize("case", FORM_CASES + FILE_CASES, ids=lambda case: case.name)
def test_bad_input_is_refused_and_does_no_harm(unharmed: Inspection, case: Case) -> None:
    answer = unharmed.client.request(case.method, case.path, content=case.content(), headers=case.headers)
    assert answer.status_code == case.status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    check_error(answer.json(), case.code or answer.json()["error"]["code"], *case.says, param=case.param)
    if case.status == 405:
        assert answer.headers["allow"]


WRONG_LENGTHS: dict[str, Callable[[], bytes]] = {
    "a WAV that claims 4 GB": lambda: changed(encoded("wav-s16"), b"data", struct.pack("<I", 4_000_000_000)),
    "a WAV that claims 4 GB in its first header too": lambda: changed(
        changed(encoded("wav-s16"), b"data", struct.pack("<I", 4_000_000_000)),
        b"RIFF",
        struct.pack("<I", 4_000_000_036),
    ),
    "a WAV that claims twice its length": lambda: changed(
        encoded("wav-s16"), b"data", struct.pack("<I", 181_344)
    ),
    "an AU file of no length": lambda: changed(encoded("au"), b".snd\0\0\0\x18", bytes(4)),
}


@pytest.mark.parametrize("name", WRONG_LENGTHS)
def test_a_wrong_length_hides_no_sound(unharmed: Inspection, name: str) -> None:
    answer = unharmed.ask(upload(WRONG_LENGTHS[name]()))
    assert (answer.status_code, answer.json().get("text")) == (200, TEXT), answer.text


@pytest.mark.parametrize(
    "name",
    [
        *("wav-s16", "aiff", "flac", "caf", "rf64", "w64", "au", "mp3-xing-cbr", "mp3-xing-vbr"),
        *("m4a-moov-first", "m4a-fragments", "webm-opus", "opus-48k-stereo", "wma-v2", "flv-aac", "aac-adts"),
    ],
)
def test_of_a_truncated_file_the_part_that_is_there_is_transcribed(unharmed: Inspection, name: str) -> None:
    answer = unharmed.ask(upload(cut(name)()))
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"].startswith(TEXT[:6])
    assert 1.2 < answer.json()["duration"] < 1.8


def test_ten_thousand_links_do_no_harm(unharmed: Inspection) -> None:
    """Chained Ogg: each link has headers, a decoder and 60 ms of sound of its own."""
    one = opus_file(np.zeros(960 * 3, np.float32))
    answer = unharmed.ask(upload(one * 10_000))
    assert answer.status_code == 200, answer.text
    assert answer.json()["duration"] == pytest.approx(10_000 * (4 * 960 - 312) / 48_000, abs=1)


@pytest.mark.parametrize("kind", sorted(MAY_BE_SOUND))
def test_noise_that_may_be_sound_does_no_harm(unharmed: Inspection, kind: str) -> None:
    answer = unharmed.ask(upload(noise(3, MAGIC[kind])()))
    assert answer.status_code in (200, 400), answer.text
    assert unharmed.ask(upload(MAGIC[kind])).status_code == 400


def test_ten_hours_of_silence_are_refused_by_their_header(unharmed: Inspection) -> None:
    """Nothing of it is decoded: the answer cannot take long."""
    assert len(silence(10)) < 30_000
    answer = unharmed.ask(upload(silence(10)))
    line = unharmed.access_line(answer.headers["x-request-id"])
    assert (line["status"], line["audio_seconds"]) == (413, 0)


@pytest.mark.parametrize(
    "filename",
    [
        "../../etc/passwd",
        "/dev/sda",
        "a\x1b[2Jb\x07.wav",
        "a%00%0d%0aSet-Cookie: x",
        "録音\u202e.wav",
        "",
        ".",
    ],
)
def test_the_file_name_is_never_used(unharmed: Inspection, filename: str) -> None:
    answer = unharmed.ask(upload(GOOD, filename))
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    unharmed.access_line(answer.headers["x-request-id"])
    assert "\x1b" not in unharmed.service.log()


def test_a_file_name_with_line_ends_cannot_name_another_field(unharmed: Inspection) -> None:
    answer = unharmed.ask(upload(GOOD, 'x.wav"\r\nX: "; name="language'))
    assert answer.status_code == 200


MALFORMED = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "unknown method": b"BREW /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a space before the colon": b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n",
    "a folded header": b"GET /health HTTP/1.1\r\nHost: localhost\r\n  folded: y\r\n: z\r\n\r\n",
    "two lengths": head(length=5, Content_Length="6") + b"hello",
    "length and chunks": head(length=5, Transfer_Encoding="chunked") + b"0\r\n\r\n",
    "a length that is no number": head(length=5).replace(b": 5", b": 5x") + b"hello",
    "a negative length": head(length=-5),
    "a length over 64 bits": head(length=10**30),
    "chunks of no size": head() + b"zz\r\nhello\r\n",
    "chunks of a negative size": head() + b"-5\r\nhello\r\n",
    "garbage between chunks": head() + chunks(upload(GOOD), 1000, end=False) + b"!!!\r\n",
    "CONNECT": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bytes beyond ASCII in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a zero byte in a header": b"GET /health HTTP/1.1\r\nHost: x\0y\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_http_is_refused(unharmed: Inspection, name: str) -> None:
    reply = exchange(unharmed.service.port, MALFORMED[name])
    assert reply.status == 400, reply.raw
    check_error(reply.json(), reply.json()["error"]["code"], param=reply.json()["error"]["param"])
    request_id = reply.headers["x-request-id"]
    wait_for(
        "its line, which may come after the answer",
        lambda: any(line.get("request_id") == request_id for line in unharmed.service.log_lines()),
    )


@pytest.mark.parametrize(
    "flood",
    [
        b"GET /" + b"a" * 10_000_000,
        b"GET / HTTP/1.1\r\nX: " + b"a" * 10_000_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1_000_000,
        head() + chunks(upload(GOOD), 1000)[:-2] + b"X: y\r\n" * 1_000_000,
    ],
    ids=["a path", "a header", "headers", "trailers"],
)
def test_a_head_without_end_is_refused(unharmed: Inspection, flood: bytes) -> None:
    with connection(unharmed.service.port) as made:
        try:
            made.sendall(flood)
        except ConnectionError:
            pass  # the service reads on for a second; the answer came before it gave up
        reply = read_reply(made)
    assert reply.status == 431
    check_error(reply.json(), "header_too_large", "32768 bytes")


# A service with small limits.


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspection]:
    settings = {
        "ASR_WORKERS": "1",
        "ASR_THREADS": "1",
        "ASR_MAX_UPLOAD_MB": "2",
        "ASR_MAX_AUDIO_SECONDS": "10",
        # Longer than a machine pauses: all other tests of this service are done within it.
        "ASR_BODY_TIMEOUT": "25",
        "ASR_BODY_IDLE_TIMEOUT": "12",
    }
    with running(tmp_path_factory.mktemp("strict"), **settings) as service:
        yield Inspection(service)


@pytest.fixture
def strict_unharmed(strict: Inspection) -> Iterator[Inspection]:
    yield strict
    strict.check()


TRIES = 5
MIB = 2**20


def test_a_declared_length_over_the_limit_is_refused_before_the_body(strict_unharmed: Inspection) -> None:
    with connection(strict_unharmed.service.port) as made:
        made.sendall(head(length=2 * MIB + 1))
        reply = read_reply(made)
    assert reply.status == 413
    check_error(reply.json(), "upload_too_large", "2097153 bytes", "2 MiB (2097152 bytes)", param="file")


def test_a_chunked_body_over_the_limit_is_refused_while_it_arrives(strict_unharmed: Inspection) -> None:
    with connection(strict_unharmed.service.port) as made:
        made.sendall(head() + chunks(upload(bytes(2 * MIB)), end=False))
        reply = read_reply(made)  # the end of the body was never sent
    assert reply.status == 413
    check_error(reply.json(), "upload_too_large", "2 MiB (2097152 bytes)", param="file")


def test_a_body_at_the_limit_is_not_refused_for_its_size(strict_unharmed: Inspection) -> None:
    overhead = len(upload(b""))
    answer = strict_unharmed.ask(upload(bytes(2 * MIB - overhead)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "audio_undecodable")


@pytest.mark.parametrize("declared", [True, False])
def test_a_recording_over_the_limit_is_refused(strict_unharmed: Inspection, declared: bool) -> None:
    answer = strict_unharmed.ask(upload(silence(0.1, declared=declared)))
    assert answer.status_code == 413
    check_error(answer.json(), "audio_too_long", "the limit is 10 s", param="file")


def test_an_upload_beside_its_limit_leaves_no_file(strict_unharmed: Inspection) -> None:
    """While it arrives it stands in the folder for uploads without a name."""
    with connection(strict_unharmed.service.port) as made:
        made.sendall(head() + chunks(upload(bytes(MIB)), end=False))
        wait_for("the upload is spooled", strict_unharmed.open_uploads)
        assert not list(strict_unharmed.service.spool.iterdir())


def test_a_body_that_stalls_gets_408(strict_unharmed: Inspection) -> None:
    with connection(strict_unharmed.service.port) as made:
        made.sendall(head(length=10_000) + upload(GOOD)[:5000])
        reply = read_reply(made)
    assert reply.status == 408
    check_error(reply.json(), "body_timeout", "5000 bytes", "12 s", "25 s")


def test_a_body_that_trickles_gets_408(strict_unharmed: Inspection) -> None:
    with connection(strict_unharmed.service.port) as made:
        body = upload(GOOD)
        made.sendall(head(length=len(body)))
        made.settimeout(0.1)
        raw = b""
        for position in range(3000):  # five minutes at most; the limit is 25 s
            made.sendall(body[position : position + 1])
            try:
                raw = made.recv(65536)
                break
            except TimeoutError:
                continue
        assert raw.startswith(b"HTTP/1.1 408 ")


def test_an_upload_that_its_client_leaves_is_dropped(strict_unharmed: Inspection) -> None:
    with connection(strict_unharmed.service.port) as made:
        made.sendall(head(X_Request_Id="left-in-upload") + chunks(upload(bytes(MIB)), end=False))
        wait_for("the upload is spooled", strict_unharmed.open_uploads)
    line = strict_unharmed.access_line("left-in-upload")
    assert line["error"] == "client_gone"
    assert "audio_seconds" not in line


# Work that its client leaves.


def busy(inspection: Inspection) -> float:
    """CPU seconds of all workers so far."""
    times = [worker.cpu_times() for worker in inspection.service.workers()]
    return sum(one.user + one.system for one in times)


@pytest.mark.parametrize("kind", ["speech", "silence"])
def test_work_that_its_client_leaves_is_dropped(unharmed: Inspection, kind: str) -> None:
    if kind == "silence":  # a worker needs about a second of CPU for it
        hours, begun = 3.0, 0.1
        content = silence(hours)
    else:  # about six seconds
        hours, begun = 0.5, 1.0
        samples = np.tile(clip(8_000)[:, 0], int(hours * 3600 / 2.8))
        content = wav(samples, 8_000, "ULAW")
    for number in range(TRIES):
        name = f"left-in-{kind}-{number}"
        before = busy(unharmed)
        with connection(unharmed.service.port) as made:
            made.sendall(request(upload(content), X_Request_Id=name))
            wait_for("a worker is at it", lambda then=before: busy(unharmed) - then > begun)
        line = unharmed.access_line(name)
        if line["status"] == 200:
            continue  # the work had ended before this process could leave
        assert (line["status"], line["error"]) == (499, "client_gone")
        if 0 < line.get("audio_seconds", 0) < hours * 3600 * 0.9:
            return
    pytest.fail(f"no request of {TRIES} was dropped in the middle of its work")


def test_places_are_free_again_when_clients_leave(tmp_path: Path) -> None:
    """All long places that a client may have, and one in the queue: then they leave, three times."""
    with running(tmp_path, ASR_WORKERS="1", ASR_THREADS="1", ASR_QUEUE_LIMIT="1") as service:
        inspection = Inspection(service)
        for _ in range(3):
            with occupied(service.port) as saturated:
                refused = ask_for_long(service.port)
                assert (refused.status, refused.headers["retry-after"]) == (429, "1")
                check_error(refused.json(), "over_capacity")
                names = [sender.request_id for sender in saturated.senders]
            for name in names[:-1]:
                assert inspection.access_line(name)["error"] == "client_gone"
            wait_for("the queue is empty", lambda: not queue_length(service.port, "long"))
        inspection.check()


def test_a_client_that_leaves_while_it_waits_is_dropped(tmp_path: Path) -> None:
    """The last one waits while the others are at work for hours, and goes."""
    with running(tmp_path, ASR_WORKERS="1", ASR_THREADS="1", ASR_QUEUE_LIMIT="1") as service:
        inspection = Inspection(service)
        with occupied(service.port) as saturated:
            waiting = saturated.last
            waiting.leave()
        wait_for("it is dropped", lambda: "a client left the queue" in service.log())
        inspection.check()
        assert not [line for line in service.log_lines() if line.get("request_id") == waiting.request_id]


# A folder for uploads that takes none.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield folder
    unmount = ["umount", str(folder)]  # a decoder that has been left may need a moment to end
    wait_for("nobody uses it", lambda: subprocess.run(unmount, check=False).returncode == 0)


def check_no_space(inspection: Inspection, *says: str) -> None:
    """An upload that must be stored gets 507; those that fit into memory go on."""
    reply = exchange(inspection.service.port, head() + chunks(upload(bytes(3 * MIB))))
    assert reply.status == 507
    assert int(reply.headers["retry-after"]) > 0
    check_error(reply.json(), "no_space", *says, param="file")
    inspection.check()


def test_a_full_disk_gets_507(small_disk: Path, tmp_path: Path) -> None:
    spool = small_disk / "spool"
    with running(tmp_path, ASR_WORKERS="1", ASR_THREADS="1", ASR_SPOOL_DIR=str(spool)) as service:
        service.spool = spool
        spool.mkdir()
        inspection = Inspection(service)
        for _ in range(3):
            check_no_space(inspection, "no room for an upload of", "uploads take 0 of 0 MiB (the disk of")
        reply = exchange(service.port, head() + chunks(upload(GOOD)))
        assert reply.json()["text"] == TEXT, "what failed has given its space back"


def test_a_folder_for_uploads_that_has_gone_gets_507(tmp_path: Path) -> None:
    with running(tmp_path, ASR_WORKERS="1", ASR_THREADS="1") as service:
        inspection = Inspection(service)
        service.spool.rmdir()
        service.spool.touch()
        try:
            reply = exchange(service.port, head() + chunks(upload(GOOD)))
            assert reply.status == 507
            check_error(reply.json(), "no_space", "Not a directory", param="file")
        finally:
            service.spool.unlink()
            service.spool.mkdir()
        inspection.check()


def test_all_workers_have_stayed(inspection: Inspection, service: Service) -> None:
    """The last of this module: both workers, the ones of the start, still answer."""
    before = len(service.log_lines())

    def answered() -> set[int]:
        with ThreadPoolExecutor(4) as pool:  # at the same time: one after the other, one worker may have all
            answers = list(pool.map(inspection.ask, [upload(GOOD)] * 4))
        assert {answer.status_code for answer in answers} == {200}
        lines = service.log_lines()[before:]
        return {line["pid"] for line in lines if line["logger"] == "asrsvc.access"}

    wait_for("both workers answer", lambda: answered() == inspection.pids)
