"""What verify says of a version that somebody or something has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import add

from asrsvc.errors import UnknownVersion
from asrsvc.release.manifest import read_manifest
from asrsvc.release.store import REQUIRED_FILES, Store, Version
from asrsvc.release.verify import verify


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def version(store: Store) -> Version:
    return add(store, "v")


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def edit(version: Version, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    path = version.path / "manifest.json"
    content = json.loads(path.read_bytes())
    change(content)
    rewrite(path, json.dumps(content, indent=2).encode())


def faults(store: Store, version: Version) -> set[tuple[str, str]]:
    return {(fault.file, fault.kind) for fault in verify(store, version)}


def test_a_version_as_it_was_stored_has_no_faults(store: Store, version: Version) -> None:
    assert verify(store, version) == []


@pytest.mark.parametrize("name", [*REQUIRED_FILES, "some.bpe.model"])
def test_each_file_that_differs_is_named_with_both_digests(store: Store, version: Version, name: str) -> None:
    content = (version.path / name).read_bytes()
    for damaged in (content[::-1], content + b"x", content[:-1], b"", bytes([content[0] ^ 1]) + content[1:]):
        rewrite(version.path / name, damaged)
        (fault,) = verify(store, version)
        assert (fault.file, fault.kind) == (name, "differs")
        assert "differs from the manifest: SHA-256" in fault.detail
        assert (f"{len(damaged)} bytes instead of" in fault.detail) == (len(damaged) != len(content))
    rewrite(version.path / name, content)
    assert verify(store, version) == []


def test_all_that_is_wrong_is_told_at_once(store: Store, version: Version) -> None:
    (version.path / "am.mvn").unlink()
    rewrite(version.path / "config.yaml", b"x")
    (version.path / "notes").write_text("mine")
    (version.path / "tokens.json").unlink()
    (version.path / "tokens.json").symlink_to("config.yaml")
    (version.path / "some.bpe.model").unlink()
    (version.path / "some.bpe.model").mkdir()
    assert faults(store, version) == {
        ("am.mvn", "missing"),
        ("config.yaml", "differs"),
        ("notes", "extra"),
        ("tokens.json", "differs"),
        ("some.bpe.model", "differs"),
    }


def test_a_manifest_edited_by_hand_is_told_from_damage(store: Store, version: Version) -> None:
    edit(version, lambda m: m["files"]["model_quant.onnx"].update(sha256="0" * 64))
    found = verify(store, version)
    assert {(fault.file, fault.kind) for fault in found} == {
        ("manifest.json", "manifest"),
        ("model_quant.onnx", "manifest"),
    }
    assert "its own digest does not fit" in found[0].detail
    assert "the manifest is wrong about it" in found[-1].detail


def test_the_other_files_of_an_edited_manifest_are_compared_all_the_same(
    store: Store, version: Version
) -> None:
    edit(version, lambda m: m["files"]["am.mvn"].update(size=1))
    found = verify(store, version)
    assert [(fault.file, fault.kind) for fault in found] == [
        ("manifest.json", "manifest"),
        ("am.mvn", "differs"),
    ]
    assert "the manifest, which was changed" in found[1].detail


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(source="elsewhere"),
        lambda m: m.update(created="2000-01-01"),
        lambda m: m.update(revision="v9"),
        lambda m: m.update(note="mine"),
        lambda m: m.update(seal="0" * 64),
        lambda m: m["files"].update(extra={"size": 1, "sha256": ""}),
    ],
)
def test_whatever_is_edited_the_seal_tells(
    store: Store, version: Version, change: Callable[..., object]
) -> None:
    edit(version, change)
    assert ("manifest.json", "manifest") in faults(store, version)


def test_a_manifest_without_a_seal_is_from_an_earlier_release(store: Store, version: Version) -> None:
    edit(version, lambda m: m.pop("seal"))
    assert verify(store, version) == []
    manifest = read_manifest(version.path)
    assert manifest is not None
    assert manifest.sealed is None


def test_a_manifest_of_another_version_is_told(store: Store, version: Version) -> None:
    other = add(store, "w")
    rewrite(version.path / "manifest.json", (other.path / "manifest.json").read_bytes())
    found = verify(store, version)
    assert f"belongs to {other.id!r}, not to {version.id!r}" in found[0].detail
    assert "the version's id says otherwise" in found[1].detail


def test_a_manifest_that_leaves_a_file_out_is_told(store: Store, version: Version) -> None:
    edit(version, lambda m: m["files"].pop("am.mvn"))
    assert ("am.mvn", "extra") in faults(store, version)
    assert any("am.mvn missing" in fault.detail for fault in verify(store, version))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff",
        b"[" * 100_000,
        b'{"files": {"../../../etc/passwd": {"size": 1, "sha256": ""}}}',
        b'{"files": {"/etc/passwd": {"size": 1, "sha256": ""}}}',
        b'{"files": {"manifest.json": {"size": 1, "sha256": ""}}}',
        b'{"files": {"am.mvn": {"size": "many", "sha256": ""}}}',
        b" " * (2 << 20),
    ],
)
def test_a_damaged_manifest_is_the_only_fault(store: Store, version: Version, content: bytes) -> None:
    rewrite(version.path / "manifest.json", content)
    (fault,) = verify(store, version)
    assert (fault.file, fault.kind) == ("manifest.json", "manifest")
    assert "cannot be read" in fault.detail


def test_a_version_without_a_manifest_cannot_be_compared(store: Store, version: Version) -> None:
    (version.path / "manifest.json").unlink()
    (fault,) = verify(store, version)
    assert (fault.file, fault.kind) == ("manifest.json", "manifest")
    assert "nothing can be compared" in fault.detail


def test_a_version_that_is_not_there_is_unknown(store: Store, version: Version) -> None:
    with pytest.raises(UnknownVersion, match="v-0 is not there"):
        verify(store, Version("v-0", version.path))
