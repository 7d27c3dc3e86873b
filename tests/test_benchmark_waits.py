"""The ideal queue that the service's waits are compared with, and that the benchmarks of load run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[1]

LINE = """
import json, sys
sys.path.insert(0, "benchmarks")
from waits import Request, ideal_waits
requests = [Request(*numbers) for numbers in json.loads(sys.argv[1])]
print(json.dumps(ideal_waits(requests, int(sys.argv[2]))))
"""


def ideal(requests: list[tuple[float, float, float]], workers: int) -> Any:
    command = [sys.executable, "-c", LINE, json.dumps(requests), str(workers)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return json.loads(done.stdout)


def test_in_an_ideal_queue_nobody_waits_while_a_worker_is_idle() -> None:
    # arrived, waited (which does not count), worked
    requests = [(0.0, 9.0, 10.0), (1.0, 9.0, 2.0), (2.0, 9.0, 5.0), (3.0, 9.0, 1.0), (30.0, 9.0, 1.0)]
    assert ideal(requests, 2) == [0.0, 0.0, 1.0, 5.0, 0.0]
    assert ideal(requests, 1) == [0.0, 9.0, 10.0, 14.0, 0.0]
    assert ideal(requests[::-1], 3) == [0.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.soak
@pytest.mark.parametrize("program", ["waits.py", "swap.py", "crowd.py"])
def test_it_runs_and_says_what_it_measured(program: str, tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    command = [sys.executable, f"benchmarks/{program}", "--model", "nano", "--seconds", "6"]
    command += ["--capacity-seconds", "2", "--json", str(target)]
    command += ["--phase-seconds", "3"] if program != "waits.py" else []
    command += ["--soak-seconds", "1"] if program == "swap.py" else []
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=3 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(target.read_bytes())
    assert result["ratio_p99"] > 0
    assert result["machine"]["cpu"] in done.stdout
    assert f"{result['requests']} requests" in done.stdout


@pytest.mark.soak
def test_the_benchmark_of_rollbacks_runs_and_says_what_it_measured(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    command = [sys.executable, "benchmarks/rollback.py", "--model", "nano", "--rounds", "2"]
    command += ["--capacity-seconds", "2", "--json", str(target)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=3 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(target.read_bytes())
    assert len(result["rounds"]) == 2
    assert all(0 < found["first_answer"] < found["command"] for found in result["rounds"])
    assert "first answer of the previous version" in done.stdout


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_one_command_runs_the_benchmarks_of_throughput_memory_and_cores(tmp_path: Path) -> None:
    programs = ["load.py", "memory.py", "growth.py", "cores.py"]
    command = [sys.executable, "benchmarks/all.py", "--quick", "--to", str(tmp_path), "--only", *programs]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=4 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: json.loads((tmp_path / name).with_suffix(".json").read_bytes()) for name in programs}
    assert found["load.py"]["ratio_throughput"] > 0
    assert found["load.py"]["beside_the_engine_p50_ms"] > 0
    for by_name in found["memory.py"]["workers"].values():
        for row in by_name.values():
            assert 0 < row["anonymous_mb"] <= row["total_mb"]
            assert row["ready_one_at_a_time_s"] > 0
    for by_kind in found["growth.py"]["anonymous_mb"].values():
        assert all(len(row) == 11 and min(row) > 0 for row in by_kind.values())
    assert len(found["cores.py"]["cases"]) >= 4
    assert found["load.py"]["machine"]["cpu"] in done.stdout
