"""Who reads a folder of recordings finds their licences, in a checkout and in what is made of it."""

from __future__ import annotations

import configparser
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

FOLDERS = ("asrsvc/clips", "tests/data/clips", "tests/data/pauses")
SOUNDS = {".flac", ".wav", ".ogg", ".mp3", ".mka", ".mkv", ".mp4", ".au", ".caf", ".aiff"}
SHIPPED = (
    "asrsvc/clips/LICENSE.md",
    "asrsvc/detectors/silero-vad/LICENSE",
    "asrsvc/models/sensevoice-nano/MODEL_CARD.md",
    "asrsvc/web/page/vendor/swagger-ui/LICENSE.txt",
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_recording_has_its_licence_in_words(checkout: Path, folder: str) -> None:
    text = (checkout / folder / "LICENSE.md").read_text("utf-8")
    known = json.loads((checkout / folder / "manifest.json").read_text("utf-8"))
    assert {clip["file"] for clip in known} == {path.name for path in (checkout / folder).glob("*.flac")}
    for clip in known:
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {clip['file']} |"))
        assert line.endswith(f"| {clip['licence']} |")
        assert f"- **{clip['licence']}.** " in text


def test_no_folder_of_recordings_is_without_a_licence(checkout: Path) -> None:
    folders = {
        path.parent
        for top in ("asrsvc", "tests", "recipes", "docs")
        for path in (checkout / top).rglob("*")
        if path.suffix in SOUNDS
    }
    assert {checkout / folder for folder in FOLDERS} <= folders
    for folder in folders:
        assert (folder / "LICENSE.md").is_file(), folder


def test_what_is_declared_as_licences_is_there(checkout: Path) -> None:
    config = configparser.ConfigParser()
    config.read(checkout / "setup.cfg", encoding="utf-8")
    declared = config["metadata"]["license_files"].split()
    assert {*SHIPPED, "LICENSE"} - {"asrsvc/models/sensevoice-nano/MODEL_CARD.md"} <= set(declared)
    assert all((checkout / name).is_file() for name in declared)


def test_a_wheel_and_an_sdist_hold_the_licences(checkout: Path, tmp_path: Path) -> None:
    """Built by what builds them in earnest, from a copy: a build writes beside the sources."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("asrsvc", "README.md", "LICENSE", "setup.cfg", "pyproject.toml", "gunicorn.conf.py"):
        source = checkout / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, copy / name)
    script = (
        "from setuptools import build_meta\n"
        f"build_meta.build_wheel({str(tmp_path)!r}); build_meta.build_sdist({str(tmp_path)!r})\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=copy, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    (sdist,) = tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    assert set(SHIPPED) <= names
    assert any(name.endswith(".dist-info/licenses/asrsvc/clips/LICENSE.md") for name in names)
    with tarfile.open(sdist) as unpacked:
        inside = {name.partition("/")[2] for name in unpacked.getnames()}
    assert {*SHIPPED, "LICENSE"} <= inside
