"""An answer given before the body was read arrives whole, whatever the client does meanwhile."""

from __future__ import annotations

import http.client
import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bodies import FORM, chunks, connection, exchange, head, read_reply, request, upload
from formats import TEXT
from inspection import GOOD, Inspection, check_error
from occupied import occupied, queue_length
from service import running, wait_for
from waiting import PATIENCE

MIB = 2**20
SENT = 50 * MIB


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspection]:
    """One worker that lets one long recording wait, and takes 60 MiB."""
    settings = {"ASR_WORKERS": "1", "ASR_THREADS": "1", "ASR_QUEUE_LIMIT": "1", "ASR_MAX_UPLOAD_MB": "60"}
    with running(tmp_path_factory.mktemp("narrow"), **settings) as service:
        yield Inspection(service)


@pytest.fixture
def inspection(narrow: Inspection) -> Iterator[Inspection]:
    yield narrow
    narrow.check()


Refusal = tuple[int, str, dict[str, str]]

TOO_LONG = {"Content-Length": str(61 * MIB), "Content-Type": FORM}
REFUSALS: dict[str, Refusal] = {
    "413": (413, "upload_too_large", TOO_LONG),
    "415": (415, "unsupported_media_type", {"Content-Length": str(SENT), "Content-Type": "audio/wav"}),
    "429": (429, "over_capacity", {"Content-Length": str(SENT), "Content-Type": FORM}),
}


@pytest.fixture(params=REFUSALS)
def refusal(request: pytest.FixtureRequest, narrow: Inspection) -> Iterator[Refusal]:
    """A kind of refusal; for 429 all places for long recordings are taken, and the queue is full."""
    with ExitStack() as held:
        if request.param == "429":
            held.enter_context(occupied(narrow.service.port))
        yield REFUSALS[request.param]
    # They have gone: wait until their places are free.
    wait_for("there is room again", lambda: not queue_length(narrow.service.port, "long"))


def raw_head(headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /api/transcribe HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode()


def test_a_client_that_reads_only_after_it_has_sent_everything(
    inspection: Inspection, refusal: Refusal
) -> None:
    status, code, headers = refusal
    with connection(inspection.service.port) as made:
        made.sendall(raw_head(headers))
        block = bytes(MIB)
        for _ in range(SENT // MIB):
            made.sendall(block)
        reply = read_reply(made)
    assert reply.status == status
    assert reply.json()["error"]["code"] == code
    assert reply.headers["connection"] == "close"


def test_a_client_that_reads_while_it_sends_sees_the_end_at_once(
    inspection: Inspection, refusal: Refusal
) -> None:
    """The answer and the end of the stream come while the body has hardly begun."""
    status, code, headers = refusal
    with connection(inspection.service.port) as made:
        made.sendall(raw_head(headers) + bytes(1000))
        reply = read_reply(made)
        assert (reply.status, reply.json()["error"]["code"]) == (status, code)
        made.sendall(bytes(MIB))  # and it is still taken, not reset


def test_python_http_client(inspection: Inspection, refusal: Refusal) -> None:
    status, code, headers = refusal
    client = http.client.HTTPConnection("127.0.0.1", inspection.service.port, timeout=2 * PATIENCE)
    body = bytes(int(headers["Content-Length"]))
    client.request("POST", "/api/transcribe", body=body, headers={"Content-Type": headers["Content-Type"]})
    answer = client.getresponse()
    content = answer.read().decode()
    client.close()
    assert answer.status == status
    assert f'"code":"{code}"' in content


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
def test_curl(inspection: Inspection, refusal: Refusal, tmp_path: Path, expect: str) -> None:
    status, code, headers = refusal
    body = tmp_path / "body"
    with body.open("wb") as file:
        file.truncate(int(headers["Content-Length"]))
    kind = f"Content-Type: {headers['Content-Type']}"
    command = ["curl", "-sS", "--max-time", "360", "--noproxy", "*", "-w", "\n%{http_code} %{size_upload}"]
    # curl sends after a second what it is not told to send.
    command += ["--expect100-timeout", "360"]
    command += ["-H", kind, "-H", expect, "--data-binary", f"@{body}"]
    command += [f"{inspection.service.url}/api/transcribe"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    content, _, last = done.stdout.rpartition("\n")
    assert last.split()[0] == str(status)
    assert f'"code":"{code}"' in content
    if "100" in expect:
        assert last.split()[1] == "0", "curl was told before it sent anything"


def test_no_100_comes_before_a_refusal(inspection: Inspection, refusal: Refusal) -> None:
    status, _, headers = refusal
    with connection(inspection.service.port) as made:
        made.sendall(raw_head({**headers, "Expect": "100-continue"}))
        assert read_reply(made).status == status


def test_a_good_request_gets_its_100(inspection: Inspection) -> None:
    body = upload(GOOD)
    with connection(inspection.service.port) as made:
        made.sendall(head(length=len(body), Expect="100-continue"))
        first = made.recv(65536)
        assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
        made.sendall(body)
        assert read_reply(made).json()["text"] == TEXT


def test_an_answer_in_the_middle_of_the_body_arrives(inspection: Inspection) -> None:
    """The first field is wrong; the client goes on to send 50 MB and reads after that."""
    with connection(inspection.service.port) as made:
        made.sendall(head() + chunks(upload(bytes(SENT), lang="en"), MIB))
        reply = read_reply(made)
    assert reply.status == 400
    check_error(reply.json(), "unknown_field", "'lang'", param="lang")


def test_chunked_bodies_are_read_whatever_the_size_of_their_chunks(inspection: Inspection) -> None:
    for size in (1, 7, 1000, 10**6):
        reply = exchange(inspection.service.port, head() + chunks(upload(GOOD), size))
        assert reply.json()["text"] == TEXT, size


def test_http_1_0(inspection: Inspection) -> None:
    reply = exchange(inspection.service.port, request(upload(GOOD), version="1.0"))
    assert reply.json()["text"] == TEXT
    reply = exchange(inspection.service.port, request(b"{}", version="1.0", content_type="text/json"))
    assert reply.status == 415


def test_head(inspection: Inspection) -> None:
    health = exchange(inspection.service.port, b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert health.status == 200
    assert health.raw.endswith(b"\r\n\r\n")
    wrong = exchange(inspection.service.port, b"HEAD /api/transcribe HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert wrong.status == 405
    assert wrong.headers["allow"] == "POST"
    assert wrong.raw.endswith(b"\r\n\r\n")


def test_a_wish_to_upgrade_is_passed_over(inspection: Inspection) -> None:
    wish = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "AAMAAABkAAQAAP__"}
    body = upload(GOOD)
    for sent in (request(body, **wish), head(**wish) + chunks(body)):
        assert exchange(inspection.service.port, sent).json()["text"] == TEXT
    assert exchange(inspection.service.port, request(b"", **wish)).status == 400
    with connection(inspection.service.port) as made:
        made.sendall(head(length=len(body), **wish))
        made.sendall(body)
        assert read_reply(made).json()["text"] == TEXT


def readable(made: socket.socket) -> bool:
    return bool(select.select([made], [], [], 0)[0])


GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


SECONDS = [GET, request(upload(GOOD)), b"garbage\r\n\r\n", b"\0" * (5 * MIB)]
FIRST = request(upload(GOOD), X_Request_Id="first")


def check_first(made: socket.socket) -> None:
    """Every answer closes the connection: a pipelined request is never answered, nor run."""
    reply = read_reply(made)
    assert (reply.status, reply.json()["text"]) == (200, TEXT)
    assert reply.headers["x-request-id"] == "first"


@pytest.mark.parametrize("second", SECONDS)
def test_what_comes_with_a_request_does_not_touch_its_answer(inspection: Inspection, second: bytes) -> None:
    with connection(inspection.service.port) as made:
        made.sendall(FIRST + second)
        check_first(made)


@pytest.mark.parametrize("second", SECONDS)
def test_what_comes_while_a_request_is_at_work_does_not_touch_its_answer(
    inspection: Inspection, second: bytes
) -> None:
    for _ in range(50):
        with connection(inspection.service.port) as made:
            made.sendall(FIRST)
            wait_for("it is at work", lambda made=made: inspection.open_uploads() or readable(made))
            at_work = not readable(made)
            try:
                if at_work:
                    made.sendall(second)
                check_first(made)
            except OSError:  # its answer was quicker: the connection was being closed when this was sent
                at_work = False
        if at_work:
            return
    pytest.fail("each of 50 requests was answered before this process saw it at work")


def test_a_client_that_goes_while_its_rest_is_discarded(inspection: Inspection) -> None:
    for _ in range(20):
        with connection(inspection.service.port) as made:
            made.sendall(raw_head(TOO_LONG) + bytes(100_000))


def test_a_client_that_resets_its_connection(inspection: Inspection) -> None:
    for sent in (b"", b"POST", head(length=1000), request(upload(GOOD)), raw_head(TOO_LONG)):
        with connection(inspection.service.port) as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            made.sendall(sent)
