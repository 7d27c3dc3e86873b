"""What is installed: setup.cfg and the lock files say the same."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

LOCKS = ("requirements-build.lock", "requirements.lock", "requirements-test.lock")


def pins(path: Path) -> dict[str, frozenset[str]]:
    """Package and version → its hashes."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return {line.split()[0]: frozenset(re.findall(r"--hash=(\S+)", line)) for line in lines}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_with_hashes_and_comes_from_no_named_place(checkout: Path, name: str) -> None:
    for pin, hashes in pins(checkout / name).items():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", pin), "bin/lock makes this file"
        assert hashes


def test_the_tests_run_with_the_packages_of_the_service(checkout: Path) -> None:
    assert pins(checkout / "requirements.lock").items() <= pins(checkout / "requirements-test.lock").items()


@pytest.mark.parametrize(
    ("section", "key", "lock"),
    [
        ("options", "install_requires", "requirements.lock"),
        ("options.extras_require", "test", "requirements-test.lock"),
    ],
)
def test_whatever_is_required_is_locked(checkout: Path, section: str, key: str, lock: str) -> None:
    config = configparser.ConfigParser()
    config.read(checkout / "setup.cfg", encoding="utf-8")
    locked = {pin.partition("==")[0] for pin in pins(checkout / lock)}
    for line in config[section][key].split("\n"):
        if line and not line.startswith("#"):
            name = re.split(r"[<>=!;\s]", line)[0].lower().replace("_", "-")
            assert name in locked, f"{name}: run bin/lock"
