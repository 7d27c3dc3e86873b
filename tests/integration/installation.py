"""An installation of the service in a virtual environment of its own, which can be replaced and broken."""

from __future__ import annotations

import os
import shutil
import sys
import venv
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from service import PROJECT

# The service runs without it, and it brings hundreds of megabytes along.
_LEFT_OUT: Final = {"funasr-onnx"}


class Installation:
    """asrsvc and what it needs, as an installed wheel lays it out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._make(folder)

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    @property
    def package(self) -> Path:
        """The folder of the code."""
        return _packages(self.folder) / "asrsvc"

    def replace(self) -> None:
        """Another virtual environment in the place of this one, of which nothing is left."""
        following, old = self.folder.with_suffix(".new"), self.folder.with_suffix(".old")
        self._make(following)
        self.folder.rename(old)
        following.rename(self.folder)
        shutil.rmtree(old)

    def _make(self, folder: Path) -> None:
        venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
        packages = _packages(folder)
        for name in _needed("asrsvc"):
            _install(name, packages)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / "asrsvc", packages / "asrsvc", ignore=ignored)
        configuration = folder / "share" / "asrsvc" / "gunicorn.conf.py"
        configuration.parent.mkdir(parents=True)
        shutil.copy(PROJECT / configuration.name, configuration)
        shutil.copy(Path(sys.executable).parent / "gunicorn", folder / "bin" / "gunicorn")


def _packages(folder: Path) -> Path:
    return folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _needed(root: str) -> list[str]:
    """Distributions that this one needs, itself left out."""
    found: dict[str, None] = {}
    rest = [root]
    while rest:
        name = rest.pop().lower().replace("_", "-")
        if name in found or name in _LEFT_OUT:
            continue
        found[name] = None
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                rest.append(requirement.name)
    return [name for name in found if name != root]


def _install(name: str, target: Path) -> None:
    """Link a distribution's files: as good as a copy, for none is ever written again."""
    for file in metadata.files(name) or []:
        source = Path(str(file.locate()))
        if file.parts[0] == ".." or "__pycache__" in file.parts or not source.is_file():
            continue
        place = target / file
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, place)
        except OSError:  # another file system
            shutil.copy2(source, place)
