"""Descriptors of files: none is lost to a request that ends early, and want of them is said as what it is."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from bodies import Reply, chunks, connection, exchange, form, head, part, read_reply, request, upload
from inspection import Inspection
from service import CLIPS, Service, is_read, running, wait_for
from streams import joined
from waiting import wait_until_holds

GOOD = (CLIPS / "en_1.flac").read_bytes()
TEXT = "Book a table at 1:25 a.m."
MIB = 2**20
EACH = 50
"""requests of each kind"""
SLACK = 8
"""descriptors that a worker may have more of than before, for what it has in hand just now"""
OPENAI, JOBS = "/v1/audio/transcriptions", "/api/jobs"
LARGE = GOOD + bytes(2 * MIB)
"""goes to the disk"""
BROKEN = b"RIFF" + bytes(3000)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"ASR_SPOOL_MB": "32", "ASR_MAX_UPLOAD_MB": "50", "ASR_JOBS_KEPT": "1000"}
    with running(
        tmp_path_factory.mktemp("descriptors"), ASR_WORKERS="2", ASR_THREADS="1", **settings
    ) as made:
        yield made


Ask = Callable[[int], int | None]
"""sends a request to a port; the status of its answer, None: it has left before"""


def asking(*sent: bytes) -> Ask:
    return lambda port: exchange(port, b"".join(sent)).status


def posting(body: bytes, path: str = "/api/transcribe") -> Ask:
    return asking(request(body, path=path))


def leaving(sent: bytes, *, at_work: bool = False) -> Ask:
    """Reset the connection, when all that was sent is read (`at_work`) or at once."""

    def leave(port: int) -> None:
        with connection(port) as made:
            made.sendall(sent)
            if at_work:
                wait_for("it is read", lambda: is_read(port, made) or is_answered(made))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    return leave


SPEECH = joined(20)
KINDS: dict[str, tuple[Ask, int | None]] = {
    "a value that is wrong": (posting(upload(GOOD, language="xx")), 400),
    "a value that is wrong, on disk": (posting(upload(LARGE, language="xx")), 400),
    "a value that is wrong behind the file": (
        posting(form(part("file", LARGE, "a"), part("timestamps", "never"))),
        400,
    ),
    "an unknown field behind the file": (
        posting(form(part("file", LARGE, "a"), part("lang", "en"))),
        400,
    ),
    "two files": (posting(form(part("file", GOOD, "a"), part("file", GOOD, "b"))), 400),
    "file and url": (posting(upload(GOOD, url="https://example.org/a.wav")), 400),
    "url where it is off": (posting(form(part("url", "https://example.org/a.wav"))), 400),
    "no file": (posting(form(part("language", "en"))), 400),
    "an empty file": (posting(upload(b"")), 400),
    "a file that is no sound": (posting(upload(BROKEN)), 400),
    "a file that is no sound, streamed": (posting(upload(BROKEN, stream="true")), 400),
    "a file on disk that is no sound": (posting(upload(b"ID3" + bytes(2 * MIB))), 400),
    "a form that ends early": (posting(form(part("file", GOOD, "a"), end=False)), 400),
    "a form that is none": (posting(form(part("file", LARGE, "a"), b"no header\r\n\r\nx")), 400),
    "chunks over the limit": (
        asking(head(path=JOBS, length=None), chunks(upload(bytes(51 * MIB)), 4 * MIB)),
        413,
    ),
    "said to be over the spool": (asking(head(length=40 * MIB)), 507),
    "over the spool": (asking(head(length=None), chunks(upload(bytes(45 * MIB)), 4 * MIB)), 507),
    "a model that is unknown": (posting(upload(GOOD, model="nobody"), OPENAI), 404),
    "a format that is unknown": (posting(upload(GOOD, model="whisper-1", response_format="x"), OPENAI), 400),
    "a job with a value that is wrong": (posting(upload(LARGE, language="xx"), JOBS), 400),
    "a job with a webhook that may not be": (posting(upload(GOOD, webhook="https://a.b"), JOBS), 400),
    "a job whose form ends early": (posting(form(part("file", GOOD, "a"), end=False), JOBS), 400),
    "a job that leaves in its body": (leaving(request(upload(LARGE), path=JOBS)[:-10], at_work=True), None),
    "one that leaves in its body": (leaving(request(upload(GOOD))[:-10], at_work=True), None),
    "one that leaves in its body on disk": (leaving(request(upload(LARGE))[:-10], at_work=True), None),
    "one that leaves when all is sent": (leaving(request(upload(GOOD))), None),
    "one that leaves at work": (leaving(request(upload(SPEECH)), at_work=True), None),
    "one that leaves its stream": (leaving(request(upload(SPEECH, stream="true")), at_work=True), None),
    "a good one": (posting(upload(GOOD)), 200),
    "a good one on disk": (posting(upload(LARGE)), 200),
    "one that turns out to be long": (posting(upload(SPEECH)), 200),
}
SMALL = {name for name in KINDS if not name.startswith(("chunks over", "over the"))}
"""whose bodies are not so large that fifty of them take long"""


def descriptors(service: Service) -> dict[int, int]:
    """How many each worker has open (proc(5))."""
    return {pid: len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in service.worker_pids()}


def ask_often(service: Service, ask: Ask, times: int) -> list[int | None]:
    """Eight at a time: some wait in the queue, and are handed on."""
    with ThreadPoolExecutor(8) as clients:
        return list(clients.map(ask, [service.port] * times))


@pytest.fixture(scope="module")
def before(service: Service) -> dict[int, int]:
    """What a worker has open that has done each of these before: threads, decoders and tables too."""
    for name in SMALL:
        ask_often(service, KINDS[name][0], 8)
    ask_often(service, posting(upload(SPEECH)), 16)
    wait_for("nobody is at work", lambda: is_idle(service))
    return descriptors(service)


def is_idle(service: Service) -> bool:
    with service.client() as client:
        lines = client.get("/metrics").text.splitlines()
    waiting = sum(float(line.split()[-1]) for line in lines if line.startswith("asr_queue_length{"))
    return not waiting and not Inspection(service).open_uploads()


@pytest.mark.parametrize("name", KINDS)
def test_a_request_that_ends_early_leaves_no_descriptor(
    service: Service, before: dict[int, int], name: str
) -> None:
    ask, status = KINDS[name]
    # Those that the former requests left behind take up room on the disk until they are noticed.
    wait_for("nobody is at work", lambda: is_idle(service))
    # A decoder may be kept idle that was not there before; the large ones come to none.
    then = descriptors(service)
    statuses = ask_often(service, ask, EACH if name in SMALL else EACH // 10)
    assert set(statuses) == {status}

    def none_is_left() -> None:
        now = descriptors(service)
        assert now.keys() == before.keys(), "no worker has died"
        for pid, count in now.items():
            assert count <= (before[pid] + SLACK if name in SMALL else max(before[pid], then[pid]) + 1)

    wait_until_holds(none_is_left)


# Where there are none left.

FEW = 256


def test_want_of_descriptors_is_503_and_passes(tmp_path: Path) -> None:
    """Uploads that do not go on take all that a worker may have; nobody is told that the disk is full."""
    settings = {"ASR_WORKERS": "1", "ASR_THREADS": "1"}
    patience = {"ASR_BODY_IDLE_TIMEOUT": "3600", "ASR_BODY_TIMEOUT": "3600"}
    service = Service(tmp_path, **settings, **patience, ASR_BODY_LEAST_RATE="0")
    body = upload(GOOD)
    replies: list[Reply] = []

    def ask(_number: int) -> Reply:
        while True:
            began = sent = time.monotonic()
            with connection(service.port) as made, suppress(ConnectionError):
                try:
                    made.sendall(request(body))
                finally:
                    sent = time.monotonic()
                reply = read_reply(made)
                if reply.raw:
                    return reply
            # For want of descriptors those are sent away that have been silent for a second.
            assert sent - began > 1, "no answer"

    try:
        limited = ["prlimit", f"--nofile={FEW}:{FEW}", service.python, "-m", "asrsvc.serving.start"]
        service.start(command=limited)
        assert ask(0).status == 200, "its decoders run"
        (pid,) = service.worker_pids()
        with ExitStack() as held, ThreadPoolExecutor(8) as clients:
            slow: list[socket.socket] = []
            while count_of(pid) < FEW - 1:
                made = held.enter_context(connection(service.port))
                made.sendall(head(length=len(body)) + body[:-10])
                slow.append(made)
                wait_for("it takes descriptors", lambda made=made: is_taken(service, pid, made))
            for _ in range(8):  # a few more are free each time
                slow.pop().close()
                replies += clients.map(ask, range(16))
            for made in slow:
                if not is_answered(made):
                    made.sendall(body[-10:])
            replies += map(read_reply, slow)
        for reply in replies:
            if reply.status != 200:
                assert reply.status == 503
                assert reply.headers["retry-after"] == "2"
                assert reply.json()["error"]["code"] == "out_of_descriptors", reply.raw
        assert {reply.status for reply in replies} == {200, 503}
        assert service.transcribe("a.flac", GOOD).json()["text"] == TEXT
        assert service.worker_pids() == {pid}
        assert not [line for line in service.log_lines() if "trace" in line]
    finally:
        service.stop()


def count_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def is_answered(made: socket.socket) -> bool:
    return bool(select.select([made], [], [], 0)[0])


def is_taken(service: Service, pid: int, made: socket.socket) -> bool:
    """Whether its body is read, it has an answer, or there is no descriptor left for it."""
    return is_read(service.port, made) or is_answered(made) or count_of(pid) >= FEW - 1
