"""`url` instead of `file`: a real service fetches from another machine, which does as it likes."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from bodies import connection, form, head, part, read_reply
from job_client import JobClient
from machines import Authority, Machine, content, endless, machine, make_authority, redirect, silence
from service import CLIPS, Service, running, wait_for
from waiting import PATIENCE

MEBIBYTE = 2**20
IDLE_SECONDS = 8
ALL_SECONDS = 20
"""longer than this machine pauses, whose threads are the other machine"""
SOUND = (CLIPS / "en_1.flac").read_bytes()
SAID = "Book a table at 1:25 a.m."
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: audio/flac\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def far(authority: Authority) -> Iterator[Machine]:
    with machine(authority) as made:
        made.answers["/a.flac"] = content(SOUND)
        yield made


@pytest.fixture(scope="module")
def fetching(
    tmp_path_factory: pytest.TempPathFactory, far: Machine, authority: Authority
) -> Iterator[Service]:
    """A service that may ask that machine, and has little patience."""
    with running(
        tmp_path_factory.mktemp("fetching"),
        ASR_WORKERS="1",
        ASR_THREADS="1",
        ASR_URL_HOSTS=f"localhost:{far.port},{socket.gethostname()}:{far.port},*.example.org",
        ASR_MAX_UPLOAD_MB="2",
        ASR_BODY_TIMEOUT=str(ALL_SECONDS),
        ASR_BODY_IDLE_TIMEOUT=str(IDLE_SECONDS),
        SSL_CERT_FILE=str(authority.certificate),
    ) as started:
        yield started


def ask(service: Service, path: str = "/api/transcribe", **fields: str) -> httpx.Response:
    with service.client() as client:
        return client.post(path, files={name: (None, value) for name, value in fields.items()})


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


@pytest.mark.parametrize("path", ["/api/transcribe", "/v1/audio/transcriptions"])
def test_what_an_address_names_is_transcribed_as_if_it_were_uploaded(
    fetching: Service, far: Machine, path: str
) -> None:
    answer = ask(fetching, path, url=far.url("/a.flac"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"] == SAID
    request_id = answer.headers["X-Request-Id"]
    (line,) = wait_for(
        "its log line", lambda: [ln for ln in fetching.log_lines() if ln.get("request_id") == request_id]
    )
    assert line["bytes"] == len(SOUND)
    assert line["url_host"] == "localhost"
    assert line["fetch_ms"] > 0


def test_a_stream_begins_when_the_recording_is_there(fetching: Service, far: Machine) -> None:
    lines = ask(fetching, url=far.url("/a.flac"), stream="true").text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert events[-1]["type"] == "done"
    assert events[-1]["text"] == SAID
    answer = ask(fetching, url=far.url("/nothing"), stream="true")
    assert error_of(answer) == (422, "url_failed", "url")


def test_a_job_takes_an_address_too(fetching: Service, far: Machine) -> None:
    jobs = JobClient(fetching)
    answer = ask(fetching, "/api/jobs", url=far.url("/a.flac"))
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    assert jobs.wait_ended(job)["status"] == "succeeded"
    assert jobs.result(job)["text"] == SAID
    before = len(jobs.all())
    assert error_of(ask(fetching, "/api/jobs", url=far.url("/nothing"))) == (422, "url_failed", "url")
    assert len(jobs.all()) == before
    uploads = fetching.folder / "state" / "jobs" / "uploads"
    wait_for(
        "no upload is left; it goes a moment after its job has ended", lambda: not any(uploads.iterdir())
    )


@pytest.mark.parametrize("path", ["/api/transcribe", "/v1/audio/transcriptions", "/api/jobs"])
def test_one_of_file_and_url_is_right(fetching: Service, far: Machine, path: str) -> None:
    with fetching.client() as client:
        both = client.post(path, files={"file": ("a", SOUND)}, data={"url": far.url("/a.flac")})
    assert error_of(both) == (400, "invalid_value", "url")
    assert "file and url are both given" in both.text
    assert error_of(ask(fetching, path, language="en")) == (400, "missing_field", "file")
    assert error_of(ask(fetching, path, url=" ", language="en")) == (400, "missing_field", "file")


def test_what_is_wrong_with_other_fields_is_said_before_anybody_is_asked(
    fetching: Service, far: Machine
) -> None:
    before = far.connections
    assert error_of(ask(fetching, url=far.url("/a.flac"), language="xx")) == (
        400,
        "invalid_value",
        "language",
    )
    assert far.connections == before


@pytest.mark.parametrize("path", ["/api/transcribe", "/v1/audio/transcriptions", "/api/jobs"])
def test_without_the_setting_no_address_is_taken(service: Service, path: str) -> None:
    answer = ask(service, path, url="https://media.example.org/a.flac")
    assert error_of(answer) == (400, "url_off", "url")
    assert "ASR_URL_HOSTS" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:{port}/a.flac",
        "https://[::1]:{port}/a.flac",
        "https://[::ffff:127.0.0.1]:{port}/a.flac",
        "https://127.1:{port}/a.flac",
        "https://2130706433:{port}/a.flac",
        "https://localhost/a.flac",
        "https://localhost.:1/a.flac",
        "http://localhost:{port}/a.flac",
        "https://user@localhost:{port}/a.flac",
        "https://localhost:{port}@127.0.0.1/a.flac",
        "https://10.0.0.1/a.flac",
        "https://169.254.169.254/latest/meta-data/",
        "https://elsewhere.example.net/a.flac",
        "file:///etc/passwd",
        "https://[",
        "a.flac",
        "https://localhost:{port}/a.flac\r\nX: y",
    ],
)
@pytest.mark.parametrize("path", ["/api/transcribe", "/api/jobs"])
def test_what_is_not_listed_is_not_asked(fetching: Service, far: Machine, path: str, url: str) -> None:
    before = far.connections
    answer = ask(fetching, path, url=url.format(port=far.port))
    status, code, param = error_of(answer)
    assert (status, param) == (400, "url")
    assert code in {"url_refused", "invalid_value"}
    assert far.connections == before


def test_a_listed_name_that_leads_inside_is_refused(fetching: Service, far: Machine) -> None:
    """This machine's own name: the list has it, and it stands for an address of this machine."""
    addresses = {entry[4][0] for entry in socket.getaddrinfo("localhost", None)}
    assert addresses
    before = far.connections
    answer = ask(fetching, url=far.url("/a.flac", socket.gethostname()))
    assert error_of(answer)[0] in {400, 422}
    assert not any(str(address) in answer.json()["error"]["message"] for address in addresses)
    assert far.connections == before


@pytest.mark.parametrize(
    "location",
    [
        "https://127.0.0.1:{port}/a.flac",
        "https://169.254.169.254/",
        "http://localhost:{port}/a.flac",
        "file:///etc/passwd",
    ],
)
def test_a_redirect_out_of_the_list_is_refused(fetching: Service, far: Machine, location: str) -> None:
    far.answers["/redirect"] = redirect(location.format(port=far.port))
    before = far.connections
    answer = ask(fetching, url=far.url("/redirect"))
    assert error_of(answer) == (400, "url_refused", "url")
    assert "169" not in answer.text.replace(str(far.port), "")
    assert far.connections == before + 1
    far.answers["/redirect"] = redirect("/a.flac")
    assert ask(fetching, url=far.url("/redirect")).json()["text"] == SAID


BAD: dict[str, tuple[Any, tuple[int, str]]] = {
    "/endless": (endless(HEAD + b"\r\n", bytes(65536)), (413, "upload_too_large")),
    "/chunks": (
        endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + bytes(65536) + b"\r\n"),
        (413, "upload_too_large"),
    ),
    "/huge": (silence(HEAD + b"Content-Length: 999999999999999\r\n\r\n"), (413, "upload_too_large")),
    "/silent": (silence(), (408, "url_timeout")),
    "/stops": (silence(HEAD + b"Content-Length: 1000\r\n\r\nfLaC"), (408, "url_timeout")),
    "/trickle": (endless(HEAD + b"\r\n", b"f", 0.2), (408, "url_timeout")),
    "/page": (content(b"<html>", "text/html"), (422, "url_wrong_type")),
    "/error": (content(b"an inner secret", status="500 No"), (422, "url_failed")),
    "/short": (content(SOUND, length=len(SOUND) + 1), (422, "url_failed")),
    "/empty": (content(b""), (400, "file_empty")),
    "/noise": (content(b"no sound at all" * 100, None, length=None), (400, "audio_undecodable")),
}


@pytest.mark.parametrize("path", BAD)
def test_a_machine_that_misbehaves_fails_the_request_and_nothing_else(
    fetching: Service, far: Machine, path: str
) -> None:
    far.answers[path], (status, code) = BAD[path]
    answer = ask(fetching, url=far.url(path))
    found = error_of(answer)
    assert found[:2] == (status, code), answer.text
    assert "secret" not in answer.text
    if path in {"/endless", "/huge", "/silent", "/page"}:
        job = error_of(ask(fetching, "/api/jobs", url=far.url(path)))
        assert job[:2] == (status, code)
    assert ask(fetching, url=far.url("/a.flac")).json()["text"] == SAID


def test_while_machines_are_slow_others_have_their_turn(fetching: Service, far: Machine) -> None:
    far.answers["/held"] = silence()

    def one_goes_by() -> bool:
        """Whether a request was answered while four fetches waited; False: they had ended meanwhile."""
        answers: list[int] = []
        held = [
            threading.Thread(target=lambda: answers.append(ask(fetching, url=far.url("/held")).status_code))
            for _ in range(4)
        ]
        before = len(far.of("/held"))
        for thread in held:
            thread.start()
        wait_for("four fetches", lambda: len(far.of("/held")) == before + 4, 20)
        assert fetching.transcribe("a.flac", SOUND).json()["text"] == SAID
        gone_by = not answers
        for thread in held:
            thread.join(PATIENCE)
        assert answers == [408] * 4
        return gone_by

    assert any(one_goes_by() for _ in range(5))


def test_a_client_that_leaves_ends_the_fetch(fetching: Service, far: Machine) -> None:
    far.answers["/left"] = endless(HEAD + b"\r\n", b"f", 0.02)
    body = form(part("url", far.url("/left")))
    with connection(fetching.port) as made:
        made.sendall(head(length=len(body), X_Request_Id="left") + body)
        wait_for("the fetch", lambda: far.of("/left"), 20)
    wait_for("the end of it", lambda: "/left" in far.hung_up, 20)
    (line,) = wait_for(
        "its log line", lambda: [ln for ln in fetching.log_lines() if ln.get("request_id") == "left"], 20
    )
    assert (line["status"], line["error"]) == (499, "client_gone")


def test_an_address_may_be_long(fetching: Service, far: Machine) -> None:
    path = "/a.flac?signature=" + "a" * 4000
    far.answers[path] = content(SOUND)
    assert ask(fetching, url=far.url(path)).json()["text"] == SAID
    assert "signature" not in fetching.log()
    body = form(part("url", far.url("/" + "a" * 9000)))
    with connection(fetching.port) as made:
        made.sendall(head(length=len(body)) + body)
        reply = read_reply(made)
    assert reply.status == 400
    assert reply.json()["error"]["message"] == "field url is over 8192 bytes"


def test_a_reload_takes_the_list_anew(tmp_path: Path, far: Machine, authority: Authority) -> None:
    config = tmp_path / "asr.conf"
    config.write_text("ASR_SOAK_SECONDS=0\n")
    one_worker = {"ASR_WORKERS": "1", "ASR_THREADS": "1", "SSL_CERT_FILE": str(authority.certificate)}
    with running(tmp_path / "service", ASR_CONFIG=str(config), **one_worker) as service:
        url = far.url("/a.flac")
        assert error_of(ask(service, url=url)) == (400, "url_off", "url")
        config.write_text(f"ASR_SOAK_SECONDS=0\nASR_URL_HOSTS=localhost:{far.port}\n")
        service.master.send_signal(signal.SIGHUP)
        wait_for("the new list", lambda: ask(service, url=url).status_code == 200, 60)
        config.write_text("ASR_SOAK_SECONDS=0\n")
        service.master.send_signal(signal.SIGHUP)
        wait_for("the old one", lambda: ask(service, url=url).status_code == 400, 60)
