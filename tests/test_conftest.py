"""In continuous integration nothing is skipped but the long tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPED = """
import pytest

def test_called(): pytest.skip("no disk here")

@pytest.mark.skipif(True, reason="no network here")
def test_marked(): pass

@pytest.fixture
def tape(): pytest.skip("no tape here")

def test_prepared(tape): pass

@pytest.mark.soak
def test_long(): pytest.skip("no time here")

@pytest.mark.xfail(reason="known")
def test_known(): assert False
"""
SKIPPED_WHOLE = """
import pytest
pytest.importorskip("no_such_module")
def test_module(): pass
"""


def outcomes(folder: Path, *arguments: str, **environ: str) -> tuple[str, str]:
    """The last line and all that pytest says of the two files."""
    (folder / "test_skipped.py").write_text(SKIPPED)
    (folder / "test_skipped_whole.py").write_text(SKIPPED_WHOLE)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    soak: long\n")
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-ra", *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [*command, "--continue-on-collection-errors"],
        cwd=folder,
        env={
            **inherited,
            "PYTHONPATH": str(Path(__file__).parent),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            **environ,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()[-1], done.stdout


def test_a_skip_is_a_failure_that_says_what_is_lacking(tmp_path: Path) -> None:
    last, said = outcomes(tmp_path, CI="true")
    assert "1 failed, 1 skipped, 1 xfailed, 3 errors" in last
    for reason in ("no disk here", "no network here", "no tape here", "could not import 'no_such_module'"):
        assert f"no test may be skipped where CI is set: {reason}" in said


def test_a_long_test_that_was_asked_for_may_not_be_skipped(tmp_path: Path) -> None:
    last, said = outcomes(tmp_path, "--soak", CI="true")
    assert "2 failed, 1 xfailed, 3 errors" in last
    assert "no time here" in said


@pytest.mark.parametrize("environ", [{}, {"CI": ""}, {"CI": "false"}])
def test_elsewhere_a_skip_is_a_skip(tmp_path: Path, environ: dict[str, str]) -> None:
    last, _ = outcomes(tmp_path, **environ)
    assert "5 skipped, 1 xfailed" in last
