from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import PATIENCE

from asrsvc import settings
from asrsvc.serving.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """What a service manager listens on, and its name as it stands in NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@asrsvc-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0"))
        listener.settimeout(PATIENCE)
        yield listener, name


def test_each_message_is_one_datagram(manager: tuple[socket.socket, str]) -> None:
    listener, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})

    def heard() -> str:
        return listener.recv(4096).decode()

    assert notifier.ready()
    assert heard() == "READY=1"
    assert notifier.ready("serving a")
    assert heard() == "READY=1\nSTATUS=serving a"
    assert notifier.status("roll 3:\n  the first\tworker loads 新")
    assert heard() == "STATUS=roll 3: the first worker loads 新"
    assert notifier.status("x" * 9999)
    assert heard() == "STATUS=" + "x" * 500
    assert notifier.stopping()
    assert heard() == "STOPPING=1"
    assert notifier.mainpid(1234)
    assert heard() == "MAINPID=1234"
    assert notifier.watchdog()
    assert heard() == "WATCHDOG=1"
    before = time.monotonic_ns() // 1000
    assert notifier.reloading("roll 4")
    first, second, third = heard().split("\n")
    assert (first, third) == ("RELOADING=1", "STATUS=roll 4")
    name, _, microseconds = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1", "/not/there", "@nobody", "/" + "x" * 200])
def test_without_a_manager_nothing_happens(name: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": name} if name else {})
    assert not notifier.ready("x")
    assert not notifier.watchdog()
    assert not notifier.status("")


def test_a_manager_that_does_not_read_holds_nobody_up(manager: tuple[socket.socket, str]) -> None:
    listener, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    began = time.monotonic()
    while notifier.watchdog():
        assert time.monotonic() - began < 50
    listener.recv(4096)
    assert notifier.watchdog()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_asks(
    environ: dict[str, str], interval: float | None
) -> None:
    assert Notifier(environ, pid=77).watchdog_interval == interval


def test_the_settings_say_what_systemd_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    assert settings.systemd_environment() == {}
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("OTHER", "1")
    assert settings.systemd_environment() == {"NOTIFY_SOCKET": "/run/systemd/notify"}
