"""API keys and limits of a real service: every route, all workers, and workers that die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from bodies import Reply, connection, exchange, head, read_reply, request, upload
from rolling import Operated
from routes import application, paths, routes
from service import CLIPS, PROJECT, wait_for
from waiting import PATIENCE

from asrsvc.serving.status import Status

CLIP = (CLIPS / "en_1.flac").read_bytes()
BODY = upload(CLIP, "en_1.flac")
TOKEN = "the-operators-token"
ORIGIN = "https://app.example.org"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OPEN = {"/", "/docs", "/favicon.ico", "/health", "/health/live", "/health/ready"}
"""and what is below /page/"""


class Guarded(Operated):
    """A service with keys, and the tool that makes them."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.keys_path = folder / "keys" / "keys.json"
        super().__init__(folder, ASR_API_KEYS=str(self.keys_path), ASR_ADMIN_TOKEN=TOKEN, **settings)

    def keys(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "asrsvc.serving.keys_tool", *arguments]
        done = subprocess.run(
            command, env=self.environ, cwd=PROJECT, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def ask(self, key: str, method: str = "POST", path: str = "/api/transcribe", body: bytes = BODY) -> Reply:
        return exchange(self.port, request(body, method=method, path=path, Authorization=f"Bearer {key}"))

    def begin(self, key: str) -> socket.socket:
        """Send all of a request but its end."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=2 * PATIENCE)
        made.sendall(head(length=len(BODY), Authorization=f"Bearer {key}") + BODY[:-100])
        return made

    def finish(self, made: socket.socket) -> Reply:
        with made:
            made.sendall(BODY[-100:])
            return read_reply(made)

    def replace_workers(self) -> None:
        """Kill all, and wait until others serve."""
        old = self.worker_pids()
        for pid in old:
            os.kill(pid, signal.SIGKILL)

        def others(now: Status) -> bool:
            ready = {worker.pid for worker in now.workers if worker.state == "ready"}
            return len(ready) == 2 and not ready & old

        self.wait_status("other workers", others, 60)

    def in_hand(self) -> int:
        """Requests that workers have begun and not ended."""
        reply = exchange(
            self.port, request(b"", method="GET", path="/metrics", Authorization=f"Bearer {TOKEN}")
        )
        lines = reply.body.decode().splitlines()
        (line,) = (line for line in lines if line.startswith("asr_requests_in_progress "))
        return round(float(line.split()[1])) - 1  # this one


@contextmanager
def guarded(folder: Path, **settings: str) -> Iterator[Guarded]:
    service = Guarded(folder, **settings)
    try:
        service.keys("add", "first")
        yield service.start()
    except BaseException:
        sys.stderr.write(service.log()[-10_000:])
        raise
    finally:
        if service.process is not None:
            service.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("guarded"), ASR_CORS_ORIGINS=ORIGIN) as started:
        yield started


@pytest.fixture(scope="module")
def all_paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return paths(routes(application(tmp_path_factory.mktemp("routes"))))


def ops(service: Guarded) -> httpx.Client:
    """A client at the ops listener."""
    socket_path = str(service.folder / "run" / "ops.sock")
    transport = httpx.HTTPTransport(uds=socket_path)
    return httpx.Client(transport=transport, base_url="http://ops", timeout=2 * PATIENCE)


def make(service: Guarded, name: str, *options: str) -> str:
    """A new key that the service knows."""
    key = service.keys("add", name, *options)
    wait_for("the service knows the key", lambda: service.ask(key, "GET", "/x", b"").status == 404, 10)
    return key


# Who may.


def test_without_a_key_health_and_the_page_answer_and_nothing_else(
    service: Guarded, all_paths: list[str]
) -> None:
    assert {"/api/transcribe", "/metrics", "/health", "/admin/status"} <= set(all_paths)
    served = set()
    for path in [
        *all_paths,
        "/nothing",
        "/api/transcribe/",
        "//health",
        "/page/..%2f..%2fapi/transcribe",
        "/health%2f",
    ]:
        for method in METHODS:
            reply = exchange(service.port, request(b"", method=method, path=path))
            if reply.status in {200, 304}:
                served.add(path)
            open_here = path in OPEN or path.startswith("/page/")
            if path.startswith("/admin"):
                assert reply.status == 401, (method, path, reply.raw)
            elif not open_here or method not in {"GET", "HEAD"}:
                assert reply.status == 401, (method, path, reply.raw)
                assert reply.headers["www-authenticate"] == "Bearer"
    assert served <= OPEN | {path for path in all_paths if path.startswith("/page/")}
    assert {"/health", "/health/live", "/health/ready"} <= served


def test_a_wrong_key_opens_nothing(service: Guarded, all_paths: list[str]) -> None:
    for path in all_paths:
        for method in ("GET", "POST", "DELETE"):
            reply = service.ask("asr-" + "A" * 43, method, path, b"")
            open_here = method == "GET" and (path in OPEN or path.startswith("/page/"))
            assert open_here or reply.status == 401, (method, path, reply.raw)


def test_a_request_without_a_key_is_refused_before_its_body_is_read(service: Guarded) -> None:
    with connection(service.port) as made:
        made.sendall(head(length=500_000_000) + BODY[:1000])
        reply = read_reply(made)
    assert (reply.status, reply.json()["error"]["code"]) == (401, "missing_api_key")


def test_a_right_key_is_served_until_it_is_taken_back(service: Guarded) -> None:
    key = make(service, "passing")
    reply = service.ask(key)
    assert (reply.status, reply.json()["text"]) == (200, "Book a table at 1:25 a.m.")
    other = service.keys("rotate", "passing")
    wait_for("the new key counts", lambda: service.ask(other).status == 200, 10)
    wait_for("the old one no more", lambda: service.ask(key).status == 401, 10)
    service.keys("revoke", "passing")
    wait_for("the key counts no more", lambda: service.ask(other).status == 401, 10)
    assert service.ask(other).json()["error"]["code"] == "invalid_api_key"


def test_an_expired_key_is_told_so(service: Guarded) -> None:
    key = make(service, "brief")
    content = json.loads(service.keys_path.read_text())
    next(k for k in content["keys"] if k["name"] == "brief")["expires"] = "2026-01-01T00:00:00+00:00"
    service.keys_path.write_text(json.dumps(content))
    wait_for("it has expired", lambda: service.ask(key).status == 401, 10)
    assert service.ask(key).json()["error"]["code"] == "expired_api_key"


def test_a_broken_file_is_told_and_keeps_the_keys_also_for_new_workers(service: Guarded) -> None:
    key = make(service, "steady")
    service.keys("add", "another")
    number = len(json.loads(service.keys_path.read_text())["keys"])

    def know() -> bool:
        """Master (whose copy new workers get) and workers have all read the file as it is now."""
        read = {line["pid"]: line["keys"] for line in service.log_lines() if "keys" in line}
        return {service.master.pid, *service.worker_pids()} <= {pid for pid in read if read[pid] == number}

    wait_for("all processes have read the keys", know, 20)
    whole = service.keys_path.read_text()
    service.keys_path.write_text('{"keys": [{"geheim": 1}]}')
    try:
        with service.client() as client:
            (said,) = wait_for("health says it", lambda: client.get("/health").json()["problems"], 20)
            # Everybody reads that something is wrong; what it is, and where, the operator alone.
            assert said == "the file of API keys is not as it must be; the keys from before are in force"
            token = {"Authorization": f"Bearer {TOKEN}"}
            (told,) = client.get("/health", headers=token).json()["problems"]
        with ops(service) as operator:
            assert operator.get("/health").json()["problems"] == [told]
        assert str(service.keys_path) in told
        assert "geheim" in told
        service.wait_status("the status says it", lambda now: now.problems, 20)
        assert service.ask(key).status == 200
        service.replace_workers()
        assert service.ask(key).status == 200
        assert service.ask("asr-other").status == 401
    finally:
        service.keys_path.write_text(whole)
    service.wait_status("all is well", lambda now: not now.problems, 20)


def test_a_web_page_that_is_allowed_may_ask_and_others_may_not(service: Guarded) -> None:
    key = make(service, "page")
    with service.client(headers={"Origin": ORIGIN}) as client:
        wish = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        before = client.options("/api/transcribe", headers=wish)
        assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, ORIGIN)
        assert "authorization" in before.headers["access-control-allow-headers"].lower()
        files = {"file": ("a.flac", CLIP)}
        found = client.post("/api/transcribe", files=files, headers={"Authorization": f"Bearer {key}"})
        assert (found.status_code, found.headers["access-control-allow-origin"]) == (200, ORIGIN)
        assert {"Retry-After", "X-Warnings"} <= set(
            found.headers["access-control-expose-headers"].split(", ")
        )
        refused = client.post("/api/transcribe", files=files)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
    with service.client(headers={"Origin": "https://evil.example"}) as client:
        assert client.options("/api/transcribe", headers=wish).status_code == 400
        assert "access-control-allow-origin" not in client.get("/health").headers


# How much.


def test_all_workers_together_keep_a_rate(service: Guarded) -> None:
    key = make(service, "three", "--rate", "3")
    began = time.monotonic()
    with ThreadPoolExecutor(12) as threads:
        replies = list(threads.map(lambda _: service.ask(key), range(12)))
    made_good = int((time.monotonic() - began) / 20)  # none, where the machine is not very slow
    statuses = Counter(reply.status for reply in replies)
    assert set(statuses) == {200, 429}
    assert 3 <= statuses[200] <= 3 + made_good
    for reply in replies:
        assert reply.headers["x-ratelimit-limit"] == "3"
        assert 0 <= int(reply.headers["x-ratelimit-remaining"]) <= 2
        assert 0 < int(reply.headers["x-ratelimit-reset"]) <= 60
        if reply.status == 429:
            assert reply.json()["error"]["code"] == "rate_limit_exceeded"
            assert 1 <= int(reply.headers["retry-after"]) <= 20
    assert service.ask(key, "GET", "/x", b"").status == 404  # what brings no work does not count


def test_what_is_refused_for_other_reasons_counts_too(service: Guarded) -> None:
    began, key = time.monotonic(), make(service, "two", "--rate", "2")
    assert service.ask(key, body=b"no form").status == 400
    assert service.ask(key, path="/nothing").status == 404
    status = service.ask(key).status
    assert status == 429 or time.monotonic() - began > 30


def test_so_many_at_the_same_time_and_a_worker_that_dies_takes_none_with_it(service: Guarded) -> None:
    key = make(service, "pair", "--concurrency", "2")
    with ExitStack() as held:
        first, second = (held.enter_context(service.begin(key)) for _ in range(2))
        wait_for("both are in hand", lambda: service.in_hand() == 2, 20)
        refused = service.ask(key)
        assert (refused.status, refused.json()["error"]["code"]) == (429, "concurrency_limit_exceeded")
        assert refused.headers["retry-after"] == "1"
        assert service.ask(make(service, "single", "--concurrency", "1")).status == 200
        assert service.finish(first).status == 200
        wait_for("there is room for one", lambda: (made := service.ask(key)).status == 200 and made, 10)
        third = held.enter_context(service.begin(key))
        wait_for("both are in hand", lambda: service.in_hand() == 2, 20)
        service.replace_workers()
        for made in (second, third):
            with pytest.raises((OSError, IndexError)):  # cut off, or reset
                assert read_reply(made).status
        replies = [service.finish(service.begin(key)) for _ in range(2)]
        assert [reply.status for reply in replies] == [200, 200]


def test_clients_that_leave_make_room(service: Guarded) -> None:
    key = make(service, "leaver", "--concurrency", "1")
    for _ in range(5):
        service.begin(key).close()
        wait_for("there is room", lambda: service.ask(key).status == 200, 20)


def test_limits_are_kept_over_a_roll_and_new_code(tmp_path: Path) -> None:
    with guarded(tmp_path) as service:
        rate, pair = (make(service, "rate", "--rate", "1"), make(service, "pair", "--concurrency", "2"))
        began = time.monotonic()
        assert service.ask(rate).status == 200

        def refused() -> bool:
            statuses = [service.ask(key).status for key in (pair, rate)]
            return statuses == [429, 429] or (statuses[0] == 429 and time.monotonic() - began > 60)

        with ExitStack() as held:
            first, second = (held.enter_context(service.begin(pair)) for _ in range(2))
            wait_for("both are in hand", lambda: service.in_hand() == 2, 20)
            assert service.reload().result == "succeeded"
            assert refused()
            old = service.master
            old.send_signal(signal.SIGUSR2)
            now = service.wait_status(
                "a new master",
                lambda now: now if now.master.pid != old.pid and now.state == "serving" else None,
                60,
            )
            try:
                assert refused()
                assert [service.finish(made).status for made in (first, second)] == [200, 200]
                wait_for("there is room", lambda: service.ask(pair).status == 200, 20)
                # What the first master has counted is not forgotten.
                assert [(c.name, c.number) for c in now.counters.rolls] == [("succeeded", 1)]
            finally:
                master = psutil.Process(now.master.pid)
                wait_for(
                    "the end of the old master",
                    lambda: service.process and service.process.poll() is not None,
                    60,
                )
                master.send_signal(signal.SIGTERM)
                wait_for("the end of the new master", lambda: not master.is_running(), 60)


def test_keys_come_into_force_with_a_reload_and_a_wrong_file_is_refused(tmp_path: Path) -> None:
    path, config = tmp_path / "keys.json", tmp_path / "asr.conf"
    config.write_text("ASR_WORKERS=1\n")
    service = Operated(tmp_path, ASR_CONFIG=str(config), ASR_WORKERS="1")
    try:
        service.start()
        assert exchange(service.port, request(BODY)).status == 200
        config.write_text(f"ASR_API_KEYS={path}\n")
        before = service.status.refused
        service.hang_up()
        assert "keys.json (API keys) cannot be read" in service.wait_refused(before)
        assert exchange(service.port, request(BODY)).status == 200
        path.write_text('{"keys": []}')
        assert service.reload().result == "succeeded"
        assert exchange(service.port, request(BODY)).status == 401
    finally:
        service.stop()


# Without keys.


def test_without_keys_a_web_page_elsewhere_cannot_use_a_persons_own_service(tmp_path: Path) -> None:
    service = Operated(tmp_path, ASR_CLIENT_CONCURRENCY="1", ASR_TRUSTED_PROXIES="127.0.0.1")
    try:
        service.start()
        files = {"file": ("a.flac", CLIP)}
        with service.client() as client:
            assert client.post("/api/transcribe", files=files).status_code == 200
            own = {"Origin": service.url}
            assert client.post("/api/transcribe", files=files, headers=own).status_code == 200
            for header in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}):
                for path in ("/api/transcribe", "/health", "/metrics"):
                    method = client.post if path.startswith("/api") else client.get
                    refused: httpx.Response = method(path, headers=header)
                    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "permission_error")
            assert client.get("/metrics").status_code == 200
        with ExitStack() as held:
            made = held.enter_context(connection(service.port))
            made.sendall(head(length=len(BODY), X_Forwarded_For="192.0.2.1") + BODY[:-100])

            def refused_too() -> bool:
                reply = exchange(service.port, request(BODY, X_Forwarded_For="198.51.100.7, 192.0.2.1"))
                return reply.status == 429

            wait_for("it counts", refused_too, 20)
            assert exchange(service.port, request(BODY, X_Forwarded_For="192.0.2.2")).status == 200
    finally:
        service.stop()
