"""What people are told of a version: its name, and the licence of its weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from asrsvc.errors import StoreError
from asrsvc.release.manifest import read_manifest

_FUNASR: Final = (
    "FunASR Model Licence",
    "https://github.com/modelscope/FunASR/blob/main/MODEL_LICENSE",
)
# Published without a file that says so; the licence is named on their pages.
_KNOWN: Final = re.compile(r"(?:modelscope|hf):(?:iic|FunAudioLLM)/SenseVoiceSmall", re.IGNORECASE)
_DIGEST: Final = re.compile(r"-[0-9a-f]{8}$")
_CARD: Final = "MODEL_CARD.md"
_LICENCE: Final = "LICENSE"
_MOST_CHARACTERS: Final = 1 << 16
_MOST_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Card:
    """A version as people are told of it."""

    name: str
    """without the digest"""
    licence: str | None
    """its name; None: not known"""
    licence_link: str | None
    """where it can be read; None: not known"""
    created: int
    """when it was stored, seconds since 1970; 0: not known"""


def read_card(folder: Path, version: str) -> Card:
    """The card of a version: from the head of its MODEL_CARD.md, its LICENSE, or where it is from.

    Args:
        folder: of the version. What is missing or damaged in it is left out.
        version: its id.
    """
    licence, link = _of_card(folder / _CARD)
    created = 0
    try:
        manifest = read_manifest(folder)
    except StoreError:
        manifest = None
    if manifest is not None:
        created = _seconds(manifest.created)
        if licence is None and _KNOWN.match(manifest.origin.source):
            licence, link = _FUNASR
    if licence is None:
        licence = next((line.strip() for line in _read(folder / _LICENCE).splitlines() if line.strip()), None)
    return Card(
        name=_DIGEST.sub("", version),
        licence=licence[:_MOST_SHOWN] if licence else None,
        licence_link=link,
        created=created,
    )


def _of_card(path: Path) -> tuple[str | None, str | None]:
    """Licence and link by the metadata at the head of a model card (Hugging Face Hub, Model Cards)."""
    text = _read(path)
    if not text.startswith("---\n"):
        return None, None
    try:
        found: Any = yaml.safe_load(text[4:].partition("\n---")[0])
    except (yaml.YAMLError, ValueError, RecursionError):
        return None, None
    if not isinstance(found, dict):
        return None, None
    licence, link = found.get("license_name") or found.get("license"), found.get("license_link")
    return str(licence) if licence else None, str(link) if link else None


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as reader:
            return reader.read(_MOST_CHARACTERS)
    except OSError:
        return ""


def _seconds(when: str) -> int:
    try:
        return int(datetime.fromisoformat(when).timestamp())
    except (ValueError, OverflowError):
        return 0
