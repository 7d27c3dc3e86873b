"""What people are told of a version: its name, and the licence of its weights.

The files that say it are strangers'. A trial demands that they can be read (`check_card`); a worker, which
reads them by the same code, leaves out what cannot, so that no card keeps a version from serving.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from asrsvc.errors import ModelError, StoreError
from asrsvc.release.manifest import read_manifest
from asrsvc.system.documents import DocumentError, read_head
from asrsvc.system.plain_yaml import Value, parse_yaml
from asrsvc.system.printable import printable

_FUNASR: Final = (
    "FunASR Model Licence",
    "https://github.com/modelscope/FunASR/blob/main/MODEL_LICENSE",
)
# Published without a file that says so; the licence is named on their pages.
_KNOWN: Final = re.compile(r"(?:modelscope|hf):(?:iic|FunAudioLLM)/SenseVoiceSmall", re.IGNORECASE)
_DIGEST: Final = re.compile(r"-[0-9a-f]{8}$")
_CARD: Final = "MODEL_CARD.md"
_LICENCE: Final = "LICENSE"
_HEAD: Final = "---\n"
_HEAD_END: Final = "\n---"
_MOST_BYTES: Final = 1 << 16
"""of a file, that are looked at; the metadata of a card must end within them"""
_MOST_VALUES: Final = 5_000
_MOST_SHOWN: Final = 200
_LINK: Final = re.compile(r"https?://[\x21-\x7e]{1,500}")


@dataclass(frozen=True, slots=True)
class Card:
    """A version as people are told of it."""

    name: str
    """without the digest"""
    licence: str | None
    """its name; None: not known"""
    licence_link: str | None
    """where it can be read, with http or https; None: not known"""
    created: int
    """when it was stored, seconds since 1970; 0: not known"""


def read_card(folder: Path, version: str) -> Card:
    """The card of a version: from the head of its MODEL_CARD.md, its LICENSE, or where it is from.

    Args:
        folder: of the version. What is missing or damaged in it is left out.
        version: its id.
    """
    try:
        licence, link = _of_card(folder / _CARD)
    except (OSError, DocumentError):
        licence, link = None, None
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
        licence = _of_licence(folder / _LICENCE)
    return Card(
        name=_DIGEST.sub("", version),
        licence=printable(licence[:_MOST_SHOWN]) if licence else None,
        licence_link=link,
        created=created,
    )


def check_card(folder: Path) -> None:
    """Whether what a version says of itself can be read; a version may say nothing.

    Raises:
        ModelError: it cannot; names the file.
    """
    path = folder / _CARD
    try:
        _of_card(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except DocumentError as error:
        raise ModelError(f"{path}: the metadata at its head {error}: mend the file, or remove it") from error


def _of_card(path: Path) -> tuple[str | None, str | None]:
    """Licence and link by the metadata at the head of a model card (Hugging Face Hub, Model Cards).

    Raises:
        OSError: the file cannot be read.
        DocumentError: the metadata cannot.
    """
    content = read_head(path, _MOST_BYTES + 1)
    text = content.decode("utf-8", errors="replace").replace("\r\n", "\n")
    if not text.startswith(_HEAD):
        return None, None
    head, end, _ = text[len(_HEAD) - 1 :].partition(_HEAD_END)
    if not end and len(content) > _MOST_BYTES:
        raise DocumentError(f"does not end within {_MOST_BYTES} bytes")
    found = parse_yaml(head, most_values=_MOST_VALUES)
    if not isinstance(found, dict):
        return None, None
    link = found.get("license_link")
    licence = _text(found.get("license_name")) or _text(found.get("license"))
    return licence, link if isinstance(link, str) and _LINK.fullmatch(link) else None


def _text(found: Value) -> str | None:
    return str(found) if isinstance(found, str | int | float) and not isinstance(found, bool) else None


def _of_licence(path: Path) -> str | None:
    """The first line of a licence that is none of blanks."""
    try:
        text = read_head(path, _MOST_BYTES).decode("utf-8", errors="replace")
    except (OSError, DocumentError):
        return None
    return next((line.strip() for line in text.splitlines() if line.strip()), None)


def _seconds(when: str) -> int:
    try:
        return int(datetime.fromisoformat(when).timestamp())
    except (ValueError, OverflowError):
        return 0
