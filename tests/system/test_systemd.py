"""The units in a real systemd, real nginx in front: what an operator's commands do to requests."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import Any

import httpx
import pytest
from box import Box, why_not
from load import clips, head
from service import is_read, wait_for
from waiting import PATIENCE
from world import World, note

_REASON = why_not()
pytestmark = pytest.mark.skipif(_REASON is not None, reason=str(_REASON))


def _begin_request(port: int, body: bytes) -> socket.socket:
    """A request of which the last bytes have not been sent."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=2 * PATIENCE)
    connection.sendall(head(body, keep_alive=False) + body[:-10])
    return connection


def _end_request(connection: socket.socket, body: bytes) -> bytes:
    with connection:
        connection.sendall(body[-10:])
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return answer


def _ended_roll(box: Box) -> dict[str, Any] | None:
    roll: dict[str, Any] = box.status()["roll"]
    return roll if roll["ended"] else None


def _wait_until_in_hand(box: Box, begun: socket.socket) -> None:
    """Until a worker has read what was sent."""
    wait_for("a worker reads the request", lambda: is_read(box.port, begun))


def test_systemd_finds_nothing_wrong_with_the_units(world: World) -> None:
    units = [f"/etc/systemd/system/{name}" for name in ("asr.service", "asr.socket", "asr-ops.socket")]
    done = world.box.run("systemd-analyze", "verify", *units, check=False)
    about_ours = [line for line in done.stderr.splitlines() if "asr" in line]
    assert not about_ours


def test_start_returns_when_a_worker_serves(world: World) -> None:
    box = world.box
    box.run("systemctl", "start", "asr.socket", "asr-ops.socket")
    began = time.monotonic()
    box.run("systemctl", "start", "asr")
    status = box.status()
    assert "ready" in {worker["state"] for worker in status["workers"]}, status
    note(f"start: {time.monotonic() - began:.1f} s")
    assert box.property("StatusText") == f"serving {status['version']}"
    assert box.property("MainPID") == box.run("cat", "/run/asr/master.lock").stdout.strip()
    seen = box.run("stat", "-c", "%U:%G %a", "/run/asr/ops.sock", "/run/asr").stdout.split("\n")
    assert seen[:2] == ["asr:asr 660", "asr:asr 750"]
    answer = box.run("curl", "-s", "--unix-socket", "/run/asr/ops.sock", "http://asr/health").stdout
    assert '"healthy"' in answer


def test_reload_returns_when_done_and_loses_nothing(running: World) -> None:
    box = running.box
    with running.load() as report:
        for version in (running.second, running.first):
            box.wish(version)
            began = time.monotonic()
            done = box.run("systemctl", "reload", "asr")
            assert done.returncode == 0
            assert box.status()["version"] == version
            ended = time.monotonic()
            note(f"reload: {ended - began:.1f} s")
            wait_for(
                "an answer afterwards",
                lambda end=ended: any(r.sent > end for r in report.records if r.seconds),
            )
            assert not [r for r in report.records if r.sent > ended and r.version not in {"", version}]
    assert box.property("ActiveState") == "active"


def test_reload_to_a_bad_model_fails_and_the_unit_stays_active(running: World) -> None:
    box = running.box
    nano = box.run("sh", "-c", "echo /opt/asr/asrsvc/models/*/").stdout.strip()
    box.run("cp", "-r", nano, "/opt/truncated")
    box.run("truncate", "--size=100000", "/opt/truncated/model_quant.onnx")
    bad = box.add_version("/opt/truncated", "truncated")
    with running.load():
        box.wish(bad)
        done = box.run("systemctl", "reload", "asr", check=False)
        assert done.returncode != 0
    shown = box.run("systemctl", "status", "asr", check=False)
    assert shown.returncode == 0, shown.stdout
    assert "active (running)" in shown.stdout
    reason = box.status()["roll"]["error"]
    assert reason
    assert f"roll to {bad}: {reason[:60]}" in shown.stdout
    assert box.status()["version"] == running.first


def test_what_root_does_with_the_tool_is_done_by_the_services_user(running: World) -> None:
    box = running.box
    folders = ("ASR_STORE=/var/lib/asr/store", "ASR_STATE_DIR=/var/lib/asr/state", "ASR_RUNTIME_DIR=/run/asr")
    tool = ("env", "ASR_CONFIG=/etc/asr/asr.conf", *folders, "/opt/asr/bin/swap-model")
    seen = box.run("stat", "-c", "%U:%G %a", "/etc/asr/asr.conf").stdout
    assert seen == "root:asr 640\n"
    nano = box.run("sh", "-c", "echo /opt/asr/asrsvc/models/*/").stdout.strip()
    box.run("cp", "-r", nano, "/root/private")
    box.run("chmod", "-R", "go=", "/root/private")
    done = box.run(*tool, "pull", "/root/private", "--name", "private")
    assert "goes on as asr, whom ASR_STORE=/var/lib/asr/store belongs to" in done.stderr
    done = box.run(*tool, "reload")
    assert f"{running.first} serves" in done.stdout
    last = json.loads(box.run(*tool, "history", "--json", "--last", "1").stdout)["history"][0]
    assert (last["command"], last["actor"]["user"], last["actor"]["on_behalf_of"]) == (
        "reload",
        "asr",
        "root",
    )
    foreign = box.run("find", "/var/lib/asr/store", "/run/asr", "!", "-user", "asr").stdout.split()
    assert foreign == []


def test_sighup_shows_as_a_reload_and_the_unit_is_active_again(running: World) -> None:
    box = running.box

    def reloads() -> bool:
        """Whether the unit was seen to reload; False: the roll had ended before that was looked at."""
        roll = box.status()["roll"]
        box.run("kill", "-HUP", box.property("MainPID"))

        def seen_or_ended() -> str | None:
            ended = box.status()["roll"]  # before the look at the unit: while a roll goes on, it reloads
            if box.property("ActiveState") == "reloading":
                return "reloading"
            return "ended" if ended["id"] > roll["id"] and ended["ended"] else None

        seen = wait_for("the unit reloads", seen_or_ended)
        box.wait_until_serving()
        ended = wait_for("the end of the roll", lambda: _ended_roll(box))
        assert ended["id"] == roll["id"] + 1
        assert ended["result"] == "succeeded"
        return seen == "reloading"

    assert any(reloads() for _ in range(5))
    assert box.property("StatusText") == f"serving {running.first}"


def test_sigusr2_moves_the_unit_to_a_new_master_and_loses_nothing(running: World) -> None:
    _replace_master(running)


def _replace_master(running: World) -> None:
    box = running.box
    before = box.property("MainPID")
    with running.load():
        box.run("kill", "-USR2", before)
        wait_for("systemd follows the new master", lambda: box.property("MainPID") != before)
        box.wait_until_serving()
        wait_for(
            "the old master has left", lambda: box.run("kill", "-0", before, check=False).returncode != 0
        )
    assert box.property("MainPID") == str(box.status()["master"]["pid"])
    assert box.property("NRestarts") == "0"
    box.run("systemctl", "reload", "asr")


def test_nginx_passes_a_plain_request_id_on_and_replaces_others(running: World) -> None:
    with httpx.Client(
        base_url=f"http://127.0.0.1:{running.box.proxy_port}", trust_env=False, timeout=PATIENCE
    ) as client:
        for given, right in (("a-1.b:c/d=", re.escape("a-1.b:c/d=")), ("two words", r"[0-9a-f]{32}")):
            answer = client.get("/health", headers={"X-Request-Id": given})
            assert answer.status_code == 200
            assert re.fullmatch(right, answer.headers["x-request-id"])


def test_nginx_refuses_what_is_over_the_limit_by_its_header(running: World) -> None:
    for size, status in ((512 * 1024 * 1024 + 1, b"413"), (512 * 1024 * 1024, b"")):
        with socket.create_connection(
            ("127.0.0.1", running.box.proxy_port), timeout=2 * PATIENCE
        ) as connection:
            header = f"POST /api/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
            connection.sendall(header.encode())
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(12)[9:] == status


def test_restart_with_the_socket_units_refuses_nothing(running: World) -> None:
    before = running.box.property("MainPID")
    with running.load():
        began = time.monotonic()
        running.box.run("systemctl", "restart", "asr")
        note(f"restart: {time.monotonic() - began:.1f} s")
    assert running.box.property("MainPID") != before


def test_a_killed_master_is_replaced_and_what_was_begun_is_finished(running: World) -> None:
    box = running.box
    before = box.property("MainPID")
    body = clips({running.first: "withitn"})[0].body
    with running.load():
        begun = _begin_request(box.port, body)
        _wait_until_in_hand(box, begun)
        began = time.monotonic()
        box.run("kill", "-KILL", before)
        wait_for("the unit is down", lambda: box.property("ActiveState") != "active")
        assert _end_request(begun, body).startswith(b"HTTP/1.1 200 ")
        box.wait_until_serving()
        note(f"killed, serving again: {time.monotonic() - began:.1f} s")
    assert box.property("MainPID") != before
    assert box.property("NRestarts") == "1"


def test_a_master_that_hangs_is_replaced_and_what_was_begun_is_finished(running: World) -> None:
    box = running.box
    before = box.property("MainPID")
    body = clips({running.first: "withitn"})[0].body
    began = time.monotonic()
    begun = _begin_request(box.port, body)
    _wait_until_in_hand(box, begun)
    box.run("kill", "-STOP", before)
    wait_for("the watchdog has seen it", lambda: box.property("ActiveState") != "active")
    assert _end_request(begun, body).startswith(b"HTTP/1.1 200 ")
    box.wait_until_serving()
    assert box.property("MainPID") != before
    note(f"hung, serving again: {time.monotonic() - began:.1f} s")


def test_stop_lets_a_running_request_end(running: World) -> None:
    box = running.box
    body = clips({running.first: "withitn"})[0].body
    begun = _begin_request(box.port, body)
    _wait_until_in_hand(box, begun)
    box.run("systemctl", "stop", "asr.socket", "asr-ops.socket", "--no-block")
    stopping = box.start_command("systemctl", "stop", "asr")
    wait_for("the unit is stopping", lambda: box.property("ActiveState") == "deactivating")
    assert _end_request(begun, body).startswith(b"HTTP/1.1 200 ")
    assert stopping.wait(PATIENCE) == 0
    assert box.property("Result") == "success"
    assert box.property("ActiveState") == "inactive"


def test_stop_without_socket_units_answers_all_that_waits(running: World) -> None:
    box = running.box
    box.run("systemctl", "stop", "asr.socket", "asr-ops.socket", "asr.service")
    box.run("rm", "-f", "/run/asr/ops.sock")
    box.run("systemctl", "start", "asr")
    box.wait_until_serving()
    assert box.run("stat", "-c", "%a", "/run/asr/ops.sock").stdout.strip() == "660"
    _replace_master(running)
    body = clips({running.first: "withitn"})[0].body
    waiting = []
    for _ in range(30):
        connection = socket.create_connection(("127.0.0.1", box.port), timeout=2 * PATIENCE)
        connection.sendall(head(body, keep_alive=False) + body)
        waiting.append(connection)
    box.run("systemctl", "stop", "asr")
    answers = []
    for connection in waiting:
        with connection:
            answers.append(connection.recv(12))
    assert answers == [b"HTTP/1.1 200"] * len(waiting)
