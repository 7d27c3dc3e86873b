"""Small files that stand for much work: they are refused by their header, or keep no short request out."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from bodies import connection, exchange, read_reply, request, upload
from flac import silent_flac
from inspection import check_error
from service import CLIPS, Service, is_read, running, wait_for
from waiting import PATIENCE

GOOD = (CLIPS / "en_1.flac").read_bytes()
TEXT = "Book a table at 1:25 a.m."
OTHER = "127.0.0.2"
"""address of another client: without keys clients are told apart by it"""
HOUR = 3600


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("work"), ASR_WORKERS="1", ASR_THREADS="1") as started:
        yield started


@pytest.mark.parametrize("seconds", [600, 4 * HOUR])
def test_more_samples_than_may_be_decoded_are_refused_by_the_header(service: Service, seconds: int) -> None:
    content = silent_flac(seconds, 384_000, 8)
    reply = exchange(service.port, request(upload(content), X_Request_Id=f"large-{seconds}"))
    assert reply.status == 413
    check_error(reply.json(), "audio_too_much", "384000 Hz", "8 channels", param="file")

    def line() -> dict[str, object] | None:
        found = (one for one in service.log_lines() if one.get("request_id") == f"large-{seconds}")
        return next((one for one in found if one["logger"] == "asrsvc.access"), None)

    assert wait_for("its line in the log", line)["audio_seconds"] == 0, "nothing was decoded"


def test_hours_of_silence_keep_no_short_request_of_another_client_out(service: Service) -> None:
    """They are small enough for the queue of the short ones, and give their turn there up."""
    body = upload(silent_flac(4 * HOUR, 16_000, 1))
    with ExitStack() as held:
        hours = [
            held.enter_context(
                socket.create_connection(
                    ("127.0.0.1", service.port), timeout=2 * PATIENCE, source_address=(OTHER, 0)
                )
            )
            for _ in range(4)
        ]
        for number, made in enumerate(hours):
            made.sendall(request(body, X_Request_Id=f"silence-{number}"))
        for made in hours:
            wait_for("it is read", lambda made=made: is_answered(made) or is_read(service.port, made))
        with connection(service.port) as short:
            short.sendall(request(upload(GOOD)))
            assert read_reply(short).json()["text"] == TEXT
        assert not all(map(is_answered, hours)), "they were not all before it"
        for made in hours:
            reply = read_reply(made)
            assert (reply.status, reply.json()["text"], reply.json()["duration"]) == (200, "", 4 * HOUR)

    def logged() -> list[dict[str, Any]] | None:
        lines = [one for one in service.log_lines() if str(one.get("request_id", "")).startswith("silence-")]
        return lines if len(lines) >= len(hours) else None

    lines = wait_for("their lines in the log", logged)  # which come after the answers
    assert [one["spans"] for one in lines] == [0] * 4, "the engine has heard none of it"


def is_answered(made: socket.socket) -> bool:
    return bool(select.select([made], [], [], 0)[0])
