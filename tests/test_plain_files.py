"""Files are opened so that what somebody has put in their place is neither followed nor waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from asrsvc import settings
from asrsvc.errors import KeysError, StatusError, StoreError
from asrsvc.release.files import open_lock, read_plain
from asrsvc.release.journal import Journal
from asrsvc.release.manifest import read_manifest
from asrsvc.release.store import Store
from asrsvc.serving import status
from asrsvc.serving.keys import read_keys
from asrsvc.settings import SettingError


def put(kind: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(os.fspath(path))
        case _:
            path.mkdir()


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
def test_what_is_no_plain_file_is_an_error_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    put(kind, path)
    with pytest.raises(OSError, match="no plain file|directory"):
        read_plain(path, 10)
    with pytest.raises(OSError, match="no plain file|directory"):
        open_lock(path)


def test_a_file_may_be_so_long_and_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_plain(path, 10) == b"0123456789"
    with pytest.raises(OSError, match="longer than 9 bytes"):
        read_plain(path, 9)


def test_a_link_is_followed_only_where_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    assert read_plain(tmp_path / "link", 10) == b"x"
    with pytest.raises(OSError, match="it is a symbolic link"):
        read_plain(tmp_path / "link", 10, follow=False)
    with pytest.raises(OSError, match="it is a symbolic link"):
        open_lock(tmp_path / "link")
    (tmp_path / "dangling").symlink_to("missing")
    with pytest.raises(OSError, match="it is a symbolic link"):
        open_lock(tmp_path / "dangling")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_no_reader_of_ours_waits_for_a_pipe(kind: str, tmp_path: Path) -> None:
    for name in (
        "records/a.json",
        "journal.jsonl",
        "versions/a/manifest.json",
        "lock",
        "status.json",
        "keys",
        "conf",
    ):
        put(kind, tmp_path / name)
    store = Store(tmp_path, lock_timeout=0)
    with pytest.raises(StoreError, match="a.json cannot be read: no plain file"):
        store.record("a")
    with pytest.raises(StoreError, match="journal.jsonl cannot be read: no plain file"):
        Journal(tmp_path).entries()
    with pytest.raises(StoreError, match="manifest.json cannot be read: .*no plain file"):
        read_manifest(tmp_path / "versions" / "a")
    with pytest.raises(StoreError, match="lock cannot be opened: no plain file"), store.lock():
        pass
    with pytest.raises(StatusError, match="status.json cannot be read: no plain file"):
        status.read(tmp_path / "status.json")
    with pytest.raises(KeysError, match="keys .* cannot be read: no plain file"):
        read_keys(tmp_path / "keys")
    with pytest.raises(SettingError, match="ASR_CONFIG=.*conf' cannot be read"):
        settings.load(environ={"ASR_CONFIG": str(tmp_path / "conf"), "HOME": "/"})


def test_a_lock_or_a_staging_folder_that_is_a_link_stops_a_change(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "folder").mkdir(parents=True)
    store = Store(tmp_path / "store", lock_timeout=0)
    with store.lock():
        pass
    (store.root / "staging").symlink_to(elsewhere)
    with pytest.raises(StoreError, match="staging is a symbolic link: remove it"), store.staged("key"):
        pass
    assert (elsewhere / "folder").is_dir()
    (store.root / "lock").unlink()
    (store.root / "lock").symlink_to(tmp_path / "new")
    with pytest.raises(StoreError, match="lock cannot be opened: it is a symbolic link"), store.lock():
        pass
    assert not (tmp_path / "new").exists()
