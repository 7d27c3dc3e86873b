"""Nothing of what is recognised, nor that anything is, leaves the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[1]

USE = """
import sys
from pathlib import Path
{first}
from asrsvc.speech.model import Model
Model.load(Path("asrsvc/models/sensevoice-nano"), version="a", threads=1, device="cpu")
"""


@pytest.mark.parametrize("module", ["engine", "vad", "runtime"])
def test_the_runtime_keeps_no_store_of_reports(module: str, tmp_path: Path) -> None:
    """Its reporting makes a store and a number for the machine below these folders as soon as it is on."""
    kept = {k: v for k, v in os.environ.items() if k not in {"ORT_DISABLE_TELEMETRY", "CI"}}
    places = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    program = USE.format(first=f"import asrsvc.speech.{module}")
    subprocess.run(
        [sys.executable, "-c", program], env={**kept, **places}, cwd=ROOT, timeout=2 * PATIENCE, check=True
    )
    assert list(tmp_path.rglob("*")) == []
