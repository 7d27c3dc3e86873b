"""A box with the service in it, and requests to it that know the right answers."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from box import Box
from load import Load, Report, clips
from rolling import AT_ONCE
from service import wait_for

_RATE = 10.0  # for each second; a request takes about 10 ms of one core


class World:
    """A box, the versions in it, and requests that know the right answers."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.first = ""
        self.second = ""

    @contextmanager
    def load(self) -> Iterator[Report]:
        """Requests straight and through nginx for the time of a `with` block; then none has failed."""
        requests = clips({self.first: "withitn", self.second: "prev"})
        ports = [self.box.port, self.box.proxy_port]
        load = Load(ports, requests, rate=_RATE, early_seconds=1.0, at_once=AT_ONCE)
        thread = threading.Thread(target=lambda: asyncio.run(load.run()))
        thread.start()
        try:
            wait_for("requests are answered", lambda: sum(r.seconds > 0 for r in load.report.records) > 10)
            yield load.report
            before = len(load.report.records)
            wait_for("requests afterwards", lambda: len(load.report.records) > before + 20)
        finally:
            load.stop()
            thread.join()
        note(load.report.summary())
        assert not load.report.failures(), load.report.summary()


def note(text: str) -> None:
    """Tell who reads the output of the tests."""
    sys.stderr.write(f"{text}\n")
