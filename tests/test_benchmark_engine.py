"""The side-by-side benchmark runs and says what it measured. Its figures are not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import reference_funasr
from waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(reference_funasr.MISSING is not None, reason=str(reference_funasr.MISSING))
def test_it_prints_every_stage_with_its_ratio_and_writes_the_same_as_json(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    command = [
        sys.executable,
        "benchmarks/engine.py",
        "--rounds",
        "1",
        "--seconds",
        "1",
        "--only",
        "funasr-onnx",
        "asrsvc",
        "--json",
        str(target),
    ]

    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=3 * PATIENCE, check=False
    )

    assert done.returncode == 0, done.stderr
    result = json.loads(target.read_bytes())
    for stage in ("features", "inference", "features + inference", "end to end"):
        assert stage in done.stdout
        theirs, ours = (result["milliseconds"][stage][name] for name in ("funasr-onnx", "asrsvc"))
        assert result["ratio"][stage]["funasr-onnx / asrsvc"]["median"] == pytest.approx(
            theirs["median"] / ours["median"]
        )
    assert result["machine"]["cpu"] in done.stdout
    assert f"onnxruntime {result['packages']['onnxruntime']}" in done.stdout
