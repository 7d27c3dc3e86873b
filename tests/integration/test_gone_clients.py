"""Clients that reset their connection while their request waits: they keep nobody out."""

from __future__ import annotations

import io
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import soundfile
from bodies import read_reply, request, upload
from inspection import check_error
from occupied import queue_length
from service import CLIPS, Service, is_read, running, wait_for
from waiting import PATIENCE

GOOD = (CLIPS / "en_1.flac").read_bytes()
TEXT = "Book a table at 1:25 a.m."
OTHER, THIRD = "127.0.0.2", "127.0.0.3"
"""addresses of other clients: without keys clients are told apart by them"""
LIMIT = 6
ROUNDS = 2
IN_HAND = 4
"""long requests that a worker takes of one client"""


def recording(seconds: int) -> bytes:
    """An upload of speech, of 8,000 bytes a second; over 8 MiB it goes to the long ones at once."""
    samples, rate = soundfile.read(CLIPS / "en_1.flac", dtype="float32")
    assert rate == 16_000
    content = io.BytesIO()
    soundfile.write(content, np.resize(samples[::2], seconds * 8000), 8000, format="WAV", subtype="PCM_U8")
    return upload(content.getvalue())


HOURS, LONG = 3600, 1200


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    settings = {"ASR_QUEUE_LIMIT": str(LIMIT), "ASR_QUEUE_TIMEOUT": "600", "ASR_THREADS": "1"}
    with running(tmp_path, ASR_WORKERS="1", **settings) as service:
        yield service


def send(service: Service, body: bytes, source: str = OTHER) -> socket.socket:
    """Send a whole request from an address, and wait until it is read or answered."""
    made = socket.create_connection(
        ("127.0.0.1", service.port), timeout=2 * PATIENCE, source_address=(source, 0)
    )
    made.sendall(request(body))
    wait_for("it is read", lambda: is_answered(made) or is_read(service.port, made))
    return made


def is_answered(made: socket.socket) -> bool:
    return bool(select.select([made], [], [], 0)[0])


def reset(made: socket.socket) -> None:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    made.close()


def fill(service: Service, body: bytes, held: ExitStack) -> list[socket.socket]:
    """Send until as many wait as may; one that came too early for its place has been refused."""
    waiting: list[socket.socket] = []
    deadline = time.monotonic() + PATIENCE
    while queue_length(service.port, "long") < LIMIT or len(waiting) < LIMIT:
        assert time.monotonic() < deadline, f"only {len(waiting)} wait"
        made = held.enter_context(send(service, body))
        if is_answered(made):
            assert read_reply(made).status == 429
            made.close()
        else:
            waiting.append(made)
    return waiting


def test_clients_that_reset_their_connections_keep_nobody_out(service: Service) -> None:
    hours, long = recording(HOURS), recording(LONG)
    left = 0
    with ExitStack() as held:
        working = [held.enter_context(send(service, hours)) for _ in range(IN_HAND)]
        wait_for("all of them are at work", lambda: nobody_waits(service))
        for _ in range(ROUNDS):
            gone = fill(service, long, held)
            with send(service, long) as refused:
                reply = read_reply(refused)
                assert reply.status == 429
                check_error(reply.json(), "over_capacity")
            gone = [made for made in gone if not is_answered(made)]  # but for one that came too early
            assert len(gone) == LIMIT
            for made in gone:
                reset(made)
            left += len(gone)
            wait_for("they are dropped", lambda: not queue_length(service.port, "long"))
        assert not any(map(is_answered, working)), "they are still at work: nothing of the queue was taken"
        stays = held.enter_context(send(service, long))
        third = held.enter_context(send(service, long, THIRD))
        assert service.transcribe("a.flac", GOOD).json()["text"] == TEXT
        assert not is_answered(stays), "the same client has a place again"
        for made in working:
            reset(made)
        assert read_reply(stays).status == read_reply(third).status == 200
    assert service.log().count("a client left the queue") == left


def nobody_waits(service: Service) -> bool:
    """Whether the queue is empty, and stays so for a moment."""
    for _ in range(10):
        if queue_length(service.port, "long"):
            return False
        time.sleep(0.1)
    return True
