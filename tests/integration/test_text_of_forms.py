"""Text fields that nobody may send: refused while their client still sends, in memory that stays flat."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from bodies import BOUNDARY, Reply, connection, head, part, upload
from inspection import GOOD, Inspection, check_error
from service import Service, running
from waiting import PATIENCE

V1 = "/v1/audio/transcriptions"
API = "/api/transcribe"
JOBS = "/api/jobs"
MIB = 2**20
WIDE = "\N{GRINNING FACE}".encode()
"""one such character makes four bytes of each character of a text"""
BOUND_MIB = 48
"""that a worker may grow by, at most, while such a body is open: what is sent is 100 times 4 MiB"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service"), ASR_WORKERS="1", ASR_THREADS="1") as started:
        yield started


@pytest.fixture(scope="module")
def inspection(service: Service) -> Inspection:
    made = Inspection(service)
    for _ in range(3):  # what the first requests leave in memory is not of those that are tried
        assert made.ask(upload(GOOD)).status_code == 200
    return made


class Memory:
    """The most that the one worker has had in memory since a test began (proc(5), status and clear_refs)."""

    def __init__(self, service: Service) -> None:
        (worker,) = service.workers()
        self._folder = Path(f"/proc/{worker.pid}")
        (self._folder / "clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    def grown(self) -> float:
        """MiB, at its highest."""
        return (self._read("VmHWM") - self._before) / 1024

    def _read(self, name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", (self._folder / "status").read_text(encoding="ascii"))
        assert found is not None
        return int(found[1])


def begun(name: str) -> bytes:
    """The header of a part, behind its boundary."""
    return f"--{BOUNDARY}\r\n".encode() + part(name, b"")


def send_on(made: socket.socket, pieces: Iterator[bytes]) -> None:
    """Send until all is sent, or nobody takes more of it."""
    with suppress(OSError):
        for piece in pieces:
            made.sendall(piece)


def answer_of(made: socket.socket) -> Reply:
    """The whole answer, which may come long before the connection is closed."""
    raw = b""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        data = made.recv(65536)
        raw += data
        head_of, end, body = raw.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head_of.lower())
        if not data or (end and length is not None and len(body) >= int(length[1])):
            return Reply(raw)
    raise TimeoutError("no whole answer")


REFUSED = {
    "a field that is not supported": ("known_speaker_references[]", V1, "unsupported_parameter"),
    "another one": ("keywords[7]", V1, "unsupported_parameter"),
    "a field of the other API": ("known_speaker_references[]", API, "unknown_field"),
    "an unknown field": ("x", V1, "unknown_field"),
    "an unknown field of a job": ("known_speaker_references[]", JOBS, "unknown_field"),
    "a field that may be large": ("prompt", V1, "invalid_value"),
    "a list": ("languages[]", V1, "invalid_value"),
    "an address": ("url", API, "invalid_value"),
    "an address of a job": ("webhook", JOBS, "invalid_value"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_large_text_is_refused_at_once_and_never_kept(inspection: Inspection, name: str) -> None:
    """The client means to send 100 values of 4 MiB, sends on after the answer, and leaves the body open."""
    field, path, code = REFUSED[name]
    value = WIDE + b"a" * (4 * MIB - len(WIDE))
    one = begun(field) + value + b"\r\n"
    memory = Memory(inspection.service)
    with connection(inspection.service.port) as made:
        made.sendall(head(path=path, length=100 * len(one)))
        send_on(made, iter([one[: 64 * 1024]]))
        reply = answer_of(made)  # the rest of the first part has not been sent
        assert reply.status == 400
        param = field.partition("[")[0] if code != "unknown_field" else field
        check_error(reply.json(), code, field.partition("[")[0], param=param)
        send_on(made, iter([one[64 * 1024 :], *[one] * 20]))
        assert memory.grown() < BOUND_MIB
    inspection.check()


@pytest.mark.parametrize("name", ["known_speaker_references[]", "known_speaker_names", "diarize"])
def test_the_header_of_a_part_is_enough(inspection: Inspection, name: str) -> None:
    """Nothing behind it has been sent when the answer comes, in chunks as well.

    A field that OpenAI has and the service lacks may be there without a value, or with "undefined": it is
    refused when more has come.
    """
    wanted = begun(name) if name == "diarize" else begun(name) + b"x" * 100
    for sent in (
        head(path=V1, length=10**8) + wanted,
        head(path=V1) + f"{len(wanted):x}\r\n".encode() + wanted + b"\r\n",
        head(path=V1, length=10**8)
        + f"--{BOUNDARY}\r\n".encode()
        + part("file", GOOD, "a")
        + b"\r\n"
        + wanted,
    ):
        with connection(inspection.service.port) as made:
            made.sendall(sent)
            assert answer_of(made).status == 400
    inspection.check()


def test_many_small_parts_with_large_headers_are_refused(inspection: Inspection) -> None:
    note = "X-Note: " + "n" * 7000 + "\r\n"
    one = f"--{BOUNDARY}\r\n".encode() + part("languages[]", b"en", headers=note) + b"\r\n"
    memory = Memory(inspection.service)
    with connection(inspection.service.port) as made:
        made.sendall(head(path=V1, length=10**8))
        send_on(made, iter([one] * 90))
        reply = answer_of(made)
        assert reply.status == 400
        check_error(reply.json(), "body_malformed", "headers of its parts", "262144 bytes")
        assert memory.grown() < BOUND_MIB
    inspection.check()


def test_what_comes_behind_the_form_is_not_kept(inspection: Inspection) -> None:
    """An epilogue of 64 MiB: thrown away as it comes."""
    memory = Memory(inspection.service)
    whole = upload(GOOD)
    with connection(inspection.service.port) as made:
        made.sendall(head(path=API, length=len(whole) + 64 * MIB) + whole)
        send_on(made, iter([bytes(MIB)] * 64))
        assert answer_of(made).status == 200
        assert memory.grown() < BOUND_MIB
    inspection.check()


def test_the_answer_says_what_a_client_of_openai_can_read(inspection: Inspection) -> None:
    with connection(inspection.service.port) as made:
        made.sendall(head(path=V1, length=10**8) + begun("known_speaker_references[]") + b"x" * 100)
        body = json.loads(answer_of(made).body)
    assert body["error"]["type"] == "invalid_request_error"
    assert "not supported" in body["error"]["message"]
