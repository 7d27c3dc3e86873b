"""What people are told of a version."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest

from asrsvc.errors import ModelError
from asrsvc.release.card import Card, check_card, read_card
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
        ("---\r\nlicense: mit\r\n---\r\n", "mit", None),
        ("---\nlicense: 1.0\n---\n", "1.0", None),
        ("---\nlicense: [mit, other]\nlicense_link: [x]\n---\n", None, None),
        ("---\nlicense: null\n---\n", None, None),
        ('---\nlicense: "a\\x1b[2J\\u202eb"\n---\n', "a\\x1b[2J\\u202eb", None),
        ("---\nlicense: ours\nlicense_link: javascript:alert(1)\n---\n", "ours", None),
        ("---\nlicense: ours\nlicense_link: 'https://x/ y'\n---\n", "ours", None),
        ("---\nlicense: ours\n---\n" + "text " * 50_000, "ours", None),
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


# Strangers' cards.


def bomb() -> str:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    return "\n".join(["---", *lines, "license: *a8", "---", ""])


HOSTILE = {
    "aliases": (bomb(), "the metadata at its head has an anchor"),
    "no yaml": ("---\nlicense: [\n---\n", "the metadata at its head is no YAML: line"),
    "a tag": ("---\nlicense: !!python/name:os.system\n---\n", "has a tag"),
    "a name twice": ("---\nlicense: mit\nlicense: none\n---\n", "has the name 'license' a second time"),
    "without end": ("---\n" + "a: 1\n" * 50_000, "does not end within 65536 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_card_that_cannot_be_read_is_left_out_by_a_worker_and_named_by_a_trial(
    name: str, tmp_path: Path
) -> None:
    text, says = HOSTILE[name]
    (tmp_path / "MODEL_CARD.md").write_text(text)
    began = time.process_time()
    tracemalloc.start()
    try:
        assert read_card(tmp_path, "x") == Card("x", None, None, 0)
        with pytest.raises(
            ModelError, match=f"^{tmp_path}/MODEL_CARD.md: .*{says}.*: mend the file, or remove it"
        ):
            check_card(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 10


def test_a_card_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("MODEL_CARD.md", "LICENSE"):
        os.mkfifo(tmp_path / name)
    assert read_card(tmp_path, "x") == Card("x", None, None, 0)
    with pytest.raises(ModelError, match="is no plain file"):
        check_card(tmp_path)


def test_a_version_need_not_have_a_card(embedded_model: Path, tmp_path: Path) -> None:
    check_card(embedded_model)
    check_card(tmp_path)
    (tmp_path / "MODEL_CARD.md").write_text("# A model\n\nwithout metadata: &a *a !!x")
    check_card(tmp_path)
