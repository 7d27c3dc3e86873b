"""Streams of a job's events: one key leaves some for others, and a stream ends with its key."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from bodies import connection, read_reply
from inspection import check_error
from recordings import write_recording
from service import Service, running
from waiting import PATIENCE, wait_for

from asrsvc.serving.keys import Key, digest_of, new_secret, write_keys

CLIENTS = ("alice", "bob")
CREATED = "2026-01-01T00:00:00Z"
MOST_OPEN = 600
MINUTES, JOBS = 30.0, 4
BOUND = 60.0
"""seconds after which a stream of a revoked key is open no more"""


class Keyed:
    """A service with a key for each client, and a job of each that does not end soon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "keys.json"
        self.secrets = {name: new_secret() for name in CLIENTS}
        self.write(*CLIENTS)
        self.jobs: dict[str, str] = {}

    def write(self, *names: str) -> None:
        write_keys(self.path, [Key(name, digest_of(self.secrets[name]), CREATED) for name in names])

    def begin_jobs(self, service: Service, recording: Path) -> None:
        content = recording.read_bytes()
        for _ in range(JOBS):  # the last one of each waits for those before it
            for name, secret in self.secrets.items():
                with service.client(headers={"Authorization": f"Bearer {secret}"}) as client:
                    made = client.post("/api/jobs", files={"file": ("a", content)})
                assert made.status_code == 202, made.text
                self.jobs[name] = made.headers["Location"]

    def ask(self, name: str) -> bytes:
        return (
            f"GET {self.jobs[name]}/events HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {self.secrets[name]}\r\n\r\n"
        ).encode()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Keyed:
    return Keyed(tmp_path_factory.mktemp("keyed"))


@pytest.fixture(scope="module")
def service(keyed: Keyed) -> Iterator[Service]:
    recording = keyed.folder / "long.flac"
    write_recording(recording, MINUTES, seed=1)
    settings = {"ASR_API_KEYS": str(keyed.path), "ASR_JOBS_RUNNING": "1"}
    with running(keyed.folder / "service", ASR_WORKERS="1", ASR_THREADS="1", **settings) as started:
        keyed.begin_jobs(started, recording)
        yield started


def begin(made: socket.socket, sent: bytes) -> int:
    """Ask, and read the status; of a stream the rest is to come."""
    made.sendall(sent)
    head = b""
    while b"\r\n" not in head:
        piece = made.recv(1)
        assert piece, "an answer"
        head += piece
    return int(head.split(b" ", 2)[1])


def test_one_key_cannot_have_all_streams(service: Service, keyed: Keyed) -> None:
    with ExitStack() as held:
        streams = 0
        for _ in range(MOST_OPEN):
            made = held.enter_context(connection(service.port))
            if begin(made, keyed.ask("bob")) != 200:
                break
            streams += 1
        assert 1 < streams < MOST_OPEN, "there is an end"
        with connection(service.port) as refused:
            refused.sendall(keyed.ask("bob"))
            reply = read_reply(refused)
            assert reply.status == 429
            assert "retry-after" in reply.headers
            check_error(reply.json(), "over_capacity", "streams of events")
        assert begin(held.enter_context(connection(service.port)), keyed.ask("alice")) == 200


@contextmanager
def stream(service: Service, sent: bytes) -> Iterator[socket.socket]:
    """A stream that is open; the service may count those of an earlier test for a moment yet."""
    with ExitStack() as held:

        def asked() -> socket.socket | None:
            made = held.enter_context(connection(service.port))
            status = begin(made, sent)
            assert status in {200, 429}
            return made if status == 200 else None

        yield wait_for("a stream", asked)


def test_a_stream_ends_when_its_key_is_revoked(service: Service, keyed: Keyed) -> None:
    with stream(service, keyed.ask("bob")) as of_bob, stream(service, keyed.ask("alice")) as of_alice:
        try:
            keyed.write("alice")
            revoked = time.monotonic()
            while of_bob.recv(65536):
                assert time.monotonic() - revoked < BOUND + PATIENCE
            with connection(service.port) as again:
                again.sendall(keyed.ask("bob"))
                assert read_reply(again).status == 401
            assert is_open(of_alice), "another key's stream goes on"
        finally:
            keyed.write(*CLIENTS)


def is_open(made: socket.socket) -> bool:
    """Whether the other side has not ended the stream."""
    made.setblocking(False)
    try:
        while made.recv(65536):
            pass
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        made.settimeout(2 * PATIENCE)
