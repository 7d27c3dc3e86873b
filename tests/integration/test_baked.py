"""A service and the twins of its versions: served where they are whole, and only there."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rolling import Operated, operated, traffic
from service import wait_for
from test_bake import edited, flip
from test_metrics import page, samples
from waiting import PATIENCE

from asrsvc.release.bake import find, twins
from asrsvc.release.files import open_lock
from asrsvc.serving.status import Status
from asrsvc.speech.session import BAKED_WEIGHTS_FILE


def run(service: Operated, *arguments: str) -> subprocess.Popen[bytes]:
    process = service.tool(*arguments)
    _, err = process.communicate(timeout=3 * PATIENCE)
    assert process.returncode == 0, err.decode()
    return process


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    with operated(tmp_path_factory.mktemp("baked"), ASR_BAKE="auto") as found:
        yield found


def all_baked(now: Status) -> bool:
    ready = [worker for worker in now.workers if worker.state == "ready"]
    return len(ready) == now.wanted and all(worker.baked for worker in ready) and not now.rolling


@contextmanager
def nobody_bakes(service: Operated) -> Iterator[None]:
    """Hold this host's right to make a twin; who wants to make one tries again and again."""
    descriptor = open_lock(service.store.root / twins.FOLDER / f".{socket.gethostname()}.lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def test_the_first_start_does_not_wait_for_a_twin(service: Operated) -> None:
    assert not any(worker.baked for worker in service.status.workers)
    assert find(service.store.root, service.good.id, "auto").state == "missing"
    assert service.status.state == "serving"


def test_once_there_is_a_twin_new_workers_map_it_and_say_the_same(service: Operated) -> None:
    with traffic(service, 5) as flow:
        run(service, "bake", "current")
        service.reload()
        flow.wait_answered(10)
        report = flow.end()
    assert not report.failures(), report.summary()
    now = service.wait_status(
        "no old worker", lambda now: now if all_baked(now) and len(now.workers) == now.wanted else None
    )
    weights = str(find(service.store.root, service.good.id, "auto").path / BAKED_WEIGHTS_FILE)
    for worker in now.workers:
        assert worker.baked
        assert weights in maps(worker.pid)


@pytest.mark.timeout(600)
def test_a_damaged_twin_is_not_served_and_is_made_again(service: Operated) -> None:
    run(service, "bake", "current", "--again")
    found = find(service.store.root, service.good.id, "auto")
    assert found.twin is not None
    # Workers map the file: the damage comes with another one, as a disk would give it to a new process.
    weights = found.path / BAKED_WEIGHTS_FILE
    damaged = weights.with_name("damaged")
    damaged.write_bytes(weights.read_bytes())
    flip(damaged, 3_000_000)
    damaged.replace(weights)
    # It was made long ago.
    edited(found.path / twins.MANIFEST_FILE, created=found.twin.created - 1000)
    with traffic(service, 5) as flow:
        problem = f"{weights} is not the file that was made"
        with nobody_bakes(service):  # else the problem may be over before it is seen
            service.hang_up()
            service.wait_status("the problem", lambda now: problem in now.problems)
        service.wait_status("workers with a new twin", all_baked, 120)
        flow.wait_answered(10)
        report = flow.end()
    assert not report.failures(), report.summary()
    assert find(service.store.root, service.good.id, "auto").state == "ready"
    wait_for("the end of the problem", lambda: not service.status.problems)
    said = [line["message"] for line in service.log_lines() if line.get("level") == "warning"]
    assert any("is served from" in text and problem in text for text in said)
    counted, version = samples(page(service).text), service.good.id
    assert counted[f"asr_model_loads_total twin=damaged version={version}"] >= 1
    assert counted["asr_worker_restarts_total reason=twin"] >= 1
    assert counted[f"asr_workers_baked version={version}"] == counted["asr_workers_wanted"] == 2


def test_a_service_that_is_to_bake_nothing_serves_the_published_file(tmp_path: Path) -> None:
    with operated(tmp_path, ASR_BAKE="off") as plain:
        process = plain.tool("bake", "current")
        _, err = process.communicate(timeout=3 * PATIENCE)
        assert process.returncode == 2
        assert b"ASR_BAKE is off" in err
        assert not (plain.store.root / "baked").exists()
