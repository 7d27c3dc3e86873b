"""What people are told of a version."""

from __future__ import annotations

from pathlib import Path

import pytest

from asrsvc.release.card import Card, read_card
from asrsvc.release.manifest import Manifest, Origin, manifest_bytes


def test_the_embedded_model_says_its_licence(embedded_model: Path) -> None:
    assert read_card(embedded_model, "sensevoice-nano-3dc8fa43") == Card("sensevoice-nano", "mit", None, 0)


@pytest.mark.parametrize(
    ("card", "licence", "link"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model", "apache-2.0", None),
        ("---\nlicense: other\nlicense_name: ours\nlicense_link: https://x/y\n---\n", "ours", "https://x/y"),
        ("# A model\nlicense: mit", None, None),
        ("---\nlicense: [\n---\n", None, None),
        ("---\n- a list\n---\n", None, None),
        ("---\n" + "[" * 50_000, None, None),
        ("\0\0", None, None),
    ],
)
def test_a_card_of_its_own(tmp_path: Path, card: str, licence: str | None, link: str | None) -> None:
    (tmp_path / "MODEL_CARD.md").write_text(card)
    found = read_card(tmp_path, "other")
    assert (found.name, found.licence, found.licence_link) == ("other", licence, link)


def test_a_licence_file(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("\n  Some Licence 1.0\n\nYou may …")
    assert read_card(tmp_path, "x").licence == "Some Licence 1.0"


PUBLISHED = ["modelscope:iic/SenseVoiceSmall-onnx@v2", "hf:FunAudioLLM/SenseVoiceSmall"]


@pytest.mark.parametrize("source", PUBLISHED)
def test_the_published_model_has_a_licence_that_no_file_says(tmp_path: Path, source: str) -> None:
    manifest = Manifest("SenseVoiceSmall-01234567", Origin(source), "2026-11-22T00:00:00+00:00", {}, True)
    (tmp_path / "manifest.json").write_bytes(manifest_bytes(manifest))
    found = read_card(tmp_path, manifest.id)
    assert (found.name, found.licence) == ("SenseVoiceSmall", "FunASR Model Licence")
    assert found.created == 1795305600
    assert found.licence_link


def test_what_is_damaged_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    (tmp_path / "LICENSE").mkdir()
    assert read_card(tmp_path / "none", "x") == read_card(tmp_path, "x") == Card("x", None, None, 0)
