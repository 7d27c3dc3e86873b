"""The disk of uploads and jobs: what is said reserves nothing, and one client leaves room for others."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from bodies import Reply, exchange, head, read_reply, request, upload
from inspection import check_error
from service import CLIPS, Service, is_read, running, wait_for
from waiting import PATIENCE

GOOD = (CLIPS / "en_1.flac").read_bytes()
TEXT = "Book a table at 1:25 a.m."
MIB = 2**20
SPOOL, JOBS_DISK = 64 * MIB, 64 * MIB
SAID = 48 * MIB
"""what an upload says that it has: it would fit, if it came"""
OTHER = "127.0.0.2"
"""address of another client: without keys clients are told apart by it"""
JOBS = "/api/jobs"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"ASR_SPOOL_MB": str(SPOOL // MIB), "ASR_JOBS_DISK_MB": str(JOBS_DISK // MIB)}
    # However slow the machine is, an upload that does not go on is there until its test ends.
    settings |= {"ASR_BODY_LEAST_RATE": "0", "ASR_BODY_IDLE_TIMEOUT": "600", "ASR_BODY_TIMEOUT": "600"}
    with running(tmp_path_factory.mktemp("disk"), ASR_WORKERS="1", ASR_THREADS="1", **settings) as started:
        yield started


def begin(held: ExitStack, service: Service, said: int, sent: int, path: str) -> socket.socket:
    """An upload of the other client that does not go on."""
    made = held.enter_context(
        socket.create_connection(("127.0.0.1", service.port), timeout=2 * PATIENCE, source_address=(OTHER, 0))
    )
    body = upload(bytes(max(sent, 1000)))
    made.sendall(head(length=said, path=path) + body[: max(sent, 500)])
    wait_for("it is read", lambda: is_read(service.port, made))
    return made


def ask(service: Service, content: bytes, path: str = "/api/transcribe") -> Reply:
    return exchange(service.port, request(upload(content), path=path))


@pytest.mark.parametrize("path", ["/api/transcribe", JOBS])
def test_uploads_that_are_said_and_not_sent_reserve_nothing(service: Service, path: str) -> None:
    with ExitStack() as held:
        for _ in range(20):
            begin(held, service, SAID, 0, path)
        assert ask(service, GOOD + bytes(4 * MIB)).json()["text"] == TEXT
        assert ask(service, GOOD + bytes(4 * MIB), JOBS).status == 202


def test_one_client_leaves_room_in_the_spool_for_others(service: Service) -> None:
    with ExitStack() as held:
        for _ in range(3):
            begin(held, service, 20 * MIB, 14 * MIB, "/api/transcribe")
        refused = held.enter_context(
            socket.create_connection(
                ("127.0.0.1", service.port), timeout=2 * PATIENCE, source_address=(OTHER, 0)
            )
        )
        refused.sendall(head(length=20 * MIB))
        reply = read_reply(refused)
        assert reply.status == 507
        assert "retry-after" in reply.headers
        check_error(reply.json(), "no_space", "ASR_SPOOL_MB", param="file")
        assert ask(service, GOOD + bytes(4 * MIB)).json()["text"] == TEXT
    wait_for("its room is free", lambda: ask(service, GOOD + bytes(40 * MIB)).status == 200)


def test_more_than_the_spool_has_is_refused_by_the_header(service: Service) -> None:
    reply = exchange(service.port, head(length=4 * SPOOL))
    assert reply.status == 507
    check_error(reply.json(), "no_space", "ASR_SPOOL_MB", param="file")
    assert ask(service, GOOD).json()["text"] == TEXT
