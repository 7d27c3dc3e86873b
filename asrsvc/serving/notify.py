"""What the master tells systemd: sd_notify(3), without its library.

Each message is one datagram, sent at once or not at all: a service manager that does not read must
not hold up the master.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

_LONGEST_STATUS: Final = 500
"""characters; `systemctl status` shows one line"""


class Notifier:
    """Messages to the service manager; without one, nothing happens.

    Args:
        environ: where NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID may stand.
        pid: the process that speaks; this one by default.
    """

    def __init__(self, environ: Mapping[str, str], *, pid: int | None = None) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_interval = _interval(environ, os.getpid() if pid is None else pid)
        """seconds between two pings: half of what systemd allows; None: it wants none"""

    def ready(self, status: str = "") -> bool:
        """The service serves, or a reload has ended. Whether the message went off."""
        return self._send("READY=1", *_status(status))

    def reloading(self, status: str = "") -> bool:
        """A roll begins; `ready` says that it has ended."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}", *_status(status))

    def stopping(self, status: str = "") -> bool:
        """The service ends."""
        return self._send("STOPPING=1", *_status(status))

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self._send(*_status(text))

    def mainpid(self, pid: int) -> bool:
        """Another process is the master now; the unit needs NotifyAccess=all."""
        return self._send(f"MAINPID={pid}")

    def watchdog(self) -> bool:
        """The master's loop turns."""
        return self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> bool:
        if self._address is None or not lines:
            return False
        message = "\n".join(lines).encode(errors="replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(0)
                sender.sendto(message, self._address)
        except OSError:  # full, gone or not permitted: the service matters more
            return False
        return True


def _address(name: str) -> bytes | None:
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])  # abstract; unix(7)
    return os.fsencode(name) if name.startswith("/") else None


def _interval(environ: Mapping[str, str], pid: int) -> float | None:
    """sd_watchdog_enabled(3): meant for this process, and half of the time is advised."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not (microseconds.isascii() and microseconds.isdecimal()) or int(microseconds) == 0:
        return None
    return int(microseconds) / 2e6


def _status(text: str) -> tuple[str, ...]:
    line = " ".join(text.split())
    return (f"STATUS={line[:_LONGEST_STATUS]}",) if line else ()
