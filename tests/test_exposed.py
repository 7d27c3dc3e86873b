"""Files of the operator that every user of the machine can read or write: told, with what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from asrsvc import settings
from asrsvc.serving.exposed import exposed_files
from asrsvc.serving.keys import write_keys

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def folder() -> Iterator[Path]:
    """That any user has a way to; that of other tests is closed to them."""
    with TemporaryDirectory(dir="/tmp") as name:
        found = Path(name)
        found.chmod(0o755)
        yield found


def config(folder: Path, text: str, mode: int) -> Path:
    path = folder / "asr.conf"
    path.write_text(text)
    path.chmod(mode)
    return path


def found(path: Path, **more: str) -> tuple[str, ...]:
    return exposed_files(settings.load({}, {"ASR_CONFIG": str(path), **more}))


@pytest.mark.parametrize("name", ["ASR_ADMIN_TOKEN", "ASR_WEBHOOK_SECRET"])
def test_settings_with_a_secret_that_others_can_read_are_told(name: str, folder: Path) -> None:
    path = config(folder, f"{name}={SECRET}\n", 0o644)
    (warning,) = found(path)
    assert f"{path} holds {name} and can be read by every user of this machine" in warning
    assert f"chmod 0640 {path}" in warning
    path.chmod(0o640)
    assert found(path) == ()
    path.chmod(0o644)
    folder.chmod(0o750)
    assert found(path) == ()


def test_settings_without_a_secret_may_be_read(folder: Path) -> None:
    path = config(folder, "ASR_WORKERS=2\nASR_ADMIN_TOKEN=\n", 0o644)
    assert found(path, ASR_WEBHOOK_SECRET=SECRET) == ()


def test_whoever_can_write_settings_or_keys_decides_and_is_told(folder: Path) -> None:
    keys = folder / "keys.json"
    write_keys(keys, [])
    path = config(folder, f"ASR_API_KEYS={keys}\n", 0o646)
    keys.chmod(0o666)
    warnings = found(path)
    assert [warning.partition(" can be written by every user")[0] for warning in warnings] == [
        str(path),
        str(keys),
    ]
    path.chmod(0o644)
    keys.chmod(0o644)  # digests of random secrets
    assert found(path) == ()


def test_check_tells_and_the_service_logs_it(checkout: Path, folder: Path) -> None:
    path = config(folder, f"ASR_ADMIN_TOKEN={SECRET}\n", 0o644)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ASR_")}
    done = subprocess.run(
        [sys.executable, "-m", "asrsvc.serving.start", "--check"],
        env={**kept, "ASR_CONFIG": str(path)},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"asrsvc: {path} holds ASR_ADMIN_TOKEN and can be read" in done.stderr
    assert SECRET not in done.stdout + done.stderr
