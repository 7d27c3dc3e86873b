from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from waiting import PATIENCE

from asrsvc.errors import BadArgument, StoreError
from asrsvc.release.embedded import ensure_embedded
from asrsvc.release.store import REQUIRED_FILES, Store, Version
from asrsvc.release.versions import check_digests


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "deep" / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "source", b"weights")


def model_folder(path: Path, weights: bytes) -> Path:
    path.mkdir()
    for name in (*REQUIRED_FILES, "some.bpe.model"):
        (path / name).write_bytes(name.encode())
    (path / "model_quant.onnx").write_bytes(weights)
    return path


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")} - {"lock"}


def test_reading_an_empty_store_creates_nothing(store: Store) -> None:
    assert store.current() is None
    assert store.versions() == []
    assert not store.root.exists()


def test_a_folder_becomes_a_version_with_a_manifest_that_tells_every_byte(store: Store, source: Path) -> None:
    (source / "README.md").write_text("not needed")
    version = store.add_folder(source, "nano")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert version == Version(f"nano-{digest[:8]}", store.root / "versions" / f"nano-{digest[:8]}")
    assert store.versions() == [version]
    manifest = json.loads((version.path / "manifest.json").read_text())
    assert manifest["id"] == version.id
    assert manifest["source"] == str(source)
    assert manifest["created"].endswith("+00:00")
    assert manifest["files"]["model_quant.onnx"] == {"size": 7, "sha256": digest}
    assert set(manifest["files"]) == {*REQUIRED_FILES, "some.bpe.model"}
    assert set(manifest["files"]) | {"manifest.json"} == {path.name for path in version.path.iterdir()}


def test_files_of_a_version_are_read_only(store: Store, source: Path) -> None:
    for path in store.add_folder(source, "nano").path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o444


def test_the_same_folder_again_changes_nothing(store: Store, source: Path) -> None:
    first = store.add_folder(source, "nano")
    written = {path: path.stat().st_ino for path in first.path.iterdir()}
    assert store.add_folder(source, "nano") == first
    assert {path: path.stat().st_ino for path in first.path.iterdir()} == written
    assert not (store.root / "staging").exists()


def test_other_files_under_the_same_id_are_refused(store: Store, source: Path) -> None:
    version = store.add_folder(source, "nano")
    (source / "tokens.json").write_text("other")
    with pytest.raises(StoreError, match=version.id):
        store.add_folder(source, "nano")
    assert (version.path / "tokens.json").read_text() == "tokens.json"


@pytest.mark.parametrize("missing", [*REQUIRED_FILES, "some.bpe.model"])
def test_a_missing_file_is_named(store: Store, source: Path, missing: str) -> None:
    (source / missing).unlink()
    with pytest.raises(StoreError, match=missing.replace("some", r"\*")):
        store.add_folder(source, "nano")
    assert not store.root.exists()


def test_two_vocabularies_are_refused(store: Store, source: Path) -> None:
    (source / "other.bpe.model").touch()
    with pytest.raises(StoreError, match="other.bpe.model, some.bpe.model"):
        store.add_folder(source, "nano")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 65])
def test_a_name_that_could_leave_the_folder_is_refused(store: Store, source: Path, name: str) -> None:
    with pytest.raises(BadArgument, match="cannot name a version"):
        store.add_folder(source, name)


def test_current_moves_and_its_target_is_relative(store: Store, source: Path, tmp_path: Path) -> None:
    first = store.add_folder(source, "nano")
    second = store.add_folder(model_folder(tmp_path / "second", b"better"), "nano")
    for version in (first, second, first):
        store.set_current(version)
        assert store.current() == version
    assert str((store.root / "current").readlink()) == f"versions/{first.id}"
    moved = store.root.rename(tmp_path / "moved")
    assert Store(moved).current() == Version(first.id, moved / "versions" / first.id)


def test_a_store_behind_a_symbolic_link_works(store: Store, source: Path, tmp_path: Path) -> None:
    store.set_current(store.add_folder(source, "nano"))
    (tmp_path / "link").symlink_to(store.root)
    version = Store(tmp_path / "link").current()
    assert version is not None
    assert version.path.is_dir()


def test_a_current_that_is_no_good_is_refused_with_its_path(
    store: Store, source: Path, tmp_path: Path
) -> None:
    version = store.add_folder(source, "nano")
    current = store.root / "current"
    for target in ("versions/gone", "current", "..", "versions", str(tmp_path / "source")):
        current.symlink_to(target)
        with pytest.raises(StoreError, match=str(current)):
            store.current()
        store.set_current(version)  # a bad link can be replaced
        current.unlink()
    current.write_text(version.id)
    with pytest.raises(StoreError, match=str(current)):
        store.current()
    with pytest.raises(StoreError, match=str(current)):
        store.set_current(version)
    assert current.read_text() == version.id


def test_a_current_that_has_lost_a_file_is_refused(store: Store, source: Path) -> None:
    version = store.add_folder(source, "nano")
    store.set_current(version)
    (version.path / "am.mvn").unlink()
    with pytest.raises(StoreError, match="am.mvn is missing"):
        store.current()


def test_a_version_of_another_store_cannot_be_current(store: Store, source: Path, tmp_path: Path) -> None:
    version = Store(tmp_path / "other").add_folder(source, "nano")
    with pytest.raises(StoreError, match="is not a version of"):
        store.set_current(version)


def test_a_failed_copy_leaves_nothing(store: Store, source: Path) -> None:
    (source / "config.yaml").unlink()
    (source / "config.yaml").symlink_to("/proc/self/mem")  # opens, and cannot be read
    with pytest.raises(StoreError, match="cannot be copied"):
        store.add_folder(source, "nano")
    assert tree(store.root) == {"versions"}


def test_what_a_killed_copy_left_is_cleared_away(store: Store, source: Path) -> None:
    left = store.root / "staging" / "0123"
    left.mkdir(parents=True)
    (left / "model_quant.onnx").write_bytes(b"half")
    (store.root / ".current-0123").symlink_to("versions/half")
    an_hour_ago = time.time() - 3600  # a younger one may belong to a writer at work
    os.utime(store.root / ".current-0123", (an_hour_ago, an_hour_ago), follow_symlinks=False)
    (store.root / ".current-4567").symlink_to("versions/half")
    store.set_current(store.add_folder(source, "nano"))
    assert tree(store.root) & {"staging", ".current-0123", ".current-4567"} == {".current-4567"}


@contextmanager
def another_process(code: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run code until it prints a line; end it after the block."""
    header = "import sys, time; from pathlib import Path; from asrsvc.release.store import Store\n"
    header += "from asrsvc.release.embedded import ensure_embedded\n"
    process = subprocess.Popen(
        [sys.executable, "-c", header + code, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_copy_killed_at_any_time_shows_a_whole_version_or_none(store: Store, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "source", os.urandom(1 << 20))
    code = "print('go', flush=True)\nfor n in range(9999):\n"
    code += "    s = Store(Path(sys.argv[1])); s.set_current(s.add_folder(Path(sys.argv[2]), f'v{n}'))\n"
    for attempt in range(8):
        with another_process(code, store.root, source) as process:
            time.sleep(0.02 * attempt)  # where the kill strikes, not a condition
            process.send_signal(signal.SIGKILL)
        for version in store.versions():
            manifest = json.loads((version.path / "manifest.json").read_text())
            for name, record in manifest["files"].items():
                content = (version.path / name).read_bytes()
                assert hashlib.sha256(content).hexdigest() == record["sha256"]
        store.current()  # None or whole: raises otherwise
        shutil.rmtree(store.root, ignore_errors=True)
    store.add_folder(source, "after")


def test_one_change_at_a_time_and_the_holder_is_named(store: Store, source: Path) -> None:
    code = "with Store(Path(sys.argv[1])).lock():\n    print('held', flush=True); time.sleep(1000)\n"
    with another_process(code, store.root) as process:
        began = time.monotonic()
        with pytest.raises(StoreError, match=f"process {process.pid}"), store.lock(timeout=0.2):
            pass
        assert 0.2 <= time.monotonic() - began < PATIENCE
    store.add_folder(source, "nano")  # the lock went with its holder


def test_the_lock_may_be_taken_again_by_its_holder_and_is_released(store: Store) -> None:
    other = Store(store.root)
    with store.lock():
        with store.lock():
            pass
        with pytest.raises(StoreError, match="is held by"), other.lock(timeout=0):
            pass
    with other.lock(timeout=0):
        pass


def test_the_embedded_model_becomes_the_first_version_once(store: Store, embedded_model: Path) -> None:
    version = ensure_embedded(store)
    assert version.id.startswith(f"{embedded_model.name}-")
    assert store.current() == version
    assert (version.path / "MODEL_CARD.md").is_file()
    assert ensure_embedded(store) == version
    assert store.versions() == [version]


def test_the_embedded_model_does_not_take_the_place_of_another(store: Store, source: Path) -> None:
    version = store.add_folder(source, "mine")
    store.set_current(version)
    assert ensure_embedded(store) == version


def test_two_first_starts_at_once_make_one_version(store: Store) -> None:
    code = "print(ensure_embedded(Store(Path(sys.argv[1]))).id)"
    header = "import sys; from pathlib import Path; from asrsvc.release.store import Store\n"
    header += "from asrsvc.release.embedded import ensure_embedded\n"
    command = [sys.executable, "-c", header + code, str(store.root)]
    starts = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {start.communicate(timeout=2 * PATIENCE)[0].strip() for start in starts}
    assert answers == {version.id for version in store.versions()}
    assert len(answers) == 1


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(StoreError, match="/proc/asrsvc"):
        ensure_embedded(Store(Path("/proc/asrsvc")))


@pytest.mark.parametrize("name", [*REQUIRED_FILES, "some.bpe.model"])
def test_a_file_that_was_changed_after_it_was_stored_is_found(store: Store, source: Path, name: str) -> None:
    version = store.add_folder(source, "v")
    check_digests(version.path)
    stored = version.path / name
    content = stored.read_bytes()
    stored.unlink()
    stored.write_bytes(content[::-1])
    with pytest.raises(StoreError, match=f"{name} is not the file that was stored"):
        check_digests(version.path)


def test_a_folder_without_a_manifest_has_nothing_to_be_compared_with(source: Path) -> None:
    check_digests(source)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"files": 1}', b'{"files": {"am.mvn": 1}}', b"\xff"]
)
def test_a_damaged_manifest_is_an_error(store: Store, source: Path, content: bytes) -> None:
    version = store.add_folder(source, "v")
    manifest = version.path / "manifest.json"
    manifest.unlink()
    manifest.write_bytes(content)
    with pytest.raises(StoreError, match="manifest.json cannot be read"):
        check_digests(version.path)
