"""SIGUSR2: new code under load, the installation replaced under the service, and broken new code."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from installation import Installation
from rolling import Operated, begin_half, traffic
from service import wait_for

from asrsvc.serving.compose import MOST_REQUESTS
from asrsvc.serving.status import Status


class Renewable(Operated):
    """A service from an installation of its own; its master may be another process than the first."""

    def __init__(self, folder: Path, **settings: str) -> None:
        super().__init__(folder, **settings)
        self.installation = Installation(folder / "venv")
        self.python = self.installation.python
        self.cwd = folder  # not the checkout, whose code Python would take
        self.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        self.environ.pop("PYTHONPATH", None)

    @property
    def master(self) -> psutil.Process:
        return psutil.Process(self.status.master.pid)

    def whole(self, now: Status) -> bool:
        return now.state == "serving" and sum(w.state == "ready" for w in now.workers) == now.wanted

    def renew(self) -> int:
        """SIGUSR2, and wait until the new master serves and the old one has gone; its process."""
        old = self.master
        old.send_signal(signal.SIGUSR2)
        self.wait_status("the new master", lambda now: now.master.pid != old.pid and self.whole(now))
        self.wait_gone(old)
        return self.status.master.pid

    def wait_gone(self, process: psutil.Process) -> None:
        """The first master is this process's child: it is to be waited for."""

        def gone() -> bool:
            if self.process is not None and process.pid == self.process.pid:
                return self.process.poll() is not None
            return not process.is_running()

        wait_for(f"the end of process {process.pid}", gone)

    def end(self) -> None:
        """Stop whoever is the master, and leave nothing."""
        assert self.process is not None
        everybody = [p for p in psutil.process_iter(["cmdline"]) if self._mine(p)]
        try:
            with suppress(psutil.NoSuchProcess):  # it has been stopped already
                master = self.master
                master.send_signal(signal.SIGTERM)
                self.wait_gone(master)
            wait_for("the end of all processes", lambda: not any(p.is_running() for p in everybody))
        finally:
            for process in everybody:
                if process.is_running():
                    process.kill()

    def _mine(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("ASR_RUNTIME_DIR") == self.environ["ASR_RUNTIME_DIR"]
        except psutil.Error:
            return False


@contextmanager
def renewable(folder: Path, **settings: str) -> Iterator[Renewable]:
    service = Renewable(folder, **settings)
    try:
        service.start()
        service.wait_status("a whole service", service.whole)
        yield service
    except BaseException as error:
        error.add_note("the service's last words:\n" + service.log()[-6000:])
        raise
    finally:
        if service.process is not None:
            service.end()


@pytest.mark.timeout(600)
def test_ten_new_masters_in_a_row_lose_nothing(tmp_path: Path) -> None:
    """Every other one finds another virtual environment in the place of the old one, which is gone."""
    with renewable(tmp_path) as service:
        seen = {service.status.master.pid}
        with traffic(service, 30.0) as flow:
            for number in range(10):
                flow.wait_answered(10)
                if number % 2:
                    service.installation.replace()
                seen.add(service.renew())
            flow.wait_answered(10)
            report = flow.end()
        assert not report.failures(), report.summary()
        assert len(seen) == 11
        assert service.status.counters.lost_requests == 0
        # It is a whole master: it rolls, and starts workers anew.
        assert service.roll_to(service.other).result == "succeeded"
        worker = next(w for w in service.status.workers if w.state == "ready")
        os.kill(worker.pid, signal.SIGKILL)
        service.wait_status("a restart", lambda now: now.counters.restarts == 1 and service.whole(now))


@dataclass(frozen=True)
class Broken:
    """New code that does not serve."""

    file: str
    change: Callable[[str], str]


def append(text: str) -> Callable[[str], str]:
    return lambda content: f"{content}\n\n{text}\n"


DEAF = """
_add = Members.add
def _add_deaf(self, member):
    os.dup2(os.pipe2(os.O_NONBLOCK)[0], member.pipe)  # the worker's pipe has no other end any more
    _add(self, member)
Members.add = _add_deaf
"""

BROKEN = {
    "the master's modules": Broken("serving/arbiter.py", append("this is not Python")),
    "a module that is gone": Broken("serving/roll.py", lambda _: "import no_such_module"),
    "the worker's modules": Broken("serving/compose.py", append("raise ImportError('broken new code')")),
    "a worker that exits": Broken("serving/compose.py", append("import os\nos._exit(0)")),
    "a worker that gunicorn would halt for": Broken("serving/compose.py", append("import os\nos._exit(3)")),
    "a worker that hangs": Broken("serving/compose.py", append("import time\ntime.sleep(600)")),
    "a master that does not listen": Broken("serving/members.py", append(DEAF)),
    "a master that hangs": Broken("serving/ledger.py", append("import time\ntime.sleep(600)")),
}


HANG = ("a worker that hangs", "a master that does not listen", "a master that hangs")


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Renewable]:
    with renewable(tmp_path_factory.mktemp("fragile")) as service:
        yield service


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Renewable]:
    """One that has begun to serve, and that waits for a new master for a short time from now on."""
    folder: Path = tmp_path_factory.mktemp("impatient")
    configuration = folder / "asr.conf"
    configuration.write_text("ASR_READY_TIMEOUT=120\n")
    with renewable(folder, ASR_CONFIG=str(configuration)) as service:
        configuration.write_text("ASR_READY_TIMEOUT=20\n")
        # A busy machine may need longer for one of these loads; then that roll has failed.
        wait_for("workers in a short time", lambda: service.reload().result == "succeeded")
        service.wait_status(
            "a whole service", lambda now: service.whole(now) and len(now.workers) == now.wanted
        )
        yield service


@contextmanager
def changed(service: Renewable, broken: Broken) -> Iterator[None]:
    """The installed code is broken for the time of a `with` block."""
    path = service.installation.package / broken.file
    content = path.read_text()
    path.write_text(broken.change(content))
    try:
        yield
    finally:
        path.write_text(content)


@pytest.mark.parametrize("name", [name for name in BROKEN if name not in HANG])
def test_broken_new_code_leaves_the_old_master_in_charge(fragile: Renewable, name: str) -> None:
    check_broken(fragile, BROKEN[name])


@pytest.mark.parametrize("name", HANG)
def test_new_code_that_hangs_leaves_the_old_master_in_charge(impatient: Renewable, name: str) -> None:
    check_broken(impatient, BROKEN[name])


def check_broken(service: Renewable, broken: Broken) -> None:
    before, pids = service.status, {w.pid for w in service.status.workers}
    with changed(service, broken), traffic(service, 20.0) as flow:
        service.master.send_signal(signal.SIGUSR2)
        refused = service.wait_status(
            "its end", lambda now: now.refused if now.refused != before.refused else None
        )
        flow.wait_answered(10)
        report = flow.end()
    assert not report.failures(), report.summary()
    assert refused.error.startswith("the new master has failed")
    now = service.status
    assert now.master == before.master
    assert now.state == "serving"
    assert {w.pid for w in now.workers} == pids
    assert now.counters == before.counters
    # Nothing of it is left, and good code is taken after it.
    wait_for("its end", lambda: {p.pid for p in service.master.children()} == pids)


def test_after_broken_code_good_code_is_taken(fragile: Renewable) -> None:
    with traffic(fragile, 20.0) as flow:
        fragile.renew()
        flow.wait_answered(10)
        report = flow.end()
    assert not report.failures(), report.summary()


def test_a_stop_while_a_new_master_starts_stops_both(tmp_path: Path) -> None:
    with renewable(tmp_path) as service:
        half = begin_half(service)
        master = service.master
        before = len(master.children(recursive=True))
        with changed(service, BROKEN["a worker that hangs"]):
            master.send_signal(signal.SIGUSR2)
            wait_for("its workers", lambda: len(master.children(recursive=True)) >= before + 3)
            everybody = master.children(recursive=True)
            master.send_signal(signal.SIGTERM)
            service.wait_status("the stop", lambda now: now.state == "stopping")
            assert half.finish().startswith(b"HTTP/1.1 200 ")
            service.wait_gone(master)
        wait_for("the end of all", lambda: not any(p.is_running() for p in everybody))
        assert service.process is not None
        assert service.process.returncode == 0


def test_a_master_that_dies_while_a_new_one_starts_leaves_the_new_one(tmp_path: Path) -> None:
    with renewable(tmp_path) as service:
        master = service.master
        held = tmp_path / "held"
        held.touch()
        slow = Broken(
            "serving/compose.py",
            append(f"import os, time\nwhile os.path.exists({str(held)!r}):\n    time.sleep(0.02)"),
        )
        with changed(service, slow), traffic(service, 20.0) as flow:
            flow.wait_answered(10)
            master.send_signal(signal.SIGUSR2)
            wait_for("the new master", lambda: len(master.children()) == 3)
            master.kill()
            service.wait_gone(master)
            held.unlink()
            service.wait_status(
                "the new master", lambda now: now.master.pid != master.pid and service.whole(now)
            )
            flow.wait_answered(10)
            report = flow.end()
        assert not report.failures(), report.summary()


def test_a_worker_that_says_ready_and_never_answers_fails_its_roll(tmp_path: Path) -> None:
    """What it took is lost with it, and counted; the old workers answer all else."""
    mute = Broken(
        "serving/compose.py",
        append(
            "async def _mute(scope, receive, send):\n    import asyncio\n    await asyncio.sleep(600)\n\n\n"
            "class _Meter:\n    refused = None\n\n\n_mute.meter = _Meter\n\n\n"
            "class _Jobs:\n    idle = True\n    start = leave = note_requests = lambda *_: None\n\n\n"
            "def load_app(*_):\n    return _mute, _Jobs()"
        ),
    )
    # It is judged at the end of the soak, and must have had a request in hand for five seconds then.
    settings = {"ASR_SOAK_SECONDS": "15", "ASR_SOAK_REQUESTS": "1000", "ASR_DRAIN_TIMEOUT": "3"}
    with renewable(tmp_path, **settings) as service:
        with changed(service, mute), traffic(service, 20.0) as flow:
            flow.wait_answered(20)
            roll = service.roll_to(service.other)
            flow.wait_answered(20)
            service.wait_status("its end", lambda now: len(now.workers) == 2)
            report = flow.end()
        assert roll.result == "failed"
        assert roll.error is not None
        assert "and answered none" in roll.error
        assert service.status.version == service.good.id
        least = max(1, len(report.lost()))
        counters = service.wait_status(
            "the count", lambda now: now.counters if now.counters.lost_requests >= least else None
        )
        assert counters.lost_requests <= MOST_REQUESTS, report.summary()
