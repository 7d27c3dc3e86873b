"""The link by which a version that is watched can be called off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import add, served

from asrsvc.release import watched
from asrsvc.release.store import Store, Version
from asrsvc.release.watched import Watched


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "store")
    found.promote(served(found, "a"))
    return found


@pytest.fixture
def version(store: Store) -> Iterator[Version]:
    """One that this process watches; it holds the lock meanwhile."""
    found = add(store, "b")
    with store.lock():
        yield found


def another(store: Store) -> Store:
    """As another process sees it."""
    return Store(store.root, lock_timeout=0)


def test_it_names_the_version_until_the_watch_ends(store: Store, version: Version) -> None:
    shown = Watched(store.pointers, version)
    link = store.pointers / watched.NAME
    assert link.resolve() == version.path.resolve()
    assert not shown.called_off
    assert not shown.end()
    assert not link.is_symlink()


def test_who_takes_it_away_has_called_it_off(store: Store, version: Version) -> None:
    shown = Watched(store.pointers, version)
    assert another(store).call_off() == version.id
    assert shown.called_off
    assert another(store).call_off() is None
    assert shown.end()


def test_a_call_after_the_last_look_counts_too(store: Store, version: Version) -> None:
    shown = Watched(store.pointers, version)
    assert not shown.called_off
    another(store).call_off()
    assert shown.end()


def test_where_it_cannot_be_shown_nobody_can_call_it_off(store: Store, version: Version) -> None:
    shown = Watched(store.root / "lock", version)  # no folder
    assert not shown.called_off
    assert not shown.end()


def test_what_a_killed_command_left_is_swept_and_means_nothing(store: Store) -> None:
    left = Watched(store.pointers, add(store, "b"))
    assert another(store).call_off() is None
    assert left.called_off  # it was swept
    Watched(store.pointers, add(store, "b"))
    with store.lock():
        assert not (store.pointers / watched.NAME).is_symlink()
