"""The linters, as tests: what they say is in the failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "command",
    [["ruff", "check"], ["ruff", "format", "--check"], ["mypy", "--strict", "asrsvc"]],
    ids=" ".join,
)
def test_the_sources_please(command: list[str], checkout: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_programs_of_the_shell_are_posix(checkout: Path) -> None:
    for program in [*(checkout / "bin").iterdir(), checkout / ".ci" / "run"]:
        if program.read_text(encoding="utf-8").startswith(("#!/bin/sh", "# What the programs")):
            subprocess.run(["sh", "-n", program], check=True)
