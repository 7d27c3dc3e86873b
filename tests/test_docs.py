"""The documents are true: the files that they name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")])
_CODE = re.compile(
    r"`(?:[\w./-]+ )*((?:asrsvc|benchmarks|bin|monitoring|recipes|systemd|tests)/[\w./-]*)[^`]*`"
)
_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
_CLAIM = re.compile(r"^\|.+\|(?P<shown>[^|]*)\|$", re.MULTILINE)
SECURITY = PROJECT / "docs" / "security.md"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_the_files_that_a_document_names_are_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = {PROJECT / name for name in _CODE.findall(text)}
    named |= {document.parent / name for name in _LINK.findall(text)}
    assert not sorted(str(path.relative_to(PROJECT)) for path in named if not path.exists())


def test_each_threat_has_a_test_that_shows_what_stops_it() -> None:
    threats = SECURITY.read_text(encoding="utf-8").partition("## Threats")[2].partition("## Hardening")[0]
    rows = [row for row in _CLAIM.findall(threats) if row.strip() not in {"---", "shown by"}]
    assert len(rows) > 20
    for shown in rows:
        assert re.search(r"`tests/[\w./]+\.py`", shown), shown
