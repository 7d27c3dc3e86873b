"""Requests as applications and old programs send them, byte by byte, against the real service."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from bodies import FORM, Reply, connection, exchange, form, head, part, read_reply, request, upload
from inspection import GOOD, check_error
from occupied import ask_for_long, occupied, queue_length
from rolling import Operated
from service import Service, running, wait_for
from streams import joined
from waiting import PATIENCE

V1 = "/v1/audio/transcriptions"
API = "/api/transcribe"
JOBS = "/api/jobs"
TEXT = "Book a table at 1:25 a.m."
MIB = 2**20
SRT = f"1\n00:00:00,150 --> 00:00:02,690\n{TEXT}\n"
FILE = part("file", GOOD, "a.flac", "Content-Type: audio/flac\r\n")


def fields(**values: str) -> list[bytes]:
    """Text fields; `__` in a name stands for brackets."""
    return [part(name.replace("__", "[]"), value) for name, value in values.items()]


def ask(service: Service, *parts: bytes, path: str = V1, **headers: str) -> Reply:
    return exchange(service.port, request(form(*parts), path=path, **headers))


def text_of(reply: Reply) -> str:
    assert reply.status == 200, reply.raw
    return str(reply.json()["text"])


# Fields.

SENT: dict[str, list[bytes]] = {
    "AI SDK": fields(
        model="gpt-4o-transcribe",
        language="en",
        response_format="json",
        temperature="0",
        timestamp_granularities__="segment",
    ),
    "AI SDK, cut by the service": fields(
        model="gpt-4o-transcribe-diarize",
        response_format="json",
        chunking_strategy='{"type":"server_vad","threshold":0.7}',
    ),
    "Obsidian and Witsy": fields(
        model="whisper-1", language="", prompt="", temperature="", response_format="", stream=""
    ),
    "values that a program does not have": fields(
        model="whisper-1", language="undefined", temperature="null"
    ),
    "a tag": fields(model="whisper-1", language="en-US"),
    "a name": fields(model="whisper-1", language="English"),
    "lists with numbers": [
        *fields(response_format="verbose_json"),
        part("timestamp_granularities[0]", "word"),
        part("timestamp_granularities[1]", "segment"),
    ],
    "lists as JSON": fields(
        response_format="verbose_json",
        timestamp_granularities='["word","segment"]',
        include='["logprobs"]',
        languages='["en","zh-CN"]',
    ),
}


@pytest.mark.parametrize("sender", SENT)
def test_what_openai_takes_is_taken(service: Service, sender: str) -> None:
    assert text_of(ask(service, *SENT[sender], FILE)) == TEXT
    assert text_of(ask(service, FILE, *SENT[sender])) == TEXT


@pytest.mark.parametrize("path", [V1, API, JOBS])
@pytest.mark.parametrize(
    "language", ["en", "", "en-GB", "English", "eng", "zh-HK", "cmn-Hans-CN", "Mandarin"]
)
def test_languages_have_the_same_names_everywhere(service: Service, path: str, language: str) -> None:
    reply = ask(service, part("language", language), part("use_itn", ""), FILE, path=path)
    assert reply.status == (202 if path == JOBS else 200), reply.raw
    wanted = {"": "auto", "zh-HK": "yue", "cmn-Hans-CN": "zh", "Mandarin": "zh"}.get(language, "en")
    if path == JOBS:
        assert reply.json()["language"] == wanted
    elif path == API:
        assert reply.json()["language"] == ("en" if wanted == "auto" else wanted)
    else:
        assert [found["code"] for found in reply.json()["languages"]] == [
            "en" if wanted == "auto" else wanted
        ]


@pytest.mark.parametrize("path", [V1, API, JOBS])
def test_what_is_no_language_is_refused_with_those_that_are(service: Service, path: str) -> None:
    for wrong in ("fr-FR", "zh-nan", "xx", "en--US"):
        reply = ask(service, part("language", wrong), FILE, path=path)
        assert reply.status == 400
        said = f"language is '{wrong}'; one of auto, zh, en, yue, ja, ko is right"
        check_error(reply.json(), "invalid_value", said, param="language")


def test_an_empty_file_is_still_refused(service: Service) -> None:
    for path in (V1, API, JOBS):
        reply = ask(service, part("file", b"", "a.wav"), path=path)
        assert reply.status == 400
        check_error(reply.json(), "file_empty", "0 bytes", param="file")


def test_whisper_1_is_not_streamed_as_at_openai(service: Service) -> None:
    srt = ask(service, *fields(model="whisper-1", stream="true", response_format="srt"), FILE)
    assert (srt.status, srt.body.decode()) == (200, SRT)
    assert text_of(ask(service, *fields(model="whisper-1", stream="true"), FILE)) == TEXT
    other = ask(service, *fields(model="gpt-4o-transcribe", stream="true", response_format="srt"), FILE)
    assert other.status == 400
    check_error(other.json(), "invalid_value", "a stream has no response_format srt", param="response_format")


# Forms.


def test_forms_of_old_programs_are_read(service: Service) -> None:
    folded = b'Content-Disposition: form-data; name="file";\r\n filename="a recording.wav"\r\n\r\n' + GOOD
    assert text_of(ask(service, *fields(model="whisper-1"), folded)) == TEXT
    whole = form(*fields(model="whisper-1"), FILE)
    boundary = FORM.partition("boundary=")[2].encode()
    padded = whole.replace(b"--" + boundary + b"\r\n", b"--" + boundary + b" \t\r\n")
    for body in (padded, b"A message in parts.\r\n" + whole, whole + b"The end."):
        for path in (V1,):
            assert text_of(exchange(service.port, request(body, path=path))) == TEXT


# Paths.


@pytest.mark.parametrize(
    "path", [f"{V1}/", f"/{V1}", "/v1//audio/transcriptions", f"{API}/", f"//{API}//", f"{V1}/?stream="]
)
def test_a_slash_too_many_is_no_redirect(service: Service, path: str) -> None:
    reply = ask(service, FILE, path=path, X_Forwarded_Proto="https", Authorization="Bearer asr-x")
    assert text_of(reply) == TEXT
    assert "location" not in reply.headers


def test_a_slash_too_many_waits_in_the_same_queue(tmp_path: Path) -> None:
    """What waits is told by the path, too: where there is no place left it gets the same 429."""
    settings = {"ASR_WORKERS": "1", "ASR_THREADS": "1", "ASR_QUEUE_LIMIT": "1"}
    with running(tmp_path, **settings) as narrow, occupied(narrow.port):
        for path in (f"{API}/", f"/{V1}/"):
            assert ask_for_long(narrow.port, path=path).status == 429


@pytest.mark.parametrize(
    "path",
    ["/health/", "/health/ready/", "/v1/models/", "/v1/models/whisper-1/", "/openapi.json/", f"{JOBS}/"],
)
def test_what_is_asked_for_with_a_slash_is_answered(service: Service, path: str) -> None:
    with service.client() as client:
        assert client.get(path).status_code == 200


def test_the_api_pages_with_a_slash_lead_to_those_without(service: Service) -> None:
    with service.client() as client:
        for path in ("/docs/", "/docs//"):
            lead = client.get(path)
            assert lead.status_code == 308
            assert str(lead.url.join(lead.headers["location"])) == f"{service.url}/docs"
        assert client.post("/docs/", content=b"x").status_code == 405


def test_no_slash_leads_past_the_guard_of_admin(service: Service) -> None:
    with service.client() as client:
        for path in (
            "/admin/status",
            "/admin/status/",
            "//admin/status",
            "/admin//status",
            "/admin%2Fstatus/",
        ):
            reply = exchange(service.port, request(b"", method="GET", path=path))
            assert reply.status in {401, 403, 404}, (path, reply.raw)
        assert client.get("/health").status_code == 200


# A client that has sent all, and says so.


def half_closed(port: int, sent: bytes) -> Reply:
    with connection(port) as made:
        made.sendall(sent)
        made.shutdown(socket.SHUT_WR)
        return read_reply(made)


@pytest.mark.parametrize("path", [V1, API, JOBS])
def test_a_client_that_shuts_down_its_half_gets_its_answer(service: Service, path: str) -> None:
    reply = half_closed(service.port, request(form(FILE), path=path))
    assert reply.status == (202 if path == JOBS else 200), reply.raw
    assert reply.raw.startswith(b"HTTP/1.1 20")
    assert reply.json()
    wrong = half_closed(service.port, request(form(FILE, part("colour", "red")), path=path))
    assert wrong.status == 400
    check_error(wrong.json(), "unknown_field", "colour", param="colour")


def test_so_does_one_that_asks_for_no_engine(service: Service) -> None:
    for path, status in (("/health", 200), ("/nothing", 404)):
        assert half_closed(service.port, request(b"", method="GET", path=path)).status == status


def test_and_one_that_asks_for_a_stream(service: Service) -> None:
    body = form(part("file", joined(20), "a.flac"), part("stream", "true"))
    reply = half_closed(service.port, request(body))
    assert reply.status == 200
    assert reply.raw.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert reply.raw.count(b'"type":"segment"') == 20


def test_and_one_that_waits_in_the_queue(tmp_path: Path) -> None:
    settings = {"ASR_WORKERS": "1", "ASR_THREADS": "1", "ASR_QUEUE_LIMIT": "10"}
    with running(tmp_path, **settings) as narrow, ExitStack() as held:
        with occupied(narrow.port):
            made = held.enter_context(connection(narrow.port))  # now: a silent one is closed after 10 s
            made.sendall(request(form(part("file", GOOD + bytes(10 * MIB), "a.flac"))))
            made.shutdown(socket.SHUT_WR)
            wait_for("it waits", lambda: queue_length(narrow.port, "long") >= 2)
        assert text_of(read_reply(made)) == TEXT


# A client that asks again as soon as it has its answer.


@contextmanager
def slow_to_send(pids: set[int], folder: Path) -> Iterator[None]:
    """Hold these processes up for a moment after all that they write (strace(1))."""
    strace = shutil.which("strace")
    assert strace is not None, "bin/test installs it"
    calls = "?write,?writev,?sendto,?sendmsg"
    log = folder / "strace.log"
    command = [strace, "-f", "-o", str(log), "-e", f"trace={calls}"]
    command += ["-e", f"inject={calls}:delay_exit=60000"]
    for pid in pids:
        command += ["-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            assert tracer.stderr is not None
            for _ in pids:
                line = tracer.stderr.readline()
                assert "attached" in line, line
            yield
        finally:
            tracer.terminate()
            tracer.communicate(timeout=PATIENCE)


def answer_of(made: socket.socket, *, until: bytes = b"") -> bytes:
    """Read an answer, and no byte more: up to its Content-Length, or to something in it."""
    raw = b""
    while True:
        front, end, body = raw.partition(b"\r\n\r\n")
        if until and until in raw:
            return raw
        lengths = [line for line in front.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if end and lengths and len(body) >= int(lengths[0].split(b":")[1]):
            return raw
        data = made.recv(65536)
        assert data, raw
        raw += data


ENDS: dict[str, tuple[bytes, bytes, int]] = {
    "an answer": (request(upload(GOOD)), b"", 200),
    "an error": (request(upload(b"noise" * 100)), b"", 400),
    "a wrong field": (request(upload(GOOD, colour="red")), b"", 400),
    "a stream": (request(upload(GOOD, stream="true")), b'"type":"done"', 200),
    "a stream of OpenAI's": (
        request(upload(GOOD, stream="true"), path=V1),
        b"transcript.text.done",
        200,
    ),
    "a job": (request(upload(GOOD), path=JOBS), b"", 202),
}


def may_trace() -> bool:
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    return os.geteuid() == 0 or not scope.exists() or scope.read_text().strip() == "0"


@pytest.mark.skipif(
    not may_trace(), reason="strace may not look at other processes (ptrace_scope), root's may"
)
def test_a_client_with_one_request_at_a_time_may_ask_again_at_once(tmp_path: Path) -> None:
    """The place is given back before the last byte: a worker that is held up behind it holds up nobody."""
    service = Operated(tmp_path, ASR_CLIENT_CONCURRENCY="1")
    statuses: dict[str, list[int]] = {}
    try:
        service.start()
        with slow_to_send(service.worker_pids(), tmp_path):
            for name, (sent, end, _) in ENDS.items():
                for _ in range(3):
                    with connection(service.port) as made:
                        made.sendall(sent)
                        raw = answer_of(made, until=end)
                        statuses.setdefault(name, []).append(int(raw.split(b" ", 2)[1]))
    finally:
        service.stop()
    assert statuses == {name: [status] * 3 for name, (_, _, status) in ENDS.items()}


# Applications that are no web pages.

ORIGINS = ("app://obsidian.md", "tauri://localhost", "capacitor://localhost", "chrome-extension://abcdefgh")


@pytest.fixture(scope="module")
def open_to_applications(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("open"), ASR_CORS_ORIGINS=",".join(ORIGINS)) as started:
        yield started


@pytest.mark.parametrize("origin", [*ORIGINS, "APP://Obsidian.md"])
def test_an_application_that_is_named_may_ask(open_to_applications: Service, origin: str) -> None:
    reply = ask(open_to_applications, FILE, Origin=origin)
    assert text_of(reply) == TEXT
    assert reply.headers["access-control-allow-origin"] == origin
    wish = head("OPTIONS", V1, length=0, Origin=origin, Access_Control_Request_Method="POST")
    assert exchange(open_to_applications.port, wish).headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    "origin", ["null", "app://evil.example", "https://obsidian.md", "app://localhost", "ftp://localhost"]
)
def test_one_that_is_not_named_may_not(open_to_applications: Service, origin: str) -> None:
    reply = ask(open_to_applications, FILE, Origin=origin)
    assert reply.status == 403
    assert "access-control-allow-origin" not in reply.headers
