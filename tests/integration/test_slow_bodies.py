"""Bodies that arrive slowly: they hold no place, keep nobody out, and go on in another worker."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from bodies import Reply, chunks, connection, head, read_reply, request, upload
from inspection import check_error
from rolling import operated
from service import CLIPS, Service, is_read, running, wait_for
from streams import joined
from waiting import PATIENCE

GOOD = (CLIPS / "en_1.flac").read_bytes()
TEXT = "Book a table at 1:25 a.m."
OTHER = "127.0.0.2"
"""address of another client: without keys clients are told apart by it"""
KIB = 1024
TRIES = 5
"""of what a machine that pauses may spoil"""


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that lets bodies come as slowly as they like."""
    folder = tmp_path_factory.mktemp("patient")
    patience = {"ASR_BODY_LEAST_RATE": "0", "ASR_BODY_IDLE_TIMEOUT": "600", "ASR_BODY_TIMEOUT": "600"}
    patience["ASR_HEADER_TIMEOUT"] = "600"  # many connections are made before the last of them sends
    with running(folder, ASR_WORKERS="2", ASR_THREADS="1", **patience) as service:
        yield service


@contextmanager
def from_address(port: int, source: str) -> Iterator[socket.socket]:
    with socket.create_connection(
        ("127.0.0.1", port), timeout=2 * PATIENCE, source_address=(source, 0)
    ) as made:
        yield made


def begin(made: socket.socket, body: bytes, sent: int, **options: str) -> None:
    """Send the header and a part of the body."""
    made.sendall(head(length=len(body), **options) + body[:sent])


def text_of(reply: Reply) -> str:
    assert reply.status == 200, reply.raw[:500]
    return str(reply.json()["text"])


def test_uploads_that_do_not_go_on_keep_nobody_out(patient: Service) -> None:
    body = upload(GOOD)
    with ExitStack() as held:
        slow = [held.enter_context(from_address(patient.port, OTHER)) for _ in range(60)]
        for made in slow:
            begin(made, body, len(body) - 1)
        for made in slow:
            wait_for("its body is read", lambda made=made: is_read(patient.port, made))
        for _ in range(20):
            assert patient.transcribe("a.flac", GOOD).json()["text"] == TEXT
        for made in slow:
            made.sendall(body[-1:])
        assert [text_of(read_reply(made)) for made in slow] == [TEXT] * len(slow)


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize("size", [10 * KIB, 3000 * KIB])
def test_a_body_in_pieces_is_what_it_is_at_once(patient: Service, size: int, *, framed: bool) -> None:
    """Small ones wait in memory and large ones on disk; many at once go through the queue."""
    body = upload(GOOD + bytes(size), timestamps="word")
    whole = patient.transcribe("a.flac", GOOD + bytes(size), timestamps="word").json()
    with ExitStack() as held:
        many = [held.enter_context(connection(patient.port)) for _ in range(12)]
        for made in many:
            if framed:
                made.sendall(head(length=None))
            else:
                begin(made, body, 100)
        for made in many:
            made.sendall(chunks(body) if framed else body[100:])
        for made in many:
            answer = read_reply(made).json()
            assert {**answer, "request_id": None} == {**whole, "request_id": None}


def test_a_body_that_comes_too_slowly_is_given_up(tmp_path: Path) -> None:
    # Longer than a machine pauses: a body that is silent for so long is given up for another reason.
    settings = {"ASR_BODY_IDLE_TIMEOUT": "10", "ASR_BODY_LEAST_RATE": "1000", "ASR_WORKERS": "1"}
    body = upload(bytes(100 * KIB))
    with running(tmp_path, **settings) as service, connection(service.port) as made:
        begin(made, body, 200)
        deadline = time.monotonic() + PATIENCE
        made.settimeout(0.2)
        answer = b""
        while not answer and time.monotonic() < deadline:
            made.sendall(b"x" * 10)
            try:
                answer = made.recv(65536)
            except TimeoutError:
                continue
        made.settimeout(PATIENCE)
        reply = Reply(answer + read_reply(made).raw)
        assert reply.status == 408
        check_error(reply.json(), "body_timeout")
        assert "1000 bytes a second are the least (ASR_BODY_LEAST_RATE)" in reply.json()["error"]["message"]
        assert service.transcribe("a.flac", GOOD).json()["text"] == TEXT


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_body_that_arrives_during_a_change_is_answered_by_the_new_model(
    tmp_path: Path, stream: str
) -> None:
    """Its worker has been told to leave: the whole request goes to another one."""
    body = upload(GOOD, stream=stream)
    with operated(tmp_path, ASR_BODY_LEAST_RATE="0") as service, connection(service.port) as made:
        begin(made, body, len(body) - 10)
        wait_for("its body is read", lambda: is_read(service.port, made))
        assert service.roll_to(service.other).result == "succeeded"
        made.sendall(body[-10:])
        reply = read_reply(made)
        assert reply.status == 200
        assert reply.headers["x-model-version"] == service.other.id
        service.wait_whole(service.other)
        assert service.status.counters.lost_requests == 0


def test_what_is_wrong_is_said_before_it_waits(patient: Service) -> None:
    reply = read_reply_of(patient, upload(GOOD, language="xx"))
    assert reply.status == 400
    error = reply.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "language")


def read_reply_of(service: Service, body: bytes) -> Reply:
    with connection(service.port) as made:
        made.sendall(request(body))
        return read_reply(made)


def test_an_id_of_the_clients_own_goes_with_the_request(patient: Service) -> None:
    body = upload(joined(8))
    with ExitStack() as held:
        many = [held.enter_context(connection(patient.port)) for _ in range(10)]
        for number, made in enumerate(many):
            made.sendall(head(length=len(body), X_Request_Id=f"mine-{number}") + body)
        for number, made in enumerate(many):
            assert read_reply(made).headers["x-request-id"] == f"mine-{number}"

    def logged() -> list[dict[str, Any]] | None:
        lines = [line for line in patient.log_lines() if str(line.get("request_id", "")).startswith("mine-")]
        return lines if len(lines) >= len(many) else None

    lines = wait_for("their lines in the log", logged)  # which come after the answers
    assert sorted(line["request_id"] for line in lines) == sorted(f"mine-{number}" for number in range(10))
    assert any(line["queue_ms"] > 0 for line in lines), "some of them have waited"


def test_one_client_with_much_work_does_not_keep_another_waiting(patient: Service) -> None:
    """Forty requests of one are there already: the only one of another does not wait for all of them."""
    body = upload(joined(6))
    for _ in range(TRIES):
        with ExitStack() as held:
            many = [held.enter_context(from_address(patient.port, OTHER)) for _ in range(40)]
            for made in many:
                made.sendall(request(body))
            for made in many:
                wait_for("it is read", lambda made=made: is_read(patient.port, made) or is_answered(made))
            with connection(patient.port) as single:
                single.sendall(request(upload(GOOD)))
                assert text_of(read_reply(single)) == TEXT
            answered = sum(is_answered(made) for made in many)
            for made in many:
                assert read_reply(made).status == 200
        if answered < len(many) - 1:  # the last in a line may be answered while one before it is at work
            return
        # Where this process paused, they may have been done before it asked.
    pytest.fail(f"{TRIES} times all were before it")


def is_answered(made: socket.socket) -> bool:
    """Whether anything has come."""
    made.setblocking(False)
    try:
        return bool(made.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        made.settimeout(2 * PATIENCE)
