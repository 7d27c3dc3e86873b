"""The master stays light: it holds no numpy, no ONNX Runtime and no web framework."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest
from load import clips, head
from service import PROJECT, Service, wait_for
from waiting import PATIENCE

HEAVY = {"numpy", "onnxruntime", "starlette", "soundfile", "sentencepiece", "av", "asrfront"}

# The project's configuration, and a hook that gunicorn calls in the master before each fork.
WITNESS = """
import json, sys
exec(compile(open({configuration!r}).read(), {configuration!r}, "exec"))

_ours = pre_fork

def pre_fork(server, worker):
    _ours(server, worker)
    with open({report!r}, "w") as file:
        json.dump({{"pid": server.pid, "modules": sorted(sys.modules)}}, file)
"""


def test_the_running_master_holds_nothing_heavy(tmp_path: Path) -> None:
    report = tmp_path / "modules.json"
    configuration = tmp_path / "witness.conf.py"
    configuration.write_text(
        WITNESS.format(configuration=str(PROJECT / "gunicorn.conf.py"), report=str(report))
    )
    service = Service(tmp_path, ASR_WORKERS="1")
    # The first start puts the embedded model into the store; gunicorn is then started by hand.
    service.start().stop()
    gunicorn = Path(service.python).parent / "gunicorn"
    try:
        service.log_path.unlink()
        service.start(command=[service.python, str(gunicorn), "-c", str(configuration)])
        first = service.worker_pids()
        assert service.transcribe("a.flac", (PROJECT / "tests/data/clips/en_1.flac").read_bytes()).is_success
        # A worker dies: the master forks again, having supervised one that loaded and served.
        os.kill(first.pop(), signal.SIGKILL)
        wait_for("another worker", lambda: service.log().count('"worker ready"') >= 2)
        seen = json.loads(report.read_text())
        assert seen["pid"] == service.master.pid
        modules = {name.partition(".")[0] for name in seen["modules"]}
        assert not modules & HEAVY
        assert {"gunicorn", "asrsvc"} <= modules
        rooms = {name for name in seen["modules"] if name.startswith(("asrsvc.speech", "asrsvc.web"))}
        assert not rooms
    finally:
        service.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_master_ends_cleanly_and_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    service = Service(tmp_path, ASR_WORKERS="1").start()
    everybody = service.master.children(recursive=True)
    assert service.process is not None
    service.process.send_signal(number)
    assert service.process.wait(PATIENCE) == 0
    wait_for("no process is left", lambda: not any(p.is_running() for p in everybody))


def test_sigterm_to_all_processes_at_once_loses_nothing_that_waits(tmp_path: Path) -> None:
    """As systemd does it: a worker may hear of the stop before its master."""
    service = Service(tmp_path, ASR_WORKERS="2", ASR_THREADS="1").start()
    (clip, *_) = clips({"": "withitn"})
    master, workers = service.master, service.workers()
    waiting = []
    try:
        for _ in range(10):
            connection = socket.create_connection(("127.0.0.1", service.port), timeout=2 * PATIENCE)
            connection.sendall(head(clip.body, keep_alive=False) + clip.body)
            waiting.append(connection)
        master.suspend()
        for process in workers:
            process.terminate()
        # The last, which waits behind the others: its worker serves on until it knows better.
        answers = [waiting[-1].recv(12)]
        master.terminate()
        master.resume()
        answers += [connection.recv(12) for connection in waiting[:-1]]
        assert answers == [b"HTTP/1.1 200"] * len(waiting)
        assert service.stop() == 0
    finally:
        for connection in waiting:
            connection.close()
        if master.is_running():
            master.resume()
        service.stop()


def test_sigterm_to_the_workers_of_a_master_that_hangs_loses_nothing_that_waits(tmp_path: Path) -> None:
    """Nobody says why they are to leave, and nobody is left who would serve what waits."""
    service = Service(tmp_path, ASR_WORKERS="2", ASR_THREADS="1").start()
    (clip, *_) = clips({"": "withitn"})
    master, workers = service.master, service.workers()
    waiting = []
    try:
        master.suspend()
        for _ in range(60):
            connection = socket.create_connection(("127.0.0.1", service.port), timeout=2 * PATIENCE)
            connection.sendall(head(clip.body, keep_alive=False) + clip.body)
            waiting.append(connection)
        for process in workers:
            process.terminate()
        answers = [connection.recv(12) for connection in waiting]
        assert answers == [b"HTTP/1.1 200"] * len(waiting)
        master.kill()
        assert service.process is not None
        service.process.wait(PATIENCE)
        wait_for("the end of the workers", lambda: not any(w.is_running() for w in workers))
    finally:
        for connection in waiting:
            connection.close()
        if master.is_running():
            master.resume()
        service.stop()
