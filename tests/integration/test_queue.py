"""The queue under bad clients and too many: who waits, who is refused, and what a roll waits for."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from bodies import Reply, connection, head, read_reply, request, upload
from crowd import Crowd, many_descriptors
from inspection import check_error
from load import Load, Report, clips
from occupied import Occupation, occupied, queue_length
from rolling import AT_ONCE
from service import CLIPS, Service, free_port, is_read, running, wait_for

from asrsvc.serving import status

GOOD = (CLIPS / "en_1.flac").read_bytes()
TEXT = "Book a table at 1:25 a.m."
MIB = 2**20
QUEUE_LIMIT = "1000"
"""more than a load has without an answer: what is looked for are lost requests"""


def state_of(service: Service) -> status.Status:
    return status.read(Path(service.environ["ASR_RUNTIME_DIR"]) / status.FILE_NAME)


def good_requests(service: Service) -> list[Any]:
    version = state_of(service).version
    assert version is not None
    return clips({version: "withitn"})


@contextmanager
def load(service: Service, rate: float) -> Iterator[Report]:
    """Good requests in the background; what they have met is whole when the block ends."""
    made = Load([service.port], good_requests(service), rate=rate, at_once=AT_ONCE)
    thread = threading.Thread(target=lambda: asyncio.run(made.run()))
    thread.start()
    try:
        yield made.report
    finally:
        made.stop()
        thread.join()


def roll(service: Service, seconds: float = 60) -> status.Roll:
    """SIGHUP, and wait for the end of it."""
    before = state_of(service).roll
    number = before.id if before is not None else 0
    service.master.send_signal(1)

    def ended() -> status.Roll | None:
        found = state_of(service).roll
        return found if found is not None and found.id > number and found.ended is not None else None

    return wait_for("the end of the roll", ended, seconds)


def nobody_drains(service: Service) -> bool:
    return all(worker.state == "ready" for worker in state_of(service).workers)


# Clients that mean nothing.


def test_a_crowd_that_sends_nothing_delays_neither_requests_nor_a_roll(
    tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    # Some connections of the load are made 2 s before they send; then this machine may pause.
    header_seconds = 8.0
    settings = {"ASR_HEADER_TIMEOUT": str(header_seconds), "ASR_SOAK_SECONDS": "1", "ASR_THREADS": "1"}
    settings["ASR_QUEUE_LIMIT"] = QUEUE_LIMIT
    with many_descriptors(), running(tmp_path, ASR_WORKERS="2", **settings) as service:
        with load(service, 6) as alone:
            wait_for("the load runs", lambda: len(alone.records) > 24)
        with Crowd(service.port, silent=1000, trickling=200) as crowd, load(service, 6) as crowded:
            wait_for("the load runs", lambda: len(crowded.records) > 24)
            drained: dict[int, float] = {}
            done = threading.Event()
            watcher = threading.Thread(target=watch_drains, args=(service, drained, done))
            watcher.start()
            assert roll(service).result == "succeeded"
            wait_for("the old workers have left", lambda: nobody_drains(service))
            done.set()
            watcher.join()
            wait_for("the load has run", lambda: len(crowded.records) > 40)
            wait_for("some are told", lambda: crowd.answers.get(b"HTTP/1.1 408", 0) > 100)
        record_testsuite_property("p99_ms_alone", round(alone.quantile(0.99) * 1000))
        record_testsuite_property("p99_ms_crowded", round(crowded.quantile(0.99) * 1000))
        record_testsuite_property("longest_drain_s", round(max(drained.values()), 2))
        assert not alone.failures(), alone.summary()
        assert not crowded.failures(), crowded.summary()
        assert len(drained) == 2
        # The deadline, a second in which a refused client may read why, and a machine that pauses; a worker
        # that waited for the crowd would do so for ten minutes.
        assert max(drained.values()) < header_seconds + 30
        assert set(crowd.answers) <= {b"", b"HTTP/1.1 408"}


def watch_drains(service: Service, found: dict[int, float], done: threading.Event) -> None:
    """How long each worker drained at most, seconds by process: since it was last seen to serve."""
    served: dict[int, float] = {}
    while True:
        is_last = done.is_set()  # it was asked to end as soon as nobody drained any more
        workers = {worker.pid: worker.state for worker in state_of(service).workers}
        now = time.monotonic()
        for pid in served.keys() - workers.keys():
            found.setdefault(pid, now - served[pid])
        served |= {pid: now for pid, state in workers.items() if state != "draining"}
        if is_last:
            return
        time.sleep(0.02)


# More than can be worked on.


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("crowded")
    # However slow the machine is: what waits is to wait until its test ends.
    settings = {"ASR_QUEUE_LIMIT": "2", "ASR_QUEUE_TIMEOUT": "3600", "ASR_THREADS": "1"}
    with running(folder, ASR_WORKERS="2", **settings) as service:
        yield service


@pytest.fixture
def saturated(crowded: Service) -> Iterator[Occupation]:
    """Hours of sound in each worker, and as many more as may wait."""
    with occupied(crowded.port, waiting=2) as made:
        yield made
    wait_for("the queue is empty", lambda: not queue_length(crowded.port, "long"))


def check_over_capacity(reply: Reply) -> None:
    assert reply.status == 429
    assert reply.headers["retry-after"] == "1"
    check_error(reply.json(), "over_capacity")


def test_while_all_work_the_rest_is_answered(
    crowded: Service, saturated: Occupation, record_testsuite_property: Callable[[str, object], None]
) -> None:
    service = crowded
    seconds = {"/health": [], "/health/live": [], "/nothing": []}
    for _ in range(50):
        for path, times in seconds.items():
            began = time.monotonic()
            reply = ask(service.port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            times.append(time.monotonic() - began)
            assert reply.status == (404 if path == "/nothing" else 200)
    for path, times in seconds.items():
        record_testsuite_property(f"longest_ms {path}", round(max(times) * 1000, 1))
        assert sorted(times)[-10] < 2, path  # a machine that pauses delays some of them
    short = [service.transcribe("a.flac", GOOD) for _ in range(5)]
    assert [answer.json()["text"] for answer in short] == [TEXT] * 5, "they pass the hours by"
    assert not saturated.replies(), "these are still at work"


def test_above_the_limit_a_large_upload_gets_its_whole_429(saturated: Occupation) -> None:
    began = time.monotonic()
    check_over_capacity(ask(saturated.port, request(upload(bytes(50 * MIB)))))
    assert time.monotonic() - began < 120, "it is told so, and waits for nothing"
    with connection(saturated.port) as made:  # one that waits to be told to go on
        made.sendall(head(length=50 * MIB, Expect="100-continue"))
        check_over_capacity(read_reply(made))


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_above_the_limit_a_large_upload_gets_its_whole_429_through_nginx(
    saturated: Occupation, tmp_path: Path, buffering: str
) -> None:
    with nginx(tmp_path, saturated.port, buffering) as port:
        reply = ask(port, request(upload(bytes(50 * MIB)), Connection="close"))
        assert (tmp_path / "error.log").read_text() == ""
    check_over_capacity(reply)


def ask(port: int, sent: bytes) -> Reply:
    with connection(port) as made:
        made.sendall(sent)
        return read_reply(made)


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log warn;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    client_max_body_size 600m; client_body_buffer_size 128m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_request_buffering {buffering};
            proxy_next_upstream off;
        }}
    }}
}}
"""


@contextmanager
def nginx(folder: Path, upstream: int, buffering: str) -> Iterator[int]:
    """nginx in the foreground, in front of a port."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        NGINX.format(folder=folder, port=port, upstream=upstream, buffering=buffering), encoding="utf-8"
    )
    command = [program, "-e", str(folder / "error.log"), "-c", str(configuration), "-p", str(folder)]
    with subprocess.Popen(command) as process:
        try:
            wait_for("nginx listens", lambda: listens(port))
            yield port
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_one_that_leaves_the_queue_is_dropped_and_one_that_waited_too_long_is_told(tmp_path: Path) -> None:
    # Longer than it takes to fill the queue, shorter than the hours take.
    settings = {"ASR_QUEUE_LIMIT": "2", "ASR_QUEUE_TIMEOUT": "20", "ASR_THREADS": "1"}
    with (
        running(tmp_path, ASR_WORKERS="2", **settings) as service,
        occupied(service.port, waiting=2) as saturated,
    ):
        saturated.last.leave()
        reply = wait_for("the answer of one that waited", saturated.replies)[0]
        wait_for("the word about who left", lambda: "a client left the queue" in service.log())
    assert reply.status == 503
    assert reply.headers["retry-after"] == "2"
    check_error(reply.json(), "queue_timeout")


# Requests that do not end.

PATIENT = {"ASR_BODY_IDLE_TIMEOUT": "600", "ASR_BODY_TIMEOUT": "600", "ASR_QUEUE_LIMIT": QUEUE_LIMIT}
"""however long a roll takes, half an upload is waited for"""


@contextmanager
def stuck(port: int, body: bytes) -> Iterator[socket.socket]:
    """An upload that has sent half of its body and goes on by a byte now and then."""
    with ExitStack() as stack:
        made = stack.enter_context(connection(port))
        made.sendall(head(length=len(body)) + body[: len(body) // 2])
        yield made


def in_its_body(service: Service, made: socket.socket) -> int:
    """Wait for the one worker that has begun a request with half a body; its process."""

    def holder() -> int | None:
        ours = made.getsockname()
        found = [w.pid for w in service.workers() if any(c.raddr == ours for c in w.net_connections())]
        return int(found[0]) if len(found) == 1 else None

    # Before it is read, it may be with the worker that has accepted it, and that puts it into the queue.
    return wait_for("a worker that reads the upload", lambda: is_read(service.port, made) and holder())


def test_a_stuck_upload_holds_up_no_roll_and_is_finished_after_it(tmp_path: Path) -> None:
    settings = {"ASR_SOAK_SECONDS": "1", "ASR_THREADS": "1", "ASR_DRAIN_TIMEOUT": "600", **PATIENT}
    body = upload(GOOD)
    with running(tmp_path, ASR_WORKERS="2", **settings) as service, stuck(service.port, body) as made:
        old = service.worker_pids()
        holder = in_its_body(service, made)
        with load(service, 5) as report:
            assert roll(service, 30).result == "succeeded"
            wait_for("the other old worker has left", lambda: service.worker_pids() & old == {holder})
            made.sendall(body[len(body) // 2 :])
            reply = read_reply(made)
        assert (reply.status, reply.json()["text"]) == (200, TEXT)
        wait_for("it leaves too", lambda: not service.worker_pids() & old)
        assert not report.failures(), report.summary()
        counters = state_of(service).counters
        assert (counters.restarts, counters.killed_draining, counters.lost_requests) == (0, 0, 0)


def test_a_request_longer_than_the_drain_is_cut_and_nothing_else_is(tmp_path: Path) -> None:
    settings = {"ASR_SOAK_SECONDS": "1", "ASR_THREADS": "1", "ASR_DRAIN_TIMEOUT": "20", **PATIENT}
    body = upload(GOOD)
    with running(tmp_path, ASR_WORKERS="2", **settings) as service, stuck(service.port, body) as made:
        old = service.worker_pids()
        in_its_body(service, made)
        with load(service, 5) as report:
            assert roll(service, 30).result == "succeeded"
            wait_for("the old workers are gone", lambda: not service.worker_pids() & old)
            try:
                assert made.recv(100) == b""
            except ConnectionResetError:
                pass
        assert not report.failures(), report.summary()

        def counted() -> status.Counters | None:
            counters = state_of(service).counters
            return counters if counters.lost_requests else None

        counters = wait_for("the count", counted)
        assert (counters.killed_draining, counters.lost_requests, counters.restarts) == (1, 1, 0)
        wait_for(
            "the line about it", lambda: any(line.get("lost_requests") == 1 for line in service.log_lines())
        )


def test_an_upload_that_never_ends_gets_408_and_the_roll_goes_on(tmp_path: Path) -> None:
    settings = {"ASR_SOAK_SECONDS": "1", "ASR_THREADS": "1", **PATIENT, "ASR_BODY_TIMEOUT": "20"}
    body = upload(bytes(1000))
    with running(tmp_path, ASR_WORKERS="2", **settings) as service, stuck(service.port, body) as made:
        old = service.worker_pids()
        in_its_body(service, made)
        assert roll(service, 30).result == "succeeded"
        reply = read_reply(made)
        assert reply.status == 408
        check_error(reply.json(), "body_timeout")
        wait_for("the old workers are gone", lambda: not service.worker_pids() & old)
        counters = state_of(service).counters
        assert (counters.restarts, counters.killed_draining, counters.lost_requests) == (0, 0, 0)
