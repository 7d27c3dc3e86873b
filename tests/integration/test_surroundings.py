"""What goes wrong around the service: its runtime folder, the clock."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from rolling import Operated, operated, traffic, watching
from service import PROJECT, free_port, wait_for
from waiting import PATIENCE


def test_a_runtime_folder_that_cannot_be_made_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "run"
    service = Operated(
        tmp_path / "service", ASR_RUNTIME_DIR=str(folder), ASR_OPS_BIND=f"127.0.0.1:{free_port()}"
    )
    command = [service.python, "-m", "asrsvc.serving.start"]
    done = subprocess.run(
        command,
        env=service.environ,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert f"{folder} (ASR_RUNTIME_DIR) cannot be used: Not a directory" in done.stdout + done.stderr


def test_a_runtime_folder_that_is_gone_for_a_while_holds_nothing_up(tmp_path: Path) -> None:
    with operated(tmp_path) as service:
        folder, aside = tmp_path / "run", tmp_path / "aside"
        last = service.status.roll
        with traffic(service, 20.0) as flow:
            folder.rename(aside)
            service.store.set_next(service.other)
            service.hang_up()
            wait_for("the roll", lambda: service.store.current() == service.other)
            flow.wait_answered(10)
            aside.rename(folder)
            roll = service.end_of_roll(last.id if last else 0)
            report = flow.end()
        assert roll.result == "succeeded"
        assert not report.failures(), report.summary()
        assert report.records[-1].version == service.other.id
        service.wait_whole(service.other)


CLOCK_TOOLS = Path(__file__).with_name("faked_clock")
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed")
def test_a_clock_that_jumps_disturbs_nothing(tmp_path: Path) -> None:
    """Deadlines are counted on a clock that does not jump; the other one is for people."""
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    faked = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(CLOCK_TOOLS),
    }
    with operated(tmp_path / "service", **faked) as service:
        check = [service.python, "-c", "import time; time.sleep(0.01)"]
        subprocess.run(check, env=service.environ, timeout=PATIENCE, check=True)
        with watching(service) as watch, traffic(service, 20.0) as flow:
            for offset, version in (("+2d", service.other), ("-2d", service.good), ("+0", service.other)):
                clock.write_text(f"{offset}\n")
                flow.wait_answered(40)
                assert service.roll_to(version).result == "succeeded"
            report = flow.end()
        assert not report.failures(), report.summary()
        assert watch.fewest_ready == 2
        assert service.status.counters.restarts == 0
        days = {line["time"][:10] for line in service.log_lines()}
        assert len(days) >= 3, "the clock did jump"
